"""Arrays that NumPy saved; Python objects in them are never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from gpumlp.data.blocks import Blocks, Piece, blocks_of_arrays, read_up_to, streamed_rows
from gpumlp.data.files import FEATURES, Parts, Request, about, damage_told, expect_file, first_of, name_of_target
from gpumlp.data.limits import DEFLATED, expect_room, expect_row
from gpumlp.data.table import Array, Table, expect_as_many, expect_names, rows_per_block
from gpumlp.errors import DataError, readable_bytes

NPY: Any = np.lib.format  # older NumPys do not tell its types

MAPPED_FROM = 64 * 2**20  # bytes; a smaller file is read at once, which leaves it free to be changed
WHOLE = "a whole file of NumPy"
ADVICE = "save plain numbers or text again with np.save or np.savez (Python objects are never unpickled)"


@dataclass(frozen=True)
class Claim:
    """What the header of an array claims, and where its values begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path, request: Request) -> Parts:
    """Return X, y and feature_names of a .npz file, by the first of the names FEATURES and TARGETS that it holds.

    A `target` is the name of the array to take as y.
    """
    with about(path), damage_told(WHOLE, ADVICE), _archive(path) as archive:
        names, x_name, target = _contents(archive, request)
        wanted = [name for name in (x_name, target) if name is not None]
        expect_room(sum(_member_claim(archive, name).n_bytes for name in wanted), f"array {' and '.join(wanted)}")
        X, *y = (_read_member(archive, name) for name in wanted)
        return X, y[0] if y else None, names, target


def open_npz(path: Path, request: Request) -> Blocks:
    """Return X and y of a .npz file as Blocks; they are unpacked as they are read."""
    with about(path), damage_told(WHOLE, ADVICE), _archive(path) as archive:
        names, x_name, target = _contents(archive, request)
        claims = [_member_claim(archive, name) for name in (x_name, target) if name is not None]
        if any(claim.fortran for claim in claims) or any(len(claim.shape) == 0 for claim in claims):
            X, y, names, target = read_npz(path, request)  # its rows do not stand one behind the other
            return blocks_of_arrays(X, y, names, target, str(path))
        n_rows = claims[0].shape[0]
        expect_as_many(n_rows, claims[-1].shape[0])
        if n_rows == 0 or len(claims[0].shape) != 2:
            Table(np.empty(claims[0].shape, np.uint8) if prod(claims[0].shape) == 0 else np.empty((1, 1, 1)))
        for claim in claims:
            expect_row(claim.n_bytes // n_rows)
        x_head, *y_head = (np.zeros((1, *claim.shape[1:]), claim.dtype) for claim in claims)
        head = Table(x_head, y_head[0] if y_head else None)

    def pieces(start: int) -> Iterator[Piece]:
        step = rows_per_block(head.X.shape[1])
        with about(path), damage_told(WHOLE, ADVICE), _archive(path) as archive:
            if target is None:
                yield from zip(_member_rows(archive, x_name, start, step), repeat(None), strict=False)
            else:
                streams = (_member_rows(archive, name, start, step) for name in (x_name, target))
                yield from zip(*streams, strict=True)

    y_dtype = None if head.y is None else head.y.dtype
    return Blocks(pieces, n_rows, head.X.shape[1], head.X.dtype, y_dtype, names, target, str(path))


def read_npy(path: Path, request: Request) -> Parts:
    """Return X from one .npy file and y from the one whose path is `target`; large ones stay on the disk, mapped."""
    y = _target_path(path, request)
    return load_npy(path), None if y is None else load_npy(y), None, None


def open_npy(path: Path, request: Request) -> Blocks:
    """Return .npy files as Blocks of the mapped files."""
    target = _target_path(path, request)
    X, y = load_npy(path, mapped_from=0), None if target is None else load_npy(target, mapped_from=0)
    with about(path):
        _expect_axis(X)
        return blocks_of_arrays(X, y, name=str(path))


def load_npy(path: Path, mapped_from: int | None = None) -> Array:
    """Return the array in a .npy file, read-only and mapped if it has at least MAPPED_FROM or so many bytes.

    Raises   DataError if it is none, holds Python objects, or has fewer or more values than its header says
    """
    expect_file(path)
    with about(path), path.open("rb") as file, damage_told(WHOLE, ADVICE):
        claim = _claim(file)
        held = path.stat().st_size - claim.offset
        _expect_size(claim, held)
        order: Any = "F" if claim.fortran else "C"
        if claim.n_bytes >= max(MAPPED_FROM if mapped_from is None else mapped_from, 1):
            mapped = np.memmap(file, claim.dtype, "r", claim.offset, claim.shape, order)
            return mapped.view(np.ndarray)
        content = read_up_to(file, claim.n_bytes)
        return np.frombuffer(content, claim.dtype, prod(claim.shape)).reshape(claim.shape, order=order)


def _target_path(path: Path, request: Request) -> Path | None:
    if request.target is None and request.with_target:
        raise DataError(f"{path}: a .npy file holds X alone; give the path of another with y as target")
    return None if request.target is None else Path(str(request.target))


def _expect_axis(X: Array) -> None:
    if X.ndim == 0:
        raise DataError("X has shape (), expected (n_samples, n_features); reshape X to two axes")


def _archive(path: Path) -> zipfile.ZipFile:
    with path.open("rb") as file:
        if file.read(6) == NPY.MAGIC_PREFIX:
            raise DataError("holds a single array, expected an archive with X and y; rename it to .npy")
    return zipfile.ZipFile(path)


def _contents(archive: zipfile.ZipFile, request: Request) -> tuple[tuple[str, ...] | None, str, str | None]:
    """Return the feature names and the names of the arrays that are X and y."""
    entries = archive.namelist()
    twice = next((name for name in entries if entries.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"holds two entries named {twice!r}, expected one of each; {ADVICE}")
    found = [name.removesuffix(".npy") for name in entries]
    x_name, target = first_of(FEATURES, found), name_of_target(found, request)
    if "feature_names" not in found:
        return None, x_name, target
    expect_names(prod(_member_claim(archive, "feature_names").shape), _member_claim(archive, x_name).shape)
    return tuple(str(name) for name in _read_member(archive, "feature_names").ravel()), x_name, target


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    claim = _member_claim(archive, name)
    expect_room(claim.n_bytes, f"array {name}")
    with _member(archive, name) as file:
        _claim(file)
        content = read_up_to(file, claim.n_bytes + 1)
    _expect_size(claim, len(content))
    order: Any = "F" if claim.fortran else "C"
    return np.frombuffer(content, claim.dtype, prod(claim.shape)).reshape(claim.shape, order=order)


def _member_rows(archive: zipfile.ZipFile, name: str, start: int, step: int) -> Iterator[Array]:
    with _member(archive, name) as file:
        claim = _claim(file)
        yield from streamed_rows(file, claim.dtype, claim.shape, start, step)


def _member_claim(archive: zipfile.ZipFile, name: str) -> Claim:
    with _member(archive, name) as file:
        claim = _claim(file)
    entry = archive.getinfo(_entry(archive, name))
    _expect_size(claim, min(entry.file_size, DEFLATED * (entry.compress_size + 1)) - claim.offset)
    return claim


def _member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    return cast(BinaryIO, archive.open(_entry(archive, name)))


def _entry(archive: zipfile.ZipFile, name: str) -> str:
    return f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name


def _claim(file: BinaryIO) -> Claim:
    """Read the header of an array, and no further."""
    version = NPY.read_magic(file)
    readers = {(1, 0): NPY.read_array_header_1_0, (2, 0): NPY.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"has format version {version[0]}.{version[1]}, expected 1.0 or 2.0; {ADVICE}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise DataError(f"holds Python objects (dtype {dtype}), expected numbers or text; {ADVICE}")
    if any(n < 0 for n in shape):
        raise DataError(f"claims the shape {shape}, expected lengths of at least 0; {ADVICE}")
    return Claim(shape, fortran, dtype, file.tell())


def _expect_size(claim: Claim, held: int) -> None:
    if claim.n_bytes > held:
        raise DataError(
            f"claims {claim.dtype} values of shape {claim.shape}, {readable_bytes(claim.n_bytes)}, and holds "
            f"{readable_bytes(max(held, 0))}; it is cut short or forged, fetch or write it again"
        )
