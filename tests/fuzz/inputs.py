"""Whole files of each kind, ways to damage them, and the law: a table, a model or a named error."""

import gzip
import io
import struct
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

import gpumlp
from gpumlp.convert import load_safetensors, save_safetensors
from gpumlp.data import Encoding, QuantileNormaliser, Standardiser, Table, open_blocks, read_table
from gpumlp.errors import GpumlpError
from gpumlp.saved_model import SavedModel

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
CSV = b'a,b,"c",kind\n1,2.5,-3e2,x\n3,4,5,y\n"6",7,8,"z"\n'
IDX = struct.pack(">4B3I", 0, 0, 8, 3, 4, 2, 3) + bytes(range(24))


def _saved(save):
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def _written(name, save):
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, name))
        return Path(folder, name).read_bytes()


def _model():
    net = gpumlp.Network((3, 5, 4), seed=2, normalisation="batch", backend="numpy")
    classes = np.array(["ash", "birch", "elm", "oak"])
    return SavedModel(net, "classification", classes, ("a", "b", "c"), "tree", Standardiser.fit(X))


def _model_of_columns():
    columns = Encoding(("a", "b"), (None, ("", "u")))
    scaler = QuantileNormaliser.fit(X, columns.is_category)
    return replace(_model(), scaler=scaler, columns=columns, feature_names=columns.feature_names)


def _model_of_codes():
    columns = Encoding(("a", "b", "c"), (None, tuple("uvwxyzrstopq"), None), frozenset("b"))
    net = gpumlp.Network((3, 5, 4), seed=2, backend="numpy", embeddings=[gpumlp.Embedding(1, 12, 2)])
    scaler = Standardiser.fit(X, columns.is_category)
    return replace(_model(), network=net, scaler=scaler, columns=columns, feature_names=columns.feature_names)


def _columnar():
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError:
        return {}
    table = pyarrow.table({"a": [1.0, 2.0], "b": [3, 4], "kind": ["x", "y"]})
    return {
        "t.parquet": _written("t.parquet", lambda path: parquet.write_table(table, path)),
        "t.feather": _written("t.feather", lambda path: feather.write_feather(table, str(path))),
    }


def _hdf5():
    try:
        import h5py
    except ImportError:
        return {}

    def save(path):
        with h5py.File(path, "w") as file:
            file["X"], file["y"] = X, Y
            file.create_dataset("Z", data=np.zeros((50, 3)), compression="gzip")

    return {"t.h5": _written("t.h5", save)}


def whole_files():
    """Return a file of each kind that can be read here, {name: content}; a library that is missing leaves its out."""
    model = _model()
    return (
        {
            "t.csv": CSV,
            "t.csv.gz": gzip.compress(CSV),
            "t.npy": _saved(lambda file: np.save(file, X)),
            "t.npz": _saved(lambda file: np.savez_compressed(file, X=X, y=Y, feature_names=np.array(["a", "b", "c"]))),
            "images-idx3-ubyte": IDX,
            "images-idx3-ubyte.gz": gzip.compress(IDX),
            "t.svm": b"1 1:2 3:4 # c\n-1 2:5\n0 qid:3 1:1e3\n",
            "m.npz": _written("m.npz", model.save),
            "columns.npz": _written("columns.npz", _model_of_columns().save),
            "codes.npz": _written("codes.npz", _model_of_codes().save),
            "m.safetensors": _written("m.safetensors", lambda path: save_safetensors(model, path)),
            "manifest.json": _manifest(),
        }
        | _columnar()
        | _hdf5()
    )


def _manifest():
    from gpumlp.data import write_folder

    with tempfile.TemporaryDirectory() as folder:
        table = Table(X, Y, ("a", "b", "c"), "y", (None, tuple("uvwxyzrstopq"), None))
        write_folder(open_blocks([table]), Path(folder, "set.d"))
        return Path(folder, "set.d", "manifest.json").read_bytes()


# ---- ways to damage ----

TOKENS = (
    b"\0", b"\xff", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0" * 8, b"nan", b"inf", b"1e999", b"-1", b"9" * 30, b'"',
    b"\n", b",", b":", b"{", b"[" * 50, b"'descr'", b"99999999999", b"\xef\xbb\xbf", b"PK\x03\x04", b"../..", b"|O",
    b"<U9999999",
)  # fmt: skip
places = st.floats(0, 1, exclude_max=True)
changes = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("set"), places, st.integers(0, 255)),
    st.tuples(st.just("insert"), places, st.sampled_from(TOKENS)),
    st.tuples(st.just("overwrite"), places, st.sampled_from(TOKENS)),
    st.tuples(st.just("remove"), places, st.integers(1, 40)),
    st.tuples(st.just("repeat"), places, st.integers(1, 200)),
    st.tuples(st.just("cut"), places, st.none()),
)
damages = st.lists(changes, min_size=1, max_size=6)


def damaged(content, steps):
    """Return a file's content after some changes."""
    content = bytearray(content)
    for kind, place, what in steps:
        i = int(place * len(content))
        if kind == "flip" and content:
            content[i] ^= 1 << what
        elif kind == "set" and content:
            content[i] = what
        elif kind == "insert":
            content[i:i] = what
        elif kind == "overwrite":
            content[i : i + len(what)] = what
        elif kind == "remove":
            del content[i : i + what]
        elif kind == "repeat":
            content[i:i] = content[i : i + 8] * what
        else:
            del content[i:]
    return bytes(content)


def repacked(content, place, change):
    """Change what is inside a gzip file, or the member of a zip archive at a place, so that its checksums are right."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(change(gzip.decompress(content)), 1)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for i, name in enumerate(old.namelist()):
            member = old.read(name)
            new.writestr(name, change(member) if i == int(place * len(old.namelist())) else member)
    return stream.getvalue()


# ---- the law ----

LONGEST_ANSWER = 2_000  # characters


def answered(name, content, folder):
    """Read a file in every way there is; raise whatever is no named error of gpumlp."""
    path = Path(folder, name)
    if name == "manifest.json":
        path = Path(folder, "set.d", name)
        path.parent.mkdir(exist_ok=True)
        np.save(path.parent / "X.npy", X)
        np.save(path.parent / "Y.npy", Y)
    path.write_bytes(content)
    for read in _ways(path):
        told = _answer(read)
        assert "\n" not in told
        assert len(told) < LONGEST_ANSWER


def _answer(read):
    try:
        read()
    except GpumlpError as error:
        return str(error)
    return ""


def _predicted(model):
    with np.errstate(all="ignore"):  # weights and scales that are forged may be as large as numbers go
        return model.predict(X)


def _encoded(table):
    return Encoding.fit(table, np.arange(len(table.X))).transform(table)


def _ways(path):
    if path.name in ("m.npz", "columns.npz", "codes.npz"):
        return (lambda: _predicted(gpumlp.load(path, "numpy")),)
    if path.name == "m.safetensors":
        return (lambda: _predicted(load_safetensors(path, "numpy")),)
    path = path.parent if path.name == "manifest.json" else path
    return (
        lambda: read_table(path),
        lambda: read_table(path, with_target=False),
        lambda: _encoded(read_table(path, with_target=False, categorical=())),
        lambda: _encoded(read_table(path, categorical=("a",))),
        lambda: [None for _ in open_blocks(path, missing=True, categorical=())],
        lambda: open_blocks(path, with_target=False).read(1, 3),
    )
