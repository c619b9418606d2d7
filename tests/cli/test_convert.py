import json
import os
import signal

import numpy as np
import pytest

from gpumlp import load
from gpumlp.data import read_table


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


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(number, gpumlp, flowers, tmp_path, monkeypatch):
    def add(self, block):
        signal.raise_signal(number)

    monkeypatch.setattr("gpumlp.data.folder.NpyWriter.add", add)
    before = sorted(tmp_path.iterdir())
    assert gpumlp("convert", flowers[0], tmp_path / "out.d").status == 130
    assert sorted(tmp_path.iterdir()) == before
