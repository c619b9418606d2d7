"""Folds: each model of a stack is trained, or evaluated, on rows of its own of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, DataError
from gpumlp.network.places import Places, build_places
from gpumlp.shapes import HostArray


@dataclass(frozen=True)
class Folds:
    """Which rows of X each model of a stack has.

    rows       the row numbers of each fold, in the order in which X[rows] has them; a row may come several times
    of_model   which of these folds each model has
    """

    rows: tuple[HostArray, ...]
    of_model: tuple[int, ...]


def check_folds(folds: Any, n_models: int, n_rows: int, name: str = "folds") -> Places:
    """Return the rows of each model of a stack; raise ConfigurationError or DataError."""
    if not isinstance(folds, Folds):
        raise ConfigurationError(f"{name} is {type(folds).__name__}; expected gpumlp.Folds(rows, of_model)")
    of_model = np.asarray(folds.of_model)
    if of_model.shape != (n_models,) or of_model.dtype.kind not in "iu":
        raise ConfigurationError(
            f"{name}.of_model={folds.of_model!r}: expected a fold's number for each of {n_models} models"
        )
    n_folds = len(folds.rows)
    if not (of_model.min() >= 0 and of_model.max() < n_folds):
        raise ConfigurationError(
            f"{name}.of_model names folds {of_model.min()} to {of_model.max()}, there are folds 0 to {n_folds - 1}"
        )
    checked = {f: _check_rows(folds.rows[f], n_rows, f"{name}.rows[{f}]") for f in np.unique(of_model)}
    return build_places([checked[f] for f in of_model], of_model)


def _check_rows(rows: Any, n_rows: int, name: str) -> HostArray:
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise DataError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected one row number or more")
    if not (array.min() >= 0 and array.max() < n_rows):
        raise DataError(f"{name} names rows {array.min()} to {array.max()}, X has rows 0 to {n_rows - 1}")
    return array.astype(np.int64)


def check_weights(weights: HostArray, places: Places) -> None:
    """Raise ConfigurationError if a model's rows have no weight at all."""
    for m in range(len(places.fold)):
        if not weights[m % len(weights), places.of_model(m)].sum() > 0:
            raise ConfigurationError(f"sample_weight is 0 on all rows of model {m}'s fold; some have to be above 0")


def common_batch(batch_size: int | str, counts: Any) -> int:
    """Return the rows of a batch of all models of a stack.

    counts   (n_models,) how many rows each has
    Raises   ConfigurationError unless all have batches of the same size, and equally many of them
    """
    sizes = np.asarray(counts) if batch_size == "full" else np.minimum(int(batch_size), counts)
    _expect_one("batches of", sizes, "rows", batch_size, counts)
    _expect_one("epochs of", -(-np.asarray(counts) // sizes), "batches", batch_size, counts)
    return int(sizes[0])


def _expect_one(what: str, values: HostArray, of: str, batch_size: int | str, counts: Sequence[int]) -> None:
    if values.min() < values.max():
        raise ConfigurationError(
            f"folds of {min(counts)} to {max(counts)} rows have {what} {values.min()} to {values.max()} {of} with "
            f"batch_size={batch_size!r}, and all models of a stack need the same; choose another batch_size, or train "
            "those that differ in stacks of their own"
        )
