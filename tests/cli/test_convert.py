import json
import os
import signal

import numpy as np
import pytest

from gpumlp import load
from gpumlp.data import open_blocks, read_table
from gpumlp.data.folder import read_manifest


@pytest.fixture
def folder(gpumlp, flowers, tmp_path):
    """The flowers as a data folder."""
    ended = gpumlp("convert", flowers[0], tmp_path / "flowers.d")
    assert ended.status == 0, ended.err
    assert ended.out == f"{tmp_path / 'flowers.d'}: 60 rows, 3 features (<f8), target 'kind' of 2 classes\n"
    assert ended.err == ""
    return tmp_path / "flowers.d"


def test_a_data_folder_trains_and_predicts_as_the_file_that_it_was_made_of(gpumlp, flowers, folder, tmp_path):
    options = ("--epochs", 3, "--quiet", "--json", "--backend", "numpy")
    results = [
        gpumlp("train", data, *options, "--save", tmp_path / f"{i}.npz") for i, data in enumerate((flowers[0], folder))
    ]
    first, second = (json.loads(ended.out) for ended in results)
    for changing in ("seconds", "samples_per_second"):
        first.pop(changing), second.pop(changing)
    assert first == second
    one, other = (load(tmp_path / f"{i}.npz") for i in range(2))
    assert np.array_equal(one.predict(flowers[1]), other.predict(flowers[1]))
    assert other.feature_names == ("tall", "wide", "red")
    told = [gpumlp("predict", tmp_path / "0.npz", data) for data in (flowers[0], folder)]
    assert told[0].out == told[1].out
    assert "accuracy" in told[1].err


def test_a_folder_is_replaced_when_that_is_asked_for(gpumlp, flowers, folder, tmp_path):
    assert gpumlp("convert", flowers[0], folder, "--target", "tall", "--no-header").status == 2
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    assert gpumlp("convert", tmp_path / "t.csv", folder, "--replace").status == 0
    assert read_table(folder).X.tolist() == [[1], [3]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flowers.csv", "flowers.d", "t.csv"]


def test_missing_values_are_warned_of_and_verifying_tells_that_all_is_well(gpumlp, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n,4\n")
    ended = gpumlp("convert", tmp_path / "t.csv", tmp_path / "t.d", "--no-target")
    assert "1 values are missing in 1 columns" in ended.err
    assert ended.out.endswith("2 rows, 2 features (<f8), no target\n")
    assert gpumlp("convert", tmp_path / "t.d", "--verify").out.endswith("; the checksums are right\n")


GOODS = "size,colour,zip,price\n1.5,red,101,3\n,,7,4\n2.5,blue,101,5\n"


def test_columns_of_text_are_written_as_codes_and_come_back_as_they_were(gpumlp, tmp_path):
    (tmp_path / "t.csv").write_text(GOODS.replace("\n,", "\n2,"))
    ended = gpumlp("convert", tmp_path / "t.csv", tmp_path / "t.d", "--categorical", "zip")
    assert ended.out.endswith("3 rows, 3 features (<f8), 2 of these categorical, target 'price' of 3 classes\n"), ended
    table, expected = read_table(tmp_path / "t.d", categorical=()), read_table(tmp_path / "t.csv", categorical=["zip"])
    assert table.texts == expected.texts == (None, ("red", "", "blue"), ("101", "7"))
    assert (table.feature_names, table.target_name) == (expected.feature_names, "price")
    assert np.array_equal(table.X, expected.X)
    assert gpumlp("convert", tmp_path / "t.d", "--verify").status == 0
    again = gpumlp("convert", tmp_path / "t.d", tmp_path / "u.d")
    assert again.status == 0, again.err
    assert read_table(tmp_path / "u.d", categorical=["colour"]).texts == expected.texts
    assert open_blocks(tmp_path / "u.d", categorical=()).read(1, 3).texts == expected.texts


def test_a_missing_value_is_a_category_in_text_and_is_counted_in_numbers(gpumlp, tmp_path):
    (tmp_path / "t.csv").write_text(GOODS)
    ended = gpumlp("convert", tmp_path / "t.csv", tmp_path / "t.d")
    assert "1 values are missing in 1 columns" in ended.err
    assert read_manifest(tmp_path / "t.d").texts == (None, ("red", "", "blue"), None)


def test_a_folder_without_text_is_of_the_version_that_earlier_readers_know(gpumlp, tmp_path, folder):
    versions = [json.loads((folder / "manifest.json").read_text())["version"]]
    (tmp_path / "t.csv").write_text(GOODS)
    assert gpumlp("convert", tmp_path / "t.csv", tmp_path / "t.d").status == 0
    versions.append(json.loads((tmp_path / "t.d" / "manifest.json").read_text())["version"])
    assert versions == [1, 2]


def test_a_table_of_arrow_is_converted_as_the_text_table(gpumlp, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"size": [1.5, 2, 2.5], "colour": ["red", None, "blue"], "zip": [101, 7, 101], "price": [3, 4, 5]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text(GOODS.replace("\n,", "\n2,"))
    tables = []
    for kind in ("parquet", "csv"):
        place = tmp_path / f"{kind}.d"
        assert gpumlp("convert", tmp_path / f"t.{kind}", place, "--categorical", "zip").status == 0
        tables.append(read_table(place, categorical=()))
    assert tables[0].texts == tables[1].texts
    assert np.array_equal(tables[0].X, tables[1].X)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(number, gpumlp, flowers, tmp_path, monkeypatch):
    def add(self, block):
        signal.raise_signal(number)

    monkeypatch.setattr("gpumlp.data.folder.NpyWriter.add", add)
    before = sorted(tmp_path.iterdir())
    assert gpumlp("convert", flowers[0], tmp_path / "out.d").status == 130
    assert sorted(tmp_path.iterdir()) == before
