"""A step as one program: compiled calls on fixed arguments, dealt out to the threads, without Python between them.

The methods of the backend say what is to be done as stages. Where there are models enough, each thread carries its own
models through all stages, while their parameters lie in its cache; otherwise the work of each stage is divided, and all
threads wait for each other behind it. A model's bits do not depend on which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from gpumlp.backends import numba_crew
from gpumlp.backends.numba_crew import Native, idlers, machine
from gpumlp.backends.numba_machine import FINISHED, LINE
from gpumlp.backends.numba_source import Loop
from gpumlp.backends.numpy_shares import address_of
from gpumlp.backends.protocol import Array

# nanoseconds of work for which a thread more pays: in a program, where it has to be woken, and in one of its stages
WORTH_A_THREAD, WORTH_A_PART = 4_000, 1_000
AT_ONCE = 20_000  # nanoseconds of work, which little enough data take to stay in a thread's cache
OPERATION = 0.04  # nanoseconds of one of a loop's operations, where several are done at once
PART_OF_A_CALL, A_PRODUCT = 30, 150  # nanoseconds that a model takes in a stage besides, of small ones most of it
UNEVEN = 1.2  # how much longer than on average the busiest thread may take if whole models are dealt out


@dataclass(frozen=True)
class Call:
    """A compiled function and the address of its arguments.

    kept   what lies at the addresses among them
    """

    address: int
    cells: Any
    kept: tuple[Any, ...]


def bind(loop: Loop, *arguments: Any) -> Call:
    """Return a call of a loop; raise TypeError for an argument that it would read wrongly: a defect of gpumlp."""
    if len(arguments) != len(loop.kinds):
        raise TypeError(f"loop {loop.name} takes {len(loop.kinds)} arguments, not {len(arguments)}")
    cells: list[int] = []
    numbers: list[tuple[int, Any, float]] = []  # written as bits
    for (dtype, is_array), value in zip(loop.kinds, arguments, strict=True):
        if is_array:
            if value.dtype != dtype or value.ndim != 1 or not value.flags.c_contiguous:
                raise TypeError(f"loop {loop.name}: an array of {value.dtype} {value.shape}, expected {dtype} in a row")
            cells += address_of(value), value.size
        elif dtype.kind == "f":
            numbers.append((len(cells), dtype, value))
            cells.append(0)
        else:
            cells.append(int(value))
    table = np.array(cells, np.int64)
    for place, dtype, value in numbers:
        table[place : place + 1].view(dtype)[0] = value
    return Call(loop.address, table, (loop, *arguments))


def run_now(call: Call) -> None:
    """Perform a call on this thread."""
    Native(call.address)(address_of(call.cells))


class Room:
    """Scratch arrays of one thread, whose calls come one after another: all of one use and size share one."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, int, str], Any] = {}

    def __call__(self, use: str, n: int, dtype: Any) -> Any:
        """Return the array (n,), zeros at first."""
        key = (use, n, np.dtype(dtype).name)
        if key not in self._arrays:
            self._arrays[key] = np.zeros(n, dtype)
        return self._arrays[key]


class Stage(Protocol):
    """What is to be done before anything of the next stage that needs it.

    n_models      whose work can be told apart
    nanoseconds   all of it, roughly, on one thread
    """

    n_models: int
    nanoseconds: float

    def of_models(self, first: int, last: int, room: Room) -> list[Call]:
        """Return the work of some models."""
        ...

    def of_thread(self, thread: int, n_threads: int, room: Room) -> list[Call]:
        """Return one thread's share of all the work."""
        ...

    def of_each(self) -> Any:
        """Return how long each model takes, (n_models,) nanoseconds."""
        ...


@dataclass
class Atoms:
    """Work in small parts that are numbered through all models: rows, chunks of rows, blocks of parameters.

    n         parts of one model
    build     build(first, last, room) -> the call that does these
    touches   the arrays that it reads or writes; None if that is not said
    """

    n_models: int
    n: int
    nanoseconds: float
    build: Callable[[int, int, Room], Call]
    touches: Sequence[Array] | None = None

    def of_models(self, first: int, last: int, room: Room) -> list[Call]:
        """Return the work of some models."""
        return [self.build(first * self.n, last * self.n, room)]

    def of_thread(self, thread: int, n_threads: int, room: Room) -> list[Call]:
        """Return one thread's share of all the work."""
        total = self.n_models * self.n
        first, last = total * thread // n_threads, total * (thread + 1) // n_threads
        return [self.build(first, last, room)] if first < last else []

    def of_each(self) -> Any:
        """Return how long each model takes, (n_models,) nanoseconds."""
        return np.full(self.n_models, self.nanoseconds / self.n_models + PART_OF_A_CALL)


@dataclass
class Pieces:
    """Work that is cut the same way in every model: a product with what is done to its result.

    n         pieces, by the sizes of one model alone
    build     build(first model, last model, piece, room) -> the calls that do it
    touches   the arrays that it reads or writes; None if that is not said
    """

    n_models: int
    n: int
    nanoseconds: float
    build: Callable[[int, int, int, Room], list[Call]]
    touches: Sequence[Array] | None = None

    def of_models(self, first: int, last: int, room: Room) -> list[Call]:
        """Return the work of some models."""
        return [call for piece in range(self.n) for call in self.build(first, last, piece, room)]

    def of_thread(self, thread: int, n_threads: int, room: Room) -> list[Call]:
        """Return one thread's share of all the work: whole models if there is one piece, else its pieces."""
        n = self.n_models if self.n == 1 else self.n
        first, last = n * thread // n_threads, n * (thread + 1) // n_threads
        if self.n == 1:
            return self.build(first, last, 0, room) if first < last else []
        return [call for piece in range(first, last) for call in self.build(0, self.n_models, piece, room)]

    def of_each(self) -> Any:
        """Return how long each model takes, (n_models,) nanoseconds."""
        return np.full(self.n_models, self.nanoseconds / self.n_models + self.n * A_PRODUCT)


class Runs:
    """The same stage of several parts of a stack, whose models stand one part behind the other."""

    def __init__(self, stages: Sequence[Atoms | Pieces]) -> None:
        self._stages = stages
        self._ends = np.cumsum([stage.n_models for stage in stages]).tolist()
        self.n_models = int(self._ends[-1])
        self.nanoseconds = float(sum(stage.nanoseconds for stage in stages))

    def of_models(self, first: int, last: int, room: Room) -> list[Call]:
        """Return the work of some models."""
        parts = self._with_models(first, last)
        return [call for stage, begin, end in parts for call in stage.of_models(begin, end, room)]

    def of_thread(self, thread: int, n_threads: int, room: Room) -> list[Call]:
        """Return one thread's share of each part whose models can be cut, and its models of all the other parts."""
        calls = [call for stage in self._stages if stage.n > 1 for call in stage.of_thread(thread, n_threads, room)]
        times = np.concatenate([stage.of_each() * (stage.n == 1) for stage in self._stages])
        first, last = evenly(times, n_threads)[thread : thread + 2]
        for stage, begin, end in self._with_models(first, last):
            if stage.n == 1:
                calls += stage.of_models(begin, end, room)
        return calls

    def of_each(self) -> Any:
        """Return how long each model takes, (n_models,) nanoseconds."""
        return np.concatenate([stage.of_each() for stage in self._stages])

    def _with_models(self, first: int, last: int) -> Iterator[tuple[Atoms | Pieces, int, int]]:
        """Yield the parts that some models belong to, and which models of the part these are."""
        for stage, end in zip(self._stages, self._ends, strict=True):
            begin = end - stage.n_models
            if max(first, begin) < min(last, end):
                yield stage, max(first, begin) - begin, min(last, end) - begin


class Together:
    """Stages of which none needs what another one does: no thread waits for the others in between.

    Half of the threads go through them from the last to the first, so that one computes while another one waits for
    memory.
    """

    def __init__(self, stages: Sequence[Atoms | Pieces]) -> None:
        self._stages = stages
        self.n_models = stages[0].n_models
        self.nanoseconds = float(sum(stage.nanoseconds for stage in stages))

    def of_models(self, first: int, last: int, room: Room) -> list[Call]:
        """Return the work of some models."""
        return [call for stage in self._stages for call in stage.of_models(first, last, room)]

    def of_thread(self, thread: int, n_threads: int, room: Room) -> list[Call]:
        """Return one thread's share of all the work."""
        stages = self._stages[:: -1 if thread % 2 else 1]
        return [call for stage in stages for call in stage.of_thread(thread, n_threads, room)]

    def of_each(self) -> Any:
        """Return how long each model takes, (n_models,) nanoseconds."""
        return np.sum([stage.of_each() for stage in self._stages], axis=0)


class Program:
    """Stages laid out for some threads; runs at each call.

    repeated   whether it will run often, so that it pays to give each model its own calls
    repeats    how often a thread goes with a few models through all stages before it takes the next ones
    prologue   what it does before the first of these times; these two have no effect unless is_joined

    is_joined  whether each thread carries models of its own through all of the stages
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        n_threads: int,
        repeated: bool = True,
        repeats: int = 1,
        prologue: Sequence[Stage] = (),
    ) -> None:
        work = repeats * sum(stage.nanoseconds for stage in stages)
        self._repeats, self._prologue = repeats, prologue
        self.n_threads = max(1, min(n_threads, int(work / WORTH_A_THREAD)))
        self._rooms = [Room() for _ in range(self.n_threads)]
        segments = self._segments(stages, repeated)
        claims = np.zeros((len(segments), self.n_threads, LINE // 8), np.int64)
        self._kept, calls, bounds = tables(segments, self.n_threads)
        self._tables = calls, bounds, claims, counts(segments)
        program = np.zeros(FINISHED // 8 + 1, np.int64)
        program[:9] = self.n_threads, len(segments), *map(address_of, self._tables), 0, *idlers()
        self._cells = np.array([address_of(program), 0], np.int64)
        self._program, self._address, self._lead = program, address_of(self._cells), machine("lead")

    def __call__(self) -> None:
        """Do all of it."""
        if self.n_threads > 1:
            crew = numba_crew.crew  # another one in a forked process
            crew.awake(self.n_threads - 1)
            self._cells[1] = crew.address
        self._lead(self._address)

    def _segments(self, stages: Sequence[Stage], repeated: bool) -> list[list[list[Call]]]:
        """Return the calls of each thread in each segment."""
        segments: list[list[list[Call]]] = []
        alone = False  # whether the last segment is the first thread's alone, which needs not wait for itself
        for parts in self._parts(stages, repeated):
            was_alone, alone = alone, not any(parts[1:])
            if was_alone and alone:
                segments[-1][0] += parts[0]
            else:
                segments.append(parts)
        return segments

    def _parts(self, stages: Sequence[Stage], repeated: bool) -> Iterator[list[list[Call]]]:
        """Yield the calls of each thread up to where all wait for each other."""
        groups = grouped(stages)
        each = [np.sum([stage.of_each() for stage in group], axis=0) for group in groups]
        are_dealt = [repeated and self._deals_models(times) for times in each]
        self.is_joined = are_dealt == [True]
        for group, times, is_dealt in zip(groups, each, are_dealt, strict=True):
            if is_dealt:
                yield self._by_model(group, times)
            else:
                yield from map(self._by_stage, group)

    def _deals_models(self, times: Any) -> bool:
        """Tell whether each thread carries whole models, which take these times."""
        if len(times) < max(2, self.n_threads):
            return False
        busiest = max(times[begin:end].sum() for begin, end in pairwise(evenly(times, self.n_threads)))
        return bool(busiest * self.n_threads <= UNEVEN * times.sum())

    def _by_model(self, stages: Sequence[Stage], times: Any) -> list[list[Call]]:
        """Let each thread carry its models through all stages, a few small ones at a time."""
        parts: list[list[Call]] = [[] for _ in range(self.n_threads)]
        for thread, (part, (begin, end)) in enumerate(zip(parts, pairwise(evenly(times, self.n_threads)), strict=True)):
            for first, last in pairwise(few_at_a_time(times, begin, end)):
                room = self._rooms[thread]
                calls = [call for stage in stages for call in stage.of_models(first, last, room)]
                if self.is_joined:
                    part += [call for stage in self._prologue for call in stage.of_models(first, last, room)]
                part += calls * (self._repeats if self.is_joined else 1)
        return parts

    def _by_stage(self, stage: Stage) -> list[list[Call]]:
        n = max(1, min(self.n_threads, int(stage.nanoseconds / WORTH_A_PART)))
        parts = [stage.of_thread(thread, n, self._rooms[thread]) for thread in range(n)]
        return [*parts, *([] for _ in range(self.n_threads - n))]


def evenly(times: Any, n: int) -> list[int]:
    """Return where models that take these times are cut into n parts that take about as long, both ends with it."""
    done = np.concatenate([[0.0], np.cumsum(times)])
    return [0, *(int(np.abs(done - done[-1] * i / n).argmin()) for i in range(1, n)), len(times)]


def few_at_a_time(times: Any, begin: int, end: int) -> list[int]:
    """Return where models are cut so that the data of those between two cuts stay in a thread's cache."""
    cuts, since = [begin], 0.0
    for m in range(begin, end):
        if since and since + times[m] > AT_ONCE:
            cuts.append(m)
            since = 0.0
        since += times[m]
    return [*cuts, end] if end > begin else []


def grouped(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Return the stages in order, neighbours together that have as many models, if these are several."""
    groups: list[list[Stage]] = []
    for stage in stages:
        if groups and groups[-1][0].n_models == stage.n_models > 1:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def tables(segments: Sequence[Sequence[Sequence[Call]]], n_threads: int) -> tuple[list[Call], Any, Any]:
    """Return the calls, each once, then as `numba_machine` reads them: (n, 2), bounds (n_threads, n_segments + 1)."""
    kept: list[Call] = []
    numbers: dict[int, int] = {}  # of calls, which may come often
    order: list[int] = []
    bounds = np.zeros((n_threads, len(segments) + 1), np.int64)
    for thread in range(n_threads):
        bounds[thread, 0] = len(order)
        for i, segment in enumerate(segments):
            for call in segment[thread]:
                number = numbers.setdefault(id(call), len(kept))
                if number == len(kept):
                    kept.append(call)
                order.append(number)
            bounds[thread, i + 1] = len(order)
    lines = np.array([(call.address, address_of(call.cells)) for call in kept], np.int64).reshape(-1, 2)
    return kept, lines[np.array(order, np.int64)], bounds


def counts(segments: Sequence[Sequence[Sequence[Call]]]) -> Any:
    """Return how many parts with calls each segment and those before it have, (n_segments,)."""
    return np.cumsum([sum(map(bool, segment)) for segment in segments], dtype=np.int64)
