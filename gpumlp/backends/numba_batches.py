"""Bringing a batch by compiled calls. Python looks ahead for some batches at a time; between, there is little to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Room, Stage, bind, run_now
from gpumlp.backends.numba_source import Loop, loop
from gpumlp.backends.numpy_batches import (
    RowWindow,
    Taker,
    ahead_of,
    compute_numbers,
    equal_weights,
    take_launch,
    target_launch,
    weight_launch,
    window_of,
)
from gpumlp.backends.protocol import EPOCH, POSITION, STEP, WEIGHT, Array, Batch, BatchSource, StepNumbers, Tally
from gpumlp.randomness import feistel, streams

GIVEN_DTYPES = frozenset(
    "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()  # noqa: SIM905
)


class NumbaRowWindow(RowWindow):
    """The row numbers of the next batches, computed by a loop."""

    def _fill(self, epoch: int, first: int) -> None:
        source = self.source
        if source.keys is None:
            super()._fill(epoch, first)
            return
        feistel.check_size(source.n_rows)
        keys = streams.shuffle_keys(source.keys, epoch).reshape(-1)
        half = feistel.half_bits(source.n_rows)
        place = (source.n_rows, first, self.rows.shape[1], len(self.rows))
        run_now(bind(loop("order_rows", np.float32), keys, half, *place, self.rows.reshape(-1)))


class Bringing:
    """What is done in Python before a batch is brought, and what the compiled part is told by it.

    at      (1,) where in the window the batch begins
    first   which row of it is the first that is brought
    known   (2,) position of the window's first row; step of the epoch whose numbers stand first in `ahead`
    amount  (1,) what the batch adds to the tally's weight, where it is not added here
    ahead   the next steps' numbers
    takers  what brings rows by NumPy, of dtypes that no loop reads
    """

    def __init__(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        self.source, self._clock, self._batch, self._numbers = source, memoryview(clock), batch, numbers
        self.first = batch.first
        self.window = window_of(NumbaRowWindow, source, len(batch.a0))
        self.at, self.known, self.amount = np.zeros(1, np.int64), np.zeros(2, np.int64), np.zeros(1)
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
                self._weigh(rows[:, at : at + self.source.batch], min(self.source.batch, self.source.n_rows - position))

    def _beginning(self, position: int) -> int:
        """Return how many steps had been done when this epoch began, if its steps are counted."""
        return 0 if self._numbers is None else int(self._clock[STEP]) - position // self.source.batch

    def _look_ahead(self, position: int) -> None:
        """Make window, weights and numbers ready from this position on, up to where one of them ends."""
        source, size = self.source, self.source.batch
        self._epoch, self._began, self._first = self._clock[EPOCH], self._beginning(position), position
        _, at = self.window.rows_at(self._epoch, position)
        self.known[0] = position - at
        valid = min(size, source.n_rows - position)
        short = source.n_rows - source.n_rows % size  # where a last batch that is not full begins
        self._limit = min(position - at + self.window.size, short if position < short else position + size)
        if self._weigh is None:
            equal_weights(self._batch, valid, source.mean)
            self.amount[0] = valid if self.first == 0 else 0
        self._valid = self._batch.valid
        if self._numbers is not None:
            step = position // size
            end = min(step + len(self.ahead), source.n_steps)
            compute_numbers(self._numbers, source, self._epoch, int(self._clock[STEP]), range(step, end), self.ahead)
            self.known[1] = step
            self._limit = min(self._limit, end * size)


def batch_stages(
    source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None, block_size: int
) -> tuple[Bringing, list[Stage]]:
    """Return what Python does first, and the stages that then fill the buffers of `batch`."""
    bringing, dtype = Bringing(source, clock, batch, tally, numbers), batch.a0.dtype
    table = bringing.ahead if numbers is None else numbers.table.reshape(-1)
    told = (bringing.known, bringing.amount, tally.values[WEIGHT], bringing.ahead.reshape(-1), table, bringing.at)
    begin = bind(loop("begin_step", dtype), clock, source.batch, *told)
    stages: list[Stage] = [Atoms(1, 1, table.size * OPERATION, lambda first, last, room: begin)]
    given: Sequence[Any]
    if source.X.dtype.name in GIVEN_DTYPES:
        take, given = loop("take_rows", dtype, given=source.X.dtype), (source.X.reshape(-1), source.X.shape[1])
        stages.append(taking(take, given, bringing, batch.a0))
    else:
        bringing.takers.append(take_launch(source.X, batch.a0, block_size))
    if source.codes is not None and source.Y.dtype == np.int64:
        take = loop("take_codes", dtype, given=source.codes.dtype)
        given = (source.Y.reshape(-1), source.codes.reshape(-1), batch.y.shape[2])
        stages.append(taking(take, given, bringing, batch.y))
    elif source.codes is None and source.Y.dtype.name in GIVEN_DTYPES:
        take, given = loop("take_rows", dtype, given=source.Y.dtype), (source.Y.reshape(-1), batch.y.shape[2])
        stages.append(taking(take, given, bringing, batch.y))
    else:
        bringing.takers.append(target_launch(source, batch.y))
    return bringing, stages


def taking(take: Loop, given: Sequence[Any], bringing: Bringing, out: Array) -> Atoms:
    """Return the stage that fills `out` (n_orders, batch, n) from the rows of the window."""
    n_orders, batch, n = out.shape
    rows = bringing.window.rows
    shared = (*given, rows.reshape(-1)[bringing.first :], rows.shape[1], bringing.at, batch)

    def some(first: int, last: int, room: Room) -> Call:
        return bind(take, *shared, first, last, out.reshape(-1))

    return Atoms(n_orders, batch, n_orders * batch * n * 4 * OPERATION, some)
