"""The idx files in which MNIST and its relatives are published.

Source   Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, "File formats"
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from gpumlp.data.files import Parts, Request, about, expect_file, open_bytes
from gpumlp.data.table import Array
from gpumlp.errors import DataError

UNSIGNED_BYTES = 0x08  # third byte of the magic number; the fourth is the number of axes


def read_images(path: Path, request: Request) -> Parts:
    """Return images as rows of uint8 pixels, with the labels of the file beside them (int64)."""
    images = read_idx(path, n_axes=3)
    X = images.reshape(len(images), math.prod(images.shape[1:]))
    labels = _labels_path(path, request)
    return X, None if labels is None else read_idx(labels, n_axes=1).astype(np.int64), None, None


def refuse_labels(path: Path, request: Request) -> Parts:
    """Raise DataError: labels are no features."""
    raise DataError(f"{path}: an idx1 file holds labels, expected images; give the idx3 file, and this one as target")


def read_idx(path: Path, n_axes: int) -> Array:
    """Return the bytes of an idx file in their shape, uint8 and read-only; none lacks and none is left over."""
    expect_file(path)
    with about(path):
        with open_bytes(path) as file:
            content = file.read()
        expected = bytes([0, 0, UNSIGNED_BYTES, n_axes])
        if content[:4] != expected:
            raise DataError(
                f"magic number is {content[:4].hex()!r}, expected {expected.hex()!r}; is it an idx{n_axes} file?"
            )
        offset = 4 + 4 * n_axes
        shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, offset, 4))
        size = offset + math.prod(shape)
        if len(content) != size:
            raise DataError(f"has {len(content)} bytes, expected {size} for shape {shape}; fetch or write it again")
        return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)


def _labels_path(path: Path, request: Request) -> Path | None:
    if request.target is not None:
        return Path(str(request.target))
    if not request.with_target:
        return None
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if not labels.exists():
        raise DataError(f"{path}: no labels beside it ({labels.name}); give their path as target")
    return labels
