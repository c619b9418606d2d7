import csv

import numpy as np
import pytest
from csv_text import as_csv

from gpumlp import load


@pytest.fixture
def model(gpumlp, flowers, tmp_path):
    """Where a model of the flowers is saved."""
    path = tmp_path / "flowers.npz"
    ended = gpumlp("train", flowers[0], "--quiet", "--epochs", 20, "--lr", 0.01, "--save", path)
    assert ended.status == 0, ended.err
    return path


def columns_of(text):
    rows = list(csv.reader(text.splitlines()))
    return rows[0], [list(column) for column in zip(*rows[1:], strict=True)]


def test_a_saved_model_answers_as_in_python_and_text_labels_survive(gpumlp, model, flowers, tmp_path):
    path, X, labels = flowers
    ended = gpumlp("predict", model, path, "--out", tmp_path / "p.csv")
    names, (predicted,) = columns_of((tmp_path / "p.csv").read_text())
    assert (ended.status, ended.out, names) == (0, "", ["prediction"])
    assert predicted == load(model).predict(X).tolist()
    share = 100 * np.mean(np.array(predicted) == labels)
    assert share > 90
    assert f"accuracy {share:.1f} % on 60 rows, against the target 'kind'" in ended.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flowers.csv", "flowers.npz", "p.csv"]


@pytest.mark.parametrize("header", [("tall", "wide", "red"), None])
def test_rows_may_come_without_a_target(gpumlp, model, flowers, tmp_path, header):
    _, X, _ = flowers
    text = as_csv(("tall", "wide", "red"), X.T)
    (tmp_path / "x.csv").write_text(text if header else text.partition("\n")[2])
    ended = gpumlp("predict", model, tmp_path / "x.csv")
    assert columns_of(ended.out)[1] == [load(model).predict(X).tolist()]
    assert ended.err == ""


def test_the_target_is_found_by_its_name_in_any_column(gpumlp, model, flowers, tmp_path):
    _, X, labels = flowers
    (tmp_path / "x.csv").write_text(as_csv(("kind", "tall", "wide", "red"), [labels, *X.T]))
    ended = gpumlp("predict", model, tmp_path / "x.csv")
    assert columns_of(ended.out)[1] == [load(model).predict(X).tolist()]
    assert "accuracy" in ended.err


def test_a_last_column_without_a_name_is_dropped_and_compared(gpumlp, model, flowers, tmp_path):
    _, X, labels = flowers
    (tmp_path / "x.csv").write_text(as_csv((), [*X.T, labels]).lstrip("\n"))
    ended = gpumlp("predict", model, tmp_path / "x.csv", "--no-header")
    assert columns_of(ended.out)[1] == [load(model).predict(X).tolist()]
    assert "accuracy" in ended.err


def test_a_target_of_another_kind_is_dropped_and_not_compared(gpumlp, model, flowers, tmp_path):
    _, X, _ = flowers
    (tmp_path / "x.csv").write_text(as_csv(("tall", "wide", "red", "code"), [*X.T, np.arange(60)]))
    ended = gpumlp("predict", model, tmp_path / "x.csv")
    assert ended.status == 0
    assert "cannot be compared" in ended.err


def test_probabilities_stand_under_the_names_of_the_classes(gpumlp, model, flowers, tmp_path):
    path, X, _ = flowers
    names, (predicted, *shares) = columns_of(gpumlp("predict", model, path, "--probabilities").out)
    assert names == ["prediction", "lily", "rose"]
    assert np.allclose(np.array(shares, float).T, load(model).probabilities(X), atol=1e-6)
    assert predicted == load(model).predict(X).tolist()
    gpumlp("predict", model, path, "--probabilities", "--out", tmp_path / "p.npy")
    assert np.array_equal(np.load(tmp_path / "p.npy"), load(model).probabilities(X))


def test_npy_holds_the_labels_and_needs_no_pickle(gpumlp, model, flowers, tmp_path):
    np.save(tmp_path / "x.npy", flowers[1])
    assert gpumlp("predict", model, tmp_path / "x.npy", "--out", tmp_path / "p.npy").status == 0
    assert np.load(tmp_path / "p.npy").tolist() == load(model).predict(flowers[1]).tolist()


def test_numbers_of_a_regression_come_back_in_their_own_units(gpumlp, tmp_path):
    gpumlp("train", "diabetes", "--quiet", "--save", tmp_path / "m.npz", "--standardise")
    ended = gpumlp("predict", tmp_path / "m.npz", "diabetes")
    _, (predicted,) = columns_of(ended.out)
    assert 100 < np.mean(np.array(predicted, float)) < 200
    assert "RMSE" in ended.err
    assert "R2" in ended.err


def test_several_outputs_have_a_column_each(gpumlp, tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 2))
    np.savez(tmp_path / "d.npz", X=X, y=X @ [[1.0, 2.0, 0.5], [0.0, -1.0, 0.5]])
    gpumlp("train", tmp_path / "d.npz", "--quiet", "--epochs", 2, "--save", tmp_path / "m.npz")
    names, columns = columns_of(gpumlp("predict", tmp_path / "m.npz", tmp_path / "d.npz").out)
    assert names == ["prediction_0", "prediction_1", "prediction_2"]
    assert np.allclose(np.array(columns, float).T, load(tmp_path / "m.npz").predict(X))


WRONG = {
    "too few features": ("tall,wide\n1,2\n", "2 features, expected 3 as in the model, tall, wide, red"),
    "too many features": ("1,2,3,4,5\n", "5 features, expected 3"),
    "other features": ("tall,wide,blue\n1,2,3\n", "features blue are not the model's, and its red are missing"),
    "another order": ("wide,tall,red\n1,2,3\n", "feature 0 (from 0) is 'wide', expected 'tall'"),
    "target for a feature": ("tall,wide,kind\n1,2,rose\n", "2 features, expected 3"),
    "text for a number": ("tall,wide,red\n1,much,3\n", "column 'wide' holds 'much'"),
    "a missing value": ("tall,wide,red,kind\n1,,3,rose\n", "missing value in line 2, column 'wide'"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_rows_that_do_not_fit_the_model_are_refused(gpumlp, model, tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    ended = gpumlp("predict", model, tmp_path / "x.csv", "--out", tmp_path / "p.csv")
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "p.csv").exists()


def test_a_failed_writing_leaves_the_old_file(gpumlp, model, flowers, tmp_path, monkeypatch):
    (tmp_path / "p.csv").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpumlp.atomic.os.replace", full)
    ended = gpumlp("predict", model, flowers[0], "--out", tmp_path / "p.csv")
    assert ended.status == 2
    assert "No space left" in ended.err
    assert (tmp_path / "p.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flowers.csv", "flowers.npz", "p.csv"]
