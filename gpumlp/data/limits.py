"""How much one data set may take: sizes that a file declares are checked before memory is taken for them."""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

from gpumlp.errors import ConfigurationError, DataError, readable_bytes

VARIABLE = "GPUMLP_MAX_DATA"
SHARE = 0.75  # of the memory that is free
UNKNOWN = 4 * 2**30  # bytes taken to be free where the system does not tell
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
LARGER = f"raise {VARIABLE} if it is meant to be so large"
WAYS_OUT = f"convert it to a data folder, which may be larger than memory (`gpumlp convert`), or {LARGER}"
DEFLATED = 1032  # bytes that one byte of a gzip or zip file can become


def data_limit() -> int:
    """Return how many bytes one data set may take in memory.

    It is the environment's GPUMLP_MAX_DATA, such as 8GiB, else three quarters of the memory that is free.
    Raises   ConfigurationError if the variable is no size
    """
    text = os.environ.get(VARIABLE, "").strip()
    return parse_size(text, VARIABLE) if text else int(SHARE * free_memory())


def parse_size(text: str, name: str) -> int:
    """Read a number of bytes: 500000, 1.5GB, 8GiB."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?", text.strip(), re.IGNORECASE)
    if found is None or len(text) > 40:
        raise ConfigurationError(
            f"{name} is {text[:40]!r}, expected a number of bytes; write for example 500MB or 8GiB"
        )
    return int(float(found[1]) * UNITS[(found[2] or "").lower()])


def free_memory() -> int:
    """Return how many bytes this process may still take: the least of what machine, container and user allow."""
    known = [n for n in (_machine(), _container(), _process()) if n is not None]
    return min(known, default=UNKNOWN)


def expect_room(n_bytes: int, what: str, way_out: str = WAYS_OUT) -> None:
    """Raise DataError if an array or a data set of so many bytes is more than `data_limit` allows."""
    limit = data_limit()
    if n_bytes > limit:
        raise DataError(
            f"{readable_bytes(n_bytes)} of memory are needed for {what}, the limit here is {readable_bytes(limit)}; "
            f"{way_out}"
        )


def expect_piece(n_bytes: int, what: str, way_out: str) -> None:
    """Raise DataError if a piece of a file that is read as a whole is more than `data_limit` allows.

    what   "has ..."
    """
    limit = data_limit()
    if n_bytes > limit:
        raise DataError(
            f"{what} of {readable_bytes(n_bytes)}, the limit here is {readable_bytes(limit)}; write it {way_out}"
        )


class Unpacked(io.RawIOBase):
    """The bytes of a compressed file, up to a limit; raises DataError beyond it, so that no small file fills a disk."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.limit, self.left = file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.file.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"unpacks to more than the limit of {readable_bytes(self.limit)}; if it is meant to be so large, "
                f"raise {VARIABLE}, or `--max-size` of `gpumlp convert`"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()


def _machine() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        found = None
    if found:
        return int(found[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container() -> int | None:
    """Return what the control group of Linux leaves, if it has a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, taken = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return max(int(most) - int(taken), 0)
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _process() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((n for n in limits if n != resource.RLIM_INFINITY), default=None)
