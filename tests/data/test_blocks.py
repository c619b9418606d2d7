"""Data sets read by ranges of rows, and converted to data folders."""

import gzip
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpumlp.data import open_blocks, read_table, verify_folder, write_folder
from gpumlp.data.statistics import ColumnStatistics

N = 23
X = np.random.default_rng(0).normal(size=(N, 3)).round(3)
Y = np.arange(N) % 3
LABELS = np.array(["a", "bee", "c"])[Y]
NAMES = ("p", "q", "r")


def write_csv(folder, y=Y, name="t.csv"):
    lines = (",".join([*map(repr, row.tolist()), str(label)]) + "\n" for row, label in zip(X, y, strict=True))
    text = "p,q,r,y\n" + "".join(lines)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


def write_npz(folder, y=Y, order="C"):
    np.savez_compressed(folder / "t.npz", X=np.array(X, order=order), y=y, feature_names=np.array(NAMES))
    return folder / "t.npz"


def write_parquet(folder, y=Y):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table(dict(zip(NAMES, X.T, strict=True)) | {"y": y})
    parquet.write_table(table, folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


def write_feather(folder, y=Y):
    arrow, feather = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.feather")
    feather.write_feather(
        arrow.table(dict(zip(NAMES, X.T, strict=True)) | {"y": y}), str(folder / "t.feather"), chunksize=7
    )
    return folder / "t.feather"


def write_hdf5(folder, y=Y):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "t.h5", "w") as file:
        file["X"], file["feature_names"] = X, list(NAMES)
        file["y"] = y.astype(object) if y.dtype.kind == "U" else y
    return folder / "t.h5"


WRITERS = {
    "csv": write_csv,
    "csv, text labels": lambda folder: write_csv(folder, LABELS),
    "csv.gz": lambda folder: write_csv(folder, name="t.csv.gz"),
    "csv, a late text label": lambda folder: write_csv(folder, np.where(np.arange(N) == N - 1, "late", Y.astype(str))),
    "csv, a late fraction": lambda folder: write_csv(folder, np.where(np.arange(N) == N - 1, 0.5, Y)),
    "npz": write_npz,
    "npz, by columns": lambda folder: write_npz(folder, order="F"),
    "npz, text labels": lambda folder: write_npz(folder, LABELS),
    "parquet": write_parquet,
    "parquet, text labels": lambda folder: write_parquet(folder, LABELS),
    "feather": write_feather,
    "feather, text labels": lambda folder: write_feather(folder, LABELS),
    "hdf5": write_hdf5,
    "hdf5, text labels": lambda folder: write_hdf5(folder, LABELS),
}


@pytest.fixture(params=WRITERS)
def path(request, tmp_path, monkeypatch):
    """One table in each kind of file, read in blocks of a few rows."""
    monkeypatch.setattr("gpumlp.data.table.BLOCK_VALUES", 20)
    return WRITERS[request.param](tmp_path)


def same(found, expected):
    assert found.X.dtype == expected.X.dtype
    assert np.array_equal(found.X, expected.X)
    assert found.y.tolist() == expected.y.tolist()
    assert (found.feature_names, found.target_name) == (expected.feature_names, expected.target_name)


def test_any_range_of_rows_is_that_of_the_whole_table(path):
    whole, blocks = read_table(path), open_blocks(path)
    assert np.array_equal(whole.X, X)
    assert (blocks.n_rows, blocks.n_features, blocks.x_dtype) == (N, 3, whole.X.dtype)
    assert sum(len(block.X) for block in blocks) == N
    assert max(len(block.X) for block in blocks) < N or path.suffix == ".npz"
    for start, stop in ((0, N), (0, 1), (5, 17), (N - 1, N)):
        found = blocks.read(start, stop)
        assert np.array_equal(found.X, whole.X[start:stop])
        assert found.y.tolist() == whole.y[start:stop].tolist()


def test_a_data_folder_holds_the_very_table(path, tmp_path):
    whole = read_table(path)
    manifest = write_folder(open_blocks(path), tmp_path / "set.d")
    found = read_table(tmp_path / "set.d")
    same(found, whole)
    assert sorted(p.name for p in (tmp_path / "set.d").iterdir()) == ["X.npy", "Y.npy", "manifest.json"]
    assert verify_folder(tmp_path / "set.d") == manifest
    assert manifest.rows == N
    assert manifest.classes is None or manifest.classes == sorted(set(whole.y.tolist()))
    assert np.allclose(manifest.statistics["X"]["mean"], X.mean(axis=0))
    assert np.allclose(manifest.statistics["X"]["variance"], X.var(axis=0))
    assert manifest.statistics["X"]["min"] == X.min(axis=0).tolist()
    same(open_blocks(tmp_path / "set.d").gather(), whole)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_images_and_sparse_rows_are_read_in_blocks_too(tmp_path, monkeypatch, packed):
    monkeypatch.setattr("gpumlp.data.table.BLOCK_VALUES", 20)
    images = np.arange(N * 6, dtype=np.uint8).reshape(N, 2, 3)
    for name, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", Y.astype(np.uint8))):
        content = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
        (tmp_path / f"{name}{packed}").write_bytes(gzip.compress(content) if packed else content)
    text = "".join(f"{y} 1:{row[0]!r} 3:{row[2]!r}  # a row\n" for y, row in zip(Y, X.tolist(), strict=True)).encode()
    (tmp_path / f"t.svm{packed}").write_bytes(gzip.compress(text) if packed else text)
    sparse = X * [1, 0, 1]
    for path, rows in ((f"images-idx3-ubyte{packed}", images.reshape(N, 6)), (f"t.svm{packed}", sparse)):
        blocks = open_blocks(tmp_path / path)
        assert np.array_equal(blocks.read(4, 19).X, rows[4:19])
        assert np.array_equal(blocks.gather().y, Y)
        same(read_table(tmp_path / path), blocks.gather())


def test_indices_of_sparse_rows_begin_at_0_where_one_does(tmp_path):
    (tmp_path / "t.svm").write_text("1 0:5\n2 2:7\n")
    assert read_table(tmp_path / "t.svm").X.tolist() == [[5, 0, 0], [0, 0, 7]]


def test_a_generator_of_blocks_becomes_a_folder_and_its_dtypes_grow_with_what_comes(tmp_path):
    labels = [np.array(["a"]), np.array(["longer"]), np.array(["b"])]
    write_folder(open_blocks((X[i : i + 1], y) for i, y in enumerate(labels)), tmp_path / "text.d")
    assert read_table(tmp_path / "text.d").y.tolist() == ["a", "longer", "b"]
    blocks = [(X[:2].astype(np.float32), [1, 2]), (X[2:4], [0.5, 1])]
    write_folder(open_blocks(blocks), tmp_path / "numbers.d")
    found = read_table(tmp_path / "numbers.d")
    assert found.X.dtype == np.float64
    assert found.y.tolist() == [1, 2, 0.5, 1]
    assert np.array_equal(found.X, np.concatenate([X[:2].astype(np.float32), X[2:4]]))


def test_values_may_be_missing_in_a_folder_and_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,,0\n3,4,1\nnan,4,1\n")
    manifest = write_folder(open_blocks(tmp_path / "t.csv", missing=True), tmp_path / "set.d")
    of_x = manifest.statistics["X"]
    assert (of_x["count"], of_x["missing"], of_x["mean"], of_x["max"]) == ([2, 2], [1, 1], [2, 4], [3, 4])


values_or_nan = st.floats(-1e6, 1e6) | st.just(np.nan)
tables = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=values_or_nan)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.floats(-1e6, 1e6) | st.just(np.nan)
    ),
    st.integers(1, 5),
)
def test_statistics_do_not_depend_on_how_rows_fall_into_blocks(values, step):
    found = ColumnStatistics(values.shape[1])
    for start in range(0, len(values), step):
        found.add(values[start : start + step])
    for j, column in enumerate(values.T):
        there = column[~np.isnan(column)]
        assert (found.count[j], found.missing[j]) == (len(there), len(column) - len(there))
        if len(there):
            assert np.isclose(found.mean[j], there.mean(), atol=1e-6)
            assert np.isclose(found.variance[j], there.var(), rtol=1e-6, atol=1e-3)
            assert (found.least[j], found.largest[j]) == (there.min(), there.max())
        else:
            assert np.isnan([found.mean[j], found.variance[j], found.least[j], found.largest[j]]).all()


def test_a_large_npy_file_is_mapped_and_values_of_another_byte_order_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.data.numpy_files.MAPPED_FROM", 100)
    np.save(tmp_path / "x.npy", X)
    found = read_table(tmp_path / "x.npy", with_target=False)
    assert isinstance(found.X.base, np.memmap)
    assert not found.X.flags.writeable
    np.save(tmp_path / "big.npy", X.astype(">f8"))
    assert np.array_equal(read_table(tmp_path / "big.npy", with_target=False).X, X)
    np.save(tmp_path / "columns.npy", np.asfortranarray(X))
    assert np.array_equal(open_blocks(tmp_path / "columns.npy", with_target=False).read(3, 9).X, X[3:9])


SLOW = """
import sys, time, numpy as np
from gpumlp.data import open_blocks, write_folder
def blocks():
    for i in range(10_000):
        yield np.full((50, 3), float(i)), np.arange(50)
        print("block", flush=True)
        time.sleep(0.01)
write_folder(open_blocks(blocks()), sys.argv[1], replace=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("there", [False, True])
def test_a_conversion_that_is_killed_leaves_no_folder_that_looks_whole_and_the_old_one_as_it_was(tmp_path, there):
    if there:
        write_folder(open_blocks([(X, Y)]), tmp_path / "set.d")
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "set.d")], stdout=subprocess.PIPE)
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "set.d").exists() == there
    assert not list(tmp_path.glob(".set.d.*/manifest.json"))
    if there:
        assert np.array_equal(read_table(tmp_path / "set.d").X, X)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_signal_while_a_folder_gives_way_leaves_the_old_one_or_the_new_one(before, tmp_path, monkeypatch):
    write_folder(open_blocks([(X, Y)]), tmp_path / "set.d")
    renamed, rename = [], os.rename

    def interrupted(*names):
        if len(renamed) == before:
            monkeypatch.setattr(os, "rename", rename)
            raise KeyboardInterrupt
        renamed.append(names)
        rename(*names)
        if len(renamed) == before == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(open_blocks([(X + 1, Y)]), tmp_path / "set.d", replace=True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "set.d"]
    assert np.array_equal(read_table(tmp_path / "set.d").X, X + (before == 2))


def test_memory_stays_bounded_while_a_table_is_converted(tmp_path):
    """A table of 200 MB passes through a process that may take 80 MB more than it has when the reading begins."""
    resource = pytest.importorskip("resource")
    code = """
import resource, sys, numpy as np
from gpumlp.data import open_blocks, write_folder
blocks = open_blocks((np.ones((1000, 100)) * i, np.arange(1000)) for i in range(250))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_folder(blocks, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert resource
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path / "set.d")], capture_output=True, check=True)
    if sys.platform == "linux":
        assert int(told.stdout) < 80 * 1024
    assert read_table(tmp_path / "set.d").X.shape == (250_000, 100)
