"""Missing values: filled with the mean of their column, and told by a column of 0 and 1 for each that has some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpumlp.shapes import HostArray


@dataclass(frozen=True)
class Filling:
    """What fills the missing values of a table, learnt from the rows that were trained on first.

    means   (n_features,) of what is there; 0 for a column of which nothing is
    told    (n_indicators,) numbers of the columns that had missing values: each has an indicator behind the features
    """

    means: HostArray
    told: HostArray

    @classmethod
    def learn(cls, X: HostArray) -> Filling:
        """Return what fills this table."""
        absent = np.isnan(X)
        n_there = (~absent).sum(axis=0)
        sums = np.where(absent, 0, X).sum(axis=0, dtype=np.float64)
        return cls(sums / np.maximum(n_there, 1), np.flatnonzero(absent.any(axis=0)))

    def fill(self, X: HostArray) -> HostArray:
        """Return the table without missing values, and the indicators behind it; (n_rows, features + indicators)."""
        absent = np.isnan(X)
        filled = np.where(absent, self.means.astype(X.dtype), X)
        return np.hstack([filled, absent[:, self.told].astype(X.dtype)])
