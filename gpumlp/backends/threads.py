"""More hands: one set of threads for products and elementwise work alike.

NumPy computes elementwise with one thread, and a BLAS brings threads of its own that spin between two products, on the
processors that elementwise work needs. So while a network computes, the BLAS is held at one thread and every large
piece of work, a product too, is divided here. Work is handed over by locks, which takes about 5 microseconds; a pool of
futures takes ten times as long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

Work = Callable[[], object]


def nothing() -> None:
    """Do nothing."""


class _Worker:
    """A thread that does one piece of work at a time and keeps an error for the caller.

    done   whether it has ended what it was last given; `end` alone does not tell the one who has taken it already
    """

    def __init__(self) -> None:
        self.begin, self.end = threading.Lock(), threading.Lock()
        self.begin.acquire()
        self.end.acquire()
        self.work: Work = nothing
        self.error: BaseException | None = None
        self.done = True
        self.dismissed = False
        threading.Thread(target=self._serve, name="gpumlp elementwise", daemon=True).start()

    def _serve(self) -> None:
        with np.errstate(all="ignore"):  # as the training loop; divergence is found in the cost
            while True:
                self.begin.acquire()
                if self.dismissed:
                    return
                try:
                    self.work()
                except BaseException as error:
                    self.error = error
                self.work = nothing  # whoever waits here must not keep a training's data with it
                self.done = True
                self.end.release()

    def dismiss(self) -> None:
        """Let the thread end once it has nothing more to do."""
        self.dismissed = True
        if self.begin.locked():
            self.begin.release()


LONGEST_PIECE = 5.0  # seconds to wait for a helper after an error; a piece takes milliseconds
_workers: list[_Worker] = []
_in_use = threading.Lock()


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count() -> int:
    """Return how many threads elementwise work may use: the processors, or fewer if the BLAS was told so."""
    for name in ("GPUMLP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return min(processors(), int(value))
    return processors()


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """Compute with no more than n threads inside the block, the threads of the BLAS included."""
    before = os.environ.get("GPUMLP_NUM_THREADS")
    os.environ["GPUMLP_NUM_THREADS"] = str(n)
    try:
        with _blas().limit(limits=n) if _blas() is not None else nullcontext():
            yield
    finally:
        if before is None:
            del os.environ["GPUMLP_NUM_THREADS"]
        else:
            os.environ["GPUMLP_NUM_THREADS"] = before


@lru_cache(maxsize=1)
def _blas() -> Any:
    """Return what controls the threads of NumPy's BLAS, None where nothing does (Apple's Accelerate)."""
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController().select(user_api="blas")
    return controller if controller.lib_controllers else None


def blas_libraries() -> list[dict[str, Any]]:
    """Return what is known of the BLAS libraries that are loaded and can be controlled, NumPy's first.

    SciPy brings another one; the system lists them in any order.
    """
    found = [] if _blas() is None else _blas().info()
    return sorted(found, key=lambda library: not is_of_numpy(str(library["filepath"])))


def is_of_numpy(path: str) -> bool:
    """Tell whether a library came with NumPy: it lies in numpy.libs, or within the package."""
    return os.path.realpath(path).startswith(os.path.realpath(os.path.dirname(np.__file__)))


def blas_files() -> list[str]:
    """Return the files of these libraries."""
    return [str(library["filepath"]) for library in blas_libraries()]


def look_for_blas_again() -> None:
    """Control a BLAS, too, that has been loaded since."""
    _blas.cache_clear()


def blas_kernels() -> str:
    """Return the processor whose kernels the BLAS has chosen, "" if it does not tell."""
    found = blas_libraries()
    return str(found[0].get("architecture", "")) if found else ""


class _Computing:
    """Who computes: one thread of Python at a time, since its work is divided among all processors."""

    lock = threading.RLock()
    depth = 0


@contextmanager
def computing() -> Iterator[None]:
    """Compute alone in this process, the BLAS held at one thread; blocks of one thread may be nested.

    The buffers and scratch arrays of a network serve one computation at a time, and the limit of a BLAS can be lifted
    only by the thread that set it: another thread waits. A process that has been confined to one processor since the
    BLAS was loaded needs the limit, too: its threads would fight for that one.
    """
    with _Computing.lock:
        _Computing.depth += 1
        try:
            with _blas().limit(limits=1) if _Computing.depth == 1 and _blas() is not None else nullcontext():
                yield
        finally:
            _Computing.depth -= 1


def is_outermost() -> bool:
    """Tell whether no other block of `computing` encloses the one that is open."""
    return _Computing.depth == 1


def divides_products() -> bool:
    """Tell whether products are divided here; if not, there is one thread, or a BLAS that cannot be held at one."""
    return count() > 1 and _blas() is not None


def together(pieces: Sequence[Work]) -> None:
    """Do all pieces of work, the first one here and each other in a thread of its own; return when all are done."""
    if len(pieces) == 1 or not _in_use.acquire(blocking=False):  # another thread trains: no more hands than processors
        for piece in pieces:
            piece()
        return
    pending: list[_Worker] = []
    try:
        _divide(pieces, pending)
    except BaseException:
        for worker in pending:  # what it writes must be written before the caller goes on
            if not worker.done:  # Ctrl-C may have come when its end was known, and it was not yet out of `pending`
                worker.end.acquire(timeout=LONGEST_PIECE)
        for worker in _workers:  # Ctrl-C may have come between two of their locks
            worker.dismiss()
        _workers.clear()
        raise
    finally:
        _in_use.release()


def _divide(pieces: Sequence[Work], pending: list[_Worker]) -> None:
    """Do the pieces; `pending` holds the workers that have begun and are not known to have ended."""
    while len(_workers) < len(pieces) - 1:
        _workers.append(_Worker())
    helpers = _workers[: len(pieces) - 1]
    for worker, piece in zip(helpers, pieces[1:], strict=True):
        worker.work, worker.done = piece, False
        pending.append(worker)
        worker.begin.release()
    pieces[0]()
    while pending:
        pending[-1].end.acquire()
        pending.pop()
    for worker in helpers:
        if worker.error is not None:
            raise worker.error


def _begin_anew() -> None:
    """Forget threads and locks in a forked process: the threads that hold them are not there."""
    global _in_use
    _workers.clear()
    _in_use = threading.Lock()
    _Computing.lock, _Computing.depth = threading.RLock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
