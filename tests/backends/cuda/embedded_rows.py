"""Rows whose codes become lines of tables, forward and back: a case as the tests of backends compare them."""

from dataclasses import replace

import numpy as np
from cuda_cases import GAP, draw, on_host, put, unset

from gpumlp import Embedding
from gpumlp.network.parameters import ParameterLayout


def embedded(embeddings, n_models=2, batch=23, n_columns=5, own_rows=False, seed=0):
    """The case of embeddings: [(column, n_categories, n_units), ...], with codes that do not exist among the others."""
    layout = ParameterLayout((n_columns, 1), embeddings=tuple(Embedding(*e) for e in embeddings))
    rng = np.random.default_rng(seed)
    rows = draw(seed, n_models if own_rows else 1, batch, n_columns)
    for column, n_categories, _ in embeddings:
        rows[:, :, column] = rng.integers(-1, n_categories + 1, rows.shape[:2])
    used = np.zeros(layout.tables.stop - layout.tables.start, bool)
    for at, e in zip(layout.offsets[1:], layout.embeddings, strict=False):
        used[at - layout.tables.start :][: e.n_categories * e.n_units] = True

    def case(b):
        lookup, gap = layout.lookup(), np.full((n_models, 7), GAP)
        lookup = replace(lookup, units=b.asarray(lookup.units), firsts=b.asarray(lookup.firsts))
        n = lookup.units.shape[1]
        first, last = int(lookup.firsts[0]), int(lookup.firsts[-1]) + layout.embeddings[-1].n_units
        lines = [np.where(used, draw(seed + 1, n_models, len(used)), GAP), np.where(used, np.nan, GAP + 0 * gap[:, :1])]
        tables, dtables = (put(b, np.concatenate([gap, line, gap], axis=1))[:, 7:-7] for line in lines)
        a, W = unset(b, n_models, batch, n), put(b, draw(seed + 2, n_models, 3, n))
        delta, there = unset(b, n_models, batch, last - first), put(b, rows)
        for _ in range(2):  # the second time scratch and tickets are used ones
            b.embed(lookup, there, tables, a)
            b.linear_delta(put(b, draw(seed + 3, n_models, batch, 3)), W[:, :, first:last], delta)
            b.embedding_gradient(lookup, there, put(b, draw(seed + 4, *delta.shape)), dtables)
        return {"a": a, "delta": delta, "tables": tables, "dtables": on_host(b, dtables)}

    return case
