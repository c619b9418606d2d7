"""Device memory: every buffer of a step is laid out before the step is captured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpumlp.backends.cuda.device import Device
from gpumlp.errors import OutOfMemory, out_of_memory, readable_bytes


class Arena:
    """Hands out arrays, and the scratch buffers of kernels, which are the same ones at every call.

    recording   the arrays that a capture under way has used; None: there is no capture, and memory may be taken
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._scratch: dict[tuple[str, int, str], Any] = {}
        self.recording: list[Any] | None = None

    def empty(self, shape: Sequence[int], dtype: Any, what: str) -> Any:
        """Return a new array; raise OutOfMemory, saying what it is for."""
        if self.recording is not None:
            raise RuntimeError(f"{what} would be allocated while a step is captured: a defect of gpumlp")
        with self.room_for(shape, dtype, what):
            return self._device.cupy.empty(tuple(shape), dtype)

    @contextmanager
    def room_for(self, shape: Sequence[int], dtype: Any, what: str) -> Iterator[None]:
        """Let what is done here raise OutOfMemory, saying what the array of this shape is for."""
        try:
            yield
        except self._device.cupy.cuda.memory.OutOfMemoryError as error:
            raise self._refusal(tuple(shape), np.dtype(dtype), what) from error

    def scratch(self, use: str, n: int, dtype: Any, zeroed: bool = False) -> Any:
        """Return the scratch buffer (n,) of one use; kernels run in order, so all of that use and size share it."""
        key = (use, n, np.dtype(dtype).name)
        if key not in self._scratch:
            buffer = self.empty((n,), dtype, f"scratch of {use}")
            if zeroed:
                buffer.fill(0)
            self._scratch[key] = buffer  # at the end: Ctrl-C must not leave tickets that are not zero
        return self._scratch[key]

    def _refusal(self, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> OutOfMemory:
        free, total = self._device.free_bytes()
        room = f"{self._device.name} has {readable_bytes(free)} of {readable_bytes(total)} free"
        return out_of_memory(what, shape, dtype, room)
