"""Folds of a sweep: which rows train and which judge, and how often a bootstrap draws each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.data import k_folds, train_validation_split
from gpumlp.ensembles.trials import Fold
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.shapes import HostArray


def build_folds(folds: Any, n_rows: int, labels: HostArray | None, seed: int, bootstrap: bool) -> tuple[Fold, ...]:
    """Return the folds.

    folds      a whole number k from 2 on for k folds; a share between 0 and 1 of the rows that judges; or pairs of row
               numbers (to train on, to judge by)
    labels     (n_rows,) of which each fold has its share; None for numbers
    bootstrap  whether the rows of a fold are drawn anew, with replacement: each counts as often as it is drawn
    Raises     ConfigurationError, DataError
    """
    pairs = _pairs(folds, n_rows, labels, seed)
    if not bootstrap:
        return tuple(Fold(*pair) for pair in pairs)
    return tuple(Fold(*pair, draws(pair[0], n_rows, seed, number)) for number, pair in enumerate(pairs))


def draws(rows: HostArray, n_rows: int, seed: int, number: int) -> HostArray:
    """Return how often each row of the data is drawn, (n_rows,) float64, if `rows` are drawn from len(rows) times."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    drawn = rows[generator.integers(len(rows), size=len(rows))]
    return np.bincount(drawn, minlength=n_rows).astype(np.float64)


def _pairs(folds: Any, n_rows: int, labels: HostArray | None, seed: int) -> list[tuple[HostArray, HostArray]]:
    if isinstance(folds, int | np.integer) and not isinstance(folds, bool) and folds >= 2:
        return list(k_folds(n_rows, int(folds), seed, labels))
    if isinstance(folds, float | np.floating) and 0 < folds < 1:
        return [train_validation_split(n_rows, float(folds), seed, labels)]
    if isinstance(folds, Sequence) and not isinstance(folds, str) and len(folds):
        return [_own_pair(pair, n_rows) for pair in folds]
    raise ConfigurationError(
        f"folds={folds!r}: expected a whole number of folds from 2 on, a share of the rows such as 0.2, or pairs of "
        "row numbers (to train on, to judge by)"
    )


def _own_pair(pair: Any, n_rows: int) -> tuple[HostArray, HostArray]:
    """Return a user's own fold, checked."""
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ConfigurationError(f"folds: {pair!r} is no pair of row numbers (to train on, to judge by)")
    train, judge = (np.asarray(rows) for rows in pair)
    for rows in (train, judge):
        whole = rows.ndim == 1 and rows.size > 0 and rows.dtype.kind in "iu"
        if not whole or rows.min() < 0 or rows.max() >= n_rows:
            raise DataError(f"folds: expected rows 0 to {n_rows - 1} as whole numbers, at least one; got {rows!r}")
    return train.astype(np.int64), judge.astype(np.int64)
