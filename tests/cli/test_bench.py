"""`gpumlp bench`: its files, what it says, and that nothing is written over."""

import json
import os
import signal
import threading

import pytest
from made_up_run import made_up_run

from gpumlp.bench import page, plots, suites  # noqa: F401 - the figures are patched after all have them
from gpumlp.bench.results import load
from gpumlp.cli import bench as command
from gpumlp.pages import figures

FILES = {"bench.json", "bench.md", "bench.html", "bench-plots"}


@pytest.fixture
def measured(monkeypatch):
    """Let a made-up run be what is measured; returns what was asked for."""
    asked = []

    def run_suites(*arguments):
        asked.append(arguments)
        arguments[5](0, 1, "steps: something")
        return made_up_run()

    monkeypatch.setattr(suites, "run_suites", run_suites)
    return asked


def test_a_run_is_written_in_every_form(gpumlp, measured, tmp_path):
    pytest.importorskip("matplotlib", reason="draws figures")
    ended = gpumlp("bench", "--quick", "--suite", "steps", "--out", tmp_path)
    assert ended.status == 0, ended.err
    assert {place.name for place in tmp_path.iterdir()} == FILES
    run = load(tmp_path / "bench.json")
    assert run.options["command"] == "gpumlp bench --suite steps --quick"
    assert run.options["command"] in (tmp_path / "bench.md").read_text()
    assert "<svg" in (tmp_path / "bench.html").read_text()
    assert {place.suffix for place in (tmp_path / "bench-plots").iterdir()} == {".svg"}
    assert "784-128-10, batch 64, adam" in ended.out
    assert "of the limit" in ended.out
    assert "written:" in ended.err


def test_the_options_reach_the_suites(gpumlp, measured, tmp_path):
    options = ("--suite", "growth", "--suite", "steps", "--backend", "numpy", "--device", "cpu", "--no-peers")
    gpumlp("bench", *options, "--seconds", "0.5", "--out", tmp_path)
    suite, backend, device, quick, peers, _, seconds = measured[0]
    assert (list(suite), list(backend), device, quick, peers, seconds) == (
        ["growth", "steps"], ["numpy"], "cpu", False, False, 0.5,
    )  # fmt: skip
    words = load(tmp_path / "bench.json").options["command"].split()
    assert words[2:] == [*options, "--seconds", "0.5"]


def test_existing_files_are_kept_and_new_ones_numbered(gpumlp, measured, tmp_path):
    (tmp_path / "bench.md").write_text("mine")
    for number in (2, 3):
        assert gpumlp("bench", "--out", tmp_path).status == 0
        assert (tmp_path / f"bench-{number}.json").is_file()
    assert (tmp_path / "bench.md").read_text() == "mine"
    assert not (tmp_path / "bench.json").exists()


def test_without_matplotlib_there_are_tables_and_a_line_says_what_brings_the_plots(
    gpumlp, measured, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "why_missing", lambda: "matplotlib is missing")
    ended = gpumlp("bench", "--out", tmp_path)
    assert ended.status == 0
    assert {place.name for place in tmp_path.iterdir()} == {"bench.json", "bench.md"}
    assert 'pip install "gpumlp[bench]"' in ended.err


def test_json_is_the_run(gpumlp, measured, tmp_path):
    ended = gpumlp("bench", "--json", "--out", tmp_path)
    assert json.loads(ended.out) == json.loads((tmp_path / "bench.json").read_text())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--suite", "speed"), "unknown suite 'speed'"),
        (("--backend", "numpi"), "did you mean 'numpy'?"),
        (("--backend", "numpy", "--device", "cuda"), "cannot compute on device"),
        (("--seconds", "0"), "seconds"),
        (("--out", "there-is-no-such-folder"), "there is no folder"),
        (("--suggest", "there-is-no-such-file.csv"), "there-is-no-such-file.csv"),
    ],
)
def test_wrong_options_end_with_status_2_and_no_file(gpumlp, tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    ended = gpumlp("bench", *options)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
    assert not list(tmp_path.iterdir())


def test_a_small_run_from_end_to_end(gpumlp, tmp_path, monkeypatch):
    from gpumlp.bench import recursion

    monkeypatch.setattr(recursion, "sizes", lambda quick: [recursion.Size("batch", n, 8, 3) for n in (1, 4)])
    monkeypatch.setattr(suites, "QUICK", suites.Effort(2, 1e-3, 0.0, 1, 1))
    options = ("--quick", "--suite", "recursion", "--backend", "numpy", "--no-peers")
    ended = gpumlp("bench", *options, "--out", tmp_path)
    assert ended.status == 0, ended.err
    run = load(tmp_path / "bench.json")
    assert {case.case for case in run.cases} == {"8 x 3, tanh, batch 1", "8 x 3, tanh, batch 4"}
    assert "8 x 3, tanh, batch 1" in (tmp_path / "bench.md").read_text()
    again = gpumlp("bench", *options, "--out", tmp_path)
    compared = gpumlp("bench", "compare", tmp_path / "bench.json", tmp_path / "bench-2.json", "--json")
    assert again.status == 0
    assert {v["contender"] for v in json.loads(compared.out)["verdicts"]} == {"gpumlp numpy"}


def test_a_suggestion_is_printed_with_what_was_measured(gpumlp):
    ended = gpumlp("bench", "--suggest", "iris", "--backend", "numpy", "--seconds", "0.1")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["backend", "batch"]
    assert any("chosen" in line for line in lines)
    assert "gpumlp train iris --batch-size" in lines[-1]
    found = json.loads(gpumlp("bench", "--suggest", "iris", "--backend", "numpy", "--seconds", "0.1", "--json").out)
    assert found["backend"] == "numpy"
    assert found["batch_size"] in {m["batch_size"] for m in found["measurements"]}


def test_the_bar_is_drawn_in_a_terminal_alone(monkeypatch, capsys):
    with command.progress() as told:
        told(1, 2, "steps: something")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # which Rich takes for a terminal
    with command.progress() as told:
        told(1, 2, "steps: something")
    assert "1/2" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_more_of_them_keep_nothing_from_being_written(number, gpumlp, monkeypatch, tmp_path):
    before, save = signal.getsignal(number), command.save

    def run_suites(*arguments):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        run = made_up_run()
        return type(run)(run.environment, {**run.options, "ended": "interrupted"}, run.cases)

    def save_disturbed(*arguments):
        signal.raise_signal(number)
        return save(*arguments)

    monkeypatch.setattr(suites, "run_suites", run_suites)
    monkeypatch.setattr(command, "save", save_disturbed)
    assert gpumlp("bench", "--out", tmp_path).status == 130
    assert load(tmp_path / "bench.json").options["ended"] == "interrupted"
    assert signal.getsignal(number) == before


def test_a_signal_while_files_are_written_waits_for_them(gpumlp, measured, monkeypatch, tmp_path):
    save = command.save

    def save_disturbed(*arguments):
        signal.raise_signal(signal.SIGINT)
        return save(*arguments)

    monkeypatch.setattr(command, "save", save_disturbed)
    assert gpumlp("bench", "--out", tmp_path).status == 0
    assert (tmp_path / "bench.md").is_file()


def test_it_can_be_run_beside_the_main_thread(gpumlp, measured, tmp_path):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(gpumlp("bench", "--out", tmp_path).status))
    thread.start()
    thread.join()
    assert ended == [0]
