"""The idx files in which MNIST and its relatives are published.

Source   Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, "File formats"
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from gpumlp.data.blocks import Blocks, Piece, blocks_of_arrays, read_up_to, streamed_rows
from gpumlp.data.files import Parts, Request, about, expect_file, open_bytes, packed
from gpumlp.data.numpy_files import MAPPED_FROM
from gpumlp.data.table import Array, Table, expect_as_many, rows_per_block
from gpumlp.errors import DataError

UNSIGNED_BYTES = 0x08  # third byte of the magic number; the fourth is the number of axes
PIXEL = np.dtype(np.uint8)


def read_images(path: Path, request: Request) -> Parts:
    """Return images as rows of uint8 pixels, with the labels of the file beside them (int64)."""
    X = as_rows(read_idx(path, 3, request))
    return X, _read_labels(path, request), None, None


def open_images(path: Path, request: Request) -> Blocks:
    """Return images and labels as Blocks, of the mapped file or unpacked as it is read; labels stay in memory."""
    y = _read_labels(path, request)
    if not packed(path):
        with about(path):
            return blocks_of_arrays(as_rows(read_idx(path, 3, request, mapped_from=0)), y, name=str(path))
    expect_file(path)
    with about(path), open_bytes(path, request) as file:
        shape = _read_shape(file, 3)
    n_rows, n_features = shape[0], math.prod(shape[1:])
    with about(path):
        Table(np.empty((min(n_rows, 1), min(n_features, 1)), PIXEL))
        expect_as_many(n_rows, n_rows if y is None else len(y))

    def pieces(start: int) -> Iterator[Piece]:
        step = rows_per_block(n_features)
        with about(path), open_bytes(path, request) as file:
            _read_shape(file, 3)
            X = streamed_rows(file, PIXEL, (n_rows, n_features), start, step)
            parts = repeat(None) if y is None else (y[i : i + step] for i in range(start, n_rows, step))
            yield from zip(X, parts, strict=False)

    return Blocks(pieces, n_rows, n_features, PIXEL, None if y is None else y.dtype, name=str(path))


def refuse_labels(path: Path, request: Request) -> NoReturn:
    """Raise DataError: labels are no features."""
    raise DataError(f"{path}: an idx1 file holds labels, expected images; give the idx3 file, and this one as target")


def read_idx(path: Path, n_axes: int, request: Request, mapped_from: int = MAPPED_FROM) -> Array:
    """Return the bytes of an idx file in their shape, uint8, mapped if they are so many; none lacks or is left over."""
    expect_file(path)
    with about(path), open_bytes(path, request) as file:
        shape = _read_shape(file, n_axes)
        n_bytes, offset = math.prod(shape), 4 + 4 * n_axes
        if not packed(path):
            _expect_size(path.stat().st_size, offset + n_bytes, shape)
            if n_bytes >= max(mapped_from, 1):
                return np.memmap(path, PIXEL, "r", offset, shape).view(np.ndarray)
        content = read_up_to(file, n_bytes)
        surplus = sum(len(part) for part in iter(lambda: file.read(1 << 16), b""))
        _expect_size(offset + len(content) + surplus, offset + n_bytes, shape)
        if not n_bytes:  # of which NumPy makes no array where the lengths are enormous
            shape = tuple(min(n, 1) for n in shape)
        return np.frombuffer(content, PIXEL).reshape(shape)


def as_rows(images: Array) -> Array:
    """Return each image as a row of pixels."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _read_shape(file: BinaryIO, n_axes: int) -> tuple[int, ...]:
    head = file.read(4 + 4 * n_axes)
    expected = bytes([0, 0, UNSIGNED_BYTES, n_axes])
    if head[:4] != expected:
        raise DataError(f"magic number is {head[:4].hex()!r}, expected {expected.hex()!r}; is it an idx{n_axes} file?")
    shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, 4 + 4 * n_axes, 4))
    if len(head) < 4 + 4 * n_axes:
        _expect_size(len(head), 4 + 4 * n_axes + math.prod(shape), shape)
    return shape


def _expect_size(found: int, expected: int, shape: tuple[int, ...]) -> None:
    if found != expected:
        raise DataError(f"has {found} bytes, expected {expected} for shape {shape}; fetch or write it again")


def _read_labels(path: Path, request: Request) -> Array | None:
    labels = _labels_path(path, request)
    return None if labels is None else read_idx(labels, 1, request).astype(np.int64)


def _labels_path(path: Path, request: Request) -> Path | None:
    if request.target is not None:
        return Path(str(request.target))
    if not request.with_target:
        return None
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labels.exists():
        raise DataError(f"{path}: no labels beside it ({labels.name}); give their path as target")
    return labels
