"""Several training steps as one program, in which a thread takes some models through all of them.

While a thread goes from step to step its models' parameters stay in its cache, and Python is asked once for all steps.
Each thread counts the steps of the models that it has in hand on a clock of its own; the trainer's clock moves on when
all is done. That needs models that have nothing to wait for: each with an order of its own, and batches that are full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.numba_batches import Orders, first_short, is_read_by_a_loop, taking_stages
from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Program, Room, Stage, bind
from gpumlp.backends.numba_source import loop
from gpumlp.backends.numpy_batches import compute_numbers, equal_weights, valid_rows
from gpumlp.backends.protocol import EPOCH, POSITION, STEP, WEIGHT, Array, Batch, BatchSource, StepNumbers, Tally

MOST_ROWS = 1 << 22  # of all models and steps, whose numbers are found at once: 32 MiB


def thread_clock(room: Room) -> Any:
    """Return the clock of the thread that the room belongs to."""
    return room("clock", 3, np.int64)


def place_of_step(room: Room) -> Any:
    """Return where among the rows of all steps those of the thread's step begin, (1,)."""
    return room("place of the step", 1, np.int64)


def can_be_joined(source: BatchSource, n_models: int) -> bool:
    """Tell whether each model can go through several steps by itself."""
    own_orders = source.keys is not None and len(source.keys) == n_models and n_models > 1
    in_parts = source.part is not None
    return own_orders and not in_parts and source.sample_weight is None and is_read_by_a_loop(source)


class JoinedSteps:
    """What is done for `n_steps` steps at once.

    source, ...   of the one call of `gather_batch` in a step

    stages        with which each step begins
    """

    def __init__(
        self, n_steps: int, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers
    ) -> None:
        self.n_steps, self.source, self.numbers = n_steps, source, numbers
        self._clock, self._batch, self._tally = clock, batch, tally
        self._ahead = np.empty((n_steps, *numbers.table.shape), numbers.table.dtype)
        n_orders = len(batch.a0)
        self._at_once = n_orders * n_steps * source.batch <= MOST_ROWS
        rows = np.empty((n_orders, (n_steps if self._at_once else 1) * source.batch), np.int64)
        self._orders = Orders(source, rows, (lambda room: clock) if self._at_once else thread_clock)
        self._program: Program | None = None
        self._prologue, self.stages = self._begin()

    def _begin(self) -> tuple[list[Stage], list[Stage]]:
        """Return what a thread does before all steps, and the stages with which each step begins.

        Where there is room the rows of all steps are found at once: faster than as many short parts of an order.
        """
        dtype, numbers, clock = self._batch.a0.dtype, self.numbers, self._clock
        n_models = numbers.table.shape[-1]

        def reset(first: int, last: int, room: Room) -> Call:
            return bind(loop("begin_steps", np.float64), clock, self.source.batch, thread_clock(room))

        def begin(first: int, last: int, room: Room) -> Call:
            ahead, table = self._ahead.reshape(-1), numbers.table.reshape(-1)
            place = (self.source.batch, n_models, first, last)
            own = thread_clock(room), place_of_step(room)
            return bind(loop("begin_own_step", dtype), clock, *place, ahead, table, *own)

        work = numbers.table.size * OPERATION
        before: list[Stage] = [Atoms(n_models, 1, OPERATION, reset)]
        stages: list[Stage] = [Atoms(n_models, 1, work, begin)]
        (before if self._at_once else stages).append(self._orders.stage())
        start = np.zeros(1, np.int64)
        at = place_of_step if self._at_once else lambda room: start
        stages += taking_stages(self.source, self._batch, self._orders.rows, at)
        return before, stages

    def build(self, stages: Sequence[Stage]) -> bool:
        """Lay out the program; tell whether its stages let each thread have models of its own."""
        program = Program(stages, threads.count(), repeats=self.n_steps, prologue=self._prologue)
        if program.is_joined:
            self._program = program
        return program.is_joined

    def __call__(self) -> bool:
        """Perform the steps, if all of their batches are full; else return False."""
        clock, source = self._clock, self.source
        position, size = int(clock[POSITION]), source.batch
        if position + self.n_steps * size > first_short(source):
            return False
        assert self._program is not None
        first, epoch = position // size, int(clock[EPOCH])
        self._orders.begin_epoch(epoch)
        steps = range(first, first + self.n_steps)
        compute_numbers(self.numbers, source, epoch, int(clock[STEP]), steps, self._ahead)
        equal_weights(self._batch, valid_rows(source, position), source.mean)
        self._program()
        clock[STEP] += self.n_steps
        clock[POSITION] += self.n_steps * size
        self._tally.values[WEIGHT] += self.n_steps * size
        return True
