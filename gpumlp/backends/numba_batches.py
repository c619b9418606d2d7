"""Bringing a batch by compiled calls. Python looks ahead for some batches at a time; between, there is little to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.numba_layout import model_flat
from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Program, Room, Stage, bind
from gpumlp.backends.numba_source import Loop, loop
from gpumlp.backends.numpy_batches import (
    RowWindow,
    Taker,
    ahead_of,
    compute_numbers,
    equal_weights,
    staging_of,
    take_launch,
    target_launch,
    valid_rows,
    weight_launch,
    window_of,
)
from gpumlp.backends.protocol import EPOCH, POSITION, STEP, WEIGHT, Array, Batch, BatchSource, StepNumbers, Tally
from gpumlp.randomness import feistel, streams

GIVEN_DTYPES = frozenset(
    "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()  # noqa: SIM905
)

ORDER_OPERATIONS = 150  # of a row's place in an order


class Orders:
    """The rows of a part of an epoch in the order of each model, or of all, computed by a loop.

    rows      (n_orders, n), overwritten
    clock_of  clock_of(room) -> the clock whose POSITION is that of the first row
    """

    def __init__(self, source: BatchSource, rows: Array, clock_of: Callable[[Room], Any]) -> None:
        self.source, self.rows, self._clock_of = source, rows, clock_of
        self._keys = np.empty((len(rows), 8), np.uint32)  # of `_present`
        self._counts, self._halves = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        self._present = (-1, -1)  # turn and epoch

    def begin_epoch(self, epoch: int) -> None:
        """Let the orders be those of an epoch."""
        source = self.source
        if self._present != (source.turn, epoch):
            self._keys[:], self._present = streams.shuffle_keys(source.keys, epoch), (source.turn, epoch)
            self._counts[:] = source.n_places if source.counts is None else source.counts[: len(self._counts)]
            for n in np.unique(self._counts):
                feistel.check_size(int(n))
            self._halves[:] = [feistel.half_bits(int(n)) for n in self._counts]

    def stage(self) -> Stage:
        """Return what computes the rows of all orders."""
        source, (n_orders, size) = self.source, self.rows.shape
        none = np.empty(0, np.int64)
        lines = none if source.rows is None else source.rows.reshape(-1)
        line = np.zeros(n_orders, np.int64) if source.fold is None else source.fold
        given = (self._keys.reshape(-1), self._counts, self._halves, lines, line, source.n_places)
        order = loop("order_rows", np.float32)

        def some(first: int, last: int, room: Room) -> Call:
            words = room("places", size, np.uint32), room("walking", size, np.uint32), room("outside", size, np.int64)
            return bind(order, *given, self._clock_of(room), size, first, last, *words, self.rows.reshape(-1))

        return Atoms(n_orders, 1, n_orders * size * ORDER_OPERATIONS * OPERATION, some)


class NumbaRowWindow(RowWindow):
    """The row numbers of the next batches, computed by a loop, on all threads where there are many orders."""

    def __init__(self, source: BatchSource, n_orders: int) -> None:
        super().__init__(source, n_orders)
        self._clock = np.zeros(3, np.int64)
        self._orders: Orders | None = None

    def _fill(self, epoch: int, first: int) -> None:
        if self.source.keys is None:
            super()._fill(epoch, first)
            return
        if self._orders is None:
            self._orders = Orders(self.source, self.rows, clock_of=lambda room: self._clock)
            self._compute = Program([self._orders.stage()], threads.count())
        self._orders.begin_epoch(epoch)
        self._clock[POSITION] = first
        self._compute()


class Bringing:
    """What is done in Python before a batch is brought, and what the compiled part is told by it.

    at      (1,) where in the window the batch begins
    first   which row of it is the first that is brought
    known   (2,) position of the window's first row; step of the epoch whose numbers stand first in `ahead`
    amount  (n_models,) what the batch adds to the tally's weight, where it is not added here
    ahead   the next steps' numbers
    takers  what brings rows by NumPy, of dtypes that no loop reads
    """

    def __init__(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        self.source, self._clock, self._batch, self._numbers = source, memoryview(clock), batch, numbers
        self.first = batch.first
        self.window = window_of(NumbaRowWindow, source, len(batch.a0))
        self.at, self.known = np.zeros(1, np.int64), np.zeros(2, np.int64)
        self.amount = np.zeros(tally.values.shape[1])
        self.ahead = np.empty(0, batch.a0.dtype) if numbers is None else ahead_of(numbers)
        self.takers: list[Taker] = []
        self._weigh = None if source.sample_weight is None else weight_launch(source, batch, tally)
        self._epoch = self._began = self._first = self._limit = self._valid = -1

    def __call__(self) -> None:
        """Prepare for the batch that the clock names."""
        clock = self._clock
        position = clock[POSITION]
        if not (
            self._first <= position < self._limit
            and clock[EPOCH] == self._epoch
            and self._began == self._beginning(position)
            and self._batch.valid == self._valid
        ):
            self._look_ahead(position)
        if self._weigh is not None or self.takers:
            rows, at = self.window.rows_at(clock[EPOCH], position)
            for take in self.takers:
                take(rows, at + self.first)
            if self._weigh is not None:
                self._weigh(rows[:, at : at + self.source.batch], valid_rows(self.source, position))

    def _beginning(self, position: int) -> int:
        """Return how many steps had been done when this turn of the rows began; where none are counted, its number."""
        return self.source.turn if self._numbers is None else int(self._clock[STEP]) - position // self.source.batch

    def _look_ahead(self, position: int) -> None:
        """Make window, weights and numbers ready from this position on, up to where one of them ends."""
        source, size = self.source, self.source.batch
        self._epoch, self._began, self._first = self._clock[EPOCH], self._beginning(position), position
        _, at = self.window.rows_at(self._epoch, position)
        self.known[0] = position - at
        short = first_short(source)
        full_until = short if position < short else position + size
        self._limit = min(position - at + self.window.size, full_until)
        if self._weigh is None:
            valid = valid_rows(source, position)
            equal_weights(self._batch, valid, source.mean)
            self.amount[:] = valid if self.first == 0 else 0
        self._valid = self._batch.valid
        if self._numbers is not None:
            step = position // size
            end = min(step + len(self.ahead), source.n_steps)
            compute_numbers(self._numbers, source, self._epoch, int(self._clock[STEP]), range(step, end), self.ahead)
            self.known[1] = step
            self._limit = min(self._limit, end * size)


def first_short(source: BatchSource) -> int:
    """Return where the first batch begins that is not full."""
    least = source.n_places if source.counts is None else int(source.counts.min())
    return least - least % source.batch


def batch_stages(
    source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None, block_size: int
) -> tuple[Bringing, list[Stage]]:
    """Return what Python does first, and the stages that then fill the buffers of `batch`."""
    bringing, dtype = Bringing(source, clock, batch, tally, numbers), batch.a0.dtype
    table = bringing.ahead if numbers is None else numbers.table.reshape(-1)
    told = (bringing.known, bringing.amount, tally.values[WEIGHT], bringing.ahead.reshape(-1), table, bringing.at)
    begin = bind(loop("begin_step", dtype), clock, source.batch, *told)
    stages: list[Stage] = [Atoms(1, 1, table.size * OPERATION, lambda first, last, room: begin)]
    stages += taking_stages(source, batch, bringing.window.rows, lambda room: bringing.at)
    if not reads_inputs(source):
        bringing.takers.append(take_launch(source.X, batch.a0, staging_of(source.X, batch.a0, block_size)))
    if not reads_targets(source):
        bringing.takers.append(target_launch(source, batch.y))
    return bringing, stages


def reads_inputs(source: BatchSource) -> bool:
    """Tell whether there is a loop for the inputs' dtype."""
    return is_read(source.X.dtype)


def reads_targets(source: BatchSource) -> bool:
    """Tell whether there is a loop for the targets' dtype, or the labels'."""
    return source.Y.dtype == np.int64 if source.codes is not None else is_read(source.Y.dtype)


def is_read(dtype: np.dtype[Any]) -> bool:
    """Tell whether there is a loop for numbers of this kind."""
    return dtype.isnative and dtype.name in GIVEN_DTYPES


def is_read_by_a_loop(source: BatchSource) -> bool:
    """Tell whether a batch is brought without NumPy."""
    return reads_inputs(source) and reads_targets(source)


def taking_stages(source: BatchSource, batch: Batch, rows: Array, at: Callable[[Room], Array]) -> list[Stage]:
    """Return the stages that fill a0 and y of a batch, as far as there are loops for their dtypes.

    rows   (1 or n_orders, n) row numbers, among which a thread's batch begins at at(its room)[0]
    """
    stages: list[Stage] = []
    dtype = batch.a0.dtype
    if reads_inputs(source):
        take = loop("take_rows", dtype, given=source.X.dtype)
        stages.append(taking(take, (source.X.reshape(-1), source.X.shape[1]), rows, at, batch.first, batch.a0))
    if not reads_targets(source):
        return stages
    if source.codes is not None:
        take = loop("take_codes", dtype, given=source.codes.dtype)
        given = (source.Y.reshape(-1), *model_flat(source.codes.reshape(source.n_codes, -1)), batch.y.shape[2])
        stages.append(taking(take, given, rows, at, batch.first, batch.y))
    else:
        take = loop("take_rows", dtype, given=source.Y.dtype)
        stages.append(taking(take, (source.Y.reshape(-1), batch.y.shape[2]), rows, at, batch.first, batch.y))
    return stages


def taking(
    take: Loop, given: Sequence[Any], rows: Array, at: Callable[[Room], Array], first_row: int, out: Array
) -> Atoms:
    """Return the stage that fills `out` (n_orders or n_models, batch, n) from some of the rows.

    first_row   which row of the batch is the first one
    """
    n_lines, batch, n = out.shape
    numbers, stride = model_flat(rows)

    def some(first: int, last: int, room: Room) -> Call:
        return bind(take, *given, numbers[first_row:], stride, at(room), batch, first, last, out.reshape(-1))

    return Atoms(n_lines, batch, n_lines * batch * n * 4 * OPERATION, some)
