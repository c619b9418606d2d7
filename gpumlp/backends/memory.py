"""How much memory the machine has free."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Return how many bytes new arrays can take without swapping; None where the system does not say."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next((n * 1024 for n in kibibytes), None)
