"""The stages of embeddings: lines of tables in place of codes, and the sums of their gradients."""

from __future__ import annotations

from gpumlp.backends.numba_layout import flat, model_flat
from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Room, bind
from gpumlp.backends.numba_source import loop
from gpumlp.backends.protocol import Array, Lookup

MOVED, SUMMED = 3, 4  # operations for a number that is moved, or added to a sum


def embed_stage(lookup: Lookup, rows: Array, tables: Array, a: Array) -> Atoms:
    """Return the stage that sets a to the rows, with a table's line in place of each code."""
    run = loop("embed", a.dtype)
    n_models, batch, n = a.shape
    units = (lookup.units.reshape(-1), n, lookup.firsts)
    given = (*units, *model_flat(rows), rows.shape[2], *flat(tables), batch)

    def some(first: int, last: int, room: Room) -> Call:
        return bind(run, *given, first, last, a.reshape(-1))

    return Atoms(n_models, batch, a.size * MOVED * OPERATION, some)


def embedding_gradient_stage(lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> Atoms:
    """Return the stage that sums delta over the rows of each code, table by table."""
    run = loop("sum_by_code", delta.dtype)
    n_models, batch, n_deltas = delta.shape
    units = (lookup.units.reshape(-1), lookup.units.shape[1], lookup.firsts)
    given = (*units, *model_flat(rows), rows.shape[2], batch, delta.reshape(-1), n_deltas)

    def some(first: int, last: int, room: Room) -> Call:
        return bind(run, *given, first, last, *flat(dtables))

    return Atoms(n_models, len(lookup.firsts), (delta.size * SUMMED + dtables.size) * OPERATION, some)
