import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from test_process import ENVIRONMENT, POSIX, START, wait_for

import gpumlp as package
from gpumlp.cli import sweep_view
from gpumlp.ensembles import executors
from gpumlp.ensembles.ledger import read_folder
from gpumlp.ensembles.trials import lost_row, run_trials

SPACE = """
hidden = [[], [6], [5, 4]]
learning_rate = { log_uniform = [0.01, 0.1] }
activation = ["relu", "tanh"]
epochs = 4
"""
FEW = ("--n", 5, "--folds", 2, "--standardise", "--backend", "numpy")


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def test_a_sweep_leaves_rows_a_table_a_plot_and_the_best_model(gpumlp, space, tmp_path):
    out = tmp_path / "found"
    ended = gpumlp("sweep", space, "iris", "--out", out, *FEW)
    assert ended.status == 0, ended.err
    *table, last = ended.out.splitlines()
    assert table[0].split() == ["accuracy", "+-", "epoch", "weights", "hidden", "activation", "learning", "rate"]
    assert len(table) == 6
    assert last.startswith("test accuracy ")
    assert "(30 rows held out), best of 5: accuracy 0." in last
    assert "5 configurations x 2 folds" in last
    assert last.endswith("models x samples/s, numpy on cpu")
    for told in (
        "classification, because",
        "120 rows to train and judge on, 30 held out",
        "5 configurations x 2 folds",
    ):
        assert told in ended.err
    assert len(read_folder(out)) == 5
    assert len((out / "results.csv").read_text().splitlines()) == 6
    assert (out / "plot.png").read_bytes()[:4] == b"\x89PNG"
    model = package.load(out / "best.npz")
    assert model.scaler is not None
    assert list(model.classes) == ["setosa", "versicolor", "virginica"]


def test_the_same_command_again_trains_nothing_and_says_the_same(gpumlp, space, tmp_path):
    first, second = (gpumlp("sweep", space, "iris", "--out", tmp_path / "a", *FEW) for _ in range(2))
    assert second.out == first.out
    assert len(read_folder(tmp_path / "a")) == 5


def test_a_regression_is_judged_by_r2_and_scaled_back(gpumlp, space, tmp_path):
    ended = gpumlp("sweep", space, "diabetes", "--out", tmp_path, *FEW, "--folds", 0.3, "--json", "--quiet", "-e", 9)
    assert (ended.status, ended.err) == (0, "")
    result = json.loads(ended.out)
    assert (result["metric"], result["folds"], result["configuration"]["epochs"]) == ("r2", 1, 9)
    assert 0.2 < result["score"] < 0.8
    assert 40 < result["test"]["rmse"] < 80
    assert (result["rows"], result["configurations"], result["missing"], result["diverged"]) == (88, 5, 0, 0)


def test_shards_side_by_side_find_what_one_process_finds(gpumlp, space, tmp_path):
    whole = gpumlp("sweep", space, "iris", "--out", tmp_path / "whole", *FEW, "--json")
    first, second = (
        gpumlp("sweep", space, "iris", "--out", tmp_path / "parts", *FEW, "--shard", f"{i}/2") for i in (1, 2)
    )
    assert "2 configurations are missing still" in first.out.splitlines()[-1]
    assert "test accuracy" in second.out.splitlines()[-1]
    merged = gpumlp("sweep", space, "iris", "--out", tmp_path / "parts", *FEW, "--json")
    differ = ("seconds",)
    one, other = ({k: v for k, v in json.loads(ended.out).items() if k not in differ} for ended in (whole, merged))
    assert one == other


def test_a_plan_is_printed_and_nothing_is_trained(gpumlp, space, tmp_path):
    ended = gpumlp("sweep", space, "iris", "--plan", *FEW)
    assert ended.status == 0, ended.err
    assert ended.out.strip()
    assert list(tmp_path.iterdir()) == [space]


def test_a_configuration_that_ended_its_process_is_told_with_status_3(gpumlp, space, tmp_path, monkeypatch):
    def with_one_lost(task, trials, pulse):
        yield lost_row(task, trials[0], "its process ended with exit status 13", 13)
        yield from run_trials(task, trials[1:], pulse)

    monkeypatch.setattr(executors, "run_trials", with_one_lost)
    monkeypatch.setattr(executors, "MODELS_AT_A_TIME", 10)  # all in one batch
    for _ in range(2):
        ended = gpumlp("sweep", space, "iris", "--out", tmp_path, *FEW, "--json")
        assert ended.status == 3
        told = [line for line in ended.err.splitlines() if line.startswith("lost ")]
        assert len(told) == 1
        assert told[0].startswith("lost      hidden none, activation relu, learning_rate 0.0")
        assert told[0].endswith(": its process ended with exit status 13")
        result = json.loads(ended.out)
        assert (result["configurations"], result["missing"], result["diverged"], result["lost"]) == (5, 0, 0, 1)
        assert (tmp_path / "best.npz").exists()


def test_without_matplotlib_there_is_all_but_the_plot(gpumlp, space, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = gpumlp("sweep", space, "iris", "--out", tmp_path, *FEW)
    assert ended.status == 0
    assert "no plot: SweepResult.plot needs matplotlib" in ended.err
    assert not (tmp_path / "plot.png").exists()
    assert (tmp_path / "best.npz").exists()


def test_a_terminal_sees_what_is_done_and_the_best_so_far(space, tmp_path):
    from rich.console import Console

    console = Console(force_terminal=True, width=160, file=(tmp_path / "seen").open("w"))
    view = sweep_view.SweepView("accuracy", ["seed"], console)
    row = {"accuracy": 0.75, "deviation": 0.125, "best_epoch": 3.0, "parameters": 1234, "cost": 1.0}
    view.sweep_began(2, [])
    view.epoch_ended(5000)
    view.row_added({**row, "configuration": {"seed": 77}})
    shown = Console(width=160, file=(tmp_path / "shown").open("w+"))
    shown.print(view._shown())
    view.sweep_ended()
    shown.file.seek(0)
    text = shown.file.read()
    console.file.close()
    for told in ("1/2", "0.7500", "0.1250", "1,234", "77", "models x samples/s"):
        assert told in text
    shown.file.close()


def test_elsewhere_a_line_is_told_now_and_then(gpumlp, space, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_view, "EVERY", 0.0)
    ended = gpumlp("sweep", space, "iris", "--out", tmp_path, *FEW)
    lines = [line for line in ended.err.splitlines() if line.startswith("sweep ")]
    assert len(lines) == 5
    assert "5 of 5 configurations, best accuracy 0." in lines[-1]


@POSIX
def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(space, tmp_path):
    out = tmp_path / "with space"
    space.write_text(SPACE.replace("epochs = 4", "epochs = [3, 1000000]").replace("[[], [6], [5, 4]]", "[[]]"))
    options = [
        "iris",
        "--out",
        str(out),
        "--n",
        "6",
        "--folds",
        "2",
        "--bootstrap",
        "--no-header",
        "--backend",
        "numpy",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", START, "sweep", str(space), *options],
        env={**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((out / "results.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=30)
    assert (process.returncode, printed) == (130, "")
    assert "Traceback" not in err
    told = err.splitlines()[-1]
    words = shlex.split(told.partition("this goes on: ")[2])
    assert words[:4] == ["gpumlp", "sweep", str(space), "iris"]
    assert words[words.index("--out") + 1] == str(out)
    assert set(options) <= set(words)
    assert "--standardise" not in words


RAY = ["space.toml", "iris", "--n", 3, "--out", "o", "--executor", "ray"]
WRONG = [
    ("no such file", ["none.toml", "iris", "--out", "o"], "cannot read none.toml"),
    ("no toml", ["bad.toml", "iris", "--out", "o"], "bad.toml is no TOML"),
    ("no text", ["binary.toml", "iris", "--out", "o"], "binary.toml is no TOML"),
    ("an empty space", ["empty.toml", "iris", "--out", "o"], "at least one parameter"),
    ("an unknown parameter", ["unknown.toml", "iris", "--out", "o"], "did you mean 'learning_rate'?"),
    ("ranges without a number of draws", ["space.toml", "iris", "--out", "o"], "n=200"),
    ("no folder", ["space.toml", "iris", "--n", 3], "--out FOLDER"),
    ("a file as folder", ["space.toml", "iris", "--n", 3, "--out", "bad.toml"], "choose another name"),
    ("folds", ["space.toml", "iris", "--n", 3, "--out", "o", "--folds", "many"], "--folds 'many'"),
    ("one fold", ["space.toml", "iris", "--n", 3, "--out", "o", "--folds", "1"], "folds=1"),
    ("a shard", ["space.toml", "iris", "--n", 3, "--out", "o", "--shard", "1of2"], "--shard '1of2'"),
    ("a shard that there is not", ["space.toml", "iris", "--n", 3, "--out", "o", "--shard", "3/2"], "shard=(3, 2)"),
    ("metric", ["space.toml", "iris", "--n", 3, "--out", "o", "--metric", "r2"], "metric of labels 'r2'"),
    ("executor", ["space.toml", "iris", "--n", 3, "--out", "o", "--executor", "moon"], "unknown executor 'moon'"),
    ("address", ["space.toml", "iris", "--n", 3, "--out", "o", "--address", "auto"], "go with --executor ray"),
    ("Ray Client", [*RAY, "--address", "ray://head:1"], "Ray Client"),
    ("backend", ["space.toml", "iris", "--n", 3, "--out", "o", "--backend", "nump"], "did you mean 'numpy'?"),
    ("no draws", ["space.toml", "iris", "--n", 0, "--out", "o"], "--n"),
    ("divergence", ["wild.toml", "iris", "--out", "o", "--quiet"], "every configuration diverged"),
]


@pytest.mark.parametrize(("argv", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_input_ends_in_one_clear_line_and_status_2(gpumlp, space, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("learning_rate = ")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.toml").touch()
    (tmp_path / "unknown.toml").write_text("learning_rat = [0.1]")
    (tmp_path / "wild.toml").write_text('learning_rate = [1e30]\noptimizer = "sgd"\nepochs = 2')
    with np.errstate(all="ignore"):
        ended = gpumlp("sweep", *argv)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err.splitlines()[-1]
    assert ended.err.splitlines()[-1].startswith("gpumlp: error: ")


def test_a_folder_in_use_is_refused(gpumlp, space, tmp_path):
    from gpumlp.ensembles.ledger import Ledger

    with Ledger(tmp_path / "o"):
        ended = gpumlp("sweep", space, "iris", "--out", tmp_path / "o", *FEW)
    assert (ended.status, ended.out) == (2, "")
    assert "another process writes into" in ended.err
    assert os.listdir(tmp_path / "o")
