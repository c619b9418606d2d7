"""Kinds of arrays: what is given on a CUDA device or by another library, and predictions in the same kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.network.kinds import bring, in_kind_of
from gpumlp.shapes import HostArray, is_on_device


def is_foreign(x: Any) -> bool:
    """Tell whether `x` is an array of another library that speaks DLPack, as a torch tensor is."""
    return hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray)


def as_numpy(x: Any) -> Any:
    """Return an array of another library in the host's memory as NumPy's, in its dtype; everything else as given."""
    return np.asarray(x) if is_foreign(x) and not is_on_device(x) else x


def on_host(x: Any, name: str, backend: Backend) -> HostArray:
    """Return an array on the backend's device as NumPy's; raise DataError where the backend does not compute there."""
    copied: HostArray = backend.to_host(bring(x, name, backend))
    return copied


def in_kind_of_rows(y: Any, X: Any, backend: Backend) -> Any:
    """Return predictions in the kind of the rows that they are for: NumPy's, unless X is of another array library.

    Text stays NumPy's, as no device has any.
    """
    if y.dtype.kind not in "fiub":
        return y
    if is_on_device(X):
        return in_kind_of(backend.asarray(y), X)
    return in_kind_of(y, X) if is_foreign(X) else y
