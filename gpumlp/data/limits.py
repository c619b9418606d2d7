"""How much one data set may take: sizes that a file declares are checked before memory is taken for them."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from gpumlp.errors import ConfigurationError, DataError, readable_bytes

VARIABLE = "GPUMLP_MAX_DATA"
SHARE = 0.75  # of the memory that is free
UNKNOWN = 4 * 2**30  # bytes taken to be free where the system does not tell
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
LARGER = f"raise {VARIABLE} if it is meant to be so large"
WAYS_OUT = f"convert it to a data folder, which may be larger than memory (`gpumlp convert`), or {LARGER}"
LONGEST_LINE, SHORTEST_LIMIT = 1 << 26, 1 << 16  # characters
OF_A_CHARACTER = 64  # bytes that a character of a line can take in cells of their own
DEFLATED = 1032  # bytes that one byte of a gzip or zip file can become


class ControlGroup(NamedTuple):
    """Where Linux limits the memory of a container: the files that say so, and what of it is taken for cached files."""

    controller: str
    root: Path
    most: str
    taken: str
    cached: str


GROUPS = (
    ControlGroup("", Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    ControlGroup(
        "memory",
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)

NO_LIMIT = 1 << 60  # bytes; the first version says by a number as large that there is none


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


def expect_row(n_bytes: int) -> None:
    """Raise DataError if a single row of an array is more than `data_limit` allows."""
    expect_piece(n_bytes, "has rows", "with fewer columns")


def expect_piece(n_bytes: int, what: str, way_out: str) -> None:
    """Raise DataError if a piece of a file that is read as a whole is more than `data_limit` allows.

    what   "has ..."
    """
    limit = data_limit()
    if n_bytes > limit:
        raise DataError(
            f"{what} of {readable_bytes(n_bytes)}, the limit here is {readable_bytes(limit)}; write it {way_out}"
        )


def longest_line() -> int:
    """Return how long a line of text may be: its cells take far more memory than its characters."""
    return min(LONGEST_LINE, max(SHORTEST_LIMIT, data_limit() // OF_A_CHARACTER))


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
    """Return what the control groups of Linux leave to this process, if one of them has a limit."""
    left = [n for group in GROUPS for folder in _folders(group) if (n := _left(folder, group)) is not None]
    return min(left, default=None)


@cache
def _folders(group: ControlGroup) -> list[Path]:
    """Return the group that this process is in, and those around it, as far as they can be seen from here."""
    path = PurePosixPath("/")
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, named = line.split(":", 2)
            if group.controller in controllers.split(","):
                path = PurePosixPath(named)
    return [group.root.joinpath(*place.parts[1:]) for place in (path, *path.parents)]


def _left(folder: Path, group: ControlGroup) -> int | None:
    """Return what a control group leaves, where the files that were read last can make room; None without a limit."""
    try:
        most = int((folder / group.most).read_text(encoding="ascii"))
        if most >= NO_LIMIT:
            return None
        taken = int((folder / group.taken).read_text(encoding="ascii"))
        counts = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # no such group, or "max"
        return None
    cached = re.search(rf"^{group.cached} (\d+)$", counts, re.MULTILINE)
    return max(most - taken + (int(cached[1]) if cached else 0), 0)


def _process() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    try:
        pages = [int(n) for n in Path("/proc/self/statm").read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        pages = [0] * 7
    taken = {resource.RLIMIT_AS: pages[0], resource.RLIMIT_DATA: pages[5]}
    limits = {kind: resource.getrlimit(kind)[0] for kind in taken}
    left = [n - taken[kind] * resource.getpagesize() for kind, n in limits.items() if n != resource.RLIM_INFINITY]
    return max(min(left), 0) if left else None
