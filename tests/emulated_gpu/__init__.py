"""An emulated CUDA device for the unmodified CuPy wheel. See README.md."""

import atexit
import ctypes
import json
import os
from collections import Counter, defaultdict
from contextlib import contextmanager

from .hook import Unavailable

__all__ = [
    "Unavailable",
    "check_with_nvrtc",
    "counting",
    "install",
    "installed",
    "memcheck",
    "mode",
    "reset",
    "reset_device",
    "restore",
    "set_mode",
    "snapshot",
]

_core = None
_keep = None


def install(children=False):
    """Make CuPy, which must not be imported yet, use the emulated device in this process.

    With children=True also in the Python processes that it starts. Raises Unavailable where it cannot work.
    """
    global _core, _keep
    if _core is None:
        from . import hook

        _core, _keep = hook.install()
        _core.emu_statistics.restype = ctypes.c_char_p
        _core.emu_count.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long]
        atexit.register(_core.emu_finish)
    if children:
        here = os.path.dirname(os.path.abspath(__file__))
        path = [os.path.join(here, "site"), os.path.dirname(here)]
        path += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in path]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)


def installed():
    return _core is not None


def snapshot():
    """Return what has happened since reset(): {group: {key: count}}, where what is missing counts as 0.

    launches         kernels by name, without those that were captured
    cublas, curand   calls by name, without those that were captured
    gemm             products by shape and type, also those that were captured
    memory           cudaMalloc, cudaMallocAsync, cudaMallocManaged, together allocations and bytes_allocated; frees;
                     captured_cudaMallocAsync; cudaHostAlloc, cudaHostRegister
    memcpy_count     copies by direction such as HostToDevice (pinned memory is the host's), without captured ones
    memcpy_bytes     their bytes; memset_bytes
    synchronizations calls in which the host waits or, memcpy_staged, may wait: stream, event, device, memcpy (what
                     blocks by its nature, such as a copy to pageable memory), memcpy_staged (from pageable memory
                     without waiting), free (cudaFree and cudaFreeHost)
    queries          stream, event: asking whether work is done
    captured         what went into graphs instead of being run, by name
    graphs           instantiated, uploads, launches
    graph_nodes      what the launched graphs ran, by name: kernels, products, "memcpy HostToDevice", "memset"
    host_functions   calls of the host that a stream makes
    modules          loaded
    """
    counted = defaultdict(Counter)
    counted.update((group, Counter(keys)) for group, keys in json.loads(_core.emu_statistics()).items())
    return counted


def reset():
    """Start the statistics again."""
    _core.emu_reset_statistics()


def restore(counted):
    """Make the statistics those of an earlier snapshot()."""
    reset()
    for group, keys in counted.items():
        for key, n in keys.items():
            _core.emu_count(group.encode(), key.encode(), n)


@contextmanager
def counting():
    """Yield a dictionary like that of snapshot(), filled when the block ends with what happened in the block."""
    before, counted = snapshot(), defaultdict(Counter)
    yield counted
    counted.update((group, keys - before[group]) for group, keys in snapshot().items() if keys - before[group])


def mode():
    """Return "eager" or "lazy"."""
    return "lazy" if _core.emu_is_lazy() else "eager"


def set_mode(mode):
    """Wait for all work, then switch to "eager" or "lazy", like EMULATED_GPU_MODE."""
    if mode not in ("eager", "lazy"):
        raise ValueError(mode)
    _core.emu_set_lazy(mode == "lazy")


def reset_device():
    """Forget a sticky error, which would end a real process's use of the GPU, and all queued work."""
    _core.emu_reset_device()


def memcheck():
    """Give every array its own allocation, so that the guard page follows it and stale data is poisoned."""
    import cupy

    cupy.cuda.set_allocator(None)
    cupy.cuda.set_pinned_memory_allocator(None)


def check_with_nvrtc(source, name_expressions=(), options=("--std=c++17",), architectures=(80, 90), include_cupy=True):
    """Compile with the real NVRTC (pip install nvidia-cuda-nvrtc), which needs no GPU; RuntimeError with its log.

    Finds what g++ accepts and a GPU compiler does not.
    """
    from . import real_nvrtc

    real_nvrtc.check(source, name_expressions, options, architectures, include_cupy)
