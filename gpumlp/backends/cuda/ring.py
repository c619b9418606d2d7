"""Two pools of rows on a device: one is brought, from pinned memory and on a stream of its own, while steps read the
other. All waiting between the two streams is the device's own, by events.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from gpumlp.backends.cuda.arena import Arena
from gpumlp.backends.cuda.device import Device
from gpumlp.backends.host_ring import half_of, twice
from gpumlp.errors import out_of_memory


class CudaRing:
    """See Ring; all methods are called within a session of the device."""

    def __init__(
        self, device: Device, arena: Arena, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Any]
    ) -> None:
        cuda = device.cupy.cuda
        self._device, self._stream = device, cuda.Stream(non_blocking=True)
        self.arrays = {name: arena.empty(twice(s), dtypes[name], "the pools of rows") for name, s in shapes.items()}
        first, second = ({name: pinned(device, s, dtypes[name]) for name, s in shapes.items()} for _ in (0, 1))
        self.hosts = (first, second)
        self._sent, self._read = ([cuda.Event(disable_timing=True) for _ in (0, 1)] for _ in (0, 1))
        for event in self._read:
            event.record(device.stream)  # what had this memory before may not be done with it

    def send(self, half: int, n: int) -> None:
        """Begin to bring the first n rows of a half, as soon as the steps that read it are done."""
        self._stream.wait_event(self._read[half])
        for name, host in self.hosts[half].items():
            for line, out in zip(host, half_of(self.arrays[name], half), strict=True):
                out[:n].set(line[:n], stream=self._stream)
        self._sent[half].record(self._stream)

    def receive(self, half: int) -> None:
        """Let steps from now on wait for what was sent."""
        self._device.stream.wait_event(self._sent[half])

    def release(self, half: int) -> None:
        """Note that the steps until now are the last to read a half; wait until it has been brought."""
        self._read[half].record(self._device.stream)
        self._sent[half].synchronize()

    def close(self) -> None:
        """Wait until nothing is under way, so that the memory can be used for something else."""
        self._stream.synchronize()


def pinned(device: Device, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of the host that the device reads by itself; raise OutOfMemory if there is no room."""
    cuda, n = device.cupy.cuda, prod(shape)
    try:
        memory = cuda.PinnedMemory(n * np.dtype(dtype).itemsize)  # CuPy's pool would take up to twice that, and keep it
    except cuda.runtime.CUDARuntimeError as error:
        room = "the host has no room for it that a device can read"
        raise out_of_memory("the pools of rows", shape, np.dtype(dtype), room, "take a smaller pool") from error
    return np.frombuffer(cuda.PinnedMemoryPointer(memory, 0), dtype, n).reshape(shape)
