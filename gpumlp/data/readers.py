"""One way in for files: the name tells the kind, and the kind's reader finds features and target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpumlp.data import columns, folder, hdf5, idx, svmlight
from gpumlp.data.blocks import Blocks, blocks_of
from gpumlp.data.delimited import open_delimited, read_delimited
from gpumlp.data.files import Parts, PartsWithTexts, Request, about, expect_file, listed
from gpumlp.data.numpy_files import open_npy, open_npz, read_npy, read_npz
from gpumlp.data.table import Table, check_finite
from gpumlp.errors import DataError


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    endings   how its name may end, in lower case
    open      open(path, request) -> Blocks
    read      read(path, request) -> all of it, where there is a shorter way than to gather the blocks
    text      whether its columns have names and may hold text
    """

    endings: tuple[str, ...]
    open: Callable[[Path, Request], Blocks]
    read: Callable[[Path, Request], Parts | PartsWithTexts] | None = None
    text: bool = False


KINDS = (
    FileKind((".npz",), open_npz, read_npz),
    FileKind((".npy",), open_npy, read_npy),
    FileKind((".csv", ".csv.gz", ".tsv", ".tsv.gz"), open_delimited, read_delimited, text=True),
    FileKind(("idx3-ubyte", "idx3-ubyte.gz"), idx.open_images, idx.read_images),
    FileKind(("idx1-ubyte", "idx1-ubyte.gz"), idx.refuse_labels),
    FileKind((".parquet",), columns.open_parquet, text=True),
    FileKind((".arrow", ".feather"), columns.open_arrow, text=True),
    FileKind((".h5", ".hdf5"), hdf5.open_hdf5),
    FileKind((".svmlight", ".svmlight.gz", ".libsvm", ".libsvm.gz", ".svm", ".svm.gz"), svmlight.open_svmlight),
)
DATA_FOLDER = FileKind((folder.ENDING,), folder.open_data_folder, folder.read_data_folder, text=True)


def read_table(
    path: str | Path,
    *,
    target: str | int | Path | None = None,
    header: Literal["auto"] | bool = "auto",
    with_target: bool = True,
    categorical: Iterable[str] | None = None,
) -> Table:
    """Read features and target from a file of one of KINDS or a data folder; all values are finite.

    target       which y: a column's name or number (text tables, Parquet, Arrow), an array's name (.npz, HDF5), a
                 file's path (.npy, idx); without it the last column, the array y, nothing for .npy, the labels beside
                 the images
    header       whether line 1 of a text table holds names; see `read_delimited` for "auto"
    with_target  False: the file holds features alone, save what `target` names
    categorical  columns whose values are texts, be they numbers or not; those that hold text and no number are, too.
                 See Table.texts, and Encoding for what to do with them. Without it text is refused
    Raises       DataError for whatever is wrong with the file, in one line that begins with its name, and if it takes
                 more memory than `data_limit` allows; large .npy files and data folders are mapped and take none
    """
    named = None if categorical is None else tuple(categorical)
    path, request = Path(path), Request(target, header, with_target, categorical=named)
    kind = _kind_of(path)
    with about(path):
        _expect_text(kind, named)
        table = kind.open(path, request).gather() if kind.read is None else Table(*kind.read(path, request))
        check_finite(table)
    return table


def open_blocks(
    source: str | Path | Iterable[Any],
    *,
    target: str | int | Path | None = None,
    header: Literal["auto"] | bool = "auto",
    with_target: bool = True,
    missing: bool = False,
    limit: int | None = None,
    categorical: Iterable[str] | None = None,
) -> Blocks:
    """Return a data set as Blocks, which may be larger than memory; see `read_table` for what is the same.

    source    a path, or an iterable that gives X, (X, y) or Table of some rows at a time
    missing   values may be missing in the features of a table and are read as NaN, of a column of text as the text "";
              no value is checked here
    limit     bytes that a packed file may unpack to; `data_limit` by default
    """
    if not isinstance(source, str | Path):
        return blocks_of(source)
    path, named = Path(source), None if categorical is None else tuple(categorical)
    kind = _kind_of(path)
    with about(path):
        _expect_text(kind, named)
        return kind.open(path, Request(target, header, with_target, missing, limit, named))


def _expect_text(kind: FileKind, named: tuple[str, ...] | None) -> None:
    if named and not kind.text:
        raise DataError(
            f"its columns cannot be categorical, but {listed(named)} came; give a text table, Parquet or Arrow file"
        )


def _kind_of(path: Path) -> FileKind:
    if folder.is_data_folder(path):
        return DATA_FOLDER
    expect_file(path)
    name = path.name.lower()
    for kind in KINDS:
        if name.endswith(kind.endings):
            return kind
    known = listed((ending for kind in KINDS for ending in kind.endings), most=99)
    raise DataError(f"{path}: unknown kind of file, expected a name ending in {known}; convert or rename it")
