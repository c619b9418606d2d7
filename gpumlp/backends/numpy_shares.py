"""How work is dealt out to the threads, and where one of them goes on without waiting for the others.

A product is cut by rows of the batch or by units of the layer. What follows it is often cut the same way: a thread that
has brought its rows takes them through the layer, one that has the gradient of its units moves their weights, while
these numbers lie in its cache. A thread waits only where it needs what another one writes.

A thread that sleeps begins late, so the caller takes more than the others. Sizes of one model alone decide where a
product is cut, so that a model's bits are the same in any stack, whatever comes before or behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.protocol import Array

Launch = Callable[[], object]

LATE = 2_000_000  # multiplications of a product that the caller has done before another thread has begun
LEAST = 800_000  # multiplications that are worth another thread
LINE = 8  # rows or units: cuts are at multiples
TRIES = 10_000  # to find whether two views share a number, which they are taken to do if that is not enough


@dataclass(frozen=True)
class Share:
    """What one thread does, and the arrays by which it is found whether another one has to wait for it."""

    launches: Sequence[Launch]
    reads: Sequence[Array]
    writes: Sequence[Array]


@dataclass(frozen=True)
class Shared:
    """A launch that is dealt out; it runs at each call.

    cuts    which rows or units each thread takes, the caller first
    share   share(rows or units, thread) -> what this thread does of it
    result  what it sets, for an update that goes on with it; None if nothing does
    """

    cuts: Sequence[slice]
    share: Callable[[slice, int], Share]
    result: Array | None = None

    def __call__(self) -> None:
        """Do all of it."""
        self._launch()

    @cached_property
    def _launch(self) -> Launch:
        return _Chain(self).launch()


class Follower(ABC):
    """A launch that can be cut like the one before it or behind it; it runs undivided if that one is not dealt out."""

    @abstractmethod
    def __call__(self) -> None:
        """Do all of it here."""

    def before(self, shared: Shared) -> tuple[Launch, Shared] | None:
        """Return what the caller does first, and the rest, cut like what comes behind; None if it cannot be."""
        return None

    def behind(self, shared: Shared) -> Shared | None:
        """Return this launch, cut like what comes before; None if it cannot be."""
        return None


def cuts(n: int, work: int) -> list[slice]:
    """Return which of n rows or units each thread takes of a product: one slice if no second thread is worth it.

    work   multiplications of one model's product
    """
    n_threads = threads.count() if threads.divides_products() else 1
    n_threads = max(1, min(n_threads, (work - LATE) // LEAST, n // LINE))
    other = (work - LATE) / n_threads / work if n_threads > 1 else 0.0  # share of each thread but the caller
    ends = {round(n * (1 - other * i) / LINE) * LINE for i in range(n_threads - 1, 0, -1)}
    return [slice(begin, end) for begin, end in pairwise(sorted({0, *ends, n}))]


def in_chains(launches: Sequence[Launch]) -> list[Launch]:
    """Return the launches in their order, neighbours as one in which no thread needs what another one writes."""
    chains: list[Launch | _Chain] = []
    for launch in launches:
        last = chains[-1] if chains else None
        if isinstance(launch, Shared):
            if isinstance(last, _Chain) and last.takes(launch):
                continue
            chain = _Chain(launch)
            if isinstance(last, Follower) and chain.takes_before(last):
                chains.pop()
            chains.append(chain)
        elif not (isinstance(launch, Follower) and isinstance(last, _Chain) and last.takes_behind(launch)):
            chains.append(launch)
    return [chain.launch() if isinstance(chain, _Chain) else chain for chain in chains]


class _Chain:
    """Launches that each thread goes through by itself."""

    def __init__(self, shared: Shared) -> None:
        self._first: list[Launch] = []
        self._last = shared
        self._shares = [[shared.share(cut, thread)] for thread, cut in enumerate(shared.cuts)]

    def takes(self, shared: Shared) -> bool:
        """Append a launch if no thread has to wait for another one in between."""
        if len(shared.cuts) != len(self._shares):
            return False
        shares = [shared.share(cut, thread) for thread, cut in enumerate(shared.cuts)]
        for i, done in enumerate(self._shares):
            for j, share in enumerate(shares):
                if i != j and any(meet(earlier, share) for earlier in done):
                    return False
        for done, share in zip(self._shares, shares, strict=True):
            done.append(share)
        self._last = shared
        return True

    def takes_before(self, follower: Follower) -> bool:
        """Put a launch before the first one if it can be."""
        found = follower.before(self._last)
        if found is None:
            return False
        first, shared = found
        before = _Chain(shared)
        if not before.takes(self._last):
            return False
        self._first, self._shares = [first], before._shares
        return True

    def takes_behind(self, follower: Follower) -> bool:
        """Append a launch that can be cut like the last one."""
        shared = follower.behind(self._last)
        return shared is not None and self.takes(shared)

    def launch(self) -> Launch:
        """Return the function that does all of it."""
        pieces = [in_turn([launch for share in shares for launch in share.launches]) for shares in self._shares]
        return in_turn([*self._first, lambda: threads.together(pieces)])


def meet(earlier: Share, later: Share) -> bool:
    """Tell whether two threads' shares touch the same numbers, one of them writing."""
    pairs = [(earlier.writes, (*later.reads, *later.writes)), (earlier.reads, later.writes)]
    return any(share_memory(x, y) for xs, ys in pairs for x in xs for y in ys)


def share_memory(x: Array, y: Array) -> bool:
    """Tell whether two views share a number; also where that is too hard to find out."""
    try:
        return np.shares_memory(x, y, max_work=TRIES)  # type: ignore[arg-type]  # any number, by its manual
    except np.exceptions.TooHardError:
        return True


def address_of(x: Array) -> int:
    """Return where an array's first number lies."""
    return int(x.__array_interface__["data"][0])


def in_turn(launches: Sequence[Launch]) -> Launch:
    """Return the function that does one after another."""
    if len(launches) == 1:
        return launches[0]

    def turn() -> None:
        for launch in launches:
            launch()

    return turn
