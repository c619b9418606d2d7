"""Which backend computes: an argument beats use_backend(...), which beats GPUMLP_BACKEND, which beats "auto"."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
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
    precision  how products are computed: None or the dtype's name; on cuda "tf32", too, which rounds the factors of
               float32 products to 10 bits of mantissa and sums in float32
    Raises     BackendUnavailable with the reason if what is asked for by name cannot work here
    """
    dtype = check_dtype(dtype)
    name = asked_for(name)
    check_device(name, device)
    if name == "auto":
        name = choose(device)
    number = device_number(device)
    reason = why_unavailable(name, number)
    if reason:
        raise BackendUnavailable(f'backend "{name}" {reason}; or use backend="numpy" or "auto"')
    known = (dtype.name, "tf32") if name == "cuda" and dtype == np.float32 else (dtype.name,)
    if precision is not None and precision not in known:
        raise ConfigurationError(
            f'backend "{name}" computes products of {dtype.name} as {" or ".join(known)}, not as '
            f"precision={precision!r} asks; leave it away"
        )
    if name == "cuda":
        from gpumlp.backends.cuda.backend import CudaBackend

        return CudaBackend(dtype, precision, number)
    if name == "numba":
        from gpumlp.backends.numba_backend import NumbaBackend

        return NumbaBackend(dtype)
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
    except (TypeError, ValueError, SyntaxError) as error:  # NumPy reads a text as Python's tuples
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


def device_number(device: str | None) -> int:
    """Return the number in "cuda:1", 0 where none is given."""
    return int((device or "").partition(":")[2] or 0)


def choose(device: str | None) -> str:
    """Return what "auto" means here, and say it in one log line; a device asked for by name is not replaced."""
    if device is not None and device.startswith("cuda"):
        return "cuda"
    reasons = {}
    for name in ("numba",) if device == "cpu" else ("cuda", "numba"):
        reasons[name] = why_unavailable(name)
        if not reasons[name]:
            log.info("backend %s on %s: the first of cuda, numba and numpy that works here", name, describe(name))
            return name
    log.info("backend numpy on the CPU: %s", "; ".join(f"{name} {reason}" for name, reason in reasons.items()))
    return "numpy"


def describe(name: str) -> str:
    """Return on what a backend that works here computes."""
    if name != "cuda":
        return "the CPU"
    from gpumlp.backends.cuda.device import open_device

    device = open_device(0)
    return f"cuda:0, {device.name} (compute capability {device.capability})"


def why_unavailable(name: str, number: int = 0) -> str:
    """Return why a backend cannot work here, on the device of this number if it is cuda; "" if it can."""
    if name == "cuda":
        from gpumlp.backends.cuda.device import why_unavailable as why_no_device

        return why_no_device(number)
    if name == "numba":
        return why_no_numba()
    return ""


def cublas_bytes() -> int:
    """Return the workspace that cuBLAS has on the device here; without one, what it has on the newest."""
    from gpumlp.backends.cuda import device

    capability = 90 if why_unavailable("cuda") else int(device.open_device(0).capability)
    return device.cublas_bytes(capability)


@cache
def why_no_numba() -> str:
    """Return why Numba cannot be used, "" if it can; it is loaded only once a backend needs it."""
    if find_spec("numba") is None:
        return 'needs Numba, which is not installed; install it: pip install "gpumlp[cpu]"'
    try:
        import_module("gpumlp.backends.numba_backend")
    except ImportError as error:  # a Numba that does not take the installed NumPy says so here
        return f"cannot load Numba ({error})"
    return ""


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
