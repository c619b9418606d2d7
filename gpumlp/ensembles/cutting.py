"""Cutting: models of one kind are divided so that few of a stack's parameters only pad its smaller models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Sizes = tuple[int, ...]
Widths = NDArray[np.int64]  # (n_models, layers): the neurons of every layer of each model


@dataclass(frozen=True)
class Limits:
    """How unlike the models of a stack may be.

    ratio   the largest width of a layer over the smallest
    waste   share of the parameters of all stacks that only pads
    """

    ratio: float
    waste: float


def n_parameters(sizes: Widths) -> Widths:
    """Return the number of weights and biases, (n_models,), of networks of these sizes (n_models, layers)."""
    return sum(((n_in + 1) * n_out for n_in, n_out in pairwise(sizes.T)), np.zeros(len(sizes), np.int64))


def padded(sizes: Widths) -> int:
    """Return how many parameters a stack of these models has, padding included."""
    return len(sizes) * int(n_parameters(sizes.max(axis=0)[None])[0])


def waste(sizes: Widths) -> float:
    """Return which share of a stack's parameters only pads its smaller models."""
    return 1 - int(n_parameters(sizes).sum()) / padded(sizes)


def cut(sizes: Sequence[Sizes], limits: Limits) -> list[list[int]]:
    """Return the numbers of the models of each stack.

    A stack that is wider than the limits allow is cut where that spares the most padding; then those that pad most are
    cut in two, one after the other, until all together waste no more than they may.
    """
    table = np.array(sizes, np.int64).reshape(len(sizes), -1)
    parts = [_Part(table, np.arange(len(table)))]
    needed = int(n_parameters(table).sum())
    while True:
        too_wide = [part for part in parts if part.ratio > limits.ratio]
        wasted = 1 - needed / sum(part.padded for part in parts)
        if not too_wide and wasted <= limits.waste:
            return [part.models.tolist() for part in parts]
        chosen = max(too_wide or parts, key=lambda part: part.spared)
        parts.remove(chosen)
        parts += chosen.halves


class _Part:
    """Some of the models, and where they are best cut in two."""

    def __init__(self, table: Widths, models: NDArray[np.int64]) -> None:
        self.models, self._table, self._sizes = models, table, table[models]
        self.padded = padded(self._sizes)
        self.ratio = float((self._sizes.max(axis=0) / self._sizes.min(axis=0)).max())
        self._best, left = None, self.padded
        for layer in np.flatnonzero(self._sizes.max(axis=0) > self._sizes.min(axis=0)):
            for width in np.unique(self._sizes[:, layer])[:-1]:
                narrow = self._sizes[:, layer] <= width
                cost = padded(self._sizes[narrow]) + padded(self._sizes[~narrow])
                if cost < left:
                    self._best, left = narrow, cost
        self.spared = self.padded - left  # parameters

    @property
    def halves(self) -> list[_Part]:
        assert self._best is not None
        return [_Part(self._table, self.models[self._best]), _Part(self._table, self.models[~self._best])]
