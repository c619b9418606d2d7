"""HDF5 files, read by h5py slice by slice: datasets named X and y at the top."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.blocks import Blocks, Piece, blocks_of_arrays
from gpumlp.data.files import FEATURES, Request, about, damage_told, first_of, name_of_target, needed
from gpumlp.data.limits import expect_piece, expect_row
from gpumlp.data.table import expect_names, rows_per_block
from gpumlp.errors import DataError

DAMAGED = "a whole HDF5 file", "is it damaged or cut short? write it again"


def open_hdf5(path: Path, request: Request) -> Blocks:
    """Return the datasets X and y (or one of their other names) as Blocks; a `target` is the name of the one for y."""
    with about(path), damage_told(*DAMAGED), _opened(path) as file:
        found = list(file)
        x_name, target = first_of(FEATURES, found), name_of_target(found, request)
        X, y = _dataset(file, x_name), None if target is None else _dataset(file, target)
        names = None
        if "feature_names" in found:
            several = _dataset(file, "feature_names")
            expect_names(prod(several.shape), X.shape)
            names = tuple(str(name) for name in np.ravel(several[:]))
        found_blocks = blocks_of_arrays(X, y, names, target, str(path))

    def pieces(start: int) -> Iterator[Piece]:
        step = rows_per_block(found_blocks.n_features)
        with about(path), damage_told(*DAMAGED), _opened(path) as file:
            X, y = _dataset(file, x_name), None if target is None else _dataset(file, target)
            for first in range(start, len(X), step):
                rows = slice(first, first + step)
                yield X[rows], None if y is None else np.asarray(y[rows], found_blocks.y_dtype or np.str_)

    text = found_blocks.y_dtype is not None and found_blocks.y_dtype.kind == "U"
    return Blocks(
        pieces,
        found_blocks.n_rows,
        found_blocks.n_features,
        found_blocks.x_dtype,
        None if text else found_blocks.y_dtype,
        names,
        target,
        str(path),
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with needed("h5py", "hdf5").File(path, "r") as file:
        yield file


class _Text:
    """A dataset of text, as NumPy's own text."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.asstr()
        self.n_rows, self.shape = len(dataset), dataset.shape

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows: slice) -> Any:
        return np.asarray(self.dataset[rows]).astype(np.str_)


def _dataset(file: Any, name: str) -> Any:
    """Return a dataset that stands in this very file; what leads elsewhere, or holds objects, is refused."""
    h5py = needed("h5py", "hdf5")
    link = file.get(name, getlink=True)
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise DataError(f"{name} is no dataset of this very file, expected one; copy what it leads to into it")
    if found.ndim == 0:
        raise DataError(f"{name} has shape (), expected a row for each sample; reshape it")
    expect_row(prod(found.shape[1:]) * found.dtype.itemsize)
    _expect_chunk(found, name)
    if h5py.check_string_dtype(found.dtype) is not None:
        return _Text(found)
    if found.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {found.dtype}, expected numbers or text; convert it first")
    return found


def _expect_chunk(dataset: Any, name: str) -> None:
    """Raise DataError for a dataset whose chunks, which are unpacked as a whole, do not fit into memory."""
    n_bytes = int(np.prod(dataset.chunks or (1,), dtype=object)) * dataset.dtype.itemsize
    expect_piece(n_bytes, f"{name} has chunks", "with smaller chunks")
