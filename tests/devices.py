"""Which CUDA device the tests use: a real one, the emulated one of tests/emulated_gpu, or none."""

import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import emulated_gpu
import pytest

VARIABLE = "GPUMLP_TEST_DEVICE"

# A process of its own asks the driver: a driver without a device, once loaded, would stand in the way of the emulated
# one. The driver's answer 0 means success.
ASK_THE_DRIVER = """
import ctypes
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError:
    raise SystemExit("no NVIDIA driver here")
count = ctypes.c_int()
if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
    raise SystemExit("the NVIDIA driver finds no device")
"""


class Device(NamedTuple):
    """What the tests compute on, "real", "emulated" or "none", and why."""

    kind: str
    reason: str

    def __str__(self):
        return f"CUDA device for tests: {self.kind} ({self.reason})"


@cache
def in_use():
    """Return the Device of this process. The first call, before CuPy is imported, installs the emulated one if needed.

    GPUMLP_TEST_DEVICE=real, emulated or none asks for one; it is a usage error if that cannot be had. Otherwise a real
    device is taken before the emulated one, and that before none.
    """
    asked = os.environ.get(VARIABLE)
    if asked not in (None, "", "real", "emulated", "none"):
        raise pytest.UsageError(f"{VARIABLE}={asked}: real, emulated or none is expected")
    if asked == "none":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a real one, if there is one, is hidden
        return Device("none", f"{VARIABLE} says so")
    no_real = f"{VARIABLE} says so" if asked == "emulated" else _why_not_real()
    if not no_real:
        return Device("real", f"{VARIABLE} says so" if asked else "the NVIDIA driver finds one")
    if asked == "real":
        raise pytest.UsageError(f"{VARIABLE}=real: {no_real}")
    try:
        emulated_gpu.install()
    except emulated_gpu.Unavailable as error:
        if asked:
            raise pytest.UsageError(f"{VARIABLE}=emulated: {error}") from None
        return Device("none", f"{no_real}; {error}")
    return Device("emulated", no_real)


def cupy_on(kind):
    """Return the module cupy where the device in use is of this kind; skip the test or the test file elsewhere."""
    if in_use().kind != kind:
        pytest.skip(why_skipped(kind), allow_module_level=True)
    return importlib.import_module("cupy")


def why_skipped(kind):
    return f"needs the {kind} device, but the tests use {in_use().kind}: {in_use().reason}"


def _why_not_real():
    command = [sys.executable, "-I", "-S", "-c", ASK_THE_DRIVER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["the NVIDIA driver crashed"])[-1]
    return "" if find_spec("cupy") else "an NVIDIA driver finds a device, but CuPy is missing"


def node_kinds(graph):
    """Return how many nodes of each kind a captured CuPy graph has, such as Counter(KERNEL=3, MEMSET=1).

    Works alike on a real device: the verbose DOT text of both begins a node's label with its kind.
    """
    nodes = re.findall(r'"graph_\d+_node_\d+"\s*\[[^\]]*?label="\{\s*([A-Z_]+)', graph.debug_dot_str(1))
    return Counter(nodes)
