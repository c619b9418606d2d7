"""Ranges: names for stretches of a training in the timeline of a profiler (NVTX)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from gpumlp.backends.protocol import Backend
from gpumlp.errors import ConfigurationError

log = logging.getLogger("gpumlp")

Work = Callable[..., Any]
Mark = Callable[[str, Work], Work]  # (name, work) -> work in a range of that name


def are_wanted(asked: bool | None) -> bool:
    """Tell whether ranges are wanted: an argument beats GPUMLP_NVTX, which is 1 or 0."""
    if asked is not None:
        return asked
    given = os.environ.get("GPUMLP_NVTX", "0")
    if given not in ("0", "1", ""):
        raise ConfigurationError(f"GPUMLP_NVTX={given!r}: expected 1 to mark ranges, or 0")
    return given == "1"


def marker(backend: Backend, wanted: bool) -> Mark:
    """Return what lets work be done in a range; where none is wanted or none can be, it returns the work itself."""
    if not wanted:
        return lambda name, work: work
    ranges = backend.ranges()
    if isinstance(ranges, str):
        log.info("NVTX ranges do nothing here: %s", ranges)
        return lambda name, work: work

    def mark(name: str, work: Work) -> Work:
        def within(*arguments: Any) -> Any:
            with ranges(name):
                return work(*arguments)

        return within

    return mark
