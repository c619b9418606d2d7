"""Files that are wrong, each made in the folder of the test."""

import gzip
import io
import json
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.convert import save_safetensors
from gpumlp.data import Encoding, QuantileNormaliser, Standardiser, open_blocks, write_folder
from gpumlp.saved_model import HEADER, SavedModel

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
CSV = "a,b,y\n1,2,0\n3,4,1\n5,6,0\n"
HUGE = 4_000_000_000_000


def put(name, content):
    """Write a file, packed where its name says so."""
    content = content.encode() if isinstance(content, str) else content
    Path(name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)


def npy_bytes(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def claiming(descr="'<f4'", shape="(4, 3)", content=b"", version=b"\x01\x00", order="False"):
    """An array whose header claims what it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + content


def put_zip(name, *entries, pack=zipfile.ZIP_STORED):
    """Write an archive of (name, content)."""
    with zipfile.ZipFile(name, "w", pack) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)


def put_npz(name, **arrays):
    np.savez(name, **arrays)


def idx(values, magic=8):
    return struct.pack(f">4B{values.ndim}I", 0, 0, magic, values.ndim, *values.shape) + values.tobytes()


def damage(name, place=None, cut=None):
    """Change a byte of a file, or cut its end off."""
    content = bytearray(Path(name).read_bytes())
    if place is not None:
        content[place] ^= 0xFF
    Path(name).write_bytes(content[:cut])


# ---- with other libraries ----


def put_parquet(name="t.parquet", **columns):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), name)


def put_arrow(name="t.arrow", **columns):
    arrow, ipc = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.ipc")
    table = arrow.table(columns)
    with ipc.new_file(name, table.schema) as file:
        file.write_table(table)


def put_parquet_twice(name="t.parquet"):
    """Write two columns of one name."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_arrays([[1.0], [2.0], [3]], names=["a", "a", "y"]), name)


def put_hdf5(name="t.h5", make=None, **datasets):
    h5py = pytest.importorskip("h5py")
    with h5py.File(name, "w") as file:
        for key, values in datasets.items():
            file[key] = values
        if make is not None:
            make(h5py, file)


# ---- data folders ----


def put_folder(name="set.d", change=None, content=CSV, **options):
    """Write a data folder, and change its manifest."""
    put("source.csv", content)
    write_folder(open_blocks("source.csv", **options), name)
    os.remove("source.csv")
    if change is not None:
        place = Path(name, "manifest.json")
        manifest = json.loads(place.read_text())
        change(manifest)
        place.write_text(json.dumps(manifest))


def put_folder_of_text(change=None, **options):
    put_folder(change=change, content="a,b,y\n1,u,0\n3,v,1\n5,u,0\n", categorical=(), **options)


# ---- models ----


def model(**options):
    net = gpumlp.Network((3, 5, 4), seed=2, **options)
    classes = np.array(["ash", "birch", "elm", "oak"])
    return SavedModel(net, "classification", classes, ("a", "b", "c"), "tree", Standardiser.fit(X))


QUANTILES = QuantileNormaliser.fit(X).quantiles


def by_quantiles():
    return replace(model(), scaler=QuantileNormaliser.fit(X))


NAMED_ROWS = "id,a,y\nu,1,0\nv,2,1\nw,3,0\n"


def by_columns():
    columns = Encoding(("a", "b"), (None, ("u", "v")))
    return replace(model(), columns=columns, feature_names=columns.feature_names, target_name=None)


def by_codes():
    columns = Encoding(("a", "b", "c"), (None, ("u", "v", "w"), None), frozenset("b"))
    of = model(embeddings=[gpumlp.Embedding(1, 3, 2)])
    return replace(of, columns=columns, feature_names=columns.feature_names, target_name=None, scaler=None)


def put_model(header=None, arrays=None, extra=(), name="m.npz", of=None):
    """Write a model, and change its header, its arrays or its entries."""
    (of or model()).save(name)
    if header is None and arrays is None and not extra:
        return
    with zipfile.ZipFile(name) as archive:
        head = json.loads(archive.read(HEADER))
        found = {n: archive.read(n) for n in archive.namelist() if n != HEADER}
    if header is not None:
        header(head)
    if arrays is not None:
        arrays(found)
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr(HEADER, json.dumps(head))
        for entry, content in [*found.items(), *extra]:
            archive.writestr(entry, content)


def put_safetensors(change=None, tail=b"", length=None, name="m.safetensors"):
    """Write a model, and change the text of its head, what follows or the length of the head."""
    save_safetensors(model(), name)
    content = Path(name).read_bytes()
    n = int.from_bytes(content[:8], "little")
    head, rest = content[8 : 8 + n], content[8 + n :]
    if change is not None:
        head = change(head)
    Path(name).write_bytes((len(head) if length is None else length).to_bytes(8, "little") + head + rest + tail)
