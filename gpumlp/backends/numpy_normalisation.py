"""Normalisation by NumPy: the statistics of a layer, and the programs of its formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from gpumlp.backends.numpy_elementwise import Elementwise
from gpumlp.backends.protocol import Array, Normalisation
from gpumlp.formulas.normalisation import (
    LAYER,
    delta_of_batch_recording,
    delta_of_rows_recording,
    gamma_gradient_recording,
    running_recording,
    scaled_recording,
)
from gpumlp.formulas.printers import NumpyProgram, numpy_program

Launch = Callable[[], object]


def of_rows(norm: Normalisation) -> tuple[Any, Any]:
    """Return mean and variance with three axes, of which the units, or the rows, have length 1."""
    axis = 2 if norm.kind == LAYER else 1
    return np.expand_dims(norm.mean, axis), np.expand_dims(norm.variance, axis)


def statistics_launches(norm: Normalisation, z: Array, scratch: Array, elementwise: Elementwise) -> list[Launch]:
    """Return what measures mean and variance of z, and lets the running ones follow; nothing where they are given.

    scratch   like z, overwritten
    """
    if norm.kind == LAYER:
        return [unit_statistics(norm, z, scratch)]
    if norm.row_weight is None:
        return []
    return [batch_statistics(norm, z, scratch), *running_launches(norm, elementwise)]


def unit_statistics(norm: Normalisation, z: Array, scratch: Array) -> Launch:
    """Return the function that measures each row over its units."""
    mean, variance, n = norm.mean, norm.variance, z.shape[2]

    def launch() -> None:
        np.add.reduce(z, axis=2, out=mean)
        np.divide(mean, n, mean)
        np.subtract(z, mean[:, :, None], scratch)
        np.square(scratch, scratch)
        np.add.reduce(scratch, axis=2, out=variance)
        np.divide(variance, n, variance)

    return launch


def batch_statistics(norm: Normalisation, z: Array, scratch: Array) -> Launch:
    """Return the function that measures each unit over the rows that count.

    The sums are products with a row of ones and zeros: blocked sums round less than running ones.
    """
    assert norm.row_weight is not None
    assert norm.count is not None
    weights, count = norm.row_weight[:, None], norm.count
    mean, variance = norm.mean[:, None], norm.variance[:, None]
    counts, n = np.empty(weights.shape, z.dtype), np.empty((len(z), 1, 1), z.dtype)
    found = np.empty(weights.shape[:2], z.dtype)

    def launch() -> None:
        np.greater(weights, 0, out=counts, casting="unsafe")
        np.add.reduce(counts, axis=2, out=found)
        np.copyto(count, found[:, 0])
        np.maximum(count, 1, out=n[:, 0, 0])
        np.matmul(counts, z, mean)
        np.divide(mean, n, mean)
        np.subtract(z, mean, scratch)
        np.square(scratch, scratch)
        np.matmul(counts, scratch, variance)
        np.divide(variance, n, variance)
        variance[count == 0] = 1

    return launch


def running_launches(norm: Normalisation, elementwise: Elementwise) -> list[Launch]:
    """Return what lets the running statistics of the models that are not skipped follow those of the batch."""
    if norm.running is None:
        return []
    assert norm.numbers is not None
    assert norm.count is not None
    skip, count = norm.numbers.skip, norm.count
    running_mean, running_variance = norm.running
    unbiased, of_sample = np.empty_like(norm.variance), np.empty_like(count)
    followed = [np.empty_like(norm.mean)[:, None] for _ in range(2)]
    program = running_program()

    def estimate() -> None:
        np.divide(count, np.maximum(count - 1, 1), of_sample)
        np.multiply(norm.variance, of_sample[:, None], unbiased)

    def keep() -> None:
        for least, out, value in ((1, running_mean, followed[0]), (2, running_variance, followed[1])):
            np.copyto(out, value[:, 0], where=(~skip & (count >= least))[:, None])

    follow = [
        elementwise.plan(program, [old[:, None], new[:, None]], [out])
        for old, new, out in zip(norm.running, (norm.mean, unbiased), followed, strict=True)
    ]
    return [estimate, *follow, keep]


def mean_launch(total: Array, count: Any, out: Array) -> Launch:
    """Return out <- total / count, where count 0 is taken for 1."""
    n = np.empty_like(count)

    def launch() -> None:
        np.maximum(count, 1, out=n)
        np.divide(total, n, out)

    return launch


@cache
def scaled_program() -> NumpyProgram:
    """u = gamma zhat."""
    return numpy_program(scaled_recording(), ("u",), {})


@cache
def gamma_gradient_program() -> NumpyProgram:
    """d zhat."""
    return numpy_program(gamma_gradient_recording(), ("terms",), {})


@cache
def normalised_delta_program(kind: str) -> NumpyProgram:
    """delta <- dC/dz."""
    recording = delta_of_rows_recording() if kind == LAYER else delta_of_batch_recording()
    return numpy_program(recording, ("delta",), {"delta": "d"})


@cache
def running_program() -> NumpyProgram:
    """What a running statistic becomes."""
    return numpy_program(running_recording(), ("followed",), {})
