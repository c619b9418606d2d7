"""Which rows train and which rows judge; with labels, in each class's own proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.targets import encode_labels
from gpumlp.errors import DataError

Rows = NDArray[np.int64]


def train_validation_split(n: int, fraction: float, seed: int, labels: Any = None) -> tuple[Rows, Rows]:
    """Return the rows to train on and those to validate on, (n_train,) and (n_validation,) int64, both shuffled.

    n_validation is n * fraction rounded to nearest (half up), at least 1 and at most n - 1. With labels (n,) each class
    gives its share rounded down, and the classes with the largest remainders give one more until n_validation is
    reached; a class always keeps one training row, so that many tiny classes can leave validation with fewer rows.
    Raises   DataError if fraction is not between 0 and 1, if n < 2, or if no class can spare a row
    """
    if not 0 < fraction < 1:
        raise DataError(f"validation fraction is {fraction}, expected more than 0 and less than 1; 0.2 is usual")
    if n < 2:
        raise DataError(
            f"cannot split {n} row{'s' if n != 1 else ''} for validation, expected 2 or more; give more rows"
        )
    codes = _codes(n, labels)
    order = _generator(seed).permutation(n)
    n_taken = _shares(np.bincount(codes), fraction)
    if not n_taken.any():
        raise DataError("each class has a single row, so none is left for validation; give more rows or no validation")
    validates = _ranks(codes[order]) < n_taken[codes[order]]
    return order[~validates], order[validates]


def k_folds(n: int, k: int, seed: int, labels: Any = None) -> list[tuple[Rows, Rows]]:
    """Return k pairs of rows, to train on and to test on, all int64 and shuffled; each row is tested once.

    The folds differ by at most one row, and with labels (n,) so they do in each class.
    Raises   DataError unless 2 <= k <= n, or if a class has a single row, which the fold that tests it cannot train on
    """
    if not 2 <= k <= n:
        raise DataError(f"cannot make {k} folds of {n} rows, expected 2 to {n} folds; change k or give more rows")
    codes = _codes(n, labels)
    alone = np.flatnonzero(np.bincount(codes) == 1)
    if len(alone):
        row = int(np.flatnonzero(codes == alone[0])[0])
        raise DataError(
            f"the class in row {row + 1} has no other row, expected 2 or more for folds; remove or merge it"
        )
    order = _generator(seed).permutation(n)
    fold = np.empty(n, np.int64)
    fold[np.argsort(codes[order], kind="stable")] = np.arange(n) % k  # dealt like cards, class after class
    return [(order[fold != i], order[fold == i]) for i in range(k)]


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _codes(n: int, labels: Any) -> Rows:
    """Return each row's class; all rows are of one class where there are no labels."""
    if labels is None:
        return np.zeros(n, np.int64)
    if len(labels) != n:
        raise DataError(f"{len(labels)} labels came for {n} rows; give one for each row")
    return encode_labels(labels)[0]


def _shares(counts: Rows, fraction: float) -> Rows:
    """Return how many rows of each class validate: largest remainders, one row of each class spared."""
    n = int(counts.sum())
    wanted = min(max(int(n * fraction + 0.5), 1), n - 1)
    exact = counts * fraction
    taken = exact.astype(np.int64)  # at most counts - 1, for fraction < 1
    by_remainder = np.argsort(taken - exact, kind="stable")
    can_give = by_remainder[taken[by_remainder] < counts[by_remainder] - 1]
    taken[can_give[: max(wanted - int(taken.sum()), 0)]] += 1
    return taken


def _ranks(codes: Rows) -> Rows:
    """Return each element's place among those of its class, in the order they come."""
    counts = np.bincount(codes)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(codes), np.int64)
    ranks[np.argsort(codes, kind="stable")] = np.arange(len(codes)) - np.repeat(starts, counts)
    return ranks
