"""One table of inputs that are wrong: what each is answered with, by the library and by the command line.

An answer names what came, what was expected and what to do. Whatever was on the disk before is there afterwards.
"""

import errno
import os
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import bad_files as bad
import numpy as np
import pytest
from bad_files import CSV, HUGE, QUANTILES, X, Y, claiming, idx, npy_bytes, put, put_npz, put_zip

import gpumlp
from gpumlp.cli import main
from gpumlp.convert import load_safetensors
from gpumlp.data import (
    Standardiser,
    Table,
    encode_labels,
    k_folds,
    open_blocks,
    read_table,
    train_validation_split,
    verify_folder,
    write_folder,
)
from gpumlp.errors import ConfigurationError, DataError, ModelFileError, ShapeError
from gpumlp.saved_model import SavedModel

LONGEST_ANSWER = 700  # characters; a name or value that came may be longer, and is cut
NAN, INF = np.nan, np.inf


@dataclass(frozen=True)
class Case:
    """A wrong input.

    make     makes what is wrong, in the folder of the test
    call     what is called then; a list is a command line, answered with status 2
    error    the type of the exception
    says     pieces of the answer: what came, what was expected, what to do
    patch    attributes that have another value meanwhile
    """

    name: str
    make: object
    call: object
    error: type
    says: tuple
    env: dict = field(default_factory=dict)
    patch: dict = field(default_factory=dict)


def nothing():
    pass


def with_table():
    put("t.csv", CSV)


def with_categories():
    put("t.csv", bad.NAMED_ROWS)


def case(name, make, call, error, *says, env=(), patch=()):
    return Case(name, make, call, error, says, dict(env), dict(patch))


def reading(name, file, content, *says, env=(), patch=(), **options):
    """A file that read_table refuses."""
    make = content if callable(content) else lambda: put(file, content)
    return case(name, make, lambda: read_table(file, **options), DataError, *says, env=env, patch=patch)


def loading(name, *says, make=None, env=(), file="m.npz", **changes):
    """A model that load refuses."""
    make = make or (lambda: bad.put_model(**changes))
    return case(f"model: {name}", make, lambda: gpumlp.load(file, "numpy"), ModelFileError, *says, env=env)


def embedding(name, *says, **header):
    """A model whose header claims other embeddings than it has."""

    def make():
        bad.put_model(of=bad.by_codes(), header=lambda h: h.update(header))

    return loading(f"embedding: {name}", *says, make=make)


def _with_another_category(header):
    header["columns"][1][1].append("x")


def loading_safetensors(name, *says, **changes):
    def make():
        bad.put_safetensors(**changes)

    return case(f"safetensors: {name}", make, lambda: load_safetensors("m.safetensors"), ModelFileError, *says)


def command(name, make, argv, *says, env=(), patch=()):
    """A command line that is answered with status 2."""
    argv = argv.split() if isinstance(argv, str) else argv
    return case(f"command: {name}", make, argv, SystemExit, *says, env=env, patch=patch)


def put_for(library, name, content):
    """Write a file that only a library which may be missing would read."""
    pytest.importorskip(library)
    put(name, content)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


FULL = raising(OSError(errno.ENOSPC, "No space left on device"))
DENIED = raising(PermissionError(errno.EACCES, "Permission denied"))
NO_ROOM = raising(MemoryError())

# fmt: off
TEXT = (
    reading("csv: empty", "t.csv", "", "t.csv: is empty", "expected rows", "check where it comes from"),
    reading("csv: blank lines alone", "t.csv", "\n \n\n", "is empty", "expected rows", "check where"),
    reading("csv: header alone", "t.csv", "a,b,y\n", "holds a header and no row", "row", "pass header=False"),
    reading("csv: one column", "t.csv", "1\n2\n", "has one column", "expected a feature and a target", "delimiter"),
    reading("csv: a row too short", "t.csv", "1,2,3\n4,5\n", "line 2 has 2 cells", "expected 3", "correct it"),
    reading("csv: a row too long", "t.csv", "1,2,3\n4,5,6,7\n", "line 2 has 4 cells", "expected 3", "correct it"),
    reading("csv: missing value", "t.csv", "a,b,y\n1,,3\n", "missing value in line 2", "column 'b'", "fill it"),
    reading("csv: missing label", "t.csv", "a,y\n1,\n", "missing value in line 2", "column 'y'", "remove the row"),
    reading("csv: text in a feature", "t.csv", "a,b,y\n1,x,3\n", "holds 'x'", "expected a number", "encode or drop"),
    reading("csv: Python's underscore", "t.csv", "1,1_0,3\n", "holds '1_0'", "expected a number", "encode or drop"),
    reading("csv: NaN", "t.csv", "a,y\n1,0\nnan,1\n", "the first nan in row 2", "not finite", "remove or fill"),
    reading("csv: infinity", "t.csv", "a,y\n-inf,1\n", "the first -inf in row 1", "not finite", "remove or fill"),
    reading("csv: a number too large", "t.csv", "1e999,1\n", "the first inf", "not finite", "remove or fill"),
    reading("csv: 400 digits", "t.csv", "9" * 400 + ",1\n", "the first inf", "not finite", "remove or fill"),
    reading("csv: NaN as a label", "t.csv", "1,nan\n2,1\n", "y holds 1 value", "not finite", "remove or fill"),
    reading("csv: Latin-1", "t.csv", b"a,y\n1,caf\xe9\n", "byte 0xe9", "expected UTF-8", "save it as UTF-8"),
    reading("csv: UTF-16", "t.csv", "a,y\n1,2\n".encode("utf-16"), "byte 0xff", "expected UTF-8", "save it as UTF-8"),
    reading("csv: NUL in a cell", "t.csv", "a,y\n1\0,2\n", "line 2", "expected", ""),
    reading("csv: a picture", "t.csv", b"\x89PNG\r\n\x1a\n\0\0", "byte 0x89", "expected UTF-8", "save it as UTF-8"),
    reading("csv: a cell without end", "t.csv", "1,2\n3,4" + "9" * 140_000 + "x\n", "line 2", "limit", "text table?"),
    reading("csv: a quote without end", "t.csv", 'a,y\n"1,2\n' + "3,4\n" * 40_000, "line", "limit", "text table?"),
    reading(
        "csv: a line without end",
        "t.csv",
        "1" * 200,
        "line 1 has 100 characters",
        "expected rows",
        "text table?",
        patch={"gpumlp.data.delimited.longest_line": lambda: 100},
    ),
    reading("csv: a name twice", "t.csv", "a,a,y\n1,2,3\n", "2 features are named 'a'", "name of its own", "rename"),
    reading("csv: nameless twice", "t.csv", ",,y\n1,2,3\n", "2 features are named ''", "name of its own", "rename",
            header=True),
    reading("csv: target twice", "t.csv", "y,y,a\n1,2,3\n", "2 columns are named 'y'", "of one", "give the number",
            target="y"),
    reading("csv: no such target", "t.csv", CSV, "no column is named 'aa'", "", "did you mean 'a'?", target="aa"),
    reading("csv: a target of 5000 digits", "t.csv", CSV, "no column is named", "known are", "", target="9" * 5000),
    reading("csv: target out of range", "t.csv", CSV, "no column 3", "expected -3 to 2", "counted from 0", target=3),
    reading(
        "csv: named target, no header", "t.csv", CSV, "no column is named 'z'", "no header", "number",
        target="z", header=False,
    ),
    reading("csv: header is neither", "t.csv", CSV, "header is 'yes'", "expected 'auto'", "leave it out", header="yes"),
    reading("csv.gz: not packed", "t.csv.gz", lambda: Path("t.csv.gz").write_text(CSV), "cannot be read", "expected",
            "damaged"),
    reading(
        "csv.gz: cut short", "t.csv.gz", lambda: (put("t.csv.gz", CSV * 99), bad.damage("t.csv.gz", cut=-9)),
        "cannot be read", "expected", "cut short?",
    ),
    reading(
        "csv.gz: a bomb of blanks", "t.csv.gz", b"\n" * 3_000_000,
        "unpacks to more than", "the limit of 1 MiB", "raise GPUMLP_MAX_DATA", env={"GPUMLP_MAX_DATA": "1MiB"},
    ),
    reading(
        "csv: larger than allowed", "t.csv", "1,2\n" * 50_000,
        "of memory are needed for the table", "the limit here is 100 KiB", "gpumlp convert",
        env={"GPUMLP_MAX_DATA": "100KiB"},
    ),
)

ARRAYS = (
    reading("npy: objects", "t.npy", lambda: np.save("t.npy", np.array([[None]])), "holds Python objects",
            "expected numbers or text", "np.save", with_target=False),
    reading("npy: empty", "t.npy", b"", "cannot be read", "expected", "save plain numbers", with_target=False),
    reading("npy: no such file at all", "t.npy", CSV, "cannot be read", "magic string", "save plain numbers",
            with_target=False),
    reading("npy: cut short", "t.npy", npy_bytes(X)[:-5], "claims float32 values of shape (4, 3), 48 bytes",
            "holds 43 bytes", "fetch or write it again", with_target=False),
    reading("npy: claims terabytes", "t.npy", claiming(shape=f"({HUGE}, 3)"), "43.66 TiB", "holds 0 bytes", "write it",
            with_target=False),
    reading("npy: claims more than a number holds", "t.npy", claiming(shape=f"({HUGE}, {HUGE}, {HUGE})"), "claims",
            "holds 0 bytes", "write it", with_target=False),
    reading("npy: a negative length", "t.npy", claiming(shape="(-4, 3)"), "shape (-4, 3)", "at least 0", "np.save",
            with_target=False),
    reading("npy: a huge text", "t.npy", claiming("'<U500000000'", "(4,)"), "claims", "holds 0 bytes", "write it",
            with_target=False),
    reading("npy: a header that is code", "t.npy", claiming("__import__('os')"), "cannot be read", "expected",
            "np.save",
            with_target=False),
    reading("npy: nested without end", "t.npy", claiming("[" * 60), "cannot be read", "expected", "np.save",
            with_target=False),
    reading("npy: another version", "t.npy", claiming(version=b"\x03\x00"), "format version 3.0", "expected 1.0 or 2.0",
            "np.save", with_target=False),
    reading("npy: one axis", "t.npy", npy_bytes(X[0]), "X has shape (3,)", "expected (n_samples, n_features)",
            "reshape X", with_target=False),
    reading("npy: no axis", "t.npy", npy_bytes(np.float64(1)), "X has shape ()", "expected (n_samples, n_features)",
            "reshape X", with_target=False),
    reading("npy: no row", "t.npy", npy_bytes(X[:0]), "shape (0, 3)", "expected at least one row", "check where",
            with_target=False),
    reading("npy: no feature", "t.npy", npy_bytes(X[:, :0]), "shape (4, 0)", "one feature", "check where",
            with_target=False),
    reading("npy: complex", "t.npy", npy_bytes(X * 1j), "complex", "expected numbers of at most 64 bits", "convert it",
            with_target=False),
    reading("npy: text as features", "t.npy", npy_bytes(X.astype(str)), "dtype <U", "expected numbers", "convert it",
            with_target=False),
    reading("npy: dates", "t.npy", npy_bytes(X.astype("M8[s]")), "datetime64", "expected numbers", "convert it",
            with_target=False),
    reading("npy: records", "t.npy", npy_bytes(np.zeros(3, [("a", "f4")])), "dtype [('a'", "expected numbers",
            "convert it", with_target=False),
    reading("npy: NaN", "t.npy", npy_bytes(X * NAN), "12 values that are not finite", "row 1, feature 0",
            "remove or fill",
            with_target=False),
    reading("npy: no target", "t.npy", npy_bytes(X), "holds X alone", "another with y", "give the path"),
    reading("npy: the target is missing", "t.npy", npy_bytes(X), "no such file: z.npy", "did you mean 't.npy'?", "",
            target="z.npy"),
    reading("npy: a NUL in the target's name", "t.npy", npy_bytes(X), "no such file: z\\x00.npy", "did you mean",
            "t.npy", target="z\0.npy"),
    reading("npy: targets of other rows", "t.npy", lambda: (np.save("t.npy", X), np.save("y.npy", Y[:3])),
            "X has 4 rows, but y has 3", "each row needs its target", "give as many", target="y.npy"),
    reading("npy: targets without a column", "t.npy", lambda: (np.save("t.npy", X), np.save("y.npy", X[:, :0])),
            "y has shape (4, 0)", "expected (n_samples,)", "reshape it", target="y.npy"),
    reading("npz: no archive", "t.npz", CSV, "cannot be read", "not a zip file", "np.savez"),
    reading("npz: cut short", "t.npz", lambda: (put_npz("t.npz", X=X, y=Y), bad.damage("t.npz", cut=-40)),
            "cannot be read", "expected", "np.savez"),
    reading("npz: a value changed", "t.npz", lambda: (put_npz("t.npz", X=X, y=Y), bad.damage("t.npz", place=200)),
            "cannot be read", "CRC", "np.savez"),
    reading("npz: a single array", "t.npz", npy_bytes(X), "holds a single array", "expected an archive", "rename it"),
    reading("npz: no array at all", "t.npz", lambda: put_zip("t.npz"), "arrays (none)", "expected one named X",
            "np.savez"),
    reading("npz: no X", "t.npz", lambda: put_npz("t.npz", a=X, b=Y), "arrays a, b", "expected one named X",
            "np.savez"),
    reading("npz: no y", "t.npz", lambda: put_npz("t.npz", X=X), "arrays X", "expected one named y", "np.savez"),
    reading("npz: no such target", "t.npz", lambda: put_npz("t.npz", X=X, speed=Y), "no array 'sped'", "",
            "did you mean 'speed'?", target="sped"),
    reading("npz: a path as a name", "t.npz", lambda: put_zip("t.npz", ("../../X.npy", npy_bytes(X))),
            "arrays ../../X", "expected one named X", "np.savez"),
    reading("npz: two entries of one name", "t.npz", lambda: _twice("t.npz"), "two entries named 'X.npy'",
            "expected one of each", "np.savez"),
    reading("npz: objects", "t.npz", lambda: put_npz("t.npz", X=X, y=np.array([None] * 4)), "holds Python objects",
            "expected numbers or text", "np.savez"),
    reading("npz: claims terabytes", "t.npz", lambda: put_zip("t.npz", ("X.npy", claiming(shape=f"({HUGE}, 3)"))),
            "43.66 TiB", "holds 0 bytes", "write it again", with_target=False),
    reading("npz: a bomb", "t.npz", lambda: np.savez_compressed("t.npz", X=np.zeros((1 << 18, 4))),
            "8 MiB of memory are needed for array X", "the limit here is 1 MiB", "gpumlp convert", with_target=False,
            env={"GPUMLP_MAX_DATA": "1MiB"}),
    reading("npz: names for other features", "t.npz", lambda: put_npz("t.npz", X=X, y=Y, feature_names=np.array(["a"])),
            "1 feature names came for 3 features", "one for each", "give"),
    reading("npz: a feature's name twice", "t.npz",
            lambda: put_npz("t.npz", X=X, y=Y, feature_names=np.array(["a", "b", "a"])), "2 features are named 'a'",
            "name of its own", "rename"),
    reading("npz: three axes", "t.npz", lambda: put_npz("t.npz", X=X.reshape(2, 2, 3), y=Y[:2]), "shape (2, 2, 3)",
            "expected (n_samples, n_features)", "reshape X"),
    reading("idx: cut short", "a-idx3-ubyte", idx(np.zeros((4, 2, 3), np.uint8))[:-1], "has 39 bytes", "expected 40",
            "fetch or write it again", with_target=False),
    reading("idx: no pixel in more images than there can be", "a-idx3-ubyte.gz",
            b"\0\0\x08\3" + b"\xff" * 8 + b"\0" * 4, "X has shape (1, 0)",
            "expected at least one row and one feature", "check where it comes from", with_target=False),
    reading("idx: surplus bytes", "a-idx3-ubyte.gz", idx(np.zeros((4, 2, 3), np.uint8)) + b"?", "has 41 bytes",
            "expected 40", "fetch or write it again", with_target=False),
    reading("idx: claims more than there is", "a-idx3-ubyte.gz", b"\0\0\x08\3" + b"\xff" * 12, "has 16 bytes",
            "expected 79228162458924105385300197391", "fetch", with_target=False),
    reading("idx: floats", "a-idx3-ubyte", idx(np.zeros((4, 2, 3), np.uint8), magic=13), "'00000d03'", "'00000803'",
            "idx3 file?", with_target=False),
    reading("idx: empty", "a-idx3-ubyte", b"", "magic number is ''", "expected '00000803'", "idx3 file?",
            with_target=False),
    reading("idx: a bomb", "a-idx3-ubyte.gz", idx(np.zeros((300, 100, 100), np.uint8)), "unpacks to more than",
            "the limit of 1 MiB", "raise GPUMLP_MAX_DATA", with_target=False, env={"GPUMLP_MAX_DATA": "1MiB"}),
    reading("idx: labels for features", "a-idx1-ubyte", idx(Y.astype(np.uint8)), "holds labels", "expected images",
            "give the idx3 file"),
    reading("idx: no labels", "images-idx3-ubyte", idx(np.zeros((4, 2, 3), np.uint8)), "no labels beside it",
            "labels-idx1-ubyte", "give their path"),
)

COLUMNS = (
    reading("parquet: none", "t.parquet", lambda: put_for("pyarrow", "t.parquet", CSV),
            "cannot be read", "expected", "write it again"),
    reading("parquet: empty", "t.parquet", lambda: put_for("pyarrow", "t.parquet", b""),
            "cannot be read", "expected", "write it again"),
    reading("parquet: cut short", "t.parquet", lambda: (bad.put_parquet(a=[1.0], y=[1]), bad.damage("t.parquet",
            cut=-3)),
            "cannot be read", "expected", "write it again"),
    reading("parquet: text", "t.parquet", lambda: bad.put_parquet(a=["x"], y=[1]), "column 'a' holds string",
            "expected numbers", "encode or drop it"),
    reading("parquet: lists", "t.parquet", lambda: bad.put_parquet(a=[[1.0]], y=[1]), "column 'a' holds list",
            "expected numbers", "encode or drop it"),
    reading("parquet: a missing value", "t.parquet", lambda: bad.put_parquet(a=[1.0, None], y=[1, 2]),
            "missing value in row 2", "column 'a'", "fill it"),
    reading("parquet: a missing label", "t.parquet", lambda: bad.put_parquet(a=[1.0, 2.0], y=["x", None]),
            "missing value in row 2", "column 'y'", "remove the row"),
    reading("parquet: NaN", "t.parquet", lambda: bad.put_parquet(a=[1.0, NAN], y=[1, 2]), "the first nan in row 2",
            "not finite", "remove or fill"),
    reading("parquet: no row", "t.parquet", lambda: bad.put_parquet(a=[], y=[]), "t.parquet: ", "expected", ""),
    reading("parquet: one column", "t.parquet", lambda: bad.put_parquet(y=[1]), "has 1 column",
            "expected a feature and a target", "add one"),
    reading("parquet: no such target", "t.parquet", lambda: bad.put_parquet(a=[1.0], why=[1]),
            "no column is named 'wy'",
            "", "did you mean 'why'?", target="wy"),
    reading("parquet: a name twice", "t.parquet", bad.put_parquet_twice, "2 features are named 'a'", "name of its own",
            "rename"),
    reading("parquet: a group larger than allowed", "t.parquet",
            lambda: bad.put_parquet(a=np.random.default_rng(0).random(9999), y=np.arange(9999)),
            "has a group of rows of", "the limit here is 1 KiB", "smaller row_group_size",
            env={"GPUMLP_MAX_DATA": "1KiB"}),
    reading("parquet: no library", "t.parquet", CSV, "needs pyarrow", "cannot be imported",
            "pip install 'gpumlp[arrow]'",
            patch={"gpumlp.data.files.import_module": raising(ImportError("no pyarrow"))}),
    reading("arrow: none", "t.arrow", lambda: put_for("pyarrow", "t.arrow", CSV),
            "cannot be read", "expected", "write it again"),
    reading("arrow: cut short", "t.arrow", lambda: (bad.put_arrow(a=[1.0], y=[1]), bad.damage("t.arrow", cut=-30)),
            "cannot be read", "expected", "write it again"),
    reading("feather: text", "t.feather", lambda: bad.put_arrow("t.feather", a=["x"], y=[1]), "column 'a' holds string",
            "expected numbers", "encode or drop it"),
    reading("arrow: a missing value", "t.arrow", lambda: bad.put_arrow(a=[1.0, None], y=[1, 2]),
            "missing value in row 2", "column 'a'", "fill it"),
    reading("hdf5: none", "t.h5", lambda: put_for("h5py", "t.h5", CSV),
            "cannot be read", "expected", "write it again"),
    reading("hdf5: cut short", "t.h5", lambda: (bad.put_hdf5(X=X, y=Y), bad.damage("t.h5", cut=-100)),
            "cannot be read", "expected", "write it again"),
    reading("hdf5: no X", "t.h5", lambda: bad.put_hdf5(a=X), "holds the arrays a", "expected one named X", "save it"),
    reading("hdf5: no such target", "t.h5", lambda: bad.put_hdf5(X=X, kind=Y), "no array 'kin'", "",
            "did you mean 'kind'?", target="kin"),
    reading("hdf5: a group", "t.h5", lambda: bad.put_hdf5(make=lambda h, f: f.create_group("X"), y=Y),
            "X is no dataset", "expected one", "copy what it leads to"),
    reading("hdf5: a link to another file", "t.h5",
            lambda: bad.put_hdf5(make=lambda h, f: f.update({"X": h.ExternalLink("/etc/passwd", "/X")}), y=Y),
            "X is no dataset of this very file", "expected one", "copy what it leads to"),
    reading("hdf5: a link to nowhere", "t.h5",
            lambda: bad.put_hdf5(make=lambda h, f: f.update({"X": h.SoftLink("/Z")}), y=Y),
            "X is no dataset of this very file", "expected one", "copy what it leads to"),
    reading("hdf5: values in another file", "t.h5", lambda: bad.put_hdf5(make=_external, y=Y),
            "X is no dataset of this very file", "expected one", "copy what it leads to"),
    reading("hdf5: no axis", "t.h5", lambda: bad.put_hdf5(X=1.0, y=Y), "X has shape ()", "expected a row", "reshape"),
    reading("hdf5: no row", "t.h5", lambda: bad.put_hdf5(X=X[:0], y=Y[:0]), "shape (0, 3)", "at least one row",
            "check"),
    reading("hdf5: records", "t.h5", lambda: bad.put_hdf5(X=np.zeros(3, [("a", "f4")]), y=Y), "X has dtype",
            "expected numbers or text", "convert it"),
    reading("hdf5: other rows", "t.h5", lambda: bad.put_hdf5(X=X, y=Y[:3]), "X has 4 rows, but y has 3",
            "each row needs", "give as many"),
    reading("hdf5: NaN", "t.h5", lambda: bad.put_hdf5(X=X * NAN, y=Y), "12 values", "not finite", "remove or fill"),
    reading("hdf5: larger than allowed", "t.h5", lambda: bad.put_hdf5(X=np.zeros((9999, 3)), y=np.zeros(9999)),
            "312.5 KiB of memory are needed for the table", "the limit here is 1 KiB", "gpumlp convert",
            env={"GPUMLP_MAX_DATA": "1KiB"}),
    reading("hdf5: chunks larger than allowed", "t.h5",
            lambda: bad.put_hdf5(make=lambda h, f: f.create_dataset("X", (9999, 3), "f8", chunks=(9999, 3)), y=Y),
            "has chunks of", "the limit here is 1 KiB", "smaller chunks", env={"GPUMLP_MAX_DATA": "1KiB"}),
    reading("hdf5: no library", "t.h5", CSV, "needs h5py", "cannot be imported", "pip install 'gpumlp[hdf5]'",
            patch={"gpumlp.data.files.import_module": raising(ImportError("no h5py"))}),
    reading("svmlight: text", "t.svm", "1 a:b\n", "lines 1 to 1", "expected lines such as", "correct it"),
    reading("svmlight: a label that is none", "t.svm", "x 1:2\n", "lines 1 to 1", "expected lines such as", "correct"),
    reading("svmlight: a negative index", "t.svm", "1 -2:1\n", "lines 1 to 1", "expected lines such as", "correct it"),
    reading("svmlight: falling indices", "t.svm", "1 3:1 2:1\n", "lines 1 to 1", "expected lines such as",
            "correct it"),
    reading("svmlight: an index too large", "t.svm", "1 99999999999999999999999:1\n", "lines 1 to 1",
            "expected lines such as", "correct it"),
    reading("svmlight: dense rows without end", "t.svm", "1 2000000000:1\n", "14.9 GiB of memory are needed",
            "the limit here is 1 GiB",
            "GPUMLP_MAX_DATA", env={"GPUMLP_MAX_DATA": "1GiB"}),
    reading("svmlight: empty", "t.svm", "# nothing\n", "holds 0 rows", "expected at least one", "check where"),
    reading("svmlight: labels alone", "t.svm", "1\n2\n", "0 features", "expected at least one", "check where"),
    reading("svmlight: a target asked for", "t.svm", "1 1:2\n", "target='y'", "stands first", "leave it out",
            target="y"),
    reading("svmlight: NaN", "t.svm", "1 1:nan\n", "the first nan", "not finite", "remove or fill"),
)

PLACES = (
    reading("no such file", "t.csv", lambda: put("t.csvs", CSV), "no such file: t.csv", "t.csvs",
            "did you mean"),
    reading("a folder", "t.csv", lambda: os.mkdir("t.csv"), "is a folder", "expected a file", "name one in it"),
    reading("a pipe", "t.csv", lambda: os.mkfifo("t.csv"), "a device or a pipe", "expected a file",
            "write what it gives"),
    reading("a device", "t.npy", lambda: os.symlink("/dev/zero", "t.npy"), "a device or a pipe", "expected a file",
            "write what it gives", with_target=False),
    reading("a link to itself", "t.csv", lambda: os.symlink("t.csv", "t.csv"), "t.csv", "file", ""),
    reading("unknown kind", "t.xlsx", b"PK", "unknown kind of file", "expected a name ending in .npz",
            "convert or rename"),
    reading("no permission", "t.csv", CSV, "no permission to read it", "expected a readable file", "change its mode",
            patch={"gpumlp.data.delimited.open_text": DENIED}),
    reading("no memory", "t.csv", CSV, "there is no memory for it", "gpumlp convert", "smaller",
            patch={"gpumlp.data.delimited.gathered": NO_ROOM}),
    case("a NUL in a name", nothing, lambda: read_table("a\0.csv"), DataError, "a\\x00.csv", "file", "check the path"),
    case("a name too long", nothing, lambda: read_table("long" * 999 + ".csv"), DataError, "File name too long",
            "expected", "cut short?"),
)

FOLDERS = (
    reading("data folder: no manifest", "set.d", lambda: os.mkdir("set.d"), "has no manifest.json", "data folder",
            "gpumlp convert"),
    reading("data folder: a manifest that is none", "set.d",
            lambda: (bad.put_folder(), Path("set.d/manifest.json").write_text("?")), "manifest.json cannot be read",
            "expected", "convert the data again"),
    reading("data folder: a manifest without end", "set.d",
            lambda: (bad.put_folder(), Path("set.d/manifest.json").write_text("[" * 100_000)),
            "manifest.json cannot be read", "expected", "convert the data again"),
    reading("data folder: another JSON", "set.d",
            lambda: (bad.put_folder(), Path("set.d/manifest.json").write_text("[]")), "manifest.json does not say so",
            "data folder", "gpumlp convert"),
    reading("data folder: a manifest too large", "set.d", bad.put_folder, "manifest.json is larger", "than 9 bytes",
            "convert the data again", patch={"gpumlp.data.folder.MAX_MANIFEST": 9}),
    reading("data folder: newer", "set.d", lambda: bad.put_folder(change=lambda m: m.update(version=3)),
            "format version 3", "expected 1 to 2", "install that or convert"),
    reading("data folder: no rows", "set.d", lambda: bad.put_folder(change=lambda m: m.update(rows=0)), "rows is 0",
            "at least 1", "convert the data again"),
    reading("data folder: rows in words", "set.d", lambda: bad.put_folder(change=lambda m: m.update(rows="3")),
            "rows is '3'", "a whole number", "convert the data again"),
    reading("data folder: other rows", "set.d", lambda: bad.put_folder(change=lambda m: m.update(rows=99)),
            "X.npy holds <f8 of shape 3, 2", "99 rows", "convert the data again"),
    reading("data folder: another shape", "set.d",
            lambda: bad.put_folder(change=lambda m: m["arrays"]["X"].update(shape=[2, 3])),
            "X.npy holds <f8 of shape 3, 2", "expected <f8 of 2, 3", "convert the data again"),
    reading("data folder: another dtype", "set.d",
            lambda: bad.put_folder(change=lambda m: m["arrays"]["X"].update(dtype="<f4")), "X.npy holds <f8",
            "expected <f4", "convert the data again"),
    reading("data folder: arrays of other names", "set.d",
            lambda: bad.put_folder(change=lambda m: m["arrays"].update({"../X": m["arrays"]["X"]})), "arrays is",
            "expected X, and Y", "convert the data again"),
    reading("data folder: an array without a shape", "set.d",
            lambda: bad.put_folder(change=lambda m: m["arrays"]["X"].pop("shape")), "arrays['X'] is",
            "expected a dtype, a shape", "convert the data again"),
    reading("data folder: names that are no texts", "set.d",
            lambda: bad.put_folder(change=lambda m: m.update(feature_names=[1, 2])), "feature_names is [1, 2]",
            "expected a list of texts", "convert the data again"),
    reading("data folder: too few names", "set.d",
            lambda: bad.put_folder(change=lambda m: m.update(feature_names=["a"])),
            "1 feature names came for 2 features", "one for each", "give"),
    reading("data folder: a target's name that is none", "set.d",
            lambda: bad.put_folder(change=lambda m: m.update(target_name=3)), "target_name is 3", "expected a text",
            "convert the data again"),
    reading("data folder: classes that are none", "set.d",
            lambda: bad.put_folder(change=lambda m: m.update(classes="01")), "classes is '01'", "expected a list",
            "convert the data again"),
    reading("data folder: no statistics", "set.d", lambda: bad.put_folder(change=lambda m: m.pop("statistics")),
            "statistics is None", "expected those of X", "convert the data again"),
    reading("data folder: text that is not wanted", "set.d", bad.put_folder_of_text, "column 'b' holds text",
            "expected numbers", "categorical=()"),
    reading("data folder: a category of numbers", "set.d", bad.put_folder_of_text, "column 'a' holds numbers",
            "expected text as categorical", "--categorical a", categorical=["a"]),
    reading("data folder: a category that is none", "set.d", bad.put_folder_of_text, "column is named 'bb'", "",
            "did you mean 'b'?", categorical=["bb"]),
    reading("csv: a name of two lines", "t.csv", 'a,"b\nc"\n1,2\n', "column is named 'no'", "known are a, b\\nc", "",
            header=True, with_target=False, categorical=["no"]),
    reading("data folder: a categorical target", "set.d", bad.put_folder_of_text, "column 'y' is the target",
            "expected a feature", "leave it out", categorical=["y"]),
    reading("data folder: texts in one word", "set.d", lambda: bad.put_folder_of_text(lambda m: m.update(texts="u")),
            "texts is 'u'", "expected a list", "convert the data again", categorical=()),
    reading("data folder: texts of fewer features", "set.d",
            lambda: bad.put_folder_of_text(lambda m: m["texts"].pop()), "texts is [None]",
            "for each named feature", "convert the data again", categorical=()),
    reading("data folder: a column without texts", "set.d",
            lambda: bad.put_folder_of_text(lambda m: m.update(texts=[None, []])), "texts of 'b' is []",
            "expected a list of one text or more", "convert the data again", categorical=()),
    reading("data folder: a text twice", "set.d",
            lambda: bad.put_folder_of_text(lambda m: m.update(texts=[None, ["u", "u"]])), "texts of 'b' is ['u', 'u']",
            "expected each once", "convert the data again", categorical=()),
    case("data folder: fewer texts than were written", lambda: bad.put_folder_of_text(
            lambda m: m.update(texts=[None, ["u"]])), ["train", "set.d", "--quiet"], SystemExit,
            "column 'b' holds values that are no places in its 1 texts", "expected whole numbers", "convert the data"),
    case("data folder: text without names", nothing,
         lambda: write_folder(open_blocks([Table(X[:, :1], Y, texts=(("u",) * 9,))]), "set.d"), DataError,
         "columns of text need names", "", "name all features"),
    case("blocks: other texts", nothing, lambda: open_blocks([Table(X[:, :1], texts=(("u",),)), X[:, :1]]).gather(),
         DataError, "a block has other texts than the first", "expected the same", "code all blocks alike"),
    reading("data folder: X is gone", "set.d", lambda: (bad.put_folder(), os.remove("set.d/X.npy")), "X.npy",
            "no such file", "did you mean 'Y.npy'?"),
    reading("data folder: X is cut", "set.d", lambda: (bad.put_folder(), bad.damage("set.d/X.npy", cut=-8)),
            "X.npy: claims", "holds 40 bytes", "cut short or forged"),
    reading("data folder: X is of another kind", "set.d", lambda: (bad.put_folder(), put("set.d/X.npy", CSV)),
            "X.npy: cannot be read", "expected a whole file", "save plain numbers"),
    reading("data folder: another target", "set.d", bad.put_folder, "target='a'", "chosen when it was converted: y",
            "leave it out", target="a"),
    reading("data folder: no target", "set.d", lambda: bad.put_folder(with_target=False), "holds features alone",
            "expected a target", "convert the data again"),
    reading("data folder: NaN that was let in", "set.d",
            lambda: (put("t.csv", "a,b,y\n1,,0\n3,4,1\n"), write_folder(open_blocks("t.csv", missing=True), "set.d")),
            "the first nan in row 1, feature 'b'", "not finite", "remove or fill"),
    case("data folder: a byte changed", lambda: (bad.put_folder(), bad.damage("set.d/X.npy", place=150)),
         lambda: verify_folder("set.d"), DataError, "X.npy has the checksum", "expected", "convert the data again"),
    case("data folder: taken", lambda: (bad.put_folder(), put("t.csv", CSV)),
         lambda: write_folder(open_blocks("t.csv"), "set.d"), DataError, "is there already", "expected a new name",
         "choose another"),
    case("data folder: replacing what is none", lambda: (os.mkdir("set.d"), put("set.d/my", "own"), put("t.csv", CSV)),
         lambda: write_folder(open_blocks("t.csv"), "set.d", replace=True), DataError, "is no data folder",
         "expected one to replace", "choose another"),
    case("data folder: another ending", lambda: put("t.csv", CSV), lambda: write_folder(open_blocks("t.csv"), "set"),
         DataError, "set: ", "ends in .d", "name it so"),
    case("data folder: nowhere", lambda: put("t.csv", CSV), lambda: write_folder(open_blocks("t.csv"), "no/set.d"),
         DataError, "there is no folder no", "expected one", "make it first"),
    case("data folder: infinity", nothing, lambda: write_folder(open_blocks([(X, Y), (X + INF, Y)]), "set.d"),
         DataError, "after 4 rows: X holds", "not finite", "remove or fill"),
    case("data folder: NaN as a target", nothing, lambda: write_folder(open_blocks([(X, Y * NAN)]), "set.d"), DataError,
         "y holds 4 values", "not finite", "remove or fill"),
    case("data folder: larger than allowed", nothing, lambda: write_folder(open_blocks([X] * 9), "set.d",
            max_bytes=200),
         DataError, "more than the 200 bytes", "free some room", "allow more"),
    case("data folder: the disk is full", lambda: (bad.put_folder(), put("t.csv", CSV)),
         lambda: write_folder(open_blocks("t.csv"), "set.d", replace=True), DataError, "No space left on device",
         "expected room", "choose another place", patch={"gpumlp.data.npy_writer.os.fsync": FULL}),
    case("data folder: no permission", lambda: put("t.csv", CSV), lambda: write_folder(open_blocks("t.csv"), "set.d"),
         DataError, "Permission denied", "expected room and permission", "choose another place",
         patch={"gpumlp.data.folder.tempfile.mkdtemp": DENIED}),
)

BLOCKS = (
    case("blocks: none", nothing, lambda: open_blocks([]), DataError, "gave nothing", "expected X or (X, y)",
         "generator read before?"),
    case("blocks: a generator twice", nothing, lambda: [list(b) for b in [open_blocks(iter([X]))] * 2], DataError,
         "a generator", "can be read once", "give a list"),
    case("blocks: words", nothing, lambda: open_blocks([{"X": X}]), DataError, "dtype object", "expected numbers",
         "convert it"),
    case("blocks: ragged", nothing, lambda: open_blocks([[[1, 2], [3]]]), DataError, "gave list",
         "expected X or (X, y)", ""),
    case("blocks: another width", nothing, lambda: list(open_blocks([X, X[:, :2]])), DataError,
         "a block has 2 features", "expected 3", "give the same columns"),
    case("blocks: text behind numbers", nothing, lambda: list(open_blocks([(X, Y), (X, Y.astype(str))])), DataError,
         "a target of text", "numbers as in the first", "give the same columns"),
    case("blocks: a target that ends", nothing, lambda: list(open_blocks([(X, Y), X])), DataError, "a target of none",
         "numbers as in the first", "give the same columns"),
    case("blocks: rows behind the end", lambda: put("t.csv", CSV), lambda: open_blocks("t.csv").read(2, 9), DataError,
         "no rows 2 to 9", "stop <= 3", "counted from 0"),
    case("blocks: rows behind an unknown end", nothing, lambda: open_blocks([X]).read(2, 9), DataError,
         "ends after 4 rows", "expected 9", "cut short"),
    case("blocks: rows before the beginning", lambda: put("t.csv", CSV), lambda: open_blocks("t.csv").read(-1, 2),
         DataError, "no rows -1 to 2", "0 <= start", "counted from 0"),
    case("blocks: no row", lambda: put("t.csv", CSV), lambda: open_blocks("t.csv").read(1, 1), DataError,
         "no rows 1 to 1", "start < stop", "counted from 0"),
    case("blocks: npz cut in its values",
         lambda: put_zip("t.npz", ("X.npy", npy_bytes(X)[:-8]), ("y.npy", npy_bytes(Y))),
         lambda: open_blocks("t.npz"), DataError, "claims float32", "holds 40 bytes", "write it again"),
    case("blocks: idx.gz cut in its values", lambda: put("a-idx3-ubyte.gz", idx(np.zeros((4, 2, 3), np.uint8))[:-7]),
         lambda: open_blocks("a-idx3-ubyte.gz", with_target=False).gather(), DataError, "is cut short",
         "holds 2 of 4 rows", "fetch or write it again"),
    case("blocks: a bomb", lambda: put("t.csv.gz", "\n" * 99_999), lambda: open_blocks("t.csv.gz", limit=1024),
         DataError, "unpacks to more than", "limit of 1 KiB", "--max-size"),
)

MODELS = (
    loading("none", "cannot read model m.npz", "No such file", "check the path", make=nothing),
    loading("a folder", "m.npz", "is a folder", "name one", make=lambda: os.mkdir("m.npz")),
    loading("a pipe", "m.npz", "a device or a pipe", "expected a file", make=lambda: os.mkfifo("m.npz")),
    loading("a table", "is no gpumlp model", "damaged", "save it again", make=lambda: put("m.npz", CSV)),
    loading("empty", "is no gpumlp model", "damaged", "save it again", make=lambda: put("m.npz", "")),
    loading("cut short", "is no gpumlp model", "damaged", "save it again",
            make=lambda: (bad.put_model(), bad.damage("m.npz", cut=-30))),
    loading("an archive of data", "it has no header.json", "gpumlp model", "gpumlp train --save",
            make=lambda: put_npz("m.npz", X=X, y=Y)),
    loading("a header that is none", "header.json cannot be read", "m.npz", "save the model again",
            make=lambda: put_zip("m.npz", ("header.json", "{"))),
    loading("a header without end", "header.json cannot be read", "m.npz", "save the model again",
            make=lambda: put_zip("m.npz", ("header.json", "[" * 100_000))),
    loading("a header that is no UTF-8", "header.json cannot be read", "m.npz", "save the model again",
            make=lambda: put_zip("m.npz", ("header.json", b"\xff\xfe{"))),
    loading("a header too large", "header.json is larger than", "bytes", "damaged or forged",
            make=lambda: put_zip("m.npz", ("header.json", b" " * (2**25 + 1)), pack=zipfile.ZIP_DEFLATED)),
    loading("another format", "is no gpumlp model", "its header does not say so", "gpumlp train --save",
            header=lambda h: h.update(format="zip")),
    loading("newer", "format version 99", "reads versions up to 3", "install that",
            header=lambda h: h.update(version=99)),
    loading("a version that is text", "format version '1'", "reads versions up to 3", "install",
            header=lambda h: h.update(version="1")),
    loading("no sizes", "header.json has no entry", "'sizes'", "save the model again", header=lambda h: h.pop("sizes")),
    loading("negative sizes", "-5", "whole numbers of at least 1", "save the model again",
            header=lambda h: h.update(sizes=[3, -5, 4])),
    loading("sizes in words", "describes no network", "sizes", "save the model again",
            header=lambda h: h.update(sizes="354")),
    loading("broken sizes", "5.5", "whole numbers", "save the model again",
            header=lambda h: h.update(sizes=[3, 5.5, 4])),
    loading("huge sizes", "claims", "the file holds", "save the model again",
            header=lambda h: h.update(sizes=[3, 10**9, 4])),
    loading("sizes beyond all numbers", "claims", "the file holds", "save the model again",
            header=lambda h: h.update(sizes=[3, 10**40, 4])),
    loading("more layers", "describes no network", "activation", "save the model again",
            header=lambda h: h.update(sizes=[3, 5, 5, 4])),
    loading("many models", "claims", "the file holds", "save the model again",
            header=lambda h: h.update(model_ids=list(range(9999)))),
    loading("no model", "describes no network", "n_models", "save the model again",
            header=lambda h: h.update(model_ids=[], seeds=[])),
    loading("seeds for other models", "describes no network", "seed", "save the model again",
            header=lambda h: h.update(seeds=[1, 2, 3])),
    loading("seeds in words", "describes no network", "seed", "save the model again",
            header=lambda h: h.update(seeds=["x"])),
    loading("dropout above all", "describes no network", "dropout", "save the model again",
            header=lambda h: h.update(dropout=[7.0])),
    loading("an unknown activation", "unknown activation 'relo'", "did you mean 'relu'?", "register your own",
            header=lambda h: h.update(activations=["relo", "softmax"])),
    loading("an activation that is code", "describes no network", "__import__", "register your own",
            header=lambda h: h.update(activations=["__import__('os').system('x')", "softmax"])),
    loading("a parameter that is code", "describes no network", "leaky_relu", "save the model again",
            header=lambda h: h.update(activations=["leaky_relu(__import__('os'))", "softmax"])),
    loading("an activation that is a list", "describes no network", "", "save the model again",
            header=lambda h: h.update(activations=[["relu"], "softmax"])),
    loading("no activations", "describes no network", "", "save the model again",
            header=lambda h: h.update(activations=[])),
    loading("an unknown cost", "unknown cost 'crossentropy'", "describes no network", "register your own",
            header=lambda h: h.update(cost="crossentropy")),
    loading("a cost that does not fit", "describes no network", "cross_entropy", "save the model again",
            header=lambda h: h.update(cost="cross_entropy")),
    loading("an unknown dtype", "describes no network", "float16", "", header=lambda h: h.update(dtype="float16")),
    loading("a dtype that is a list", "unknown dtype ['f4']", "known are float32, float64", "",
            header=lambda h: h.update(dtype=["f4"])),
    loading("a dtype that is code", "unknown dtype '1,)'", "known are float32, float64", "",
            header=lambda h: h.update(dtype="1,)")),
    loading("an unknown normalisation", "describes no network", "group", "",
            header=lambda h: h.update(normalisation=["group"])),
    loading("an unknown initialiser", "describes no network", "zeroes", "",
            header=lambda h: h.update(initialiser="zeroes")),
    loading("an unknown task", "task 'guess'", "damaged", "save the model again",
            header=lambda h: h.update(task="guess")),
    loading("a regression with classes", "task 'regression'", "with classes", "save the model again",
            header=lambda h: h.update(task="regression")),
    loading("too few classes", "2 classes", "4 outputs", "damaged", header=lambda h: h.update(classes=[1, 2])),
    loading("classes that are lists", "classes are", "expected a list of plain values", "damaged",
            header=lambda h: h.update(classes=[[1], [2], [3], [4]])),
    loading("a class twice", "classes", "expected distinct", "damaged",
            header=lambda h: h.update(classes=["a", "a", "b", "c"])),
    loading("too few feature names", "1 feature names", "3 features", "damaged",
            header=lambda h: h.update(feature_names=["a"])),
    loading("feature names in one word", "feature_names are 'abc'", "expected a list", "damaged",
            header=lambda h: h.update(feature_names="abc")),
    loading("a target's name that is none", "target_name is 3", "expected a text", "damaged",
            header=lambda h: h.update(target_name=3)),
    loading("a scaler that is gone", "not expected ['x_mean', 'x_scale']", "arrays", "damaged or forged",
            header=lambda h: h.update(scaled=False)),
    loading("a tensor that is missing", "missing ['b1']", "arrays", "damaged or forged",
            arrays=lambda a: a.pop("b1.npy")),
    loading("a tensor too many", "not expected ['W9']", "arrays", "damaged or forged",
            arrays=lambda a: a.update({"W9.npy": npy_bytes(X)})),
    loading("a path as a tensor's name", "not expected ['../../W0']", "arrays", "damaged or forged",
            arrays=lambda a: a.update({"../../W0.npy": npy_bytes(X)})),
    loading("a name of 60,000 letters", "not expected", "arrays", "damaged or forged",
            arrays=lambda a: a.update({"W" * 60_000: npy_bytes(X)})),
    loading("a thousand tensors too many", "not expected", "arrays", "damaged or forged",
            arrays=lambda a: a.update({f"V{i}.npy": npy_bytes(X) for i in range(1000)})),
    loading("a tensor twice", "two entries of one name", "damaged or forged", "save it again",
            make=lambda: _model_twice()),
    loading("a tensor of another shape", "W0 is float32 (1, 5, 2)", "needs float32 (1, 5, 3)", "damaged",
            arrays=lambda a: a.update({"W0.npy": npy_bytes(np.zeros((1, 5, 2), np.float32))})),
    loading("a tensor of another dtype", "W0 is float64", "needs float32", "damaged",
            arrays=lambda a: a.update({"W0.npy": npy_bytes(np.zeros((1, 5, 3)))})),
    loading("a tensor of another byte order", "W0 is >f4", "needs float32", "damaged",
            arrays=lambda a: a.update({"W0.npy": npy_bytes(np.zeros((1, 5, 3), ">f4"))})),
    loading("a tensor of objects", "W0 is object", "needs float32", "damaged",
            arrays=lambda a: a.update({"W0.npy": npy_bytes(np.full((1, 5, 3), None))})),
    loading("a tensor with a head of another time", "array W0 cannot be read", "m.npz", "save the model again",
            arrays=lambda a: a.update({"W0.npy": a["W0.npy"].replace(b"(1, 5, 3)", b"(1L,5, 3)")})),
    loading("a tensor whose dtype has another name now", "array W0 cannot be read", "m.npz", "save the model again",
            arrays=lambda a: a.update({"W0.npy": claiming(descr="'a4'")})),
    loading("a tensor whose dtype is code", "array W0 cannot be read", "m.npz", "save the model again",
            arrays=lambda a: a.update({"W0.npy": claiming(descr="'1,)'")})),
    loading("a tensor that is cut", "array W0 cannot be read", "m.npz", "save the model again",
            arrays=lambda a: a.update({"W0.npy": a["W0.npy"][:-4]})),
    loading("a tensor that claims terabytes", "W0 is float32", "needs float32 (1, 5, 3)", "damaged",
            arrays=lambda a: a.update({"W0.npy": claiming(shape=f"({HUGE}, 5, 3)")})),
    loading("a tensor that is none", "array W0 cannot be read", "m.npz", "save the model again",
            arrays=lambda a: a.update({"W0.npy": b"?"})),
    loading("a tensor of NaN", "b0 holds values that are not finite", "m.npz", "train the model again",
            arrays=lambda a: a.update({"b0.npy": npy_bytes(np.full((1, 5), NAN, np.float32))})),
    loading("a scale of 0", "x_scale", "not above 0", "damaged",
            arrays=lambda a: a.update({"x_scale.npy": npy_bytes(np.zeros(3))})),
    loading("another scaling", "unknown scaling 'quantil'", "did you mean 'quantile'?", "save the model again",
            header=lambda h: h.update(scaling={"kind": "quantil"})),
    loading("a scaling in one word", "scaling is 'quantile'", "expected its kind", "save the model again",
            header=lambda h: h.update(scaling="quantile")),
    loading("a scaling of too many quantiles", "4000000000000 quantiles", "expected a whole number from 1 to 1000",
            "save the model again", header=lambda h: h.update(scaling={"kind": "quantile", "quantiles": HUGE})),
    loading("quantiles that are missing", "missing ['x_kept', 'x_quantiles']", "arrays", "damaged or forged",
            header=lambda h: h.update(scaling={"kind": "quantile", "quantiles": 4})),
    loading("quantiles that fall", "x_quantiles fall", "expected ascending ones", "save the model again",
            make=lambda: bad.put_model(of=bad.by_quantiles(),
                                       arrays=lambda a: a.update({"x_quantiles.npy": npy_bytes(-QUANTILES)}))),
    loading("quantiles of NaN", "x_quantiles holds values that are not finite", "m.npz", "train the model again",
            make=lambda: bad.put_model(of=bad.by_quantiles(),
                                       arrays=lambda a: a.update({"x_quantiles.npy": npy_bytes(QUANTILES * NAN)}))),
    loading("quantiles of other features", "x_quantiles is float64 (4, 2)", "needs float64 (4, 3)", "damaged",
            make=lambda: bad.put_model(of=bad.by_quantiles(),
                                       arrays=lambda a: a.update({"x_quantiles.npy": npy_bytes(QUANTILES[:, :2])}))),
    loading("columns in one word", "columns are 'ab'", "expected a name and categories", "save the model again",
            header=lambda h: h.update(columns="ab")),
    loading("a column without categories", "columns are [['a', []]]", "expected a name and categories", "damaged",
            header=lambda h: h.update(columns=[["a", []]])),
    loading("a category twice", "has the categories u, u", "each once", "save the model again",
            header=lambda h: h.update(columns=[["a", None], ["b", ["u", "u"]]])),
    loading("a column twice", "columns a, a need a name of their own", "categories each", "save the model again",
            header=lambda h: h.update(columns=[["a", None], ["a", ["u", "v"]]])),
    loading("columns of other features", "feature_names are not those of its columns", "damaged", "save it again",
            header=lambda h: h.update(columns=[["a", None], ["b", None]])),
    loading("columns of codes that are numbers", "columns are [['a', None, 'code']]", "expected a name and categories",
            "save the model again", header=lambda h: h.update(columns=[["a", None, "code"]])),
    loading("columns coded in another way", "columns are [['a', ['u'], 'hash']]", "expected a name and categories",
            "save the model again", header=lambda h: h.update(columns=[["a", ["u"], "hash"]])),
    *(embedding(f"spelled {found!r}", f"embeddings are {found!r}", "expected a column, its categories and its units",
                "save the model again", embeddings=found)
      for found in ("ab", {"1": 3}, [[1, 3]], [[1, 3, 2.0]], [[True, 3, 2]], [[-1, 3, 2]], [None])),
    embedding("in a column that is not there", "column has to be a whole number from 0 to 2", embeddings=[[3, 3, 2]]),
    embedding("twice in a column", "column 1 comes 2 times", embeddings=[[1, 3, 1], [1, 3, 1]]),
    embedding("of no category", "n_categories has to be a whole number from 1", embeddings=[[1, 0, 2]]),
    embedding("larger than the file", "header claims", "save the model again", embeddings=[[1, 10**12, 10**9]]),
    embedding("of more categories than the table has", "E0 is float32 (1, 3, 2)", "needs float32 (1, 4, 2)", "damaged",
              embeddings=[[1, 4, 2]]),
    loading("embedding: a table that is missing", "arrays missing ['E0']", "", "damaged or forged",
            make=lambda: bad.put_model(of=bad.by_codes(), arrays=lambda a: a.pop("E0.npy"))),
    loading("embedding: a table of NaN", "E0 holds values that are not finite", "", "train the model again",
            make=lambda: bad.put_model(of=bad.by_codes(), arrays=lambda a: a.update(
                {"E0.npy": npy_bytes(np.full((1, 3, 2), NAN, "f4"))}))),
    loading("embedding: columns of codes that are not embedded", "columns of codes are not those embedded", "",
            "save it again", make=lambda: bad.put_model(of=bad.by_codes(), header=_with_another_category)),
    loading("embedding: none where columns are codes", "arrays missing", "", "damaged or forged",
            make=lambda: bad.put_model(of=bad.by_codes(), header=lambda h: h.pop("embeddings"))),
    loading("a bomb", "MiB of memory are needed", "the limit here is 1 MiB", "GPUMLP_MAX_DATA",
            make=lambda: _model_bomb(), env={"GPUMLP_MAX_DATA": "1MiB"}),
    loading_safetensors("a head without end", "claims a head of 18446744073709551615 bytes", "may take", "",
                        length=2**64 - 1),
    loading_safetensors("a head that is none", "the head cannot be read", "m.safetensors", "save the model again",
                        change=lambda head: b"?" + head[1:]),
    loading_safetensors("bytes behind the end", "the file holds", "the arrays take", "save the model again",
                        tail=b"?" * 8),
    loading_safetensors("a dtype that is none", "is described as", "expected dtype", "damaged or forged",
                        change=lambda head: head.replace(b'"F32"', b'"F99"', 1)),
    loading_safetensors("a tensor twice", "the head cannot be read", "twice", "save the model again",
                        change=lambda head: head.replace(b'"b0"', b'"W0"')),
    loading_safetensors("a negative length", "is described as", "expected dtype", "damaged or forged",
                        change=lambda head: head.replace(b"[1, 5]", b"[-1,5]")),
    loading_safetensors("a tensor of another name", "missing ['b0']", "not expected ['q0']", "damaged or forged",
                        change=lambda head: head.replace(b'"b0"', b'"q0"')),
)

ARGUMENTS = (
    case("Table: one axis", nothing, lambda: Table([1.0, 2.0]), DataError, "X has shape (2,)", "expected", "reshape X"),
    case("Table: objects", nothing, lambda: Table([[None]]), DataError, "dtype object", "expected numbers",
            "convert it"),
    case("Table: labels of objects", nothing, lambda: Table(X, np.array([None] * 4)), DataError, "y has dtype object",
         "expected numbers or str", "convert it"),
    case("classes: one that is unknown", nothing, lambda: encode_labels(["elm", "oak"], ["elm", "ash"]), DataError,
         "class 'oak' in row 2 is unknown", "expected one of ash, elm", "remove its rows"),
    case("classes: numbers for text", nothing, lambda: encode_labels([1, 2], ["1", "2"]), DataError, "class 1 in row 1",
         "expected one of 1, 2", "remove its rows"),
    case("classes: NaN", nothing, lambda: encode_labels([1.0, NAN]), DataError, "y holds NaN", "expected classes",
         "remove these rows"),
    case("scaling: another width", nothing, lambda: Standardiser.fit(X).transform(X[:, :2]), DataError,
         "X has 2 features", "expected the 3", "give the same columns"),
    case("scaling: no rows", nothing, lambda: Standardiser.fit(X[:0]), DataError, "shape (0, 3)", "at least one row",
         "unknown"),
    case("split: all of it", nothing, lambda: train_validation_split(9, 1.5, 0), DataError, "fraction is 1.5",
         "less than 1", "0.2 is usual"),
    case("split: one row", nothing, lambda: train_validation_split(1, 0.5, 0), DataError, "cannot split 1 row",
         "expected 2 or more", "give more rows"),
    case("folds: one", nothing, lambda: k_folds(9, 1, 0), DataError, "cannot make 1 folds", "expected 2 to 9",
         "change k"),
    case("limit: no size", lambda: put("t.csv.gz", CSV), lambda: read_table("t.csv.gz"), ConfigurationError,
         "GPUMLP_MAX_DATA is 'a lot'", "expected a number of bytes", "500MB or 8GiB", env={"GPUMLP_MAX_DATA": "a lot"}),
    case("training: NaN in X", nothing, lambda: _fit(X * NAN, Y), DataError, "X", "not finite", ""),
    case("training: infinity in X", nothing, lambda: _fit(X + INF, Y), DataError, "X", "not finite", ""),
    case("training: another width", nothing, lambda: _fit(X[:, :2], Y), ShapeError, "X has shape (4, 2)", "3", ""),
    case("training: labels beyond the outputs", nothing, lambda: _fit(X, Y + 7), DataError, "8", "", ""),
    case("training: targets of other rows", nothing, lambda: _fit(X, Y[:3]), ShapeError, "3", "4", ""),
    case("training: NaN as weights", nothing, lambda: _fit(X, Y, sample_weight=Y * NAN), ConfigurationError,
         "sample_weight", "must be finite", ""),
    case("training: negative weights", nothing, lambda: _fit(X, Y, sample_weight=Y - 1.0), ConfigurationError,
         "sample_weight", "not negative", ""),
    case("training: weights of other rows", nothing, lambda: _fit(X, Y, sample_weight=[1.0]), ShapeError,
         "sample_weight has shape (1,)", "expected (4,)", ""),
    case("training: NaN in y", nothing, lambda: _regress(X, Y * NAN), DataError, "Y", "finite", ""),
    case("training: negative counts", nothing, lambda: _regress(X, Y - 1.0, cost="poisson", output="exp"), DataError,
         "-1", "poisson", ""),
)

COMMANDS = (
    command("one class", lambda: put("t.csv", "1,2,a\n3,4,a\n"), "train t.csv", "holds one class, a",
            "expected two or more", "is --target the right column?"),
    command("a name that commands the terminal", lambda: put("t.csv", "\x1b[2J,y\n1,0\nx,1\n"),
            "train t.csv --target y", "\\x1b[2J", "expected a number", "encode or drop"),
    command("text as quantities", lambda: put("t.csv", "1,a\n2,b\n"), "train t.csv --task regression",
            "the target holds text", "expected numbers", "leave --task away"),
    command("negative counts", lambda: put("t.csv", "1,-2.5\n2,3.5\n3,1.5\n"),
            "train t.csv --cost poisson --output exp --quiet", "-2.5", "poisson", ""),
    command("a data folder without target", lambda: bad.put_folder(with_target=False), "train set.d",
            "holds features alone", "expected a target", "convert the data again"),
    command("a layer that no machine holds", with_table, f"train t.csv --hidden {HUGE}", f"sizes=(2, {HUGE},",
            "expected layers of at most 2147483647 neurons", "make them smaller"),
    command("a plan of layers that no machine holds", nothing, f"plan --sizes {2**31 - 1},{2**31 - 1} --models 999",
            "values came", "some machine has room for", "take smaller numbers"),
    command("a plan of rows that no machine holds", nothing, f"plan --sizes 4,3 --rows {10**21}", "values came",
            "some machine has room for", "take smaller numbers"),
    command("checkpoints in a file", with_table, "train t.csv --checkpoint t.csv", "--checkpoint t.csv: is a file",
            "expected a folder", "choose another name"),
    command("a log in a folder that is a file", with_table, "train t.csv --log t.csv/l.csv", "t.csv is a file",
            "expected a folder", "name one"),
    command("no scaling of that name", with_table, "train t.csv --scale minmax", "unknown scaling 'minmax'", "",
            "known are none, quantile, standardise"),
    command("prediction: an unknown backend", lambda: (bad.put_model(), with_table()),
            "predict m.npz t.csv --backend nump", "unknown backend (from the argument) 'nump'", "",
            "did you mean 'numpy'?"),
    command("sweep: a part of nothing", lambda: put("s.toml", "epochs = 1\n"),
            "sweep s.toml iris --out f --shard 5", "--shard '5'", "expected I/N", "such as 2/4"),
    command("sweep: an unknown executor", lambda: put("s.toml", "epochs = 1\n"),
            "sweep s.toml iris --out f --executor x", "unknown executor 'x'", "", "known are local, ray"),
    command("sweep: results in a file", lambda: put("s.toml", "epochs = 1\n"), "sweep s.toml iris --out s.toml",
            "--out s.toml: is a file", "expected a folder", "choose another name"),
    command("an unknown scaling", with_table, "train t.csv --scale quantil", "unknown scaling 'quantil'", "",
            "did you mean 'quantile'?"),
    command("two scalings", with_table, "train t.csv --standardise --scale none", "--standardise and --scale none",
            "contradict each other", "leave one out"),
    command("text without names", lambda: put("t.csv", "u,1,0\nv,2,1\n"), "train t.csv", "column 0 (from 0) holds 'u'",
            "expected a number", "give the table a line of names"),
    command("text and numbers in one column", lambda: put("t.csv", "a,b,y\nu,1,0\n3,2,1\n"), "train t.csv --target y",
            "line 3, column 'a' holds '3'", "expected text such as 'u'", "name the column as categorical"),
    command("text alone", lambda: put("t.csv", "u,v,k\nu,w,l\n"), "train t.csv", "holds text in all features",
            "line 1 may be names or a row", "--header or --no-header"),
    command("embed: nothing", with_categories, "train t.csv --embed ,", "--embed ','", "expected each column once",
            "write all, or city=8"),
    command("embed: a column twice", with_categories, "train t.csv --embed id=2,id=3", "--embed 'id=2,id=3'",
            "expected each column once", "write all"),
    *(command(f"embed: {units!r} numbers", with_categories, f"train t.csv --embed id={units}", f"--embed id={units}",
              "expected a whole number of at least 1", "write for example city=8")
      for units in ("0", "-3", "2.5", "x", "")),
    command("embed: too many numbers", with_categories, "train t.csv --embed id=99999999999",
            "n_units has to be a whole number from 1 to", "", ""),
    command("embed: no such column", with_categories, "train t.csv --embed idd=2", "column 'idd' is not categorical",
            "expected one that is", "did you mean 'id'?"),
    command("embed: a column of numbers", with_categories, "train t.csv --embed a=2", "column 'a' is not categorical",
            "expected one that is", "known are id"),
    command("embed: no categories", with_table, "train t.csv --embed all", "no column is categorical", "--embed came",
            "name those that are (--categorical)"),
    *(command(f"plan: --embed {text}", nothing, f"plan --sizes 3,2 --embed {text}", f"--embed {text!r}",
              "expected the categories of a column and its learned numbers", "write for example 1000x8")
      for text in ("4", "4x", "4x2x1", "ax2", "-4x2")),
    command("plan: more columns than there are", nothing, "plan --sizes 1,2 --embed 4x2,4x2",
            "column has to be a whole number from 0 to 0", "", ""),
    command("no such categorical column", with_table, "train t.csv --categorical aa", "column is named 'aa'", "",
            "did you mean 'a'?"),
    command("a categorical target", with_table, "train t.csv --categorical y", "column 'y' is the target",
            "expected a feature as categorical", "leave it out"),
    command("categories in a built-in data set", nothing, "train iris --categorical a", "is built in",
            "no categorical columns, but a came", "drop them"),
    command("a category for each row", lambda: put("t.csv", bad.NAMED_ROWS), "train t.csv --categorical id",
            "column 'id' has 3 different texts", "at most 2 categories", "drop it",
            patch={"gpumlp.data.categories.MOST_CATEGORIES": 2}),
    command("prediction: an unknown way with categories", lambda: (bad.put_model(), put("x.csv", CSV)),
            "predict m.npz x.csv --unseen eror", "unknown --unseen 'eror'", "", "did you mean 'error'?"),
    command("prediction: an unseen category", lambda: (bad.put_model(of=bad.by_columns()), put("x.csv", "a,b\n1,w\n")),
            "predict m.npz x.csv --unseen error", "x.csv: column 'b' holds 'w' in 1 row", "expected categories",
            "correct them"),
    command("prediction: a categorical column that is missing",
            lambda: (bad.put_model(of=bad.by_columns()), put("x.csv", "a,c\n1,2\n")), "predict m.npz x.csv",
            "x.csv: no categorical column is named 'b'", "known are a, c", ""),
    command("prediction: text instead of numbers",
            lambda: (bad.put_model(of=bad.by_columns()), put("x.csv", "a,b\nz,u\n")), "predict m.npz x.csv",
            "x.csv: column 'a' holds text", "expected numbers as in training", "correct it"),
    command("prediction: columns without names",
            lambda: (bad.put_model(of=bad.by_columns()), put_npz("x.npz", X=X[:, :2], y=Y)), "predict m.npz x.npz",
            "x.npz: ", "categorical", "give a text table"),
    command("convert: text without names", lambda: put("t.csv", "1,u,0\n2,v,1\n"), "convert t.csv o.d",
            "column 1 (from 0) holds 'u'", "expected a number", "give the table a line of names"),
    command("convert: no such categorical column", with_table, "convert t.csv o.d --categorical aa",
            "column is named 'aa'", "", "did you mean 'a'?"),
    command("prediction: a model that is none", with_table, "predict t.csv t.csv", "is no gpumlp model", "damaged",
            "save it again"),
    command("prediction: too few features", lambda: (bad.put_model(), put("x.csv", "a,b\n1,2\n")),
            "predict m.npz x.csv",
            "2 features", "expected 3", "give these columns"),
    command("prediction: other features", lambda: (bad.put_model(), put("x.csv", "a,b,d\n1,2,3\n")),
            "predict m.npz x.csv", "features d are not the model's", "c are missing", "rename or add"),
    command("prediction: another order", lambda: (bad.put_model(), put("x.csv", "a,c,b\n1,2,3\n")),
            "predict m.npz x.csv", "another order", "expected 'b'", "put them in the model's order"),
    command("prediction: NaN", lambda: (bad.put_model(), put("x.csv", "a,b,c\n1,2,nan\n")), "predict m.npz x.csv",
            "first nan", "not finite", "remove or fill"),
    command("prediction: the disk is full",
            lambda: (bad.put_model(), put("x.csv", "a,b,c\n1,2,3\n"), put("p.csv", "old")),
            "predict m.npz x.csv --out p.csv", "cannot write p.csv", "No space left", "choose another place",
            patch={"gpumlp.atomic.os.fsync": FULL}),
    command("training: the disk is full", lambda: (put("t.csv", CSV), put("m.npz", "old")),
            "train t.csv --epochs 1 --save m.npz --quiet --json", "cannot write m.npz", "No space left",
            "choose another place", patch={"gpumlp.atomic.os.fsync": FULL}),
    command("training: no permission to save", with_table, "train t.csv --save m.npz", "cannot write into",
            "Permission denied", "choose another place", patch={"tempfile.TemporaryFile": DENIED}),
    command("training: a pipe to save in", lambda: (put("t.csv", CSV), os.mkfifo("m.npz")), "train t.csv --save m.npz",
            "a folder or a device", "expected a file", "name one"),
    command("convert: no name", with_table, "convert t.csv", "OUT.d is missing", "expected the name", "add it"),
    command("convert: another ending", with_table, "convert t.csv out", "out: ", "ends in .d", "name it so"),
    command("convert: taken", lambda: (put("t.csv", CSV), bad.put_folder()), "convert t.csv set.d", "is there already",
            "expected a new name", "choose another"),
    command("convert: taken by a file", lambda: (put("t.csv", CSV), put("set.d", "mine")),
            "convert t.csv set.d --replace", "is no data folder", "expected one to replace", "choose another"),
    command("convert: a contradiction", with_table, "convert t.csv o.d --no-target --target y", "--no-target",
            "contradict", "leave one out"),
    command("convert: a size that is none", with_table, "convert t.csv o.d --max-size big", "--max-size is 'big'",
            "expected a number of bytes", "500MB or 8GiB"),
    command("convert: larger than allowed", with_table, "convert t.csv o.d --max-size 100", "more than the 100 bytes",
            "free some room", "--max-size"),
    command("convert: a bomb", lambda: put("t.csv.gz", "\n" * 99_999), "convert t.csv.gz o.d --max-size 1kB",
            "unpacks to more than", "limit of 1000 bytes", "--max-size"),
    command("convert: infinity", lambda: put("t.csv", "1,2\ninf,3\n"), "convert t.csv o.d", "first inf", "not finite",
            "remove or fill"),
    command("convert: a row too short at the end", lambda: put("t.csv", CSV + "7\n"), "convert t.csv o.d",
            "line 5 has 1 cells", "expected 3", "correct it"),
    command("convert: the disk is full", with_table, "convert t.csv o.d", "No space left", "expected room",
            "choose another place", patch={"gpumlp.data.folder.os.fsync": FULL}),
    command("convert: a damaged folder", lambda: (bad.put_folder(), bad.damage("set.d/Y.npy", place=150)),
            "convert set.d --verify", "Y.npy has the checksum", "expected", "convert the data again"),
    command("convert: verifying a file", with_table, "convert t.csv --verify", "is no data folder", "manifest.json",
            "gpumlp convert"),
)
# fmt: on


def _fit(X, Y, epochs=1, **options):
    gpumlp.Trainer(gpumlp.Network((3, 2), backend="numpy")).fit(X, Y, epochs, **options)


def _regress(X, Y, **options):
    net = gpumlp.Network((3, 1), **{"output": "identity", "cost": "quadratic", "backend": "numpy"} | options)
    gpumlp.Trainer(net).fit(X, Y[:, None], 1)


def _model_twice():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the very thing
        bad.put_model(extra=[("W0.npy", npy_bytes(X))])


def _model_bomb():
    net = gpumlp.Network((3, 600, 600), backend="numpy", initialiser="zeros")
    SavedModel(net, "classification", np.arange(600)).save("m.npz")


def _twice(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the very thing
        put_zip(name, ("X.npy", npy_bytes(X)), ("X.npy", npy_bytes(X + 1)), ("y.npy", npy_bytes(Y)))


def _external(h5py, file):
    Path("raw.bin").write_bytes(X.tobytes())
    file.create_dataset("X", X.shape, "f4", external=[("raw.bin", 0, X.nbytes)])


# ---------------------------------------------------------------- the laws


CASES = (*TEXT, *ARRAYS, *COLUMNS, *PLACES, *FOLDERS, *BLOCKS, *MODELS, *ARGUMENTS, *COMMANDS)


def snapshot(folder):
    """Return the content of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def answer_of(case, capsys):
    """Return what a case is answered with, in one line."""
    if isinstance(case.call, list):
        status = main(case.call)
        told = capsys.readouterr().err.strip().splitlines()
        assert status == 2, told
        assert told[-1].startswith("gpumlp: error: ")
        return told[-1]
    with pytest.raises(case.error) as error:
        case.call()
    assert error.type is case.error
    return str(error.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_input_is_answered_by_what_came_what_was_expected_and_what_to_do(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUMLP_DEBUG", raising=False)
    case.make()
    before = snapshot(tmp_path)
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    for name, value in case.patch.items():
        monkeypatch.setattr(name, value)
    told = answer_of(case, capsys)
    monkeypatch.undo()
    for piece in case.says:
        assert piece in told
    assert "\n" not in told
    assert len(told) < LONGEST_ANSWER
    assert snapshot(tmp_path) == before


def test_no_two_wrong_inputs_have_one_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert len(names) >= 120
