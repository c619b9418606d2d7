"""Normalised layers as stages of a program.

Over the units of a row, rows are dealt out to the threads; over a batch, units. What is summed together is one thread's
in either case, so that a model's bits depend on its own sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.numba_layout import PIECE_UNITS, After, chunks_of_rows, flat, model_flat, row_ranges, weight
from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Pieces, Room, bind
from gpumlp.backends.numba_source import Formulas, loop
from gpumlp.backends.protocol import Array, Normalisation
from gpumlp.formulas.normalisation import (
    LAYER,
    delta_of_batch_recording,
    delta_of_rows_recording,
    gamma_gradient_recording,
    running_recording,
    scaled_recording,
)

SUM_OPERATIONS = 10  # of a value that is added up for a mean and a variance


def normalisation(norm: Normalisation, b: Array, gamma: Array, z: Array, u: Array) -> tuple[After, int]:
    """Return what sets z <- z + b and u = gamma zhat, the running statistics following, and its operations.

    The parts that it is given have whole rows for "layer", and all rows of some units for "batch".
    """
    operations = z.size * (weight(scaled_recording()) + SUM_OPERATIONS)
    return (_of_rows if norm.kind == LAYER else _of_batch)(norm, b, gamma, z, u), operations


def _of_rows(norm: Normalisation, b: Array, gamma: Array, z: Array, u: Array) -> After:
    run = loop("normalise_rows", z.dtype, (("scaled", scaled_recording()),))
    _, batch, n = z.shape
    tables = *flat(b), *flat(gamma)
    outputs = [x.reshape(-1) for x in (z, norm.mean, norm.variance, u)]

    def normalise(models: range, rows: slice, units: slice, room: Room) -> list[Call]:
        return [bind(run, *tables, batch, n, *part, *outputs) for part in row_ranges(models, rows, batch)]

    return normalise


def _of_batch(norm: Normalisation, b: Array, gamma: Array, z: Array, u: Array) -> After:
    add, scale = loop("add_bias", z.dtype), loop("normalise_units", z.dtype, (("scaled", scaled_recording()),))
    _, batch, n = z.shape
    zs, us, biases = z.reshape(-1), u.reshape(-1), flat(b)
    tables = *flat(norm.mean), *flat(norm.variance), *flat(gamma)

    def normalise(models: range, rows: slice, units: slice, room: Room) -> list[Call]:
        (part,) = row_ranges(models, rows, batch)
        place = (batch, n, *part, units.start, units.stop)
        return [
            bind(add, *biases, *place, zs),
            *_measuring(norm, zs, (batch, n, models.start, models.stop, units.start, units.stop), room),
            bind(scale, *tables, *place, zs, us),
        ]

    return normalise


def _measuring(norm: Normalisation, zs: Any, place: tuple[int, ...], room: Room) -> list[Call]:
    """Return what measures a batch, and lets the running statistics follow."""
    if norm.row_weight is None or norm.count is None:
        return []
    begin, end = place[-2:]
    weights = model_flat(norm.row_weight)
    found = norm.mean.reshape(-1), norm.variance.reshape(-1)
    measure = loop("measure_batch", zs.dtype)
    partial = room("sums of units", end - begin, zs.dtype)
    calls = [bind(measure, *weights, *place, zs, partial, *found, norm.count)]
    if norm.running is not None and norm.numbers is not None:
        follow = loop("follow_batch", zs.dtype, (("follow", running_recording()),))
        running = [x for tensor in norm.running for x in flat(tensor)]
        calls.append(bind(follow, *found, *weights, norm.numbers.skip, *place, *running))
    return calls


def normalised_delta_stages(
    norm: Normalisation,
    z: Array,
    gamma: Array,
    dbeta: Array,
    delta: Array,
    dgamma: Array,
    db: Array,
    n_threads: int,
) -> Sequence[Atoms | Pieces]:
    """Return the stages that set dgamma, delta = dC/dz and db."""
    if norm.kind == LAYER:
        return _delta_of_rows(norm, z, gamma, delta, dgamma, db)
    assert norm.row_weight is not None
    formulas = (("gamma_gradient", gamma_gradient_recording()), ("delta_of_batch", delta_of_batch_recording()))
    run = loop("normalised_delta_of_batch", z.dtype, formulas)
    n_models, batch, n = z.shape
    statistics = (norm.mean.reshape(-1), norm.variance.reshape(-1), *model_flat(norm.row_weight), norm.count)
    tables, outputs = (*flat(gamma), *flat(dbeta)), (z.reshape(-1), delta.reshape(-1), *flat(dgamma), *flat(db))
    pieces = max(1, min(n_threads, n // PIECE_UNITS))
    ends = [n * i // pieces // PIECE_UNITS * PIECE_UNITS for i in range(pieces)] + [n]

    def build(first: int, last: int, piece: int, room: Room) -> list[Call]:
        begin, end = ends[piece], ends[piece + 1]
        partial = room("sums of units", end - begin, z.dtype)
        return [bind(run, *statistics, *tables, batch, n, first, last, begin, end, partial, *outputs)]

    return [Pieces(n_models, pieces, _time(z, formulas), build)]


def _delta_of_rows(norm: Normalisation, z: Array, gamma: Array, delta: Array, dgamma: Array, db: Array) -> list[Atoms]:
    """Return the stages for rows that are normalised each: chunks of them, then the sums of the chunks."""
    formulas = (("gamma_gradient", gamma_gradient_recording()), ("delta_of_row", delta_of_rows_recording()))
    run, add = loop("normalised_delta_of_rows", z.dtype, formulas), loop("add_chunks", z.dtype)
    n_models, batch, n = z.shape
    rows_of_chunk, n_chunks = chunks_of_rows(batch, n)
    of_gamma, of_bias = (np.empty(n_models * n_chunks * n, z.dtype) for _ in range(2))
    statistics = (norm.mean.reshape(-1), norm.variance.reshape(-1), *flat(gamma))

    def chunks(first: int, last: int, room: Room) -> Call:
        place = (batch, n, rows_of_chunk, first, last)
        return bind(run, *statistics, *place, z.reshape(-1), delta.reshape(-1), of_gamma, of_bias)

    def gammas(first: int, last: int, room: Room) -> Call:
        return bind(add, of_gamma, n_chunks, n, first, last, *flat(dgamma))

    def biases(first: int, last: int, room: Room) -> Call:
        return bind(add, of_bias, n_chunks, n, first, last, *flat(db))

    adding = n_models * n_chunks * n * OPERATION
    return [
        Atoms(n_models, n_chunks, _time(z, formulas), chunks),
        Atoms(n_models, 1, adding, gammas),
        Atoms(n_models, 1, adding, biases),
    ]


def _time(z: Array, formulas: Formulas) -> float:
    """Return how many nanoseconds the formulas take on all of z."""
    return float(z.size * sum(weight(recording) for _, recording in formulas) * OPERATION)
