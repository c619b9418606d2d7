"""A thread that reads ahead: it fills one pool while another one is trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

Fill = Callable[[Callable[[], int]], Iterator["Filled"]]


class Filled(NamedTuple):
    """A half of the ring that holds the next n rows."""

    half: int
    n: int


class ReadingAhead:
    """Fills halves in a thread of its own, until `close`.

    fill   fill(free) -> Filled of one pool after the other, without end; free() -> the number of a half to be filled
    """

    def __init__(self, fill: Fill) -> None:
        self._ready: SimpleQueue[Filled | BaseException] = SimpleQueue()
        self._free: SimpleQueue[int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(fill,), name="gpumlp reading ahead", daemon=True)
        for half in (0, 1):
            self._free.put(half)
        self._is_closed = False
        self._thread.start()

    def take(self) -> Filled:
        """Return the next pool once it is filled; raise what went wrong while it was read."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def has_next(self) -> bool:
        """Tell whether `take` need not wait."""
        return not self._ready.empty()

    def give_back(self, half: int) -> None:
        """Let a half be filled anew."""
        self._free.put(half)

    def close(self) -> None:
        """End the thread, and wait until it has ended."""
        self._is_closed = True
        self._free.put(None)
        self._thread.join()

    def _work(self, fill: Fill) -> None:
        try:
            for filled in fill(self._next_free):
                self._ready.put(filled)
        except _Closed:
            return
        except BaseException as error:  # told by `take`, in the thread that trains
            self._ready.put(error)

    def _next_free(self) -> int:
        half = self._free.get()
        if half is None or self._is_closed:
            raise _Closed
        return half


class _Closed(Exception):
    """Nobody waits for more."""
