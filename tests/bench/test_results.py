"""The JSON of a run: what is written is what is read, and what cannot be is refused."""

import json
from dataclasses import replace

import pytest
from made_up_run import made_up_run

from gpumlp.bench.results import Case, Run, load
from gpumlp.errors import ConfigurationError, DataError


def a_case(**changes):
    given = {
        "suite": "steps",
        "case": "6-5-3, batch 4",
        "parameters": {"sizes": [6, 5, 3], "batch": 4},
        "contender": "gpumlp numpy",
        "kind": "gpumlp",
        "unit": "step",
        "examples": 4,
        "flops": 1000,
        "seconds": [0.25, 0.5],
        "reference": [0.125, 0.25],
    }
    return Case(**{**given, **changes})


def text_of(*cases, environment=None):
    return Run(environment or {"cpu": "one"}, {"quick": True}, cases).as_json()


def test_a_run_that_was_saved_is_loaded_as_it_was(tmp_path):
    run = made_up_run()
    path = run.save(tmp_path / "run.json")
    assert load(path) == run
    assert list(tmp_path.iterdir()) == [path]
    assert load(run.save(path)) == run


def test_the_json_has_the_fields_of_the_format_and_a_line_for_each_case():
    text = text_of(a_case(), a_case(contender="gpumlp numba", waited=[0, 0.5]))
    found = json.loads(text)
    assert (found["format"], found["version"]) == ("gpumlp bench", 1)
    assert set(found) == {"format", "version", "environment", "options", "cases"}
    assert found["cases"][0]["seconds"] == [0.25, 0.5]
    assert (found["cases"][0]["host_seconds"], found["cases"][1]["waited"]) == (None, [0.0, 0.5])
    assert sum('"contender"' in line for line in text.splitlines()) == 2


def test_a_run_without_cases_is_one():
    assert Run.from_json(text_of(), "empty").cases == ()


def test_cases_are_found_by_suite_and_name_in_their_order():
    run = made_up_run(suites=("growth", "steps"))
    found = run.of("steps")
    assert list(found)[:2] == ["784-128-10, batch 64, adam", "784-1024-1024-10, batch 256, adam"]
    assert [case.contender for case in found["784-128-10, batch 64, adam"]][:2] == ["gpumlp numba", "gpumlp numpy"]
    assert run.of("recursion") == {}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seconds": []}, "seconds is []"),
        ({"seconds": [0.25, -0.5]}, "seconds is -0.5"),
        ({"seconds": [0.25, 0]}, "seconds is 0"),
        ({"seconds": [0.25, float("nan")]}, "seconds is nan"),
        ({"seconds": [0.25, float("inf")]}, "seconds is inf"),
        ({"seconds": [0.25, True]}, "seconds is True"),
        ({"seconds": [0.25, "1"]}, "seconds is 1"),
        ({"seconds": [0.25, 10**400]}, "seconds is 1000"),
        ({"seconds": None}, "seconds is None"),
        ({"seconds": 0.25}, "seconds is 0.25"),
        ({"reference": [0.1]}, "reference is 1 values, expected 2"),
        ({"host_seconds": [0.1, 0.1, 0.1]}, "host_seconds is 3 values, expected 2"),
        ({"waited": [0.1, -0.1]}, "waited is -0.1"),
        ({"limit_seconds": 0.0}, "limit_seconds is 0.0"),
        ({"examples": 0}, "examples is 0"),
        ({"examples": 1.5}, "examples is 1.5"),
        ({"flops": -1}, "flops is -1"),
        ({"suite": "stps"}, "suite is 'stps', expected one of recursion, steps, growth"),
        ({"kind": "rival"}, "kind is 'rival'"),
        ({"unit": "hour"}, "unit is 'hour'"),
        ({"case": 3}, "case is 3"),
        ({"contender": None}, "contender is None"),
        ({"checked": 1e-7}, "checked is 1e-07"),
        ({"parameters": [1]}, r"parameters is \[1\]"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(changes, told):
    with pytest.raises(DataError, match=told.replace("[]", r"\[\]")):
        a_case(**changes)


def test_a_case_occurs_once_in_a_run():
    with pytest.raises(DataError, match="6-5-3, batch 4: gpumlp numpy occurs twice"):
        text_of(a_case(), a_case())
    text_of(a_case(), a_case(suite="growth"), a_case(case="other"))


def test_nan_in_the_environment_is_not_written():
    with pytest.raises(ValueError):
        text_of(environment={"bandwidth": float("nan")})


GOOD = text_of(a_case())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no JSON, or was cut short"),
        (GOOD[:-3], "is no JSON, or was cut short .* in line"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no benchmark"),
        ('{"format": 1, "passed": true}', "is no benchmark"),
        (GOOD.replace('"version": 1', '"version": 2'), "has version 2 of the format, expected 1"),
        (GOOD.replace("0.25", "NaN"), "holds NaN"),
        (GOOD.replace("0.25", "-Infinity"), "holds -Infinity"),
        (GOOD.replace("0.25", "1e999"), "holds 1e999"),
        (GOOD.replace("0.25", "9" * 5000), "holds what no run does"),
        (GOOD.replace("gpumlp numpy", "\\ud800"), "holds what no run does"),
        (GOOD.replace("0.25", "-0.25"), "case 1: seconds is -0.25"),
        (GOOD.replace('"flops": 1000, ', ""), "case 1: lacks flops"),
        (GOOD.replace('"flops"', '"flop"'), "case 1: lacks flops and has flop, which means nothing"),
        (GOOD.replace('"options"', '"choices"'), "lacks options and has choices"),
        (GOOD.replace('{"quick": true}', "7").replace('{\n  "quick": true\n }', "7"), "options is 7"),
        (GOOD[: GOOD.index('"cases"')] + '"cases": 3}', "cases is 3"),
        (GOOD[: GOOD.index('"cases"')] + '"cases": [3]}', "case 1: case is 3"),
    ],
)
def test_text_that_is_no_run_is_refused_with_its_name_and_what_is_wrong(text, told):
    with pytest.raises(DataError, match=f"^my.json: .*{told}"):
        Run.from_json(text, "my.json")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*nowhere\.json"):
        load(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(DataError, match=r"latin\.json: cannot be read \(it is not UTF-8 text\)"):
        load(tmp_path / "latin.json")
    with pytest.raises(ConfigurationError, match="cannot write"):
        made_up_run(suites=("steps",)).save(tmp_path / "nowhere" / "run.json")


def test_a_case_keeps_its_numbers_as_floats_in_tuples():
    case = a_case(seconds=[1, 2], reference=None)
    assert case.seconds == (1.0, 2.0)
    assert all(type(value) is float for value in case.seconds)
    assert case.parameters["sizes"] == (6, 5, 3)
    assert replace(case, contender="other").key == ("steps", "6-5-3, batch 4", "other")
