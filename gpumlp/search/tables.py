"""Tables: the rows that fits are trained on, of which there is one copy however many fits have them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone

from gpumlp.errors import GpumlpError
from gpumlp.estimators.embeddings import are_by_name
from gpumlp.estimators.inputs import Rows
from gpumlp.network.architecture import Architecture
from gpumlp.network.members import stacked_architecture
from gpumlp.network.targets import check_targets
from gpumlp.search.postponing import last_step
from gpumlp.shapes import HostArray

TOGETHER = 2**30  # bytes of the tables that are put into one, so that their fits can be trained at once


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs (n_rows, n_features) and the targets of all rows, of which fits have some."""

    X: HostArray
    targets: HostArray

    @property
    def kind(self) -> Hashable:
        """What tables have in common that can be put into one."""
        return self.X.shape[1], self.X.dtype.str, self.targets.shape[1:], self.targets.dtype.str

    @property
    def n_bytes(self) -> int:
        """Bytes of both arrays."""
        return self.X.nbytes + self.targets.nbytes


@dataclass(frozen=True, eq=False)
class Whole:
    """The data of a search, checked once as a fit on all of them would check them.

    classes   which there are; None for numbers
    names     of the columns, None where they have none
    """

    X: HostArray
    y: HostArray
    classes: HostArray | None
    names: HostArray | None


def check_whole(estimator: Any, X: Any, y: Any) -> Whole | None:
    """Return the data if every fit can have rows of them as they are, None where each has to look at its own rows."""
    if last_step(estimator) is not estimator or estimator.missing != "error" or issparse(X):
        return None
    if are_by_name(estimator.embeddings):  # which arrays do not have
        return None
    probe = clone(estimator)
    try:
        X, y = probe._validate(X, probe._on_host(y, "y"), incremental=False, reset=True)
    except (TypeError, ValueError):  # the fits will say so, those that have the rows it is about
        return None
    return Whole(X, y, getattr(probe, "classes_", None), getattr(probe, "feature_names_in_", None))


@dataclass(frozen=True)
class Place:
    """Where the examples of a fit are: numbers of rows of a table; `held` None where none are held out of it."""

    table: Table
    rows: HostArray
    held: HostArray | None


class Tables:
    """Finds the table that the rows of a fit are in; equal arrays are kept once."""

    def __init__(self) -> None:
        self._arrays: dict[Hashable, HostArray] = {}
        self._tables: dict[tuple[int, int], Table] = {}

    def settle(
        self, mlp: Any, rows: Rows, held: Rows | None, whole: Whole | None, part: HostArray
    ) -> tuple[Place, Rows, Rows | None]:
        """Return the place of a fit's examples, and the examples as they are there.

        part     (n,) the numbers of the rows of `whole` that were given to the fit
        Raises   GpumlpError for a network that there cannot be, or targets that its cost is not defined for
        """
        net, dtype = stacked_architecture([mlp._member(seed=0)]), mlp.coefs_[0].dtype
        check_targets(rows.targets, len(rows), net, dtype)
        table = None if whole is None else self._table_of(whole, part, mlp, rows, net)
        if table is None:
            table = self._table(self._one(rows.table), self._one(targets_of_table(rows, held)))
            part = np.arange(len(rows.table))
        numbers, held_numbers = part if rows.numbers is None else part[rows.numbers], None
        if held is not None:
            held_numbers = None if held.numbers is None else part[held.numbers]
            held = replace(held, table=self._one(held.X), numbers=None)
        return Place(table, numbers, held_numbers), replace(rows, table=table.X, numbers=numbers), held

    def _table_of(self, whole: Whole, part: HostArray, mlp: Any, rows: Rows, net: Architecture) -> Table | None:
        """Return the table of all data, None where a fit sees its rows otherwise than they are there."""
        if not np.array_equal(getattr(mlp, "classes_", None), whole.classes):  # type: ignore[arg-type]
            return None
        targets = self._one(mlp._encode(whole.y))
        own = part if rows.numbers is None else part[rows.numbers]
        if rows.table.dtype != whole.X.dtype or not np.array_equal(targets[own], rows.targets):
            return None
        try:
            check_targets(targets, len(targets), net, mlp.coefs_[0].dtype)
            if mlp._without_new_codes(whole.X) is not whole.X:
                return None
        except GpumlpError:  # of rows that this fit does not have
            return None
        return self._table(whole.X, targets)

    def _table(self, X: HostArray, targets: HostArray) -> Table:
        return self._tables.setdefault((id(X), id(targets)), Table(X, targets))

    def _one(self, array: HostArray) -> HostArray:
        """Return the first array that had these shape, dtype and bytes."""
        array = np.ascontiguousarray(array)
        content = hashlib.blake2b(array.reshape(-1).view(np.uint8).data).digest()
        return self._arrays.setdefault((array.shape, array.dtype.str, content), array)


def targets_of_table(rows: Rows, held: Rows | None) -> HostArray:
    """Return the targets of all rows of a fit's table, of which it holds some out."""
    if rows.numbers is None:
        return rows.targets
    targets = np.empty((len(rows.table), *rows.targets.shape[1:]), rows.targets.dtype)
    assert held is not None
    for some in (rows, held):
        targets[some.numbers] = some.targets
    return targets


def put_together(tables: Iterable[Table]) -> Iterator[tuple[list[Table], HostArray, HostArray]]:
    """Yield tables of one kind, and their inputs and targets one below the other, as many as are not too large."""
    chosen: list[Table] = []
    for table in tables:
        if chosen and sum(one.n_bytes for one in chosen) + table.n_bytes > TOGETHER:
            yield chosen, *_stacked(chosen)
            chosen = []
        chosen.append(table)
    if chosen:
        yield chosen, *_stacked(chosen)


def _stacked(tables: list[Table]) -> tuple[HostArray, HostArray]:
    if len(tables) == 1:
        return tables[0].X, tables[0].targets
    return np.concatenate([table.X for table in tables]), np.concatenate([table.targets for table in tables])
