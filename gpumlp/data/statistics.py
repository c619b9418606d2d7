"""What the columns of a data set are like, from one pass over its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.limits import expect_room
from gpumlp.data.table import Array

Column = NDArray[np.float64]
OF_A_COLUMN = 500  # bytes: what is measured, what of a row is looked at meanwhile, and the text of it in a file


class ColumnStatistics:
    """Count, mean, variance, least and largest value of each column, and how many values are missing (NaN).

    count, missing    (n_columns,) int64
    mean, squares     (n_columns,) float64; squares: the sum of the squared distances from the mean
    least, largest    (n_columns,) float64; NaN, as is the mean, for a column without a value
    Source            T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing
                      sample variances, 1979
    """

    def __init__(self, n_columns: int) -> None:
        expect_room(n_columns * OF_A_COLUMN, f"what {n_columns:,} columns are like", "drop some of them")
        self.count, self.missing = np.zeros(n_columns, np.int64), np.zeros(n_columns, np.int64)
        self.mean, self.squares = np.full(n_columns, np.nan), np.zeros(n_columns)
        self.least, self.largest = np.full(n_columns, np.nan), np.full(n_columns, np.nan)

    def add(self, block: Array) -> None:
        """Take in the rows of a block, (n, n_columns) numbers; what is too large to be squared has no variance."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._add(block)

    def _add(self, block: Array) -> None:
        there = ~np.isnan(block)
        count = np.count_nonzero(there, axis=0)
        self.missing += len(block) - count
        values = np.where(there, block, 0).astype(np.float64)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(there, values - mean, 0) ** 2).sum(axis=0)
        self._merge(count, mean, squares)
        empty = np.where(count > 0, 0.0, np.nan)
        self.least = np.fmin(self.least, np.where(there, values, np.inf).min(axis=0, initial=np.inf) + empty)
        self.largest = np.fmax(self.largest, np.where(there, values, -np.inf).max(axis=0, initial=-np.inf) + empty)

    def _merge(self, count: NDArray[np.int64], mean: Column, squares: Column) -> None:
        """m <- m + (m' - m) n' / (n + n'), s <- s + s' + (m' - m)^2 n n' / (n + n')."""
        total = np.maximum(self.count + count, 1)
        old = np.where(self.count > 0, self.mean, mean)
        step = np.where(count > 0, mean - old, 0.0)
        self.squares += squares + step**2 * (self.count / total) * count
        self.mean = np.where(self.count + count > 0, old + step * (count / total), np.nan)
        self.count = self.count + count

    @property
    def variance(self) -> Column:
        """The mean squared distance from the mean, as Standardiser measures it; NaN for a column without a value."""
        return np.where(self.count > 0, self.squares / np.maximum(self.count, 1), np.nan)

    def as_lists(self) -> dict[str, list[Any]]:
        """Return all of it for JSON, None where there is no value."""
        found = {
            "count": self.count,
            "mean": self.mean,
            "variance": self.variance,
            "min": self.least,
            "max": self.largest,
            "missing": self.missing,
        }
        return {name: [_plain(value) for value in values.tolist()] for name, values in found.items()}


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
