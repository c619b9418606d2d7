"""A run as Markdown: complete, aligned, and safe whatever the names are."""

from dataclasses import replace
from itertools import pairwise

import pytest
from made_up_run import made_up_run
from test_results import a_case

from gpumlp.bench.results import Run
from gpumlp.bench.statistics import Spread
from gpumlp.bench.tables import as_markdown, command, count_text, number_text, quartiles_text, suite_tables, time_text


def rows_of(text, heading):
    """Return the cells of the first table under a heading."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    stop = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start:stop]]


def test_the_text_names_the_command_and_all_of_the_environment():
    text = as_markdown(made_up_run())
    assert "    gpumlp bench --quick --suite recursion --suite steps --suite growth" in text
    rows = dict(rows_of(text, "## Environment")[2:])
    assert rows["cpu"] == "Made Up Processor 9000"
    assert rows["versions numpy"] == "0.0"


def test_the_command_is_the_one_that_was_given():
    assert command(Run({}, {"command": "gpumlp bench --no-peers"}, ())) == "gpumlp bench --no-peers"
    assert command(Run({}, {"suites": ["steps"]}, ())) == "gpumlp bench --suite steps"


def test_each_contender_has_a_row_with_its_time_its_rate_and_its_shares():
    case = a_case(
        seconds=[0.002, 0.004, 0.006], reference=[0.001, 0.002, 0.003], limit_seconds=0.001, checked="well enough"
    )
    head, _, row = rows_of(as_markdown(Run({}, {}, [case])), "### Times")
    assert dict(zip(head, row, strict=True)) == {
        "case": "6-5-3, batch 4",
        "contender": "gpumlp numpy",
        "time": "4 ms a step",
        "quartiles": "3 to 5 ms",
        "examples/s": "1 k",
        "products alone": "0.50",
        "of the limit": "0.25",
        "checked": "well enough",
    }


def test_columns_that_would_be_empty_are_left_out():
    head, *_ = rows_of(as_markdown(Run({}, {}, [a_case(reference=None)])), "### Times")
    assert head == ["case", "contender", "time", "quartiles", "examples/s"]


def test_the_ratio_to_a_peer_is_gpumlps_time_by_the_peers():
    cases = [
        a_case(seconds=[1, 2, 3], reference=None),
        a_case(seconds=[4, 4, 4], reference=None, contender="PyTorch eager", kind="peer"),
        a_case(seconds=[1, 1, 1], reference=None, contender="slow loops", kind="baseline"),
    ]
    head, _, *rows = rows_of(as_markdown(Run({}, {}, cases)), "### Relative")
    assert head == ["case", "contender", "to PyTorch eager"]
    assert rows == [["6-5-3, batch 4", "gpumlp numpy", "0.50 (0.38 to 0.62)"]]


def test_without_peers_there_is_no_table_of_ratios():
    assert "Relative to" not in as_markdown(Run({}, {}, [a_case()]))


def test_the_recursion_tells_what_back_propagation_and_what_batching_saves():
    def at(batch, contender, seconds, kind):
        return a_case(
            suite="recursion",
            unit="recursion",
            case=f"batch {batch}",
            parameters={"sizes": (6, 5, 3), "activation": "tanh", "batch": batch},
            contender=contender,
            kind=kind,
            seconds=[seconds, seconds],
            reference=None,
        )

    cases = []
    for batch in (1, 64):
        cases += [at(batch, "gpumlp numba", 0.001, "gpumlp"), at(batch, "gpumlp numpy", 0.002, "gpumlp")]
        cases += [at(batch, "per-sample loops", 0.002 * batch, "baseline")]
    cases.append(at(1, "forward mode", 0.1, "baseline"))
    head, _, *rows = rows_of(as_markdown(Run({}, {}, cases)), "### 6-5-3, tanh: time by batch size")
    names = ["gpumlp numba", "gpumlp numpy", "per-sample loops", "forward mode"]
    assert head == ["batch", *names, "back-propagation saves", "batching saves"]
    assert rows[0] == ["1", "1 ms", "2 ms", "2 ms", "100 ms", "50 x", "1 x"]
    assert rows[1] == ["64", "1 ms", "2 ms", "128 ms", "", "", "64 x"]


def test_every_case_of_the_run_is_in_the_tables():
    run = made_up_run()
    shown = {row[:2] for suite in ("steps", "growth", "recursion") for row in suite_tables(run, suite)[-2].rows}
    shown |= {row[:2] for suite in ("steps", "growth", "recursion") for row in suite_tables(run, suite)[-1].rows}
    assert {(case.case, case.contender) for case in run.cases} <= shown


def test_one_batch_size_is_enough_where_a_slow_way_was_measured():
    def at(contender, kind, batch=4):
        parameters = {"sizes": (6, 5, 3), "batch": batch}
        return a_case(suite="recursion", parameters=parameters, contender=contender, kind=kind, reference=None)

    own, slow = at("gpumlp numpy", "gpumlp"), at("per-sample loops", "baseline")
    assert "time by batch size" in as_markdown(Run({}, {}, [own, slow]))
    assert "time by batch size" not in as_markdown(Run({}, {}, [own]))
    assert "time by batch size" not in as_markdown(Run({}, {}, [slow]))


def test_a_reader_is_warned_of_a_busy_machine():
    calm, busy = a_case(waited=[0.0, 0.01]), a_case(case="b", waited=[0.0, 0.5])
    assert "The machine was busy: during 25% of the samples" in as_markdown(Run({}, {}, [calm, busy]))
    assert "busy" not in as_markdown(Run({}, {}, [calm, a_case(case="b")]))


def test_an_epoch_has_its_article():
    assert "250 ms an epoch" in as_markdown(Run({}, {}, [a_case(unit="epoch", seconds=[0.25, 0.25])]))


def test_variables_keep_their_names():
    text = as_markdown(Run({"blas_kernels": "X", "variables": {"OMP_NUM_THREADS": "2"}}, {}, [a_case()]))
    rows = rows_of(text, "## Environment")
    assert ["blas kernels", "X"] in rows
    assert ["variables OMP_NUM_THREADS", "2"] in rows


def test_who_is_left_out_is_said_with_the_reason():
    text = as_markdown(Run({}, {"left_out": {"JAX": "is not installed"}}, [a_case()]))
    assert ["JAX", "is not installed"] in rows_of(text, "## Left out")
    assert "## Left out" not in as_markdown(Run({}, {"left_out": {}}, [a_case()]))


def test_of_a_compilers_pages_the_beginning_is_said():
    text = as_markdown(Run({}, {"left_out": {"JAX": "it fails " * 1000}}, [a_case()]))
    ((_, why),) = [row for row in rows_of(text, "## Left out") if row[0] == "JAX"]
    assert why.startswith("it fails it fails")
    assert why.endswith("...")
    assert len(why) < 300


def test_columns_are_aligned_in_plain_text_too():
    text = as_markdown(made_up_run())
    lines = text.splitlines()
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert len(before) == len(line)


def test_names_stay_in_their_cells():
    wild = "a|b\nc <script>alert(1)</script>"
    run = Run({"cpu": wild}, {}, [replace(a_case(), case=wild, contender=wild)])
    text = as_markdown(run)
    assert "<script" not in text
    assert "a\\|b c &lt;script>" in text
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.5 s"), (0.34, "340 ms"), (3.4e-4, "340 µs"), (9.999e-4, "1 ms"), (5e-9, "5 ns"), (1234.4, "1234 s")],
)
def test_times_have_three_digits_and_a_unit(seconds, text):
    assert time_text(seconds) == text


def test_quartiles_have_the_unit_of_the_median():
    assert quartiles_text(Spread(0.002, 0.0009, 0.0031)) == "0.9 to 3.1 ms"


@pytest.mark.parametrize(
    ("value", "text"), [(950, "950"), (999.9, "1 k"), (188_400, "188 k"), (1.17e6, "1.17 M"), (2.5e9, "2.5 G")]
)
def test_rates_have_three_digits(value, text):
    assert count_text(value) == text


def test_numbers_are_no_powers_of_ten():
    assert [number_text(x) for x in (0.0123, 1, 10.04, 1911.2, 123456.0)] == ["0.0123", "1", "10", "1911", "123456"]
