"""Which backend computes: an argument beats use_backend(...), which beats GPUMLP_BACKEND, which beats "auto"."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.backends.protocol import Backend
from gpumlp.errors import BackendUnavailable, ConfigurationError, unknown_name

log = logging.getLogger("gpumlp")

BACKENDS = ("numpy", "numba", "cuda")
DTYPES = ("float32", "float64")
_chosen: ContextVar[str | None] = ContextVar("gpumlp_backend", default=None)


def get_backend(
    name: str | None = None, device: str | None = None, dtype: Any = None, precision: str | None = None
) -> Backend:
    """Return a new backend.

    name       "numpy", "numba", "cuda", "auto", or None for what use_backend, GPUMLP_BACKEND or "auto" choose
    device     "cpu", "cuda", "cuda:1", "auto" or None
    dtype      "float32" (default) or "float64"
    precision  how products are computed: None or the dtype's name
    Raises     BackendUnavailable with the reason if what is asked for by name cannot work here
    """
    dtype = check_dtype(dtype)
    name = asked_for(name)
    check_device(name, device)
    if name == "auto":
        name = choose(device)
    reason = why_unavailable(name)
    if reason:
        raise BackendUnavailable(f'backend "{name}" {reason}; use backend="numpy" or "auto"')
    if precision not in (None, dtype.name):
        raise ConfigurationError(
            f'backend "{name}" computes products in {dtype.name}, not as precision={precision!r} asks; leave it away'
        )
    return NumpyBackend(dtype)


def asked_for(name: str | None) -> str:
    """Return the backend's name by order of rank: argument, context, environment, auto."""
    for source, value in (
        ("the argument", name),
        ("use_backend", _chosen.get()),
        ("GPUMLP_BACKEND", os.environ.get("GPUMLP_BACKEND")),
    ):
        if value:
            if value not in (*BACKENDS, "auto"):
                raise unknown_name(f"backend (from {source})", value, (*BACKENDS, "auto"))
            return value
    return "auto"


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype asked for, float32 by default; raise ConfigurationError for one that cannot be computed in."""
    try:
        found = np.dtype(np.float32 if dtype is None else dtype)
    except TypeError as error:
        raise unknown_name("dtype", dtype, DTYPES) from error
    if found.name not in DTYPES:
        raise unknown_name("dtype", found.name, DTYPES)
    return found


def check_device(name: str, device: str | None) -> None:
    """Raise unless the device has a known name and is one that the backend can compute on."""
    kind, _, number = (device or "auto").partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise ConfigurationError(f'device {device!r} is not known; use "auto", "cpu", "cuda" or "cuda:1"')
    if (kind == "cuda" and name in ("numpy", "numba")) or (kind == "cpu" and name == "cuda"):
        raise ConfigurationError(f'backend "{name}" cannot compute on device {device!r}; leave one of the two away')


def choose(device: str | None) -> str:
    """Return what "auto" means here, and say it in one log line; a device asked for by name is not replaced."""
    if device is not None and device.startswith("cuda"):
        return "cuda"
    reasons = {name: why_unavailable(name) for name in (("numba",) if device == "cpu" else ("cuda", "numba"))}
    log.info("backend numpy on the CPU: %s", "; ".join(f"{name} {reason}" for name, reason in reasons.items()))
    return "numpy"


def why_unavailable(name: str) -> str:
    """Return why a backend cannot work here, "" if it can."""
    if name == "numpy":
        return ""
    module = {"cuda": "cupy", "numba": "numba"}[name]
    found = "is installed" if find_spec(module) else "is not installed"
    return f"is not part of this version of gpumlp, which computes with NumPy only ({module} {found})"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Let every network made inside the block compute with this backend, unless it names one itself."""
    if name not in (*BACKENDS, "auto"):
        raise unknown_name("backend", name, (*BACKENDS, "auto"))
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)
