"""One way in for files: the name tells the kind, and the kind's reader finds features and target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpumlp.data import idx
from gpumlp.data.delimited import read_delimited
from gpumlp.data.files import Parts, Request, about, expect_file, listed
from gpumlp.data.numpy_files import read_npy, read_npz
from gpumlp.data.table import Table, check_finite
from gpumlp.errors import DataError


@dataclass(frozen=True)
class FileKind:
    """A kind of file: how its name may end (in lower case), and its reader."""

    endings: tuple[str, ...]
    read: Callable[[Path, Request], Parts]


KINDS = (
    FileKind((".npz",), read_npz),
    FileKind((".npy",), read_npy),
    FileKind((".csv", ".csv.gz", ".tsv", ".tsv.gz"), read_delimited),
    FileKind(("idx3-ubyte", "idx3-ubyte.gz"), idx.read_images),
    FileKind(("idx1-ubyte", "idx1-ubyte.gz"), idx.refuse_labels),
)


def read_table(
    path: str | Path,
    *,
    target: str | int | Path | None = None,
    header: Literal["auto"] | bool = "auto",
    with_target: bool = True,
) -> Table:
    """Read features and target from a .csv, .tsv, .npz, .npy or MNIST idx file; all values are finite.

    target       which y: a column's name or number (text tables), an array's name (.npz), a file's path (.npy, idx);
                 without it the last column, the array y, nothing for .npy, the labels beside the images
    header       whether line 1 of a text table holds names; see `read_delimited` for "auto"
    with_target  False: the file holds features alone, save what `target` names
    Raises       DataError for whatever is wrong with the file, in one line that begins with its name
    """
    path = Path(path)
    expect_file(path)
    parts = _kind_of(path).read(path, Request(target, header, with_target))
    with about(path):
        table = Table(*parts)
        check_finite(table)
    return table


def _kind_of(path: Path) -> FileKind:
    name = path.name.lower()
    for kind in KINDS:
        if name.endswith(kind.endings):
            return kind
    known = listed((ending for kind in KINDS for ending in kind.endings), most=99)
    raise DataError(f"{path}: unknown kind of file, expected a name ending in {known}; convert or rename it")
