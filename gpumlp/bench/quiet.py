"""Whether the machine was quiet while something was timed: how long threads stood in line for a processor.

Threads stand in line for each other, too: those of one pool, or those of a BLAS that spin when their work is done. So
time in line tells of another program only where no other thread of this process is ready to run.
"""

from __future__ import annotations

from pathlib import Path

DISTURBED = 0.1  # of a sample's time, spent in line while others had a processor; one busy program brings 0.5 and more
_THREADS = Path("/proc/self/task")


def waited() -> float | None:
    """Return the seconds that the threads of this process have stood in line for a processor until now, added up.

    None where the system does not tell; Linux does. A call takes some 10 microseconds a thread.
    """
    total = 0
    try:
        for thread in _THREADS.iterdir():
            total += _queued(thread / "schedstat")
    except (OSError, ValueError, IndexError):
        return None
    return total * 1e-9


def _queued(place: Path) -> int:
    """Return a thread's nanoseconds in line: the second of run time, waiting time and turns. 0 if it has just ended."""
    try:
        return int(place.read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        if _THREADS.exists() and not place.parent.exists():
            return 0
        raise
