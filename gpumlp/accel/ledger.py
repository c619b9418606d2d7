"""The ledger: which calls ran where, for how long, and why some ran on scikit-learn itself."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

SCIKIT_LEARN = "scikit-learn"


@dataclass(frozen=True)
class Entry:
    """A kind of call.

    method   class.method
    where    the backend of gpumlp, or SCIKIT_LEARN
    why      why it ran on scikit-learn itself; "" if it did not
    """

    method: str
    where: str
    why: str = ""


@dataclass
class Total:
    """What the calls of one kind add up to; processes are the ids of those that ran them."""

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    processes: set[int] = field(default_factory=set)

    def add(self, rows: int, seconds: float, process: int) -> None:
        """Count one call more."""
        self.calls += 1
        self.rows += rows
        self.seconds += seconds
        self.processes.add(process)


@dataclass
class Call:
    """A call that is going on; it runs on scikit-learn unless something else is said before it ends."""

    where: str = SCIKIT_LEARN
    why: str = ""


class Ledger:
    """Counts calls, also those of worker processes, which write theirs into files of a folder that all of them know.

    owner    the process that reports
    folder   where the others leave their lines; None: nothing has been opened yet
    """

    def __init__(self) -> None:
        self.owner, self.folder = os.getpid(), Path()
        self.totals: dict[Entry, Total] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Begin a new count, of which this process is the owner."""
        self.close()
        atexit.unregister(self.close)
        atexit.register(self.close)
        self.owner, self.folder, self.totals = os.getpid(), Path(tempfile.mkdtemp(prefix="gpumlp-accel-")), {}

    def join(self, owner: int, folder: Path) -> None:
        """Count for the ledger of another process from now on."""
        self.owner, self.folder = owner, folder

    def close(self) -> None:
        """Forget the folder; what was counted in other processes goes with it."""
        if self.folder != Path() and self.owner == os.getpid():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    @contextmanager
    def call(self, method: str, rows: int) -> Iterator[Call]:
        """Note a call when the block ends, also by an error."""
        call, began = Call(), perf_counter()
        try:
            yield call
        finally:
            self.note(Entry(method, call.where, call.why), rows, perf_counter() - began)

    def note(self, entry: Entry, rows: int, seconds: float) -> None:
        """Count one call."""
        process = os.getpid()
        if process != self.owner:
            self._leave([asdict(entry), rows, seconds])
            return
        with self._lock:
            self.totals.setdefault(entry, Total()).add(rows, seconds, process)

    def _leave(self, line: list[Any]) -> None:
        """Add a line to this process's file; a worker may outlive the process that it counts for, and its folder."""
        with suppress(FileNotFoundError), open(self.folder / f"{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def gathered(self) -> dict[Entry, Total]:
        """Return the totals of this process and of all that count for it."""
        with self._lock:
            found = {e: Total(t.calls, t.rows, t.seconds, set(t.processes)) for e, t in self.totals.items()}
        for file in sorted(self.folder.glob("*.jsonl")) if self.folder != Path() else ():
            for line in file.read_text(encoding="utf-8").splitlines():
                entry, rows, seconds = json.loads(line)
                found.setdefault(Entry(**entry), Total()).add(rows, seconds, int(file.stem))
        return found


LEDGER = Ledger()
