"""Epochs over one data set, whose losses are summed up as scikit-learn does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.backends.protocol import COST, WEIGHT
from gpumlp.shapes import HostArray
from gpumlp.training.data_set import TrainingSet
from gpumlp.training.steps import Steps
from gpumlp.training.trainer import Trainer


class Epochs:
    """Trains a trainer's network, an epoch at a time.

    alpha      the trainer's penalty of a batch, which belongs to the loss
    averaged   over how many outputs the loss is a mean of the network's cost
    """

    def __init__(self, trainer: Trainer, data: TrainingSet, batch: int, alpha: float, averaged: int) -> None:
        self.trainer, self.backend, self.alpha, self.averaged = trainer, trainer.net.backend, alpha, averaged
        with self.backend.session():
            self.source = data.source(trainer, batch, explicit=True)
        self.steps = Steps(trainer, self.source, data.targets, trainer.clock, trainer.numbers)
        self.weighted = data.weights is not None  # then each batch's loss is divided by the sum of its own

    def refill(self, data: TrainingSet) -> None:
        """Train on other data of the same shapes from now on; the arrays that were given first are overwritten."""
        source = self.source
        for given, out in ((data.X, source.X), (data.targets.Y, source.Y), (data.weights, source.sample_weight)):
            if given is not None:
                self.backend.copy(self.backend.asarray(given), out)

    def run(self, order: HostArray, learning_rate: float) -> float:
        """Train on all rows in this order, and return the loss."""
        self.trainer.hyper.values["eta"][:] = learning_rate
        self.steps.begin_epoch()
        self.backend.copy(self.backend.asarray(order[None]), self.source.rows)
        with self.backend.session():
            total = self._ask_each_step() if self.weighted else self._ask_at_the_end()
            self.backend.synchronize()
        self.steps.end_epoch(self.trainer.epoch_count + 1)
        return total / self.source.n_rows

    def _ask_each_step(self) -> float:
        """Perform the steps of an epoch; return the sum over its batches of rows times loss."""
        total, seen = 0.0, np.zeros(2)
        for rows in self._batches():
            penalty = self._penalty()
            self.steps.step()
            now = self._tally()
            cost, weight = now - seen
            total += rows * (cost / self.averaged + float(penalty)) / weight
            seen = now
        return float(total)

    def _ask_at_the_end(self) -> float:
        """Do the same for rows of equal weight, waiting for nothing."""
        penalty = 0.0
        for _ in self._batches():
            penalty = penalty + self._penalty()
            self.steps.step()
        return float(self._tally()[0] / self.averaged + float(penalty))

    def _batches(self) -> Iterator[int]:
        """Yield the rows of each batch."""
        n_rows, batch = self.source.n_rows, self.source.batch
        for start in range(0, n_rows, batch):
            yield min(batch, n_rows - start)

    def _tally(self) -> HostArray:
        """Return the cost and the weight of this epoch's rows so far."""
        values = self.backend.to_host(self.steps.tally.values)
        return np.array([values[COST, 0], values[WEIGHT, 0]])

    def _penalty(self) -> Any:
        """Return (alpha / 2) |W|^2, on a device where the weights are there."""
        if not self.alpha:
            return 0.0
        p = self.trainer.net.parameters
        weights = p.theta[0, : p.layout.n_weights]
        square = np.dot(weights, weights) if isinstance(weights, np.ndarray) else (weights * weights).sum()
        return 0.5 * self.alpha * square


def copy_of(data: TrainingSet) -> TrainingSet:
    """Return data whose arrays are nobody else's."""
    weights = None if data.weights is None else data.weights.copy()
    return TrainingSet(data.X.copy(), replace(data.targets, Y=data.targets.Y.copy()), weights)
