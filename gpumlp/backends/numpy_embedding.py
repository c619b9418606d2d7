"""Embeddings in NumPy: rows of tables in place of codes, and the sums of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.backends.protocol import APART, CATEGORIES, COLUMN, FIRST, Array, Lookup

Launch = Callable[[], object]


def embed_launch(lookup: Lookup, rows: Array, tables: Array, a: Array) -> Launch:
    """Return the function that sets a to the rows, with table rows in place of codes."""
    columns, numbers = lookup.units[COLUMN], np.flatnonzero(lookup.units[CATEGORIES] == 0)
    own = len(rows) > 1

    def launch() -> None:
        for m in range(len(a)):
            if m == 0 or own:
                codes = codes_of(lookup, rows[m])
            a[m][:, numbers] = rows[m if own else 0][:, columns[numbers]]
            for (at, known), (units, table) in zip(codes, tables_of(lookup, tables[m]), strict=True):
                a[m, :, units] = np.where(known[:, None], table[at], 0)

    return launch


def embedding_gradient_launch(lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> Launch:
    """Return the function that sums delta over the rows of each code, in the order of the rows."""
    first, own = lookup.firsts[0], len(rows) > 1

    def launch() -> None:
        for m in range(len(delta)):
            if m == 0 or own:
                codes = codes_of(lookup, rows[m])
            for (at, known), (units, table) in zip(codes, tables_of(lookup, dtables[m]), strict=True):
                of_units = delta[m, :, units.start - first : units.stop - first]
                table.fill(0)
                np.add.at(table, at[known], of_units[known])

    return launch


def codes_of(lookup: Lookup, rows: Array) -> list[tuple[Any, Any]]:
    """Return for each embedding the code of each row, 0 where that is none, and whether it is one."""
    columns, most = lookup.units[COLUMN, lookup.firsts], lookup.units[CATEGORIES, lookup.firsts]
    values = rows[:, columns].T
    known = (values >= 0) & (values < most[:, None]) & (values == np.floor(values))
    return list(zip(np.where(known, values, 0).astype(np.intp), known, strict=True))


def tables_of(lookup: Lookup, tables: Array) -> list[tuple[slice, Any]]:
    """Return for each embedding of a model its units and its table (n_categories, n_units), a view."""
    found = []
    for unit in lookup.firsts:
        n, at, n_units = lookup.units[[CATEGORIES, FIRST, APART], unit].tolist()
        found.append((slice(unit, unit + n_units), tables[at : at + n * n_units].reshape(n, n_units)))
    return found
