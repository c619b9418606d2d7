"""No file makes its reader take more memory than is allowed, whatever it claims or unpacks to."""

import gzip
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 - which takes memory of its own

from gpumlp.data import limits, open_blocks, read_table, write_folder
from gpumlp.data.table import Table
from gpumlp.errors import DataError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUMLP_MAX_DATA", "16MiB")


def convert(name, **options):
    return write_folder(open_blocks(name, **options), "out.d")


def text(name, content):
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def hdf5(make, **arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File("t.h5", "w") as file:
        make(file)
        for name, values in arrays.items():
            file[name] = values


def arrow_table(**columns):
    """Return a table; a column of (texts, places) is one of text that stands in a dictionary."""
    pyarrow = pytest.importorskip("pyarrow")
    texts = {
        name: pyarrow.DictionaryArray.from_arrays(values[1], list(values[0]))
        for name, values in columns.items()
        if isinstance(values, tuple)
    }
    return pyarrow.table(columns | texts)


def parquet(name, **columns):
    table = arrow_table(**columns)
    pytest.importorskip("pyarrow.parquet").write_table(table, name)


def arrow(name, compression, **columns):
    table, ipc = arrow_table(**columns), pytest.importorskip("pyarrow.ipc")
    with ipc.new_file(name, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as file:
        file.write_table(table)


ONE_LONG_LABEL = b"1,a\n" * 5000 + b"2," + b"b" * 100_000 + b"\n"
MANY_OF_ONE = {"x": np.zeros(5000), "y": (["b" * 100_000], np.zeros(5000, np.int32))}
ZEROS = {"x": np.zeros(4 * MIB), "y": np.zeros(4 * MIB)}

BOMBS = {
    "one long label": (
        lambda: text("t.csv", ONE_LONG_LABEL), read_table, "t.csv", "5,001 labels as long as the longest, of 100,000"),
    "one long label, in blocks": (
        lambda: text("t.csv", ONE_LONG_LABEL), convert, "t.csv", "5,001 labels as long as the longest, of 100,000"),
    "a row that goes on": (
        lambda: text("t.csv", b'1,2\n3' + b',"\n"' * 500_000), read_table, "t.csv", "a row goes on for 1048576"),
    "cells without end": (
        lambda: text("t.csv", b"1," * 200_000 + b"1\n"), read_table, "t.csv", "line 1 has 262144 characters"),
    "another text in each row": (
        lambda: text("t.csv", b"a,y\n" + b"".join(b"t%d,1\n" % i for i in range(150_000))),
        lambda name: read_table(name, categorical=()), "t.csv", "different texts"),
    "long lines of sparse rows": (
        lambda: text("t.svm.gz", b"1 " + b" " * 300_000 + b"1:1\n"), read_table, "t.svm.gz", "a line of 262144 bytes"),
    "a column far away": (
        lambda: text("t.svm", b"1 1500000:1\n"), convert, "t.svm", "what 1,500,000 columns are like"),
    "whole numbers that become float64": (
        lambda: np.save("t.npy", np.zeros((MIB, 3), np.int8)), lambda name: read_table(name, with_target=False),
        "t.npy", "24 MiB of memory are needed for X as float64, which was int8"),
    "two arrays that fit alone": (
        lambda: np.savez_compressed("t.npz", X=np.zeros((MIB, 1)), y=np.zeros((MIB, 2))), read_table, "t.npz",
        "24 MiB of memory are needed for array X and y"),
    "names for nothing": (
        lambda: np.savez_compressed("t.npz", X=np.zeros((4, 3)), y=np.zeros(4), feature_names=np.zeros(MIB, "U1")),
        read_table, "t.npz", "1048576 feature names came for 3 features"),
    "one row of an archive": (
        lambda: np.savez_compressed("t.npz", X=np.zeros((1, 4 * MIB)), y=np.zeros(1)), convert, "t.npz",
        "has rows of 32 MiB"),
    "one target of an archive": (
        lambda: np.savez_compressed("t.npz", X=np.zeros((1, 4)), y=np.zeros((1, 4 * MIB))), convert, "t.npz",
        "has rows of 32 MiB"),
    "one row of nothing": (
        lambda: hdf5(lambda f: f.create_dataset("X", (1, 10**12), "f8", chunks=(1, 1000)), y=[1]), read_table, "t.h5",
        "has rows of 7.276 TiB"),
    "one target of nothing": (
        lambda: hdf5(lambda f: f.create_dataset("y", (1, 10**12), "f8", chunks=(1, 1000)), X=[[1]]), convert, "t.h5",
        "has rows of 7.276 TiB"),
    "names of nothing": (
        lambda: hdf5(lambda f: f.create_dataset("feature_names", (10**12,), "S1", chunks=(99,)), X=[[1]], y=[1]),
        convert, "t.h5", "1000000000000 feature names came for 1 features"),
    "a text that a Parquet file repeats": (
        lambda: parquet("t.parquet", **MANY_OF_ONE), read_table, "t.parquet", "5,000 labels as long as the longest"),
    "a text that an Arrow file repeats": (
        lambda: arrow("t.arrow", None, **MANY_OF_ONE), convert, "t.arrow", "5,000 labels as long as the"),
    "an Arrow file of zeros, lz4": (
        lambda: arrow("t.arrow", "lz4", **ZEROS), convert, "t.arrow", "has a batch of rows of 6"),
    "an Arrow file of zeros, zstd": (
        lambda: arrow("t.feather", "zstd", **ZEROS), convert, "t.feather", "has a batch of rows of 6"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_no_more_memory_than_is_allowed(bomb):
    make, read, name, says = BOMBS[bomb]
    make()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"^{name}: .*{says}"):
            read(name)
        assert tracemalloc.get_traced_memory()[1] < (16 + 8) * MIB
    finally:
        tracemalloc.stop()


def test_a_text_that_a_file_repeats_is_in_memory_once(monkeypatch):
    texts = ["x" * 10_000, "y" * 10_000], np.arange(8000, dtype=np.int32) % 2
    parquet("t.parquet", kind=texts, n=np.arange(8000) % 2)
    arrow("t.arrow", "lz4", kind=texts, n=np.arange(8000) % 2)
    for name in ("t.parquet", "t.arrow"):
        table = read_table(name, categorical=())
        assert [len(text) for text in table.texts[0]] == [10_000, 10_000]
        assert table.X[:, 0].tolist() == [0, 1] * 4000


def test_rows_put_together_are_in_memory_once(monkeypatch):
    monkeypatch.setenv("GPUMLP_MAX_DATA", "1GiB")
    rng = np.random.default_rng(0)
    np.savetxt("t.csv", rng.integers(0, 9, (200_000, 8)), "%d", ",")
    np.savez("t.npz", X=np.zeros((800_000, 4)), y=np.zeros(800_000, int))
    wanted = {"t.csv": 200_000 * 8 * 8, "t.npz": 800_000 * 5 * 8}
    for name, read in (("t.csv", read_table), ("t.npz", lambda name: open_blocks(name).gather())):
        tracemalloc.start()
        table = read(name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(table.X) in (200_000, 800_000)
        assert wanted[name] < peak < 1.5 * wanted[name] + 20 * MIB


def test_a_table_as_large_as_allowed_is_read():
    np.savez("t.npz", X=np.zeros((MIB, 1)), y=np.zeros(MIB))
    assert read_table("t.npz").X.nbytes == open_blocks("t.npz").gather().X.nbytes == 8 * MIB
    assert Table(np.zeros((MIB, 2), np.int8)).X.dtype == np.float64
    with pytest.raises(DataError, match="24 MiB of memory are needed for X as float64, which was bool"):
        Table(np.zeros((MIB, 3), bool))


def test_a_data_folder_that_could_not_be_read_is_not_written(monkeypatch):
    monkeypatch.setattr("gpumlp.data.folder.MAX_MANIFEST", 5000)
    write_folder(open_blocks([(np.zeros((3, 2)), np.zeros(3))]), "narrow.d")
    assert read_table("narrow.d").X.shape == (3, 2)
    with pytest.raises(DataError, match=r"wide.d: manifest.json is larger than .* with fewer columns"):
        write_folder(open_blocks([(np.zeros((3, 200)), np.zeros(3))]), "wide.d")
    assert sorted(os.listdir()) == ["narrow.d"]


# ---- what is free ----


def a_group(root, path, **files):
    folder = root.joinpath(*path.split("/"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups that a test makes up, of both versions."""
    first, second = limits.GROUPS
    made = first._replace(root=tmp_path / "v2"), second._replace(root=tmp_path / "v1")
    monkeypatch.setattr(limits, "GROUPS", made)
    return tmp_path / "v2", tmp_path / "v1"


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")
def test_a_container_leaves_what_is_not_taken_and_what_the_cache_of_files_gives_back(groups):
    v2, v1 = groups
    assert limits._container() is None
    a_group(v2, "", memory_max="max", memory_current=5, memory_stat="anon 5")
    assert limits._container() is None
    a_group(v2, "", memory_max=1000, memory_current=900, memory_stat="anon 100\ninactive_file 700\nslab 3")
    assert limits._container() == 800
    stat = "cache 9\ninactive_file 1\ntotal_inactive_file 50"
    a_group(v1, "", memory_limit_in_bytes=400, memory_usage_in_bytes=150, memory_stat=stat)
    assert limits._container() == 300
    a_group(v1, "", memory_limit_in_bytes=100, memory_usage_in_bytes=150, memory_stat="cache 9")
    assert limits._container() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")
def test_a_group_counts_that_is_this_processs_own_or_around_it(groups, monkeypatch):
    v2, v1 = groups
    told = "12:cpu,memory:/of/mine\n1:name=systemd:/else\n0::/slice/unit:1\n"
    real = Path.read_text

    def read_text(path, *args, **options):
        return told if str(path) == "/proc/self/cgroup" else real(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    a_group(v2, "slice/unit:1", memory_max="max", memory_current=0, memory_stat="")
    a_group(v2, "slice", memory_max=500, memory_current=100, memory_stat="")
    a_group(v1, "of/others", memory_limit_in_bytes=1, memory_usage_in_bytes=1, memory_stat="")
    assert limits._container() == 400
    a_group(v1, "of/mine", memory_limit_in_bytes=70, memory_usage_in_bytes=1, memory_stat="")
    assert limits._container() == 69


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has taken")
def test_what_a_process_has_taken_already_is_not_free(monkeypatch):
    import resource

    most = 1 << 50
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (most, most))
    left = limits._process()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    assert left <= most - size // 2
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert limits._process() is None
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, 1000))
    assert limits._process() == 0
