"""Rows and weights as the trainer wants them: dense, and split where some are held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_array

from gpumlp.errors import out_of_memory
from gpumlp.shapes import HostArray

ROWS_AT_A_TIME = 16_384  # rows of a sparse X that are made dense together for predictions


@dataclass(frozen=True)
class Rows:
    """Examples to train on, or to score.

    table     (n_rows_of_table, n_features)
    y         as the user gave it: labels or numbers, of the examples alone
    targets   as a Network is trained on them
    weights   (n_rows,), or (n_models, n_rows), or None
    numbers   (n_rows,) which rows of the table the examples are; None: all
    """

    table: HostArray
    y: Any
    targets: HostArray
    weights: HostArray | None
    numbers: HostArray | None = None

    def __len__(self) -> int:
        return len(self.table if self.numbers is None else self.numbers)

    @cached_property
    def X(self) -> HostArray:
        """(n_rows, n_features), taken out of the table when they are asked for."""
        return self.table if self.numbers is None else self.table[self.numbers]

    @property
    def total_weight(self) -> float:
        """The sum of the weights, the mean over the models."""
        if self.weights is None:
            return float(len(self))
        return float(self.weights.sum(axis=-1, dtype=np.float64).mean())

    def times(self, factors: HostArray) -> Rows:
        """Return the examples with their weights multiplied, by (n_rows,) or (n_models, n_rows)."""
        return replace(self, weights=factors if self.weights is None else self.weights * factors)

    def part(self, rows: HostArray) -> Rows:
        """Return the examples with these numbers."""
        weights = None if self.weights is None else self.weights[rows]
        numbers = rows if self.numbers is None else self.numbers[rows]
        return Rows(self.table, self.y[rows], self.targets[rows], weights, numbers)


def dense(X: Any) -> HostArray:
    """Return X as an array; raise OutOfMemory where a sparse one has no room as such."""
    if not issparse(X):
        return X  # type: ignore[no-any-return]
    try:
        filled: HostArray = X.toarray(order="C")
    except MemoryError as error:
        room = "training needs a sparse X as a dense array; partial_fit takes it in parts"
        raise out_of_memory("X", X.shape, X.dtype, room) from error
    return filled


def dense_pieces(X: Any) -> Iterator[HostArray]:
    """Go through X in dense pieces, one after the other: all of it at once unless it is sparse."""
    if not issparse(X):
        yield X
        return
    X = X.tocsr()
    for start in range(0, X.shape[0], ROWS_AT_A_TIME):
        yield X[start : start + ROWS_AT_A_TIME].toarray()


def check_weights(sample_weight: Any, n_rows: int) -> HostArray | None:
    """Return sample weights as (n_rows,) floats, None for None; raise ValueError."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Number):
        sample_weight = np.full(n_rows, sample_weight)
    weights: HostArray = check_array(
        sample_weight, ensure_2d=False, dtype=[np.float64, np.float32], order="C", input_name="sample_weight"
    )
    if weights.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got {weights.ndim}D array. Expected either a scalar value or "
            f"a 1D array of length {n_rows}."
        )
    if weights.shape != (n_rows,):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected {(n_rows,)}!")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def drawn_again(n_models: int, n_rows: int, seed: int) -> HostArray:
    """Return how often each model has each row, (n_models, n_rows): n_rows are drawn, with replacement, for each."""
    generator = np.random.default_rng((seed, n_rows))
    return np.stack(
        [np.bincount(generator.integers(n_rows, size=n_rows), minlength=n_rows) for _ in range(n_models)]
    ).astype(np.float64)


def hold_out(rows: Rows, fraction: float, stratify: bool, random: np.random.RandomState) -> tuple[Rows, Rows]:
    """Return rows to train on and rows to score on; raise ValueError where the latter are fewer than 2."""
    train, held = train_test_split(
        np.arange(len(rows)), random_state=random, test_size=fraction, stratify=rows.targets if stratify else None
    )
    if len(held) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return rows.part(train), rows.part(held)


def expect_some_weight(rows: Rows, which: str) -> None:
    """Raise ValueError where no row weighs anything."""
    if rows.weights is not None and not rows.weights.any():
        raise ValueError(
            f"Sample weights must contain at least one non-zero number, but all {len(rows)} rows that are {which} "
            "weigh 0, class_weight counted in; give some of them a weight, or draw others with another random_state."
        )
