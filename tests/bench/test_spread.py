"""Medians, quartiles, ratios and shares."""

import pytest
from test_results import a_case

from gpumlp.bench.series import size_text, sweeps, value_of
from gpumlp.bench.statistics import (
    Spread,
    of_products,
    ratio,
    share_of_limit,
    share_of_products,
    spread,
    throughput,
)
from gpumlp.errors import DataError

FIVE = [1.0, 2.0, 3.0, 4.0, 100.0]


def test_a_spread_is_the_median_and_the_quartiles():
    assert spread(FIVE) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert spread(FIVE).scaled(10) == Spread(30.0, 20.0, 40.0)


def test_a_ratio_is_taken_round_by_round_so_that_what_slows_both_is_not_seen():
    one = a_case(seconds=FIVE, reference=None)
    other = a_case(seconds=[2 * s for s in FIVE], reference=None, contender="other")
    assert ratio(one, other) == Spread(0.5, 0.5, 0.5)


def test_rounds_that_only_one_of_two_has_do_not_count():
    assert ratio(a_case(seconds=[2, 2], reference=None), a_case(seconds=[1], reference=None)) == Spread(2, 2, 2)


def test_different_work_has_no_ratio():
    with pytest.raises(DataError, match="are not the same work"):
        ratio(a_case(), a_case(case="other"))
    with pytest.raises(DataError, match="are not the same work"):
        ratio(a_case(), a_case(unit="epoch"))


def test_shares_are_of_the_time():
    case = a_case(seconds=[4.0, 4.0], reference=[1.0, 3.0], limit_seconds=0.5)
    assert share_of_products(case) == Spread(0.5, 0.375, 0.625)
    assert of_products(a_case(seconds=[4.0], reference=[1.0])) == Spread(4, 4, 4)
    assert share_of_limit(case) == 0.125
    bare = a_case(reference=None)
    assert (of_products(bare), share_of_products(bare), share_of_limit(bare)) == (None, None, None)


def test_throughput_counts_examples_in_a_second():
    assert throughput(a_case(examples=8, seconds=[2.0, 2.0])).median == 4


def of_sizes(*sizes, batch=4, contender="gpumlp numpy", **more):
    parameters = {"sizes": sizes, "batch": batch, **more}
    return a_case(case=f"{sizes}, {batch}", parameters=parameters, contender=contender)


def test_cases_that_differ_in_the_batch_alone_are_one_sweep():
    cases = [of_sizes(6, 5, 3, batch=b, contender=c) for c in ("one", "two") for b in (64, 1, 8)]
    cases += [of_sizes(6, 9, 3, batch=8)]
    (sweep,) = sweeps(cases, "batch")
    assert sweep.label == "6-5-3"
    assert sweep.values == [1, 8, 64]
    assert {name: list(line) for name, line in sweep.lines.items()} == {"one": [1, 8, 64], "two": [1, 8, 64]}


def test_width_and_depth_are_read_from_the_sizes():
    cases = [of_sizes(6, n, 3, vary="width") for n in (5, 7)]
    (sweep,) = sweeps(cases, "width")
    assert (sweep.values, sweep.label) == ([5, 7], "batch 4")
    deep = of_sizes(6, 5, 5, 3)
    assert (value_of(deep, "depth"), value_of(deep, "width"), value_of(deep, "rows")) == (3, 5, None)
    assert value_of(of_sizes(6, 3), "width") is None


@pytest.mark.parametrize(
    ("sizes", "text"), [((784, 128, 10), "784-128-10"), ((2048,) * 5, "2048 x 4"), ((8, 8), "8-8")]
)
def test_sizes_are_spelled(sizes, text):
    assert size_text(sizes) == text
