"""Features brought to a common scale: to mean 0 and deviation 1, or by their ranks to a normal distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpumlp.data.normal_quantile import normal_quantile
from gpumlp.data.table import Array, row_blocks
from gpumlp.errors import DataError, unknown_name

Layout = dict[str, tuple[tuple[int, ...], "np.dtype[Any]"]]  # (shape, dtype) of arrays by name

MOST_QUANTILES = 1000


class Scaler(Protocol):
    """A map of each feature by itself, learned from training rows.

    name   what it is called on the command line and in files
    """

    name: ClassVar[str]

    @classmethod
    def fit(cls, X: Any, kept: NDArray[np.bool_] | None = None) -> Scaler:
        """Learn the map from rows; the features where `kept` is True stay as they are."""

    def transform(self, X: Any, dtype: DTypeLike = np.float32) -> Array:
        """Return the mapped rows as a new array."""

    def header(self) -> dict[str, Any]:
        """Return what a file says of it beside its arrays, as plain JSON."""

    def arrays(self) -> dict[str, Array]:
        """Return its arrays by name."""

    @classmethod
    def layout(cls, header: Mapping[str, Any], n_features: int) -> Layout:
        """Return which arrays a file must hold; raise DataError if the header does not tell."""

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Scaler:
        """Return the map that `arrays` are of; raise DataError if their values are of none."""


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The map x -> (x - mean) / scale of each feature; no temporary is as large as X.

    mean, scale   (n_features,) float64; scale is the standard deviation, or 1 for a constant feature
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    name: ClassVar[str] = "standardise"

    @classmethod
    def fit(cls, X: Any, kept: NDArray[np.bool_] | None = None) -> Standardiser:
        """Measure mean and deviation of each feature in float64, in two passes over blocks of rows.

        X        (n_samples, n_features) numbers, read
        kept     (n_features,) where a feature stays as it is, with mean 0 and scale 1; nowhere without it
        Raises   DataError if X has other axes, no rows, no numbers, or some that are not finite or too large to square
        """
        X = _as_some_rows(X)
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
            mean = _sum_blocks(X, lambda block: block) / len(X)
            squares = _sum_blocks(X, lambda block: (block - mean) ** 2)
        return cls.of_measures(mean, squares / len(X), X.min(axis=0), X.max(axis=0), kept)

    @classmethod
    def of_measures(
        cls,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
        least: Array,
        largest: Array,
        kept: NDArray[np.bool_] | None = None,
    ) -> Standardiser:
        """Return the map of features with this mean, variance, least and largest value; see `fit`."""
        constant = least == largest  # rounding may leave it a deviation, and a mean beside its value
        mean = np.where(constant, least.astype(np.float64), mean)
        deviation = np.where(constant, 0.0, np.sqrt(variance))
        if kept is not None:
            mean, deviation = np.where(kept, 0.0, mean), np.where(kept, 0.0, deviation)
        _expect_measured(np.stack([mean, deviation]))
        return cls(mean, np.where(deviation == 0, 1.0, deviation))

    def transform(self, X: Any, dtype: DTypeLike = np.float32) -> Array:
        """Return (X - mean) / scale as a new array of `dtype`, computed in float64.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has another number of features
        """
        X = _as_fitted(X, len(self.mean))
        result = np.empty(X.shape, dtype)
        for rows in row_blocks(X):
            result[rows] = (X[rows] - self.mean) / self.scale
        return result

    def inverse(self, X: Any) -> NDArray[np.float64]:
        """Return X * scale + mean as a new float64 array, what `transform` was given.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has another number of features
        """
        X = _as_fitted(X, len(self.mean))
        result = np.empty(X.shape)
        for rows in row_blocks(X):
            result[rows] = X[rows] * self.scale + self.mean
        return result

    def header(self) -> dict[str, Any]:
        """Return the name alone."""
        return {"kind": self.name}

    def arrays(self) -> dict[str, Array]:
        """Return mean and scale."""
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def layout(cls, header: Mapping[str, Any], n_features: int) -> Layout:
        """Return a mean and a scale for each feature."""
        return {part: ((n_features,), np.dtype(np.float64)) for part in ("mean", "scale")}

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Standardiser:
        """Return the map with this mean and scale; raise DataError for a scale that divides by nothing."""
        if not (arrays["scale"] > 0).all():
            raise DataError("scale holds deviations that are not above 0")
        return cls(arrays["mean"], arrays["scale"])


@dataclass(frozen=True, eq=False)
class QuantileNormaliser:
    """The map of each feature, by its rank among the training rows, to a normal distribution.

    Quantile k of K stands for the probability p[k] = (k + 1/2) / K. Between quantiles p is linear in x; a value that
    several quantiles share, such as 0 in counts, has the mean of their p; beyond the outermost p stays as it is there.
    The feature becomes the value below which a standard normal variable stays with that probability, so with 1,000
    quantiles it lies between -3.29 and 3.29, whatever came.

    quantiles   (K, n_features) float64, ascending in each column; K is 1,000, or the number of rows if there are fewer
    kept        (n_features,) bool: which features stay as they are
    """

    quantiles: NDArray[np.float64]
    kept: NDArray[np.bool_]

    name: ClassVar[str] = "quantile"

    @classmethod
    def fit(cls, X: Any, kept: NDArray[np.bool_] | None = None) -> QuantileNormaliser:
        """Measure the quantiles of each feature in float64, one feature at a time.

        X        (n_samples, n_features) numbers, read
        kept     (n_features,) where a feature stays as it is; nowhere without it
        Raises   DataError if X has other axes, no rows, no numbers, or some that are not finite
        """
        X = _as_some_rows(X)
        n_features = X.shape[1]
        kept = np.zeros(n_features, bool) if kept is None else np.array(kept, bool)
        p = _probabilities(min(len(X), MOST_QUANTILES))
        quantiles = np.zeros((len(p), n_features))
        for j in np.flatnonzero(~kept):
            with np.errstate(invalid="ignore"):  # what comes of it is refused
                quantiles[:, j] = np.quantile(X[:, j].astype(np.float64), p, method="hazen")
        _expect_measured(quantiles)
        return cls(quantiles, kept)

    def transform(self, X: Any, dtype: DTypeLike = np.float32) -> Array:
        """Return the normal values as a new array of `dtype`, computed in float64.

        X        (n_samples, n_features) numbers, read
        Raises   DataError if X has another number of features
        """
        X = _as_fitted(X, len(self.kept))
        p = _probabilities(len(self.quantiles))
        result = np.empty(X.shape, dtype)
        for j in range(X.shape[1]):
            x = X[:, j]
            result[:, j] = x if self.kept[j] else _normal(x.astype(np.float64), self.quantiles[:, j], p)
        return result

    def header(self) -> dict[str, Any]:
        """Return the name and the number of quantiles."""
        return {"kind": self.name, "quantiles": len(self.quantiles)}

    def arrays(self) -> dict[str, Array]:
        """Return the quantiles, and which features stay as they are."""
        return {"quantiles": self.quantiles, "kept": self.kept}

    @classmethod
    def layout(cls, header: Mapping[str, Any], n_features: int) -> Layout:
        """Return as many quantiles as the header says; raise DataError for a number that `fit` never takes."""
        n = header.get("quantiles")
        if type(n) is not int or not 1 <= n <= MOST_QUANTILES:
            raise DataError(f"scaling has {n!r} quantiles, expected a whole number from 1 to {MOST_QUANTILES}")
        return {"quantiles": ((n, n_features), np.dtype(np.float64)), "kept": ((n_features,), np.dtype(np.bool_))}

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> QuantileNormaliser:
        """Return the map with these quantiles; raise DataError if they fall."""
        if (np.diff(arrays["quantiles"], axis=0) < 0).any():
            raise DataError("quantiles fall, expected ascending ones")
        return cls(arrays["quantiles"], arrays["kept"])


SCALERS: dict[str, type[Scaler]] = {scaler.name: scaler for scaler in (Standardiser, QuantileNormaliser)}


def scaler_named(name: str) -> type[Scaler]:
    """Return the scaling of that name; raise UnknownName with the nearest."""
    if name not in SCALERS:
        raise unknown_name("scaling", name, SCALERS)
    return SCALERS[name]


def _probabilities(n: int) -> NDArray[np.float64]:
    return (np.arange(n) + 0.5) / n


def _normal(x: NDArray[np.float64], quantiles: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    last = np.interp(x, quantiles, p)  # of equal quantiles it takes the last,
    first = 1 - np.interp(-x, -quantiles[::-1], p)  # and the other way round the first; p is 1 - p reversed
    return normal_quantile((first + last) / 2)


def _expect_measured(measures: NDArray[np.float64]) -> None:
    """Raise DataError unless what was measured, (n_measures, n_features), is finite."""
    lost = np.flatnonzero(~np.isfinite(measures).all(axis=0))
    if len(lost):
        raise DataError(
            f"the scale of feature {lost[0]} (from 0) cannot be measured: a value is missing, infinite or too large to "
            "be squared; fill or drop it, or write it in another unit"
        )


def _as_some_rows(values: Any) -> Array:
    X = _as_rows(values)
    if len(X) == 0:
        raise DataError(f"X has shape {X.shape}, expected at least one row; the scale of nothing is unknown")
    return X


def _as_fitted(values: Any, n_features: int) -> Array:
    X = _as_rows(values)
    if X.shape[1] != n_features:
        raise DataError(
            f"X has {X.shape[1]} features, expected the {n_features} that the scaling was fitted on; "
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
