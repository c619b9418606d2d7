"""The models of a stack that are still trained: what has stopped costs nothing once the stack is rebuilt without it.

A rebuilt stack has the room of the whole one for each model, so that rows of parameters and of the rule's state are
copied as they are, and each model goes on with the numbers that it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from gpumlp.backends.protocol import Array, Backend
from gpumlp.shapes import HostArray

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

WORTH_REBUILDING = 0.25  # of the models have stopped: each rebuilding leaves less, so that there are few of them


class Active:
    """Some models of a trainer's stack, and a trainer of these alone; at first all models and the trainer itself.

    models    their places in the whole stack, in order
    trainer   the trainer of these; it shares the clock
    """

    def __init__(self, whole: Trainer, models: HostArray | None = None) -> None:
        self.whole = whole
        self.is_all = models is None
        self.models = np.arange(whole.net.n_models) if models is None else models
        self.trainer = whole if models is None else part_of(whole, self.models)

    def worth_rebuilding(self, skip: HostArray) -> bool:
        """Tell whether so many of these have stopped that the others are better trained without them."""
        stopped = skip[self.models]
        return bool(stopped.mean() >= WORTH_REBUILDING and not stopped.all())

    def begin_turn(self, factors: HostArray) -> None:
        """Let the coming steps have the numbers that the whole stack has now.

        factors   (n_steps, 1 or n_models), of the learning rate
        """
        part, whole = self.trainer, self.whole
        part.numbers.factors = factors if factors.shape[1] == 1 else np.ascontiguousarray(factors[:, self.models])
        if not self.is_all:
            part.numbers.skip[:] = whole.numbers.skip[self.models]
            for name, values in whole.hyper.values.items():
                part.hyper.values[name][:] = values[:, self.models]

    def spread(self, values: HostArray, missing: float = np.nan) -> HostArray:
        """Return values of these models, (..., n), as values of all, with something else for the others."""
        if self.is_all:
            return values
        found = np.full((*values.shape[:-1], self.whole.net.n_models), missing)
        found[..., self.models] = values
        return found

    def bring_weights(self) -> None:
        """Let the whole stack have the weights that these models have now."""
        if not self.is_all:
            self._copy(self.trainer.net.parameters.theta, self.whole.net.parameters.theta, back=True)

    def bring_all(self) -> None:
        """Let the whole stack have the weights and the rule's state that these models have now."""
        self.bring_weights()
        if not self.is_all:
            for part, whole in zip(self.trainer.states, self.whole.states, strict=True):
                self._copy(part, whole, back=True)

    def send_weights(self) -> None:
        """Let these models have the weights that the whole stack has now."""
        if not self.is_all:
            self._copy(self.trainer.net.parameters.theta, self.whole.net.parameters.theta, back=False)

    def _copy(self, part: Array, whole: Array, back: bool) -> None:
        copy_models(self.whole.net.backend, part, whole, self.models, back)


def part_of(whole: Trainer, models: HostArray) -> Trainer:
    """Return a trainer of some models of a stack, with copies of all that they have, and the same clock."""
    backend, part = whole.net.backend, copy(whole)
    part.net = whole.net.take(models.tolist(), room=whole.net.sizes)
    part.hyper, part.schedules = whole.hyper.take(models), whole.schedules.take(models)
    part.numbers = part.build_numbers()
    part.states = backend.empty((len(whole.states), len(models), *whole.states.shape[2:]), what="the rule's state")
    for own, its in zip(part.states, whole.states, strict=True):
        copy_models(backend, own, its, models, back=False)
    return part


def copy_models(backend: Backend, part: Array, whole: Array, models: HostArray, back: bool) -> None:
    """Overwrite the rows of some models in `part` with those in `whole` (n_models, ...), or these if `back`."""
    with backend.session():
        for at, places in neighbours(models):
            src, out = (part[at], whole[places]) if back else (whole[places], part[at])
            backend.copy(src, out)


def neighbours(models: HostArray) -> Iterator[tuple[slice, slice]]:
    """Yield runs of places that follow one another: where in `models`, and which they are."""
    begin = 0
    for end in [*(np.flatnonzero(np.diff(models) > 1) + 1).tolist(), len(models)]:
        if end > begin:
            yield slice(begin, end), slice(int(models[begin]), int(models[end - 1]) + 1)
        begin = end
