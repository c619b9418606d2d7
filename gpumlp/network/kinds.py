"""Which kind of array a user gives: one of the host, or one that lies on a CUDA device and is to stay there."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.errors import DataError
from gpumlp.shapes import is_on_device


def bring(x: Any, name: str, backend: Backend) -> Any:
    """Return `x` as given if it is the host's, and as the backend's array if it lies on the backend's device.

    Raises DataError for an array on a device where the backend does not compute.
    """
    if not is_on_device(x):
        return x
    if backend.device == "cpu":
        raise DataError(
            f'{name} lies on a CUDA device, but this network computes with backend "{backend.name}" on the host; use '
            'backend="cuda", or bring it to the host (CuPy: x.get(), torch: x.cpu())'
        )
    return backend.asarray(x, what=name)


def bring_values(x: Any, name: str, backend: Backend) -> Any:
    """Return numbers that are to be written into the backend's arrays, in its dtype; on its device if they lie there.

    Raises DataError for an array on a device where the backend does not compute.
    """
    if is_on_device(x):
        return backend.asarray(bring(x, name, backend), backend.dtype)
    return np.asarray(x, backend.dtype)


def in_kind_of(y: Any, like: Any) -> Any:
    """Return a device array as an array of the library that `like` comes from, without a copy.

    It stays CuPy's where that library cannot take it over through DLPack.
    """
    if type(y) is type(like):
        return y
    library: Any = sys.modules.get(type(like).__module__.partition(".")[0])
    if hasattr(like, "__array_namespace__"):
        library = like.__array_namespace__()
    return library.from_dlpack(y) if hasattr(library, "from_dlpack") else y
