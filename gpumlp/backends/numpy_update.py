"""The update of all parameters: undivided, or each thread those whose gradient it has just computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from gpumlp.backends.numpy_elementwise import Elementwise
from gpumlp.backends.numpy_programs import rule_program
from gpumlp.backends.numpy_shares import Follower, Launch, Share, Shared, address_of
from gpumlp.backends.protocol import POSITION, STEP, Array, StepNumbers


class Update(Follower):
    """The launch that moves all parameters of all models that are not skipped, and the clock."""

    def __init__(
        self,
        numbers: StepNumbers,
        theta: Array,
        grad: Array,
        state: Array,
        bounds: Sequence[int],
        clock: Array,
        batch: int,
        elementwise: Elementwise,
    ) -> None:
        self._numbers, self._arrays, self._clock, self._batch = numbers, (theta, grad, *state), clock, batch
        self._groups = [slice(begin, end) for begin, end in pairwise(bounds)]
        self._program = rule_program(numbers.rule, numbers.names, numbers.extras)
        self._elementwise = elementwise
        self._plans = {numbers.skip.tobytes(): self._plan()}

    def __call__(self) -> None:
        """Move all parameters and the clock."""
        key = self._numbers.skip.tobytes()
        if key not in self._plans:
            self._plans = {key: self._plan()}
        for work in self._plans[key]:
            work()
        self._move_clock()

    def _plan(self) -> list[Launch]:
        """Return the work for the models that go on, as few runs of neighbours as there are."""
        moving = np.flatnonzero(~self._numbers.skip)
        runs = np.split(moving, np.flatnonzero(np.diff(moving) > 1) + 1) if moving.size else []
        parts = [slice(int(run[0]), int(run[-1]) + 1) for run in runs]
        return [
            self._move(models, group, self._groups[group], None)
            for models in parts
            for group in range(len(self._groups))
        ]

    def _move(self, models: slice, group: int, params: slice, thread: int | None) -> Launch:
        """Return what moves some parameters of a group, on one thread or on all of them."""
        values = [x[models, None, params] for x in self._arrays]
        h = [self._numbers.table[i, group, models, None, None] for i in range(len(self._numbers.names))]
        return self._elementwise.plan(self._program, [*values, *h], [values[0], *values[2:]], thread)

    def _move_clock(self) -> None:
        self._clock[STEP] += 1
        self._clock[POSITION] += self._batch

    def behind(self, shared: Shared) -> Shared | None:
        """Return the update in which each thread moves the weights of its units, and a share of all others."""
        theta, grad, *_ = self._arrays
        if shared.result is None or len(theta) != 1:
            return None
        _, n_units, inner = shared.result.shape
        begin = (address_of(shared.result) - address_of(grad)) // grad.itemsize
        end, skip = begin + n_units * inner, self._numbers.skip
        if begin < 0 or end > grad.shape[1]:  # the gradient of something else
            return None

        def share(units: slice, thread: int) -> Share:
            own = slice(begin + units.start * inner, begin + units.stop * inner)
            others = [
                slice(first + (last - first) * units.start // n_units, first + (last - first) * units.stop // n_units)
                for first, last in ((0, begin), (end, theta.shape[1]))
            ]
            taken = list(self._in_groups([own, *others]))
            works = [self._move(slice(0, 1), group, params, thread) for group, params in taken]

            def move() -> None:
                if not skip[0]:
                    for work in works:
                        work()
                if thread == 0:
                    self._move_clock()

            views = [[x[:, params] for x in self._arrays] for _, params in taken]
            writes = [x for view in views for i, x in enumerate(view) if i != 1]
            reads = [self._numbers.table, *(view[1] for view in views)]
            return Share([move], reads, [*writes, self._clock] if thread == 0 else writes)

        return Shared(shared.cuts, share)

    def _in_groups(self, ranges: Sequence[slice]) -> Iterator[tuple[int, slice]]:
        """Yield the parts of some ranges of parameters that lie within one group, and which one that is."""
        for params in ranges:
            for group, bounds in enumerate(self._groups):
                first, last = max(params.start, bounds.start), min(params.stop, bounds.stop)
                if first < last:
                    yield group, slice(first, last)
