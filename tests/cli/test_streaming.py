"""`gpumlp train` on features that are larger than --memory."""

import json
import logging

import numpy as np
import pytest
from csv_text import as_csv

import gpumlp as package
from gpumlp import Pool
from gpumlp.cli.embedding import Embed
from gpumlp.cli.problem import Parts, encode, pose
from gpumlp.cli.streaming import few_enough, pieces, standardiser, tell_unseen, training_rows
from gpumlp.data import Standardiser, load_table

QUICK = ("--epochs", 3, "--backend", "numpy")


@pytest.fixture
def folder(gpumlp, tmp_path):
    """A data folder of two kinds of rows, 32 kB of features."""
    rng = np.random.default_rng(0)
    y = np.array(["low", "high"])[rng.integers(0, 2, 1000)]
    X = rng.standard_normal((1000, 8)).astype(np.float32) + 2 * (y == "high")[:, None].astype(np.float32)
    np.savez(tmp_path / "rows.npz", X=X, y=y)
    place = tmp_path / "rows.d"
    assert gpumlp("convert", tmp_path / "rows.npz", place).status == 0
    return place


@pytest.mark.parametrize("options", [(), ("--standardise",), ("--early-stopping", 2), ("--val-fraction", 0)], ids=str)
def test_what_is_larger_than_the_memory_is_streamed_and_learned_as_well(options, gpumlp, folder):
    ended = gpumlp("train", folder, *QUICK, "--memory", "16kB", "--json", *options)
    assert ended.status == 0, ended.err
    assert ended.err.count("streamed from their file") == 1
    streamed, whole = (json.loads(e.out) for e in (ended, gpumlp("train", folder, *QUICK, "--json", *options)))
    assert streamed["accuracy"] > 0.9
    assert abs(streamed["accuracy"] - whole["accuracy"]) < 0.05
    assert {k: streamed[k] for k in ("part", "rows")} == {k: whole[k] for k in ("part", "rows")}


def test_a_report_of_streamed_rows_can_be_written(gpumlp, folder, tmp_path):
    ended = gpumlp("train", folder, *QUICK, "--memory", "16kB", "--report", tmp_path / "page.html")
    assert ended.status == 0, ended.err
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_what_fits_is_trained_on_in_memory(gpumlp, folder):
    told = gpumlp("train", folder, *QUICK, "--memory", "33kB").err
    assert "streamed" not in told
    assert "streamed" not in gpumlp("train", folder, *QUICK).err


def test_a_regression_is_streamed_in_its_own_scale(gpumlp, tmp_path):
    saved = tmp_path / "model.npz"
    options = ("--epochs", 60, "-b", 16, "--memory", "9kB", "--json", "--quiet", "--save", saved)
    ended = gpumlp("train", "diabetes", *options)
    assert ended.status == 0, ended.err
    assert 0.3 < json.loads(ended.out)["r2"] < 0.8
    assert package.load(saved).target_scaler is not None


def test_a_batch_that_needs_all_rows_is_refused(gpumlp, folder):
    ended = gpumlp("train", folder, "--memory", "16kB", "--batch-size", "tune")
    assert ended.status != 0
    assert "--batch-size tune needs all rows in memory" in ended.err
    ended = gpumlp("train", folder, "--memory", "4kB", "--batch-size", 40)
    assert "room for 25 rows, but a batch has 40" in ended.err
    assert "--memory is 'much'" in gpumlp("train", folder, "--memory", "much").err


def test_a_scaling_measured_in_pieces_is_that_of_all(monkeypatch):
    monkeypatch.setattr("gpumlp.cli.streaming.ROWS_AT_A_TIME", 7)
    problem = pose(load_table("digits"), None)
    rows = np.arange(1000)
    found, wanted = standardiser(problem, rows), Standardiser.fit(problem.table.X[rows])
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-12)


def test_rows_that_do_not_fit_for_choosing_are_trained_on():
    parts = Parts(np.arange(0, 20), np.arange(20, 30), np.arange(30, 40))
    found = few_enough(parts, 4 * 8, Pool(str(2 * 4 * 8 * 3)))
    assert found.choice.tolist() == [20, 23, 26]
    assert np.array_equal(np.sort(np.concatenate([found.train, found.choice])), np.arange(30))


@pytest.fixture
def shops(gpumlp, tmp_path):
    """A data folder with a column of 30 texts, three of which tell the label, and one of numbers."""
    rng = np.random.default_rng(2)
    shop, size = rng.integers(0, 30, 900), rng.normal(20, 2, 900).round(3)
    (tmp_path / "shops.csv").write_text(
        as_csv(("shop", "size", "kind"), [[f"s{k}" for k in shop], size, np.where(shop % 10 == 3, "high", "low")])
    )
    assert gpumlp("convert", tmp_path / "shops.csv", tmp_path / "shops.d").status == 0
    return tmp_path / "shops.d"


@pytest.mark.parametrize("options", [(), ("--embed", "all"), ("--embed", "shop=3", "--standardise")], ids=str)
def test_columns_of_text_are_streamed_as_they_are_trained_on_in_memory(options, gpumlp, shops, tmp_path):
    memory = "7kB" if "--embed" in options else "100kB"
    command = ("train", shops, "--epochs", 12, "--lr", 0.02, "--backend", "numpy", "--json", "--early-stopping", 9)
    saved = [tmp_path / f"{name}.npz" for name in ("streamed", "whole")]
    ended = gpumlp(*command, *options, "--memory", memory, "--save", saved[0])
    assert ended.status == 0, ended.err
    assert ended.err.count("streamed from their file") == 1
    whole = gpumlp(*command, *options, "--save", saved[1])
    assert "streamed" not in whole.err
    assert json.loads(ended.out)["accuracy"] > 0.97
    one, other = (package.load(place) for place in saved)
    assert one.columns == other.columns
    assert one.feature_names == other.feature_names
    predicted = [gpumlp("predict", place, shops) for place in saved]
    assert "accuracy 0.9" in predicted[0].err or "accuracy 1" in predicted[0].err


def test_categories_that_are_scaled_in_pieces_stay_as_they_are(monkeypatch, shops):
    monkeypatch.setattr("gpumlp.cli.streaming.ROWS_AT_A_TIME", 7)
    rows = np.arange(800)
    problem, columns = encode(pose(load_table(shops, categorical=()), None), rows, Embed())
    found, X = standardiser(problem, rows, columns.is_category), problem.features(rows)
    wanted = Standardiser.fit(X, columns.is_category)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-12)
    assert np.array_equal(found.transform(X)[:, columns.is_category], X[:, columns.is_category])


def test_rows_of_many_features_are_made_a_few_at_a_time(monkeypatch, shops):
    monkeypatch.setattr("gpumlp.data.table.BLOCK_VALUES", 700)
    problem, columns = encode(pose(load_table(shops, categorical=()), None), np.arange(900), Embed())
    net = package.Network((problem.n_features, 2), backend="numpy")
    model = package.SavedModel(net, problem.task, problem.classes, columns=columns)
    blocks = list(training_rows(problem, Parts(np.arange(900), np.arange(0), np.arange(0)), model).survey())
    assert max(block.X.size for block in blocks) <= 700
    assert np.array_equal(np.concatenate([block.X for block in blocks]), problem.features(np.arange(900)))


def test_categories_that_no_row_to_train_on_has_are_told_of_while_streaming(caplog, tmp_path):
    lines = [f"{'new' if i in (7, 30) else 'abc'[i % 3]},{i},{i % 3 % 2}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["text,size,y", *lines]) + "\n")
    problem = pose(load_table(tmp_path / "t.csv", categorical=()), None)
    problem, columns = encode(problem, np.setdiff1d(np.arange(60), [7, 30]), Embed())
    assert columns.categories[0] == ("a", "b", "c")
    with caplog.at_level(logging.INFO, "gpumlp"):
        tell_unseen(problem)
    assert caplog.messages == ["column 'text' holds 'new', of which no training row is: 0 at all its categories"]


def test_a_streamed_training_does_not_go_on_with_other_categories_behind_the_same_codes(gpumlp, shops, tmp_path):
    kept = ("--checkpoint", tmp_path / "kept", "--every", "1epoch", "--memory", "7kB", "--embed", "all", "--quiet")
    assert gpumlp("train", shops, *QUICK, *kept).status == 0
    assert gpumlp("train", shops, "--epochs", 4, "--backend", "numpy", *kept, "--resume").status == 0
    place = shops / "manifest.json"
    place.write_text(place.read_text().replace('"s3"', '"zz"'))
    ended = gpumlp("train", shops, "--epochs", 5, "--backend", "numpy", *kept, "--resume")
    assert ended.status == 2
    assert "column shop" in ended.err


@pytest.mark.parametrize(("first", "later"), [(40_000, 64_000), (40_000, 10**9), (200_000, 40_000)])
def test_what_was_free_when_a_training_began_decides_how_it_goes_on(
    first, later, gpumlp, folder, tmp_path, monkeypatch
):
    def trained(free, epochs, *more):
        monkeypatch.setattr("gpumlp.cli.streaming.free_memory", lambda: free)
        ended = gpumlp("train", folder, "--backend", "numpy", "--epochs", epochs, "--json", *more)
        assert ended.status == 0, ended.err
        return json.loads(ended.out)["accuracy"], ended.err.count("streamed from their file")

    kept = ("--checkpoint", tmp_path / "c", "--every", "1epoch")
    at_once = trained(first, 4)
    trained(first, 2, *kept)
    assert trained(later, 4, *kept, "--resume") == at_once


def test_a_note_that_is_damaged_is_told(gpumlp, folder, tmp_path):
    (tmp_path / "c").mkdir()
    for content in (b"lots", b"\xff"):
        (tmp_path / "c" / "memory").write_bytes(content)
        ended = gpumlp("train", folder, *QUICK, "--checkpoint", tmp_path / "c", "--resume")
        assert ended.status == 2
        assert f"{tmp_path / 'c' / 'memory'}" in ended.err


def test_a_note_that_cannot_be_written_is_told_and_training_goes_on(gpumlp, folder, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpumlp.cli.streaming.replacing", full)
    ended = gpumlp("train", folder, *QUICK, "--checkpoint", tmp_path / "c", "--memory", "16kB")
    assert ended.status == 0
    assert "(No space left on device); give --memory 16000 when this training is to go on" in ended.err


def test_wide_rows_come_in_smaller_parts(monkeypatch):
    monkeypatch.setattr("gpumlp.cli.streaming.BYTES_AT_A_TIME", 8 * 64 * 3)
    assert [len(part) for part in pieces(np.arange(8), 64)] == [3, 3, 2]
    assert [len(part) for part in pieces(np.arange(2), 10_000)] == [1, 1]
    assert [len(part) for part in pieces(np.arange(200), 1)] == [192, 8]


@pytest.mark.parametrize(("dtype", "scaled", "plain"), [("uint8", 32, 8), ("float32", 32, 32), ("float64", 32, 32)])
def test_a_batch_that_has_no_room_is_told_before_anything_else(dtype, scaled, plain, gpumlp, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", X=rng.integers(0, 9, (2000, 8)).astype(dtype), y=rng.integers(0, 2, 2000))
    for options, row in (
        ((), plain + 8),
        (("--standardise",), scaled + 8),
        (("--task", "regression"), plain + 4),
        (("--standardise", "--task", "regression"), scaled + 4),
    ):
        enough = 4 * row * 40
        argv = ("train", tmp_path / "t.npz", "--epochs", 1, "--backend", "numpy", "-b", 40, *options, "--memory")
        ended = gpumlp(*argv, enough)
        assert ended.status == 0, ended.err
        assert "streamed from their file" in ended.err
        ended = gpumlp(*argv, enough - 4)
        assert ended.status == 2
        assert ended.err.count("\n") == 1
        assert "in which pools have room for 39 rows, but a batch has 40; allow more" in ended.err


@pytest.mark.parametrize(
    ("dtype", "options", "rows"),
    [("uint8", (), 160), ("uint8", ("--standardise",), 93), ("float64", (), 46), ("float64", ("--standardise",), 46)],
    ids=str,
)
def test_rows_that_choose_the_epoch_take_what_they_take_scaled(dtype, options, rows, gpumlp, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", X=rng.integers(0, 9, (2000, 8)).astype(dtype), y=rng.integers(0, 2, 2000))
    argv = ("train", tmp_path / "t.npz", "--epochs", 1, "--backend", "numpy", "-b", 10, "--early-stopping", 3)
    ended = gpumlp(*argv, "--memory", "12kB", *options)
    assert "streamed from their file" in ended.err
    assert f"{rows} to choose the epoch" in ended.err
