"""A CUDA device as gpumlp uses it, and why one cannot be used."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Any

from gpumlp.errors import BackendUnavailable, readable_bytes

INSTALL = 'pip install "gpumlp[cuda13]", or gpumlp[cuda12] for a driver older than 580'
MEBIBYTE = 2**20
PROBE = 'extern "C" __global__ void probe() {}'


@lru_cache(maxsize=1)
def import_cupy() -> Any:
    """Return the module cupy; raise BackendUnavailable, in one sentence, if there is none that works."""
    wheels = sorted({d.metadata["Name"] for d in distributions() if (d.metadata["Name"] or "").startswith("cupy")})
    if len(wheels) > 1:
        raise BackendUnavailable(
            f"finds {len(wheels)} CuPy wheels, which break each other: pip uninstall -y {' '.join(wheels)}; "
            f"then {INSTALL}"
        )
    if find_spec("cupy") is None:
        raise BackendUnavailable(f"needs CuPy, which is not installed: {INSTALL}")
    try:
        cupy: Any = import_module("cupy")
        import_module("cupy.cuda.compiler")  # a submodule that is not imported by itself everywhere
    except ImportError as error:
        raise BackendUnavailable(f"cannot import CuPy: {error}; install it anew: {INSTALL}") from error
    return cupy


def why_unavailable(number: int = 0) -> str:
    """Return why this device cannot be used here, as the end of a sentence; "" if it can."""
    try:
        open_device(number)
    except BackendUnavailable as error:
        return str(error)
    return ""


@dataclass
class Device:
    """A device with the stream, the cuBLAS handle and the lock that all networks on it share.

    number    as in "cuda:1"
    name      as the driver calls it
    stream    does everything in order; does not wait for the legacy default stream
    cublas    handle of nvmath.bindings.cublas, bound to the stream and a workspace for good
    kept      what must live as long as the handle
    errors    what runtime, driver and cuBLAS raise
    """

    number: int
    name: str
    capability: str
    cupy: Any
    stream: Any
    cublas: int
    kept: tuple[Any, ...]
    errors: tuple[type[Exception], ...]
    lock: threading.RLock
    process: int

    @contextmanager
    def session(self) -> Iterator[None]:
        """Make device and stream current, after what the caller's stream has been given, and before what it will be."""
        forked = self.why_forked()
        if forked:
            raise BackendUnavailable(f'backend "cuda" {forked}; or use backend="numpy"')
        cuda = self.cupy.cuda
        with self.lock:
            if cuda.get_current_stream().ptr == self.stream.ptr:  # within another session, and nothing between the two
                yield
                return
            with cuda.Device(self.number):
                caller = cuda.get_current_stream()
                self.stream.wait_event(caller.record(cuda.Event(disable_timing=True)))
                try:
                    with self.stream:
                        yield
                finally:
                    caller.wait_event(self.stream.record(cuda.Event(disable_timing=True)))

    def why_forked(self) -> str:
        """Return why the device cannot be used if this process is a fork of the one that opened it; "" if it can."""
        if os.getpid() == self.process:
            return ""
        return (
            f"cannot be used in a process that was forked from one that uses {self.name}: start processes with "
            'multiprocessing.get_context("spawn")'
        )

    def free_bytes(self) -> tuple[int, int]:
        """Return how much memory is free, counting what CuPy's pool holds unused, and how much there is."""
        free, total = self.cupy.cuda.runtime.memGetInfo()
        return free + self.cupy.get_default_memory_pool().free_bytes(), total


_devices: dict[int, Device] = {}
_opening = threading.Lock()


def open_device(number: int = 0) -> Device:
    """Return the device of this number; raise BackendUnavailable, in one sentence, if it cannot be used."""
    with _opening:
        if number not in _devices:
            _devices[number] = _open(number)
        found = _devices[number]
    forked = found.why_forked()
    if forked:
        raise BackendUnavailable(forked)
    return found


def _open(number: int) -> Device:
    cupy = import_cupy()
    count = _count_devices(cupy)
    if number >= count:
        there = "the only one is cuda:0" if count == 1 else f"there are cuda:0 to cuda:{count - 1}"
        raise BackendUnavailable(f"finds no device cuda:{number}: {there}")
    _check_nvrtc(cupy)
    try:
        with cupy.cuda.Device(number) as current:
            properties = cupy.cuda.runtime.getDeviceProperties(number)
            name = properties["name"].decode()
            stream = cupy.cuda.Stream(non_blocking=True)
            capability = current.compute_capability
            _check_compiler(cupy, name)
            cublas, kept = _open_cublas(cupy, stream, int(capability))
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendUnavailable(
            f"cannot open cuda:{number} ({_first_line(error)}): see in nvidia-smi whether other processes hold it"
        ) from error
    cublas_error = import_module("nvmath.bindings.cublas").cuBLASError
    errors = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError, cublas_error)
    return Device(number, name, capability, cupy, stream, cublas, kept, errors, threading.RLock(), os.getpid())


def _count_devices(cupy: Any) -> int:
    runtime = cupy.cuda.runtime
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            raise BackendUnavailable(
                "finds no NVIDIA driver (libcuda.so.1) here: install one, or in a container pass the GPU in "
                "(docker run --gpus all)"
            ) from error
        if driver // 1000 < built // 1000:
            raise BackendUnavailable(
                f"finds a driver for CUDA {_dotted(driver)}, but CuPy is built for CUDA {_dotted(built)}: update the "
                f"driver, or pip uninstall -y cupy-cuda{built // 1000}x and install gpumlp[cuda{driver // 1000}]"
            ) from error
        raise BackendUnavailable(
            f"finds no usable device (driver for CUDA {_dotted(driver)}: {error}); see what nvidia-smi says, and "
            "whether CUDA_VISIBLE_DEVICES hides it"
        ) from error


def _check_nvrtc(cupy: Any) -> None:
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # the loader of the binding raises whatever it met
        raise BackendUnavailable(
            f"cannot load NVRTC, which compiles kernels ({_first_line(error)}): {INSTALL}, which brings it"
        ) from error


def _check_compiler(cupy: Any, name: str) -> None:
    """Raise BackendUnavailable unless a kernel can be compiled for the current device and loaded.

    CUDA's headers may be missing, NVRTC or the driver too old for the device: "auto" has to know before it chooses.
    """
    try:
        cupy.RawModule(code=PROBE).get_function("probe")
    except Exception as error:  # CuPy, NVRTC and the driver each have their own
        raise BackendUnavailable(
            f"cannot compile a kernel for {name} ({_first_line(error)}): {INSTALL}, which brings NVRTC and the headers "
            "that it needs"
        ) from error


def _open_cublas(cupy: Any, stream: Any, capability: int) -> tuple[int, tuple[Any, ...]]:
    """Return a handle that is bound to the stream and a workspace, and the workspace.

    CuPy's own handle cannot be used: it refuses to work while a stream is captured, and loses its workspace.
    """
    if find_spec("nvmath") is None:
        raise BackendUnavailable(f"needs nvmath-python, which is not installed: {INSTALL}")
    size = cublas_bytes(capability)
    try:
        with stream:
            workspace = cupy.cuda.alloc(size)
    except cupy.cuda.memory.OutOfMemoryError as error:
        free, total = (readable_bytes(n) for n in cupy.cuda.runtime.memGetInfo())
        raise BackendUnavailable(
            f"finds {free} of {total} free on the device, of which the workspace of cuBLAS alone takes "
            f"{readable_bytes(size)}: end what else uses the device, as nvidia-smi lists it"
        ) from error
    try:
        cublas = import_module("nvmath.bindings.cublas")
        handle = cublas.create()
        cublas.set_stream(handle, stream.ptr)  # first: to set it resets the workspace
        cublas.set_workspace(handle, workspace.ptr, size)
    except Exception as error:
        raise BackendUnavailable(
            f"cannot load cuBLAS through nvmath-python ({_first_line(error)}): {INSTALL}, which brings both for one "
            "version of CUDA"
        ) from error
    return handle, (workspace,)


def cublas_bytes(capability: int) -> int:
    """Return the workspace of cuBLAS that NVIDIA recommends; without one it may allocate in a capture."""
    return 32 * MEBIBYTE if capability >= 90 else 4 * MEBIBYTE


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
