"""Axis names, and the one check of shape, dtype and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.errors import ShapeError

# Any array of the host: what NumPy makes, whatever its dtype.
HostArray = NDArray[Any]


def describe(shape: tuple[int | str, ...]) -> str:
    """Spell a shape with its axis names as Python would: (n_samples, 784)."""
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def expect(array: Any, name: str, shape: tuple[int | str, ...], advice: str = "") -> None:
    """Raise ShapeError unless `array` has `shape`, in which a str names an axis of any length.

    The message holds what came, what was expected, and `advice`: what to do next.
    """
    found = tuple(array.shape)
    if len(found) == len(shape) and all(isinstance(n, str) or n == m for n, m in zip(shape, found, strict=True)):
        return
    tail = f"; {advice}" if advice else ""
    raise ShapeError(f"{name} has shape {describe(found)}, expected {describe(shape)}{tail}")


def expect_rows(array: Any, name: str, n_rows: int, other: str) -> None:
    """Raise ShapeError unless `array` has as many rows as the array called `other`."""
    if len(array) != n_rows:
        raise ShapeError(f"{name} has {len(array)} rows, but {other} has {n_rows}; each row needs its partner")


def is_on_device(x: Any) -> bool:
    """Tell whether an array of any library lies on a CUDA device."""
    if isinstance(x, np.ndarray):
        return False
    if hasattr(x, "__cuda_array_interface__"):
        return True
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) in (2, 13)  # kDLCUDA, kDLCUDAManaged


def as_numeric(x: Any, name: str) -> HostArray:
    """Return `x` as an array of numbers, of the host unless it is one on a device.

    Raises ShapeError where it is ragged, text or objects.
    """
    try:
        array = x if is_on_device(x) else np.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name} cannot become an array: {error}; give rows of equal length") from error
    if array.dtype.kind not in "fiub":
        raise ShapeError(f"{name} has dtype {array.dtype}, expected numbers; convert them to floats or integers first")
    return array
