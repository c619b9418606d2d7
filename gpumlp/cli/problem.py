"""A table as something to learn: its task, its targets, and which rows are for what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.cli.embedding import Embed
from gpumlp.data import (
    Encoding,
    Recoder,
    Scaler,
    Standardiser,
    Table,
    describe_task,
    encode_labels,
    tell_task,
    train_validation_split,
)
from gpumlp.errors import DataError
from gpumlp.formulas.costs import Cost
from gpumlp.formulas.registry import REALS

Array = NDArray[Any]

FEW_ROWS = 10  # of fewer, such as those of xor, none is held out unless asked for
TEST_SHARE, CHOICE_SHARE = 0.2, 0.1
DEFAULTS = {"classification": ("softmax", "categorical_cross_entropy"), "regression": ("identity", "quadratic")}


@dataclass(frozen=True)
class Problem:
    """What is to be learned.

    reason    one sentence: the task, and why
    y         (n_samples,) or (n_samples, n_out): the target as the table holds it
    targets   (n_samples,) codes of classes, or (n_samples, n_out) numbers
    classes   (n_classes,) sorted labels; None for a regression
    recoder   makes the features of rows whenever they are asked for; None where the table holds them
    """

    table: Table
    task: str
    reason: str
    y: Array
    targets: Array
    classes: Array | None
    recoder: Recoder | None = None

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the features, if they have any."""
        return self.table.feature_names if self.recoder is None else self.recoder.encoding.feature_names

    @property
    def n_features(self) -> int:
        """Features that a network for it takes."""
        return self.table.X.shape[1] if self.recoder is None else self.recoder.encoding.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the features."""
        return self.table.X.dtype if self.recoder is None else self.recoder.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of a row."""
        return self.dtype.itemsize * self.n_features

    @property
    def n_bytes(self) -> int:
        """Bytes of the features of all rows."""
        return len(self.y) * self.row_bytes

    def features(self, rows: Array) -> Array:
        """Return the features of some rows, by their numbers, before they are scaled."""
        found: Array = self.table.X[rows]
        return found if self.recoder is None else self.recoder.features(found)

    @property
    def n_out(self) -> int:
        """Outputs that a network for it has."""
        return self.targets.shape[1] if self.classes is None else len(self.classes)


@dataclass(frozen=True)
class Parts:
    """Rows to train on, to choose the best epoch by, and to test on; the latter two may be empty."""

    train: Array
    choice: Array
    test: Array


def pose(table: Table, task: str | None) -> Problem:
    """Return what there is to learn from a table; raise DataError if there is nothing, or nothing of that task."""
    assert table.y is not None
    y = table.y
    reason = describe_task(y) if task is None else f"{task}, as --task says."
    if (task or tell_task(y)) == "regression":
        if y.dtype.kind == "U":
            raise DataError("the target holds text, expected numbers for a regression; leave --task away")
        numbers = y.astype(np.float64).reshape(len(y), -1)
        return Problem(table, "regression", reason, y, numbers, None)
    codes, classes = encode_labels(y)
    if len(classes) < 2:
        raise DataError(
            f"the target holds one class, {classes[0]!s}, expected two or more; is --target the right column?"
        )
    return Problem(table, "classification", reason, y, codes, classes)


def split(problem: Problem, fraction: float | None, choosing: bool, seed: int) -> Parts:
    """Hold out test rows, and set rows of the others aside for choosing the best epoch if that is wanted."""
    n = len(problem.targets)
    if fraction is None:
        fraction = TEST_SHARE if n >= FEW_ROWS else 0.0
    train: Array = np.arange(n)
    none: Array = np.arange(0)
    train, test = _part(problem, train, fraction, seed) if fraction else (train, none)
    train, choice = _part(problem, train, CHOICE_SHARE, seed) if choosing else (train, none)
    return Parts(train, choice, test)


def encode(problem: Problem, rows: Array, embed: Embed) -> tuple[Problem, Encoding | None]:
    """Return the problem with features for its categorical columns, and how they come about, learned from some rows.

    The features are made as they are asked for, and those of no row yet. A problem without such columns is returned as
    it is, with None.
    Raises   DataError if what is to be embedded is not categorical
    """
    table = problem.table
    if table.texts is None:
        if embed:
            raise DataError(
                "no column is categorical, but --embed came; name those that are (--categorical), or leave it out"
            )
        return problem, None
    columns = Encoding.fit(table, rows, tuple(embed.units), embed.every)
    return replace(problem, recoder=Recoder(columns, table)), columns


def in_memory(problem: Problem) -> Problem:
    """Return the problem with the features of all rows made, as they are to stay."""
    if problem.recoder is None:
        return problem
    return replace(problem, table=problem.recoder.encoding.transform(problem.table), recoder=None)


def feature_scaler(
    problem: Problem, rows: Array, scaling: type[Scaler] | None, columns: Encoding | None
) -> Scaler | None:
    """Return what scales the features as measured on some rows, if anything; the 0 and 1 of categories stay."""
    if scaling is None:
        return None
    return scaling.fit(problem.table.X[rows], None if columns is None else columns.is_category)


def target_scaler(problem: Problem, cost: Cost, train: Array) -> Standardiser | None:
    """Return what brings the numbers of a regression to mean 0 and deviation 1 on the training rows.

    None for classes, and for a cost that is not defined for all numbers, such as poisson.
    """
    if problem.classes is not None or REALS not in cost.targets:
        return None
    return Standardiser.fit(problem.targets[train])


def _part(problem: Problem, rows: Array, fraction: float, seed: int) -> tuple[Array, Array]:
    labels = None if problem.classes is None else problem.targets[rows]
    kept, taken = train_validation_split(len(rows), fraction, seed, labels)
    return rows[kept], rows[taken]
