"""The threads that run programs: the caller's and its helpers, which wait for the next program without Python.

A program takes some microseconds, so a helper that waited by a lock of Python would come too late. During a session
helpers spin in compiled code for a moment, then give their processor away, then sleep some microseconds at a time; at
its end they go home and wait by a queue, which costs nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from functools import cache, partial
from queue import SimpleQueue
from time import sleep
from typing import Any

import numpy as np

from gpumlp.backends.numba_machine import MAILBOX
from gpumlp.backends.numba_source import loop

CELLS = MAILBOX // 8  # of a mailbox
OFFERS, DONE = 0, 1  # cells of a mailbox that Python looks at
Native = ctypes.CFUNCTYPE(None, ctypes.c_int64)  # a call through it lets go of Python's lock


@cache
def machine(name: str) -> Any:
    """Return a function of `numba_machine`, to be called with the address of its arguments."""
    found = loop(name, np.float64)
    native = Native(found.address)
    native.loop = found  # type: ignore[attr-defined]  # lives as long
    return native


@cache
def idlers() -> tuple[int, int]:
    """Return the addresses of the functions that yield the processor and that sleep some microseconds."""
    if sys.platform == "win32":
        names, library = ("SwitchToThread", "SwitchToThread"), ctypes.WinDLL("kernel32")
    else:
        names, library = ("sched_yield", "usleep"), ctypes.CDLL(None)
    first, second = (ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
    return first, second


class _Crew:
    """The helpers of this process. Only the thread that computes, of which there is one at a time, calls it."""

    def __init__(self) -> None:
        most = max(8, os.cpu_count() or 1)  # more than processors in tests alone
        self._room = np.zeros((most + 1) * CELLS, np.int64)
        shift = -(self._room.ctypes.data // 8) % CELLS
        self.mailboxes = self._room[shift : shift + most * CELLS].reshape(most, CELLS)
        self.address = self.mailboxes.ctypes.data
        self._wanted: list[SimpleQueue[None]] = []
        self._n_awake = 0

    def awake(self, n: int) -> None:
        """Let n helpers wait for programs."""
        if n > self._n_awake:
            kept = self._recall(self._n_awake, n)
            for helper in range(self._n_awake, n):
                if helper == len(self._wanted):
                    self._hire(helper)
                if not kept[helper]:
                    self._send_for(helper)
                self._n_awake = helper + 1

    def _recall(self, first: int, last: int) -> Any:
        """Keep helpers that have not read yet that they may go home; return which they are."""
        kept = np.zeros(last, np.int64)
        cells = np.array([self.address, first, last, kept.ctypes.data, last], np.int64)
        machine("recall")(cells.ctypes.data)
        return kept

    def _send_for(self, helper: int) -> None:
        mailbox = self.mailboxes[helper]
        while mailbox[DONE] != mailbox[OFFERS]:  # it is on its way home
            sleep(0)
        self._wanted[helper].put(None)

    def go_home(self) -> None:
        """Let no helper wait any more."""
        if self._n_awake:
            cells = np.array([self.address, self._n_awake], np.int64)
            machine("dismiss")(cells.ctypes.data)
            self._n_awake = 0

    def _hire(self, helper: int) -> None:
        """Start a helper's thread. What may fail does so here, not there, where nobody would be told."""
        cells = np.array([self.mailboxes[helper].ctypes.data, helper + 1, *idlers()], np.int64)
        wanted: SimpleQueue[None] = SimpleQueue()
        machine("dismiss")
        live = partial(_live, machine("serve"), cells, wanted)
        threading.Thread(target=live, name=f"gpumlp {helper + 1}", daemon=True).start()
        self._wanted.append(wanted)


def _live(serve: Any, cells: Any, wanted: SimpleQueue[None]) -> None:
    """Serve whenever this helper is wanted."""
    while True:
        wanted.get()
        serve(cells.ctypes.data)


crew = _Crew()


def send_home() -> None:
    """End what `crew.awake` began."""
    crew.go_home()


def _begin_anew() -> None:
    """Forget the helpers in a forked process, which has none of them."""
    global crew
    crew = _Crew()


atexit.register(send_home)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
