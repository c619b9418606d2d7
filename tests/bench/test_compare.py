"""Two runs: what is slower is found, what is equal is left alone, and what cannot be told is not told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_run import ENVIRONMENT, made_up_run
from test_results import a_case

from gpumlp.bench.compare import (
    FASTER,
    NOT_JUDGED,
    SAME,
    SLOWER,
    UNCLEAR,
    as_json,
    by_the_lowest,
    by_the_middle,
    compare,
    hidden,
)
from gpumlp.bench.results import Run
from gpumlp.errors import ConfigurationError, DataError

TRIALS = 100


def noisy_run(random, n_cases=20, rounds=15, slow=(), factor=1.1, noise=0.01, tails=0.1, between=0.01, machine=1.0):
    """Return a run that was never measured, of cases "0", "1", ...; those in `slow` are `factor` times slower.

    The machine drifts and jumps under the contender and the reference alike; beside that each sample of both has noise
    of its own, in which one of ten is far too long; and each process has an offset of its own.
    """
    cases = []
    for number in range(n_cases):
        drift = np.exp(0.1 * random.normal() * np.linspace(-1, 1, rounds) + 0.05 * random.normal(size=rounds)) * machine
        own, others = (
            np.exp(noise * random.normal(size=rounds))
            * np.where(random.random(rounds) < tails, 1 + random.exponential(0.5, rounds), 1)
            for _ in range(2)
        )
        seconds = 0.003 * drift * own * np.exp(random.normal(0, between)) * (factor if number in slow else 1)
        reference = (0.001 * drift * others).tolist()
        cases.append(a_case(case=str(number), seconds=seconds.tolist(), reference=reference))
    return Run({}, {}, cases)


def outcome(comparison, case):
    return next(verdict.outcome for verdict in comparison.verdicts if verdict.case == case)


@pytest.mark.parametrize("between", [0.005, 0.01, 0.0125])
def test_two_equal_runs_are_told_equal_19_times_in_20(between):
    random = np.random.default_rng(0)
    wrong = told_apart = 0
    for _ in range(TRIALS):
        found = compare(noisy_run(random, 40, between=between), noisy_run(random, 40, between=between))
        wrong += not found.passed
        told_apart += found.count(SLOWER) + found.count(FASTER) > 0
    assert wrong <= TRIALS / 20
    assert told_apart <= TRIALS / 20


def test_one_case_that_is_10_percent_slower_is_found_17_times_in_20():
    random = np.random.default_rng(1)
    found = [compare(noisy_run(random), noisy_run(random, slow={7})) for _ in range(TRIALS)]
    assert sum(outcome(one, "7") == SLOWER for one in found) >= 0.85 * TRIALS
    assert sum(one.count(SLOWER) > 1 for one in found) <= TRIALS / 20


def test_10_percent_in_all_cases_are_found_even_in_much_noise():
    random = np.random.default_rng(2)
    every = range(20)
    found = [compare(noisy_run(random, noise=0.02), noisy_run(random, noise=0.02, slow=every)) for _ in range(TRIALS)]
    assert sum(not one.passed for one in found) >= 0.95 * TRIALS
    assert sum(one.count(FASTER) for one in found) == 0


def test_10_percent_faster_is_an_improvement_and_no_regression():
    random = np.random.default_rng(3)
    found = [compare(noisy_run(random), noisy_run(random, slow={7}, factor=1 / 1.1)) for _ in range(TRIALS)]
    assert sum(outcome(one, "7") == FASTER for one in found) >= 0.85 * TRIALS
    assert sum(not one.passed for one in found) <= TRIALS / 20


@pytest.mark.parametrize("rounds", [3, 5, 6, 7])
def test_few_samples_raise_no_more_false_alarms(rounds):
    random = np.random.default_rng(4)
    runs = [[noisy_run(random, rounds=rounds, noise=0.02) for _ in range(2)] for _ in range(TRIALS)]
    assert sum(not compare(*pair).passed for pair in runs) <= TRIALS / 20


def test_a_machine_that_is_slower_for_both_sides_is_no_regression():
    random = np.random.default_rng(5)
    for machine in (0.8, 1.04, 1.3, 3.0):
        assert compare(noisy_run(random), noisy_run(random, machine=machine)).count(SLOWER) == 0


def test_a_slower_machine_does_not_hide_a_large_regression():
    random = np.random.default_rng(6)
    found = compare(noisy_run(random), noisy_run(random, machine=1.15, slow={7}, factor=1.5))
    assert outcome(found, "7") == SLOWER


def test_a_reference_that_moved_makes_the_answer_unclear():
    old = a_case(seconds=[0.003] * 9, reference=[0.0013] * 9)
    new = a_case(seconds=[0.003] * 9, reference=[0.001] * 9)
    (verdict,) = compare(Run({}, {}, [old]), Run({}, {}, [new])).verdicts
    assert verdict.outcome == UNCLEAR
    assert verdict.change == pytest.approx(0.3)
    assert "the matrix products alone took 23% less" in verdict.note


def test_noise_that_could_hide_it_makes_the_answer_unclear():
    random = np.random.default_rng(7)
    times = (0.003 * np.exp(0.3 * random.normal(size=9)) for _ in range(2))
    old, new = (Run({}, {}, [a_case(seconds=seconds.tolist(), reference=[0.001] * 9)]) for seconds in times)
    (verdict,) = compare(old, new).verdicts
    assert (verdict.outcome, verdict.visible > 0.1) == (UNCLEAR, True)
    assert "too far apart" in verdict.note


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_few_samples_tell_nothing(rounds):
    old, new = (Run({}, {}, [a_case(seconds=[s] * rounds, reference=[0.001] * rounds)]) for s in (0.001, 0.002))
    assert [verdict.outcome for verdict in compare(old, new).verdicts] == [UNCLEAR]


def disturbed_run(waits, factor=1.0):
    """Return a run of one case of 15 samples; while it waited for a processor it was twice as slow."""
    waited = [float(i < waits) for i in range(15)]
    seconds = [factor * 0.003 * (1 + 0.001 * i) * (1 + w) for i, w in enumerate(waited)]
    return Run({}, {}, [a_case(seconds=seconds, reference=[0.001] * 15, waited=waited)])


def test_samples_that_waited_for_a_processor_do_not_count():
    assert compare(disturbed_run(0), disturbed_run(9)).count(SAME) == 1
    assert compare(disturbed_run(9), disturbed_run(9, factor=1.1)).count(SLOWER) == 1


def test_a_case_of_which_too_few_samples_did_not_wait_is_unclear():
    (verdict,) = compare(disturbed_run(0), disturbed_run(12)).verdicts
    assert verdict.outcome == UNCLEAR
    assert "another program had the processor" in verdict.note


def test_without_the_products_nothing_is_judged_unless_asked():
    old, new = (
        Run({}, {}, [a_case(seconds=[s] * 9, reference=None), a_case(case="b", seconds=[1] * 9, reference=[1] * 9)])
        for s in (0.001, 0.002)
    )
    found = compare(old, new)
    assert (outcome(found, "6-5-3, batch 4"), found.passed) == (NOT_JUDGED, True)
    assert "were not measured" in found.verdicts[-1].note
    assert found.verdicts[-1].change is None
    found = compare(old, new, seconds=True)
    assert (outcome(found, "6-5-3, batch 4"), outcome(found, "b")) == (SLOWER, SAME)
    assert found.verdicts[0].change == pytest.approx(1.0)


def test_other_work_of_the_same_name_is_not_judged():
    old, new = (Run({}, {}, [a_case(flops=n, seconds=[n] * 9, reference=[1] * 9)]) for n in (1, 2))
    assert compare(old, new).verdicts[0].note == "the work is not the same in both runs"


def test_others_than_gpumlp_are_not_judged():
    old = made_up_run(suites=("steps",))
    new = Run(
        old.environment,
        old.options,
        [case if case.kind == "gpumlp" else replace(case, seconds=[9 * s for s in case.seconds]) for case in old.cases],
    )
    found = compare(old, new)
    assert {verdict.contender for verdict in found.verdicts} == {"gpumlp numba", "gpumlp numpy", "gpumlp cuda tf32"}
    assert {verdict.outcome for verdict in found.verdicts} == {SAME}


def test_regressions_come_first_and_the_worst_of_them():
    def run(a, b, c, d):
        cases = zip("abcd", (a, b, c, d), strict=True)
        return Run({}, {}, [a_case(case=name, seconds=[s] * 9, reference=[1] * 9) for name, s in cases])

    found = compare(run(1, 1, 1, 1), run(1, 1.2, 0.5, 1.6))
    assert [(v.case, v.outcome) for v in found.verdicts] == [("d", SLOWER), ("b", SLOWER), ("c", FASTER), ("a", SAME)]
    assert found.summary() == (
        "REGRESSION: 2 slower, 1 faster, 1 same (changes below 5 % or within the noise count as none)"
    )


def test_cases_of_one_run_alone_are_named():
    both, gone, come = (a_case(case=name) for name in ("both", "gone", "come"))
    found = compare(Run({}, {}, [both, gone]), Run({}, {}, [both, come]))
    assert found.only_old == ("steps: gone: gpumlp numpy",)
    assert found.only_new == ("steps: come: gpumlp numpy",)
    with pytest.raises(DataError, match="have no case of gpumlp in common"):
        compare(Run({}, {}, [gone]), Run({}, {}, [come]))


@pytest.mark.parametrize("threshold", [0, 1, -0.05, float("nan"), 5])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ConfigurationError, match="threshold is"):
        compare(Run({}, {}, [a_case()]), Run({}, {}, [a_case()]), threshold)


def test_the_threshold_says_which_change_counts():
    old, new = (Run({}, {}, [a_case(seconds=[s] * 9, reference=[1] * 9)]) for s in (1, 1.15))
    assert compare(old, new, 0.1).count(SLOWER) == 1
    assert compare(old, new, 0.2).count(SAME) == 1


def test_another_machine_is_told_and_other_times_are_not():
    def run(**changes):
        return Run({**ENVIRONMENT, **changes}, {"dtype": changes.get("dtype", "float32")}, [a_case()])

    new = run(
        cpu="Other",
        threads=1,
        date="2001",
        commit="abc",
        bandwidth=3.5,
        versions={"numpy": "9", "gpumlp": "1"},
        rates=[1.5],
    )
    assert compare(run(), new).warnings == (
        "cpu differs: Made Up Processor 9000 before, Other now",
        "threads differs: 2 before, 1 now",
        "versions numpy differs: 0.0 before, 9 now",
        "versions numba differs: 0.0 before, unknown now",
    )
    assert compare(run(), run(dtype="float64")).warnings == ("dtype differs: float32 before, float64 now",)


def test_the_comparison_as_json_has_all_of_it():
    run = made_up_run(suites=("steps",))
    found = json.loads(as_json(compare(run, made_up_run(suites=("steps",), slower=2.0))))
    assert set(found) == {"passed", "threshold", "verdicts", "only_old", "only_new", "warnings"}
    assert found["passed"] is False
    assert set(found["verdicts"][0]) == {"suite", "case", "contender", "outcome", "change", "visible", "note"}
    assert found["verdicts"][0]["outcome"] == "slower"


# ---------------------------------------------------------------- the two estimates


def middle(values):
    return by_the_middle(np.asarray(values), np.zeros(len(values)))


def test_the_middle_of_normal_samples_is_as_sure_as_it_says():
    random = np.random.default_rng(8)
    found = [middle(random.normal(3, 2, 25)) for _ in range(2000)]
    errors = np.array([one.value - 3 for one in found])
    assert abs(errors.mean()) < 0.05
    assert np.mean([one.variance for one in found]) == pytest.approx(errors.var(), rel=0.15)
    assert errors.var() == pytest.approx(4 / 25, rel=0.2)  # as sure as the mean, nearly


def test_samples_that_are_far_off_do_not_move_the_middle():
    values = np.linspace(-1, 1, 21)
    spoilt = np.concatenate([values, [1e6] * 9])
    assert middle(values).value == pytest.approx(0, abs=1e-12)
    assert abs(middle(spoilt).value) < 0.6
    assert middle(spoilt).variance < 0.1


def test_the_lowest_are_as_sure_as_they_say():
    random = np.random.default_rng(10)
    found = [by_the_lowest(random.normal(3, 0.2, 18), random.normal(1, 0.1, 18)) for _ in range(2000)]
    assert np.mean([one.variance for one in found]) == pytest.approx(np.var([one.value for one in found]), rel=0.3)


def test_the_lowest_stay_where_half_of_the_samples_are_disturbed():
    random = np.random.default_rng(11)

    def found(share):
        times, beside = (random.normal(at, 0.01, 18) + 0.3 * (random.random(18) < share) for at in (1, 0))
        return by_the_lowest(times, beside).value

    assert np.std([found(share) for share in (0.1, 0.3, 0.5) for _ in range(100)]) < 0.02


@pytest.mark.parametrize("estimate", [by_the_middle, by_the_lowest])
def test_equal_samples_have_no_noise_and_too_few_have_any(estimate):
    five = estimate(np.full(5, 2.0), np.ones(5))
    assert (five.value, five.variance) == (1, 0)
    assert estimate(np.full(4, 2.0), np.ones(4)).variance == 1


def test_less_is_hidden_where_more_was_measured_and_by_a_laxer_level():
    random = np.random.default_rng(9)
    few, many = (middle(random.normal(0, 0.05, n)) for n in (6, 200))
    assert hidden(many, many, 0.01) < hidden(few, few, 0.01)
    assert hidden(few, few, 0.05) < hidden(few, few, 0.001)


def test_a_reference_that_moves_much_hides_as_much():
    old = middle(np.linspace(-0.01, 0.01, 9))
    steady, moved, far = (replace(old, beside=shift) for shift in (0.04, 0.1, 0.3))
    assert hidden(old, steady, 0.05) == hidden(old, old, 0.05)
    assert hidden(old, moved, 0.05) == pytest.approx(hidden(old, old, 0.05) + 0.06)
    assert hidden(old, far, 0.05) == pytest.approx(hidden(old, old, 0.05) + 0.3)
