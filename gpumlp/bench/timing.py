"""Taking turns: contenders are timed in rounds, each beside the matrix products alone, so that all meet one machine.

Between two samples the process waits until none of its threads is busy: the threads of OpenBLAS spin for a tenth of a
second after their last product, and would take a processor from whoever comes next.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter, process_time, sleep

from gpumlp.backends.protocol import Backend
from gpumlp.bench.quiet import waited
from gpumlp.errors import BackendUnavailable

WARM_UP = 3  # launches before anything counts: the first compiles, the second records a graph, the third replays it
LOOK = 0.009  # seconds of a look at whether the process is idle: two ticks of a kernel that counts in ticks
IDLE = 0.2  # of a processor's time; a thread that spins takes a whole one
PATIENCE = 0.3  # seconds after which a process that is never idle is timed all the same

Event = Callable[[Callable[[], None]], float]


@dataclass
class Runner:
    """Something that can be timed.

    work      performs so many units and returns when they are done
    least     units that are done at once; a sample is a multiple of it
    scale     what the time of a unit is multiplied with, where only a part of the work is done
    events    returns the device's seconds of some work, where a device tells them
    checked   how far the result is from the right one, in words
    """

    work: Callable[[int], None]
    least: int = 1
    scale: float = 1.0
    events: Event | None = None
    checked: str = ""


@dataclass
class Samples:
    """The times of one contender: the same index is the same round in all of them.

    seconds     of a unit: the device's where there are events, else the host's
    host        of a unit by the host's clock
    reference   of a unit of the products alone: the mean of the samples right before and right after, or nothing
    waited      the larger share of time for which threads stood in line for a processor in those two, which leave no
                other thread of this process ready to run: another program had it. Without a reference that of the
                sample, in which threads that hand work to each other stand in line, too. None: unknown
    """

    seconds: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    waited: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds of a unit by the device or the host, by the host, and the share of time in line."""

    seconds: float
    host: float
    waited: float | None


class Turns:
    """Contenders with the number of units that a sample of each takes.

    runners      by name
    references   by the same names: the products alone that are measured beside each, or None
    seconds      that a sample is meant to last
    """

    def __init__(self, runners: Mapping[str, Runner], references: Mapping[str, Runner | None], seconds: float) -> None:
        self.runners, self.references = runners, references
        known = {id(r): r for r in (*runners.values(), *references.values()) if r is not None}
        self._units = {key: warm_up(runner, seconds) for key, runner in known.items()}

    def round(self, number: int, samples: dict[str, Samples]) -> None:
        """Let each have its turn, a different one first in each round, and add a sample to each."""
        names = list(self.runners)
        first = number % len(names)
        beside: tuple[Runner, Sample] | None = None  # what was measured last, if that was a reference
        for name in names[first:] + names[:first]:
            reference = self.references[name]
            before = beside[1] if beside and beside[0] is reference else self._take(reference)
            found = self._take(self.runners[name])
            after = self._take(reference)
            assert found is not None
            _add(samples.setdefault(name, Samples()), found, before, after)
            beside = None if reference is None or after is None else (reference, after)

    def _take(self, runner: Runner | None) -> Sample | None:
        return None if runner is None else take(runner, self._units[id(runner)])


def take_turns(
    runners: Mapping[str, Runner], reference: Runner | None, rounds: int, seconds: float
) -> dict[str, Samples]:
    """Return the samples of each contender: warm-up, calibration, then rounds in turns.

    runners     by name
    reference   the products alone, measured right before and right after each sample, or None
    seconds     that a sample is meant to last; it is at least what a contender does at once
    """
    turns, samples = Turns(runners, dict.fromkeys(runners, reference), seconds), {name: Samples() for name in runners}
    for number in range(rounds):
        turns.round(number, samples)
    return samples


def repeating(backend: Backend, step: Callable[[], None]) -> Callable[[int], None]:
    """Return the function that performs what `step` asks of a backend so many times, captured as a training step is."""
    captured = backend.capture(step)

    def work(n: int) -> None:
        with backend.session():
            for _ in range(n):
                captured()
            backend.synchronize()

    return work


def warm_up(runner: Runner, seconds: float) -> int:
    """Run until it is warm, and return how many units last as long as a sample."""
    for _ in range(WARM_UP - 1):
        runner.work(runner.least)
    settle()
    launches, took = 1, 0.0
    while True:
        began = perf_counter()
        runner.work(launches * runner.least)
        took = max(perf_counter() - began, 1e-9)
        if took > seconds / 4:
            return max(1, ceil(launches * seconds / took)) * runner.least
        launches *= 2


def take(runner: Runner, units: int) -> Sample:
    """Return one sample of an idle process, after a start that does not count; its garbage is collected later.

    Half a sample brings its arrays back into the caches, and its threads to a processor each, which takes a system some
    milliseconds.
    """
    settle()
    start = units // 2 // runner.least * runner.least
    if start:
        runner.work(start)
    before = waited()
    with _without_collector():
        began = perf_counter()
        device = runner.events(lambda: runner.work(units)) if runner.events else None
        if device is None:
            runner.work(units)
        host = perf_counter() - began
    after = waited()
    share = None if before is None or after is None else max(0.0, after - before) / host
    factor = runner.scale / units
    return Sample((host if device is None else device) * factor, host * factor, share)


def settle() -> None:
    """Wait until no thread of this process is busy."""
    began = perf_counter()
    while (looked := perf_counter()) - began < PATIENCE:
        busy = process_time()
        sleep(LOOK)
        if process_time() - busy < IDLE * (perf_counter() - looked):
            return


def refuse_emulated(name: str, emulated: bool) -> None:
    """Raise BackendUnavailable for a device that is none."""
    if emulated:
        raise BackendUnavailable(
            f"{name} is emulated: its times mean nothing; time other backends: --backend numba --backend numpy"
        )


def _add(samples: Samples, found: Sample, before: Sample | None, after: Sample | None) -> None:
    samples.seconds.append(found.seconds)
    samples.host.append(found.host)
    beside = [sample for sample in (before, after) if sample is not None]
    if beside:
        samples.reference.append(sum(sample.seconds for sample in beside) / len(beside))
    known = [sample.waited for sample in beside or [found] if sample.waited is not None]
    samples.waited.append(max(known) if known else None)


@contextmanager
def _without_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
