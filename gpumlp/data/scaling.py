"""Features brought to mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpumlp.data.table import Array, row_blocks
from gpumlp.errors import DataError


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The map x -> (x - mean) / scale of each feature; no temporary is as large as X.

    mean, scale   (n_features,) float64; scale is the standard deviation, or 1 for a constant feature
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, X: Any) -> Standardiser:
        """Measure mean and deviation of each feature in float64, in two passes over blocks of rows.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has other axes, no rows or no numbers
        """
        X = _as_rows(X)
        if len(X) == 0:
            raise DataError(f"X has shape {X.shape}, expected at least one row; a mean of nothing is unknown")
        mean = _sum_blocks(X, lambda block: block) / len(X)
        deviation = np.sqrt(_sum_blocks(X, lambda block: (block - mean) ** 2) / len(X))
        constant = (X.min(axis=0) == X.max(axis=0)) | (deviation == 0)  # rounding leaves a constant 0.1 a deviation
        return cls(mean, np.where(constant, 1.0, deviation))

    def transform(self, X: Any, dtype: DTypeLike = np.float32) -> Array:
        """Return (X - mean) / scale as a new array of `dtype`, computed in float64.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has another number of features
        """
        X = self._expect(X)
        result = np.empty(X.shape, dtype)
        for rows in row_blocks(X):
            result[rows] = (X[rows] - self.mean) / self.scale
        return result

    def inverse(self, X: Any) -> NDArray[np.float64]:
        """Return X * scale + mean as a new float64 array, what `transform` was given.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has another number of features
        """
        X = self._expect(X)
        result = np.empty(X.shape)
        for rows in row_blocks(X):
            result[rows] = X[rows] * self.scale + self.mean
        return result

    def _expect(self, values: Any) -> Array:
        X = _as_rows(values)
        if X.shape[1] != len(self.mean):
            raise DataError(
                f"X has {X.shape[1]} features, expected the {len(self.mean)} that the scaling was fitted on; "
                "give the same columns in the same order"
            )
        return X


def _as_rows(values: Any) -> Array:
    X: Array = np.asarray(values)
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise DataError(
            f"X has shape {X.shape} and dtype {X.dtype}, expected (n_samples, n_features) numbers; convert it"
        )
    return X


def _sum_blocks(X: Array, term: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    total = np.zeros(X.shape[1])
    for rows in row_blocks(X):
        total += term(X[rows].astype(np.float64)).sum(axis=0)
    return total
