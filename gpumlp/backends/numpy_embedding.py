"""Embeddings in NumPy: lines of tables in place of codes, and the sums of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpumlp.backends.protocol import APART, CATEGORIES, COLUMN, FIRST, Array, Lookup

Launch = Callable[[], object]


def embed_launch(lookup: Lookup, rows: Array, tables: Array, a: Array) -> Launch:
    """Return the function that sets a to the rows, with a table's line in place of each code."""
    numbers = runs_of_numbers(lookup)
    views = [of_embeddings(lookup, tables[m], a[m]) for m in range(len(a))]

    def launch() -> None:
        for units, columns in numbers:
            np.copyto(a[..., units], rows[..., columns])
        for m, codes in enumerate(codes_of_models(lookup, rows, len(a))):
            for (code, known), (table, read) in zip(codes, views[m], strict=True):
                np.copyto(read, np.where(known, table[code], 0))

    return launch


def embedding_gradient_launch(lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> Launch:
    """Return the function that sums delta over the rows of each code, one row after another."""
    first = int(lookup.firsts[0])
    views = [of_embeddings(lookup, dtables[m], delta[m], first) for m in range(len(delta))]

    def launch() -> None:
        for m, codes in enumerate(codes_of_models(lookup, rows, len(delta))):
            for (code, known), (dtable, units) in zip(codes, views[m], strict=True):
                n_units = dtable.shape[1]
                places = code[:, None] * n_units + np.arange(n_units)
                dtable.fill(0)
                np.add.at(dtable.reshape(-1), places.reshape(-1), np.where(known, units, 0).reshape(-1))

    return launch


def runs_of_numbers(lookup: Lookup) -> list[tuple[slice, slice]]:
    """Return which units are columns that hold no codes, and which columns, neighbours together."""
    columns, categories = lookup.units[[COLUMN, CATEGORIES]]
    units = np.flatnonzero(categories == 0)
    runs = np.split(units, np.flatnonzero(np.diff(units) > 1) + 1) if len(units) else []
    return [(slice(run[0], run[-1] + 1), slice(columns[run[0]], columns[run[-1]] + 1)) for run in runs]


def of_embeddings(lookup: Lookup, tables: Array, a: Array, first: int = 0) -> list[tuple[Array, Array]]:
    """Return views of each embedding's table (n_categories, n_units), and of its units (batch, n_units).

    a   of one model, its units from `first` on
    """
    found = []
    for unit in lookup.firsts.tolist():
        n, at, n_units = lookup.units[[CATEGORIES, FIRST, APART], unit].tolist()
        table = tables[at : at + n * n_units].reshape(n, n_units)
        found.append((table, a[:, unit - first : unit - first + n_units]))
    return found


def codes_of_models(lookup: Lookup, rows: Array, n_models: int) -> Iterator[list[tuple[Any, Any]]]:
    """Yield for each model what `codes_of` gives, which models that share their rows share."""
    for of_model in rows:
        codes = codes_of(lookup, of_model)
        for _ in range(n_models // len(rows)):
            yield codes


def codes_of(lookup: Lookup, rows: Array) -> list[tuple[Any, Any]]:
    """Return for each embedding the code of each row, (batch,), and whether it is one, (batch, 1), if not 0."""
    columns, categories = lookup.units[:, lookup.firsts][[COLUMN, CATEGORIES]]
    values = rows[:, columns].T
    known = (values >= 0) & (values < categories[:, None]) & (values == np.floor(values))
    return list(zip(np.where(known, values, 0).astype(np.intp), known[..., None], strict=True))
