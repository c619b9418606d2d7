"""A file that cannot be read is closed when that is told."""

import gc
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from gpumlp.data import open_blocks, read_table
from gpumlp.errors import DataError

DESCRIPTORS = Path("/proc/self/fd")


def damaged_npz():
    np.savez_compressed("t.npz", X=np.arange(3000.0).reshape(1000, 3), y=np.arange(1000))
    content = bytearray(Path("t.npz").read_bytes())
    content[200] ^= 0xFF
    Path("t.npz").write_bytes(content)


def text(name, content):
    return lambda: Path(name).write_bytes(content)


FILES = {
    "t.csv": text("t.csv", b"a,b\n1,2\n3\n"),
    "u.csv": text("u.csv", b"1,2\n\xff,2\n"),
    "t.csv.gz": text("t.csv.gz", gzip.compress(b"1,2\n" * 9999)[:-9]),
    "t.svmlight": text("t.svmlight", b"1 1:2\n1 1:x\n"),
    "t.svmlight.gz": text("t.svmlight.gz", gzip.compress(b"1 1:2\n" * 9999)[:-9]),
    "t.npz": damaged_npz,
    "t.npy": text("t.npy", b"\x93NUMPY\x01\x00"),
    "t-images-idx3-ubyte": text("t-images-idx3-ubyte", b"\0\0\x08\3" + bytes(9)),
    "t.h5": text("t.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)),
    "t.parquet": text("t.parquet", b"PAR1" + bytes(99) + b"PAR1"),
    "t.arrow": text("t.arrow", b"ARROW1" + bytes(99) + b"ARROW1"),
}


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="this system does not list a process's open files")
@pytest.mark.parametrize("name", FILES)
def test_no_file_stays_open_when_its_error_is_told(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FILES[name]()
    options = {"with_target": False}
    for read in (read_table, lambda name, **options: open_blocks(name, **options).gather()):
        with pytest.raises(DataError) as told:  # which keeps the frames alive
            read(name, **options)
        opened = [os.readlink(entry) for entry in DESCRIPTORS.iterdir() if entry.is_symlink()]
        assert str(tmp_path / name) not in opened, told.value
        del told
        gc.collect()
