"""Categories as learned numbers, from the command line: train embeds them, a file keeps them, predict looks them up."""

import json

import numpy as np
import pytest
from csv_text import as_csv

import gpumlp as package
from gpumlp.cli.embedding import Embed, read_embed, usual_units
from gpumlp.convert import load_safetensors
from gpumlp.data import read_table

SHOPS = [f"s{k}" for k in range(12)]
NAMES = ("size", "shop", "open", "price")


@pytest.fixture
def sales(tmp_path):
    """Prices that depend on one of twelve shops, whether it is open, and a number."""
    random = np.random.default_rng(4)
    size, shop = random.normal(5, 2, 240).round(3), random.integers(0, 12, 240)
    columns = [size, [SHOPS[k] for k in shop], ["yes" if k % 2 else "no" for k in shop], size + 3 * (shop * 5 % 12)]
    path = tmp_path / "sales.csv"
    path.write_text(as_csv(NAMES, columns))
    return path, columns


def train(gpumlp, data, *options, epochs=60):
    ended = gpumlp(
        *("train", data, "--standardise", "--hidden", 8, "--lr", 0.05, "--epochs", epochs, "--backend", "numpy"),
        *options,
    )
    assert ended.status == 0, ended.err
    return ended


def test_a_saved_model_embeds_columns_of_more_than_two_categories_and_predicts_raw_ones(gpumlp, sales, tmp_path):
    ended = train(gpumlp, sales[0], "--embed", "all", "--save", tmp_path / "m.npz")
    assert "columns   3, of these with categories: shop (12), open (2)" in ended.err
    assert "embedded  shop (6 numbers)" in ended.err
    assert float(ended.out.partition("R2 ")[2].partition(" ")[0]) > 0.9
    model = package.load(tmp_path / "m.npz")
    assert model.network.architecture.embeddings == (package.Embedding(1, 12, 6),)
    assert model.network.embeddings[0].shape == (1, 12, 6)
    assert model.feature_names == ("size", "shop", "open=no", "open=yes")
    assert model.columns.coded == {"shop"}
    assert (model.scaler.mean[1:].tolist(), model.scaler.scale[1:].tolist()) == ([0] * 3, [1] * 3)
    expected = model.predict(read_table(sales[0], categorical=()))
    told = gpumlp("predict", tmp_path / "m.npz", sales[0])
    assert told.out.split()[1:] == expected.astype(str).tolist()


def test_a_data_folder_and_a_table_of_arrow_are_trained_on_and_predicted_as_the_text_table(gpumlp, sales, tmp_path):
    assert gpumlp("convert", sales[0], tmp_path / "sales.d").status == 0
    sources = [sales[0], tmp_path / "sales.d"]
    for i, data in enumerate(sources):
        train(gpumlp, data, "--embed", "shop=3", "--save", tmp_path / f"{i}.npz", epochs=3)
    one, other = (package.load(tmp_path / f"{i}.npz") for i in range(2))
    assert one.columns == other.columns
    assert np.array_equal(one.network.embeddings[0], other.network.embeddings[0])
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(dict(zip(NAMES, sales[1], strict=True))), tmp_path / "sales.parquet")
    answers = {gpumlp("predict", tmp_path / "0.npz", data).out for data in (*sources, tmp_path / "sales.parquet")}
    assert len(answers) == 1


def test_what_is_not_named_stays_a_feature_for_each_category(gpumlp, sales, tmp_path):
    train(gpumlp, sales[0], "--embed", "open=1", "--save", tmp_path / "m.npz", epochs=2)
    model = package.load(tmp_path / "m.npz")
    assert model.network.architecture.embeddings == (package.Embedding(13, 2, 1),)
    assert model.columns.coded == {"open"}
    train(gpumlp, sales[0], "--embed", "all,open=3", "--save", tmp_path / "m.npz", epochs=2)
    assert package.load(tmp_path / "m.npz").network.architecture.embeddings == (
        package.Embedding(1, 12, 6),
        package.Embedding(2, 2, 3),
    )


def test_more_categories_than_there_may_be_features_are_embedded(gpumlp, sales, tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.data.categories.MOST_CATEGORIES", 5)
    refused = gpumlp("train", sales[0])
    assert refused.status == 2
    assert "column 'shop' has 12 different texts" in refused.err
    assert "or embed it (--embed)" in refused.err
    train(gpumlp, sales[0], "--embed", "shop", epochs=1)


def test_a_model_that_no_file_can_hold_is_refused_before_it_is_trained(gpumlp, sales, tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.saved_model.header.MAX_HEADER", 300)
    ended = gpumlp("train", sales[0], "--embed", "all", "--save", tmp_path / "m.npz")
    assert ended.status == 2
    assert "the names of the features and their categories take" in ended.err
    assert "epoch" not in ended.err


def test_a_category_that_is_new_is_told_of_and_embedded_as_zeros(gpumlp, sales, tmp_path):
    train(gpumlp, sales[0], "--embed", "shop=2", "--save", tmp_path / "m.npz", epochs=2)
    path = tmp_path / "x.csv"
    path.write_text("shop,size,open\nnew,5,no\ns3,5,no\n")
    ended = gpumlp("predict", tmp_path / "m.npz", path)
    assert ended.err == (
        "note      column 'shop' holds 'new' in 1 row, of which no training row is: embedded as zeros\n"
    )
    model = package.load(tmp_path / "m.npz")
    assert ended.out.split()[1:] == model.predict(np.array([[5, -1, 1, 0], [5, 5, 1, 0]])).astype(str).tolist()
    model.network.set_embedding(0, np.zeros((12, 2)))
    assert float(ended.out.split()[1]) == pytest.approx(model.predict(np.array([[5, 5, 1, 0]]))[0], rel=1e-6)
    refused = gpumlp("predict", tmp_path / "m.npz", path, "--unseen", "error")
    assert (refused.status, refused.out) == (2, "")


def test_what_rows_held_out_hold_changes_nothing_that_is_learned(gpumlp, sales, tmp_path):
    from gpumlp.cli.problem import pose, split

    path, columns = sales
    held_out = split(pose(read_table(path, categorical=()), None), None, choosing=False, seed=0).test
    for i in held_out:
        columns[0][i], columns[1][i] = 1e6, "elsewhere"
    (tmp_path / "other.csv").write_text(as_csv(NAMES, columns))
    for name, data in (("a", path), ("b", tmp_path / "other.csv")):
        train(gpumlp, data, "--embed", "all", "--quiet", "--save", tmp_path / name, epochs=2)
    one, another = (package.load(tmp_path / f"{name}.npz") for name in "ab")
    assert one.columns == another.columns
    assert np.array_equal(one.network.embeddings[0], another.network.embeddings[0])
    assert all(np.array_equal(*W) for W in zip(one.network.weights, another.network.weights, strict=True))


def test_a_training_that_was_broken_off_goes_on_with_its_tables_and_with_no_others(gpumlp, sales, tmp_path):
    def run(epochs, place, *options, embed="shop=3"):
        return train(gpumlp, sales[0], "--embed", embed, "--quiet", "--save", tmp_path / place, *options, epochs=epochs)

    kept = ("--checkpoint", tmp_path / "kept", "--every", "1epoch")
    run(4, "whole")
    run(2, "half", *kept)
    run(4, "resumed", *kept, "--resume")
    whole, resumed = (package.load(tmp_path / f"{name}.npz") for name in ("whole", "resumed"))
    assert np.array_equal(whole.network.embeddings[0], resumed.network.embeddings[0])
    other = gpumlp(
        *("train", sales[0], "--standardise", "--hidden", 8, "--lr", 0.05, "--epochs", 5, "--backend", "numpy"),
        *("--embed", "shop=4", "--quiet", *kept, "--resume"),
    )
    assert other.status == 2
    assert "embeddings" in other.err


def test_a_report_tells_what_is_embedded(gpumlp, sales, tmp_path):
    train(gpumlp, sales[0], "--embed", "shop=3", "--report", tmp_path / "page.html", epochs=2)
    page = (tmp_path / "page.html").read_text()
    assert "shop (3 numbers)" in page
    assert "12 codes" in page


def test_what_is_exported_takes_codes_or_is_refused_by_name(gpumlp, sales, tmp_path):
    train(gpumlp, sales[0], "--embed", "shop=3", "--save", tmp_path / "m.npz", epochs=2)
    model = package.load(tmp_path / "m.npz")
    refused = gpumlp("export", tmp_path / "m.npz", "--to", "sklearn")
    assert refused.status == 2
    assert "a scikit-learn MLP cannot embed codes of categories, as this model does in columns 1;" in refused.err
    assert gpumlp("export", tmp_path / "m.npz", "--to", "safetensors").status == 0
    again = load_safetensors(tmp_path / "m.safetensors")
    assert again.columns == model.columns
    assert np.array_equal(again.network.embeddings[0], model.network.embeddings[0])


def test_a_file_of_torch_is_loaded_by_the_line_that_is_printed(gpumlp, sales, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, for which the file would be")
    train(gpumlp, sales[0], "--embed", "shop=3", "--dtype", "float64", "--save", tmp_path / "m.npz", epochs=2)
    ended = gpumlp("export", tmp_path / "m.npz", "--to", "torch")
    assert ended.status == 0, ended.err
    known = {"torch": torch, "nn": torch.nn}
    exec(ended.out, known)
    model = package.load(tmp_path / "m.npz")
    X = model.features(read_table(sales[0], categorical=()))
    X[::5, 1] = -1
    with torch.no_grad():
        found = known["net"](torch.from_numpy(X)).numpy()[:, 0]
    assert np.abs(found - model.predict(X)).max() <= 1e-10


def test_a_plan_counts_tables_and_the_numbers_that_the_first_layer_reads(gpumlp):
    options = ("plan", "--sizes", "5,4,2", "--backend", "numpy", "--json", "--batch-size", 8)
    plain, embedded = (json.loads(gpumlp(*options, *more).out) for more in ((), ("--embed", "100x3,7x2")))
    n_more = 4 * (2 + 1) + 100 * 3 + 7 * 2
    assert embedded["parts"]["gradients"] - plain["parts"]["gradients"] >= 4 * n_more


def test_what_is_asked_for_is_read():
    assert not read_embed(None)
    assert read_embed("all") == Embed(True)
    assert read_embed(" city = 8, shop ") == Embed(False, {"city": 8, "shop": None})
    assert read_embed("all,all=3,a=b=2") == Embed(True, {"all": 3, "a=b": 2})


def test_the_usual_number_of_units_grows_slower_than_the_categories():
    assert [usual_units(n) for n in (1, 2, 3, 10, 1000, 10**6)] == [2, 2, 3, 6, 77, 600]


def test_a_sweep_embeds_in_all_configurations_and_saves_the_best(gpumlp, sales, tmp_path):
    (tmp_path / "space.toml").write_text("hidden = [[6], [8]]\nlearning_rate = [0.05]\nepochs = 4\n")
    command = ("sweep", tmp_path / "space.toml", sales[0], "--out", tmp_path / "found", "--folds", 2, "--quiet")
    ended = gpumlp(*command, "--backend", "numpy", "--scale", "standardise", "--embed", "shop=3")
    assert ended.status == 0, ended.err
    best = package.load(tmp_path / "found" / "best.npz")
    assert best.network.architecture.embeddings == (package.Embedding(1, 12, 3),)
    assert best.columns.coded == {"shop"}
    rows = (tmp_path / "found" / "results.jsonl").read_text()
    again = gpumlp(*command, "--backend", "numpy", "--scale", "standardise", "--embed", "shop=3")
    assert again.status == 0
    assert (tmp_path / "found" / "results.jsonl").read_text() == rows
    gpumlp(*command, "--backend", "numpy", "--scale", "standardise", "--embed", "shop=4")
    assert package.load(tmp_path / "found" / "best.npz").network.architecture.embeddings[0].n_units == 4
