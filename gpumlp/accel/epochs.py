"""Epochs over one data set, whose losses are summed up as scikit-learn does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gpumlp.backends.protocol import COST, WEIGHT
from gpumlp.shapes import HostArray, is_on_device
from gpumlp.training.trainer import Steps, Trainer, TrainingSet


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
        # each step is waited for on a device only where rows have weights, by whose sum each batch's loss is divided
        self.asks_each_step = data.weights is not None or not is_on_device(trainer.net.parameters.theta)

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
            total = self._ask_each_step() if self.asks_each_step else self._ask_at_both_ends()
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
            total += rows * (cost / self.averaged + penalty) / weight
            seen = now
        return float(total)

    def _ask_at_both_ends(self) -> float:
        """Do the same with a penalty that is the mean of those before and after the epoch."""
        before = self._penalty()
        for _ in self._batches():
            self.steps.step()
        penalty = (before + self._penalty()) / 2
        return float(self._tally()[0] / self.averaged + penalty * self.source.n_steps)

    def _batches(self) -> Iterator[int]:
        """Yield the rows of each batch."""
        n_rows, batch = self.source.n_rows, self.source.batch
        for start in range(0, n_rows, batch):
            yield min(batch, n_rows - start)

    def _tally(self) -> HostArray:
        """Return the cost and the weight of this epoch's rows so far."""
        values = self.backend.to_host(self.steps.tally.values)
        return np.array([values[COST, 0], values[WEIGHT, 0]])

    def _penalty(self) -> float:
        """Return (alpha / 2) |W|^2."""
        if not self.alpha:
            return 0.0
        p = self.trainer.net.parameters
        weights = self.backend.to_host(p.theta[0, : p.layout.n_weights])
        return 0.5 * self.alpha * float(np.dot(weights, weights))


def copy_of(data: TrainingSet) -> TrainingSet:
    """Return data whose arrays are nobody else's."""
    weights = None if data.weights is None else data.weights.copy()
    return TrainingSet(data.X.copy(), replace(data.targets, Y=data.targets.Y.copy()), weights)
