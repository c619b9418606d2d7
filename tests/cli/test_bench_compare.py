"""`gpumlp bench compare`: its table, its last line, and the exit status that a script reads."""

import json
from dataclasses import replace

import pytest
from made_up_run import ENVIRONMENT, made_up_run

from gpumlp.bench.results import Run


@pytest.fixture
def saved(tmp_path):
    """saved(name, ...): keep a made-up run of training steps and return its file."""

    def save(name, environment=ENVIRONMENT, without=(), **options):
        run = made_up_run(suites=("steps",), without=without, rounds=15, **options)
        return Run(environment, run.options, run.cases).save(tmp_path / f"{name}.json")

    return save


def test_equal_runs_end_with_status_0(gpumlp, saved):
    ended = gpumlp("bench", "compare", saved("a"), saved("b", seed=1))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].startswith("no regression: 12 same")


def test_a_slower_run_ends_with_status_1_and_names_the_cases_first(gpumlp, saved):
    ended = gpumlp("bench", "compare", saved("a"), saved("b", seed=1, slower=1.2))
    assert ended.status == 1
    first = next(line for line in ended.out.splitlines() if "gpumlp numba" in line)
    assert "slower" in first
    assert "784" in first or "2048" in first
    assert ended.out.splitlines()[-1].startswith("REGRESSION: 12 slower")


def test_a_faster_run_ends_with_status_0(gpumlp, saved):
    ended = gpumlp("bench", "compare", saved("a"), saved("b", seed=1, slower=0.7))
    assert ended.status == 0
    assert ended.out.splitlines()[-1].startswith("no regression: 12 faster")


def test_the_threshold_can_be_chosen(gpumlp, saved):
    arguments = ("bench", "compare", saved("a"), saved("b", seed=1, slower=1.2))
    assert gpumlp(*arguments, "--threshold", "0.5").status == 0
    ended = gpumlp(*arguments, "--threshold", "7")
    assert (ended.status, ended.out) == (2, "")
    assert "threshold is 7" in ended.err


def test_json_is_for_machines(gpumlp, saved):
    ended = gpumlp("bench", "compare", saved("a"), saved("b", seed=1, slower=1.2), "--json")
    assert ended.status == 1
    found = json.loads(ended.out)
    assert (found["passed"], len(found["verdicts"])) == (False, 12)


def test_what_may_make_the_runs_incomparable_is_told_on_stderr(gpumlp, saved):
    other = saved("b", seed=1, environment={**ENVIRONMENT, "cpu": "Other"}, without=("gpumlp numba",))
    ended = gpumlp("bench", "compare", saved("a"), other)
    assert ended.status == 0
    assert "warning   cpu differs: Made Up Processor 9000 before, Other now" in ended.err
    assert "only in the first run: steps: 784-128-10, batch 64, adam: gpumlp numba" in ended.err
    assert "second run" not in ended.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file"),
        ("", "is no JSON"),
        ('{"format": "other"}', "is no benchmark"),
        ('{"format": "gpumlp bench", "version": 9}', "has version 9"),
    ],
)
def test_a_file_that_is_no_run_ends_with_status_2(gpumlp, saved, tmp_path, text, told):
    place = tmp_path / "broken.json"
    if text is not None:
        place.write_text(text)
    for arguments in ((saved("a"), place), (place, saved("a"))):
        ended = gpumlp("bench", "compare", *arguments)
        assert (ended.status, ended.out) == (2, "")
        assert told in ended.err
        assert "broken.json" in ended.err


def test_names_with_brackets_are_printed_as_they_are(gpumlp, saved, tmp_path):
    run = made_up_run(suites=("steps",))
    named = Run({}, {}, [replace(run.cases[0], case="[bold]relu[/bold] [x]")])
    place = named.save(tmp_path / "c.json")
    assert "[bold]relu[/bold] [x]" in gpumlp("bench", "compare", place, place).out
