"""What a target is: classes or quantities, and classes as codes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.files import listed
from gpumlp.data.table import Array
from gpumlp.errors import DataError

Task = Literal["classification", "regression"]

FEW = 20  # so many distinct whole numbers are classes, however few the rows
MANY = 100  # up to so many are, if each stands for two rows or more on average
MOST = 100_000  # classes that are listed where a target comes block by block


def tell_task(y: Any) -> Task:
    """Tell classification from regression by the target alone.

    y        (n_samples,) or (n_samples, n_out)
    Classes  text and bool; whole numbers (of any dtype) with at most 20 distinct values, or with at most 100 and at
             most n_samples / 2; rows that are one-hot. All else is regression, several columns not one-hot included.
    Raises   DataError if y is empty, has more than two axes or is neither numbers nor text
    """
    return _verdict(y)[0]


def describe_task(y: Any) -> str:
    """Say in one sentence what `tell_task` tells, and why."""
    task, reason = _verdict(y)
    return f"{task}, because the target holds {reason}."


def encode_labels(y: Any, classes: Any = None) -> tuple[NDArray[np.int64], Array]:
    """Return each row's class as its place in the sorted classes, and these classes.

    y        (n_samples,), or one-hot rows (n_samples, n_classes), whose classes are their column numbers
    classes  (n_classes,) the classes to use; without it those in y
    codes    (n_samples,) int64, classes[codes] == y
    Raises   DataError for a class that is not in `classes`, or for y that holds no classes
    """
    y = _as_labels(y)
    if classes is None:
        classes, codes = np.unique(y, return_inverse=True)
        return codes.astype(np.int64), classes
    classes = np.unique(np.asarray(classes))
    _expect_known(y, classes)
    return np.searchsorted(classes, y).astype(np.int64), classes


class Classes:
    """The classes of a target that comes block by block: its distinct values, if these are classes."""

    def __init__(self) -> None:
        self.values: set[Any] = set()
        self.n_rows, self.most = 0, MOST

    def add(self, y: Array) -> None:
        """Take in the targets of a block."""
        self.n_rows += len(y)
        if y.ndim != 1 or (y.dtype.kind == "f" and not np.all(y == np.floor(y))):
            self.most = -1
        elif y.dtype.kind not in "Ub":
            self.most = min(self.most, MANY)
        if self.most >= len(self.values):
            self.values.update(np.unique(y).tolist())
        if self.most < len(self.values):
            self.most = -1

    def found(self) -> list[Any] | None:
        """Return them sorted; None for a regression, for several columns, and for more than are worth a list."""
        numbers = self.most == MANY
        if self.most < 0 or self.n_rows == 0 or (numbers and not _few_enough(len(self.values), self.n_rows)):
            return None
        return sorted(self.values)


def _few_enough(n_distinct: int, n: int) -> bool:
    return n_distinct <= FEW or (n_distinct <= MANY and 2 * n_distinct <= n)


def _verdict(y: Any) -> tuple[Task, str]:
    y = _as_target(y)
    if y.ndim == 2:
        if _is_one_hot(y):
            return "classification", f"one-hot rows of {y.shape[1]} classes"
        return "regression", f"{y.shape[1]} columns that are not one-hot"
    n, n_distinct = len(y), len(np.unique(y))
    values = f"{n_distinct} distinct value{'s' if n_distinct > 1 else ''} in {n} row{'s' if n > 1 else ''}"
    if _is_text(y):
        return "classification", f"text, {values}"
    if y.dtype.kind == "b":
        return "classification", "true and false"
    if not np.all(y == np.floor(y)):
        return "regression", "numbers that are not all whole"
    if _few_enough(n_distinct, n):
        return "classification", f"whole numbers, {values}"
    return "regression", f"whole numbers, but as many as {values}"


def _as_target(values: Any) -> Array:
    y: Array = np.asarray(values)
    if y.ndim not in (1, 2) or y.size == 0:
        raise DataError(
            f"y has shape {y.shape}, expected (n_samples,) or (n_samples, n_out); give one target for each row"
        )
    if y.shape[1:] == (1,):
        y = y[:, 0]
    if y.dtype.kind not in "biuf" and (y.ndim == 2 or not _is_text(y)):
        raise DataError(
            f"y has shape {y.shape} and dtype {y.dtype}, expected numbers or one column of text; convert it"
        )
    return y


def _as_labels(values: Any) -> Array:
    y = _as_target(values)
    if y.ndim == 2:
        if not _is_one_hot(y):
            raise DataError(
                f"y has shape {y.shape} and is not one-hot, expected (n_samples,) classes; give one for each row"
            )
        columns: Array = np.argmax(y, axis=1)
        return columns
    if y.dtype.kind == "f" and not np.all(np.isfinite(y)):
        raise DataError("y holds NaN or infinity, expected classes; remove these rows or name the class")
    return y


def _expect_known(y: Array, classes: Array) -> None:
    if _is_text(y) == _is_text(classes):  # NumPy would compare 1 with "1" as text
        unknown = np.flatnonzero(~np.isin(y, classes))
    else:
        unknown = np.arange(len(y))
    if len(unknown):
        row = unknown[0]
        value = y[row : row + 1].tolist()[0]
        raise DataError(
            f"class {value!r} in row {row + 1} is unknown, expected one of {listed(classes)}; "
            "add it to the classes or remove its rows"
        )


def _is_text(y: Array) -> bool:
    return y.dtype.kind in "US" or (y.dtype.kind == "O" and all(isinstance(value, str) for value in y))


def _is_one_hot(y: Array) -> bool:
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.count_nonzero(y, axis=1) == 1))
