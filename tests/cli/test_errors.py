import os

import pytest

from gpumlp import cli
from gpumlp.cli import app

FILES = {
    "ragged.csv": "a,b,y\n1,2,0\n3,4\n",
    "text.csv": "a,b,y\n1,2,0\n3,x,1\n",
    "slip.csv": "a,b,y\n1,x,0\n3,4,1\n",
    "nan.csv": "1,nan,0\n3,4,1\n",
    "one.csv": "1,2,a\n3,4,a\n",
    "no_model.npz": "?",
    "no_table.txt": "1,2\n",
}
LARGE_LR = ("--optimizer", "sgd", "--lr", "1e30", "--quiet")

WRONG = [
    ("no such command", ["trian", "digits"], "No such command 'trian'. Did you mean 'train'?"),
    ("no such option", ["train", "digits", "--hiden", "3"], "--hidden"),
    ("no data", ["train"], "Missing argument 'DATA'"),
    ("too many arguments", ["train", "digits", "iris"], "iris"),
    ("text for a number", ["train", "digits", "--epochs", "x"], "--epochs"),
    ("no epochs", ["train", "digits", "--epochs", "0"], "--epochs"),
    ("a negative seed", ["train", "digits", "--seed", "-1"], "--seed"),
    ("no such data set", ["train", "digts"], "did you mean 'digits'?"),
    ("no such file", ["train", "raged.csv"], "no such file: raged.csv; did you mean 'ragged.csv'?"),
    ("unknown kind of file", ["train", "no_table.txt"], "unknown kind of file"),
    ("ragged rows", ["train", "ragged.csv"], "line 3 has 2 cells, expected 3"),
    ("text in a feature", ["train", "text.csv"], "line 3, column 'b' holds 'x', expected a number"),
    ("a number among text", ["train", "slip.csv"], "line 3, column 'b' holds '4', expected text such as 'x'"),
    ("nan in a feature", ["train", "nan.csv"], "not finite"),
    ("one class", ["train", "one.csv"], "the target holds one class, a"),
    ("no such target", ["train", "ragged.csv", "--target", "z"], "no column is named 'z'"),
    ("text as quantity", ["train", "iris", "--task", "regression"], "the target holds text"),
    ("no such task", ["train", "iris", "--task", "regresion"], "did you mean 'regression'?"),
    ("hidden sizes", ["train", "iris", "--hidden", "3,x"], "--hidden '3,x'"),
    ("a layer of nothing", ["train", "iris", "--hidden", "0"], "whole numbers of at least 1"),
    ("activation", ["train", "iris", "--activation", "rellu"], "unknown activation 'rellu'; did you mean 'relu'?"),
    ("output and cost", ["train", "iris", "--output", "relu"], "relu"),
    ("optimizer", ["train", "iris", "--optimizer", "adm"], "did you mean 'adam'?"),
    ("cost", ["train", "iris", "--cost", "quadrtic"], "did you mean 'quadratic'?"),
    ("schedule", ["train", "iris", "--schedule", "cosin"], "did you mean 'cosine'?"),
    ("batch size", ["train", "iris", "--batch-size", "ful"], "batch_size='ful'"),
    ("fraction", ["train", "iris", "--val-fraction", "1.5"], "fraction is 1.5"),
    ("dtype", ["train", "iris", "--dtype", "int8"], "unknown dtype 'int8'"),
    ("backend", ["train", "iris", "--backend", "nump"], "did you mean 'numpy'?"),
    ("device", ["train", "iris", "--device", "gpu"], "device 'gpu'"),
    ("divergence", ["train", "iris", *LARGE_LR], "diverged in epoch"),
    ("no folder to save in", ["train", "iris", "--save", "no/m.npz"], "there is no folder no"),
    ("a folder as model", ["train", "iris", "--save", "."], "is a folder"),
    ("a log of unknown kind", ["train", "iris", "--log", "l.txt"], ".csv or .jsonl"),
    ("no model file", ["predict", "none.npz", "iris"], "none.npz"),
    ("no model in the file", ["predict", "no_model.npz", "iris"], "no gpumlp model"),
    ("predictions of unknown kind", ["predict", "no_model.npz", "iris", "--out", "p.txt"], ".csv or .npy"),
]


@pytest.mark.parametrize(("argv", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_input_ends_in_one_clear_line_and_status_2(gpumlp, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    ended = gpumlp(*argv)
    last = ended.err.splitlines()[-1]
    assert ended.status == 2
    assert message in last
    assert last.startswith("gpumlp: error: ")
    assert ended.out == ""
    assert "Traceback" not in ended.err
    if message != "diverged in epoch":
        told = ended.err.splitlines()
        assert not any(line.startswith("epoch") for line in told)
        assert len(told) == 1


def test_an_unsuitable_place_is_refused_before_the_data_are_read(gpumlp, tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.cli.train.load_table", lambda *_, **__: pytest.fail("the data were read"))
    assert gpumlp("train", "iris", "--save", tmp_path / "no" / "m.npz").status == 2
    assert gpumlp("train", "iris", "--log", tmp_path / "no" / "l.csv").status == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(gpumlp, tmp_path):
    tmp_path.chmod(0o500)
    ended = gpumlp("train", "iris", "--save", tmp_path / "m.npz")
    tmp_path.chmod(0o700)
    assert ended.status == 2
    assert "cannot write into" in ended.err


@pytest.mark.parametrize(("debug", "traceback"), [("", False), ("0", False), ("1", True)])
def test_an_unforeseen_error_is_one_line_and_status_1(capsys, monkeypatch, debug, traceback):
    def broken(*_, **__):
        raise KeyError("a slip")

    monkeypatch.setattr("gpumlp.cli.train.load_table", broken)
    monkeypatch.setenv("GPUMLP_DEBUG", debug)
    assert cli.main(["train", "iris"]) == 1
    told = capsys.readouterr().err
    assert "gpumlp: error: KeyError: 'a slip'" in told
    assert ("Traceback" in told) == traceback
    assert traceback or len(told.splitlines()) == 1


def test_ctrl_c_while_data_are_read_ends_with_130(gpumlp, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpumlp.cli.train.load_table", interrupted)
    ended = gpumlp("train", "iris")
    assert (ended.status, ended.out, ended.err) == (130, "", "")


def test_the_process_arguments_are_the_default(monkeypatch, capsys):
    monkeypatch.setattr(app.sys, "argv", ["gpumlp", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("gpumlp 0.")


def test_weights_from_before_a_divergence_are_saved(gpumlp, tmp_path):
    rows = "\n".join(f"{i % 7},{i % 5},{(i % 7) * 1.5 - i % 5}" for i in range(60))
    (tmp_path / "d.csv").write_text(rows)
    options = ("--lr", 0.45, "--optimizer", "sgd", "--hidden", "none", "--epochs", 4000, "--task", "regression")
    ended = gpumlp(
        "train", tmp_path / "d.csv", *options, "--batch-size", "full", "--save", tmp_path / "m.npz", "--quiet"
    )
    assert ended.status == 2
    assert "diverged; the weights of epoch" in ended.err
    assert (tmp_path / "m.npz").exists()
