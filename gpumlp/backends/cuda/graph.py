"""A step as one graph: a fixed list of kernels and products that the device repeats by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpumlp.backends.cuda.device import Device
from gpumlp.errors import BackendUnavailable, ConfigurationError


class CapturedStep:
    """Does at each call what `step` does.

    The first call runs it: a real step, in which kernels are compiled and loaded and scratch buffers made, none of
    which is allowed in a capture. The second one records it as a graph and launches that, as all later ones do.

    graph   CuPy's graph, once there is one
    kept    the arrays that it uses: a graph does not own its memory
    """

    def __init__(self, device: Device, step: Callable[[], None], kept: list[Any]) -> None:
        self._device, self._step = device, step
        self.kept = kept
        self.graph: Any = None
        self._may_record, self._has_run = not without_graphs(), False

    def __call__(self) -> None:
        """Perform the next step."""
        if self.graph is None and self._has_run and self._may_record:
            self.graph = self._record()
        if self.graph is not None:
            self.graph.launch(self._device.stream)
        else:
            self._step()
            self._has_run = True

    def _record(self) -> Any:
        try:
            return self._capture()
        except self._device.errors as error:
            raise BackendUnavailable(
                f'backend "cuda": {self._device.name} could not record a step as a graph ({error}); '
                "GPUMLP_CUDA_GRAPHS=off launches each kernel by itself; please report it with what "
                "`gpumlp doctor` writes"
            ) from error

    def _capture(self) -> Any:
        """Return the graph of a step; leave the stream, which all share, not capturing, whatever comes: Ctrl-C, too."""
        stream = self._device.stream
        try:
            stream.begin_capture()
            self._step()
            return stream.end_capture()
        except BaseException:
            with suppress(Exception):  # what came first is told, not what it made of the capture
                stream.end_capture()
            raise


def without_graphs() -> bool:
    """Tell whether the environment wants each kernel launched by itself."""
    asked = os.environ.get("GPUMLP_CUDA_GRAPHS", "on").lower()
    if asked not in ("on", "off"):
        raise ConfigurationError(f'GPUMLP_CUDA_GRAPHS={asked!r}: expected "on" or "off"')
    return asked == "off"
