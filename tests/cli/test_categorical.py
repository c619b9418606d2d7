"""Columns of text from the file to the answers: train learns their categories, predict takes them by name."""

import numpy as np
import pytest
from csv_text import as_csv

import gpumlp as package
from gpumlp.cli.embedding import Embed
from gpumlp.cli.problem import encode, in_memory, pose, split
from gpumlp.convert import load_safetensors
from gpumlp.data import read_table

COLOURS, SHAPES = ("red", "green", "blue", ""), ("round", "flat")
NAMES = ("size", "colour", "zip", "shape", "price")


@pytest.fixture
def goods(tmp_path):
    """Goods whose price depends on their colour and on a number that is none."""
    random = np.random.default_rng(1)
    size, colour, zips = random.normal(5, 2, 120).round(3), random.integers(0, 4, 120), random.integers(0, 3, 120)
    price = size + 10 * colour + 7 * (zips == 1)
    columns = [
        size,
        [COLOURS[c] for c in colour],
        [(101, 7, 33)[z] for z in zips],
        [SHAPES[i % 2] for i in range(120)],
        price,
    ]
    path = tmp_path / "goods.csv"
    path.write_text(as_csv(NAMES, columns))
    return path, columns


def write(path, columns, names):
    path.write_text(as_csv(names, [columns[NAMES.index(name)] for name in names]))
    return path


@pytest.fixture
def model(gpumlp, goods, tmp_path):
    ended = gpumlp(
        *("train", goods[0], "--categorical", "zip", "--scale", "standardise", "--hidden", 8, "--lr", 0.05),
        *("--epochs", 60, "--seed", 4, "--save", tmp_path / "m.npz"),
    )
    assert ended.status == 0, ended.err
    assert "columns   4, of these with categories: colour (4), zip (3), shape (2)" in ended.err
    assert float(ended.out.partition("R2 ")[2].partition(" ")[0]) > 0.9
    return tmp_path / "m.npz"


def test_the_saved_model_knows_the_training_rows_alone_and_leaves_0_and_1_as_they_are(goods, model):
    loaded = package.load(model)
    problem = pose(read_table(goods[0], categorical=["zip"]), None)
    rows = split(problem, None, choosing=False, seed=4).train
    encoded, columns = encode(problem, rows, Embed())
    encoded = in_memory(encoded)
    assert loaded.columns == columns
    assert loaded.feature_names == encoded.table.feature_names
    assert loaded.feature_names[:2] + loaded.feature_names[5:6] == ("size", "colour=", "zip=101")
    assert loaded.scaler.mean.tolist() == [encoded.table.X[rows, 0].mean(), *[0.0] * 9]
    assert loaded.scaler.scale[1:].tolist() == [1.0] * 9


@pytest.mark.parametrize("scale", ["none", "standardise", "quantile"])
def test_what_rows_held_out_hold_changes_nothing_that_is_learned(gpumlp, goods, tmp_path, scale):
    path, columns = goods
    held_out = split(pose(read_table(path, categorical=()), None), None, choosing=False, seed=0).test
    for i in held_out:
        columns[0][i], columns[1][i] = 1e6, "violet"
    other = write(tmp_path / "other.csv", columns, NAMES)
    options = ("--epochs", 2, "--scale", scale, "--quiet", "--save")
    for name, data in (("a", path), ("b", other)):
        assert gpumlp("train", data, *options, tmp_path / name).status == 0
    one, another = (package.load(tmp_path / f"{name}.npz") for name in "ab")
    assert one.columns == another.columns
    assert all(np.array_equal(*W) for W in zip(one.network.weights, another.network.weights, strict=True))
    features = one.features(read_table(path, categorical=()))
    assert np.array_equal(one.outputs(features), another.outputs(features))


def test_raw_columns_are_predicted_as_the_features_that_training_made_of_them(gpumlp, goods, model):
    loaded = package.load(model)
    table = read_table(goods[0], categorical=["zip"])
    encoded = loaded.columns.transform(table).X
    expected = loaded.predict(encoded)
    assert np.array_equal(loaded.predict(table), expected)
    ended = gpumlp("predict", model, goods[0])
    assert ended.out.split()[1:] == expected.astype(str).tolist()
    assert "R2" in ended.err


def test_columns_are_found_by_name_with_and_without_a_target(gpumlp, goods, model, tmp_path):
    expected = gpumlp("predict", model, goods[0]).out
    others = [("price", "shape", "zip", "colour", "size"), ("zip", "shape", "size", "colour"), NAMES[:-1]]
    for names in others:
        ended = gpumlp("predict", model, write(tmp_path / "x.csv", goods[1], names))
        assert (ended.status, ended.out) == (0, expected)
        assert ("R2" in ended.err) == ("price" in names)


def test_a_table_of_arrow_is_predicted_as_the_text_table(gpumlp, goods, model, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(NAMES, goods[1], strict=True))
    columns["colour"] = [colour or None for colour in columns["colour"]]
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    assert gpumlp("predict", model, tmp_path / "x.parquet").out == gpumlp("predict", model, goods[0]).out


def test_a_category_that_is_new_is_told_of_and_is_none_of_those_known(gpumlp, goods, model, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("size,colour,zip,shape\n5,violet,7,flat\n5,red,7,flat\n")
    ended = gpumlp("predict", model, path)
    assert ended.err == (
        "note      column 'colour' holds 'violet' in 1 row, of which no training row is: 0 at all its categories\n"
    )
    features = np.zeros((1, 10))
    features[0, [0, 7, 8]] = 5, 1, 1
    loaded = package.load(model)
    assert [loaded.feature_names[i] for i in (0, 7, 8)] == ["size", "zip=7", "shape=flat"]
    assert ended.out.split()[1] == str(loaded.predict(features)[0])
    refused = gpumlp("predict", model, path, "--unseen", "error")
    assert (refused.status, refused.out) == (2, "")


def test_a_sweep_takes_the_same_columns_and_saves_them_with_the_best_model(gpumlp, goods, tmp_path):
    (tmp_path / "space.toml").write_text("hidden = [[6], [8]]\nlearning_rate = [0.05]\nepochs = 4\n")
    ended = gpumlp(
        *("sweep", tmp_path / "space.toml", goods[0], "--out", tmp_path / "found", "--n", 2, "--folds", 2, "--quiet"),
        *("--backend", "numpy", "--categorical", "zip", "--scale", "quantile"),
    )
    assert ended.status == 0, ended.err
    best = package.load(tmp_path / "found" / "best.npz")
    assert best.columns.categorical == ("colour", "zip", "shape")
    assert best.scaler.name == "quantile"
    assert best.scaler.kept.tolist() == best.columns.is_category.tolist()
    table = read_table(goods[0], categorical=["zip"])
    assert gpumlp("predict", tmp_path / "found" / "best.npz", goods[0]).out.split()[1:] == (
        best.predict(table).astype(str).tolist()
    )


def test_what_is_exported_takes_features_and_that_is_told(gpumlp, model):
    ended = gpumlp("export", model, "--to", "sklearn")
    assert ended.status == 0
    assert "X has 10 features, not the 4 columns of a table, which model.features(table) makes of them" in ended.err
    assert gpumlp("export", model, "--to", "safetensors").err == ""
    assert load_safetensors(model.with_suffix(".safetensors")).columns == package.load(model).columns
