"""Whether the machine was quiet while something was timed: who else used a processor, and who stood in line for one.

Threads stand in line for each other, too: those of one pool, or those of a BLAS that spin when their work is done. So
time in line tells of another program only as far as others used a processor meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import process_time

DISTURBED = 0.1  # of a sample's time, spent in line while others had a processor; one busy program brings 0.5 and more
_THREADS, _ALL = Path("/proc/self/task"), Path("/proc/stat")
_IDLE = (3, 4)  # columns of _ALL that count no work: idle, and idle until a disk answers
_COUNTED = 8  # columns before those of guests, which are counted among the users' already


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


def others() -> float | None:
    """Return the processor seconds that all but this process have used until now, other machines on the host included.

    None where the system does not tell; Linux does, in ticks of a hundredth of a second: look at no less than some
    tenths of a second.
    """
    try:
        columns = [int(word) for word in _ALL.read_text().split("\n", 1)[0].split()[1 : 1 + _COUNTED]]
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    if len(columns) < _COUNTED:
        return None
    return sum(n for i, n in enumerate(columns) if i not in _IDLE) / ticks - process_time()


def _queued(place: Path) -> int:
    """Return a thread's nanoseconds in line: the second of run time, waiting time and turns. 0 if it has just ended."""
    try:
        return int(place.read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        if _THREADS.exists() and not place.parent.exists():
            return 0
        raise
