"""Layer and batch normalisation: u = gamma zhat + beta, zhat = (z - mean) / sqrt(variance + epsilon), a = f(u).

"layer": mean and variance are those of the units of a row. Source: Ba, Kiros and Hinton 2016, eq. 3.
"batch": those of a unit over the rows of a batch that count. Source: Ioffe and Szegedy 2015, algorithm 1.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpumlp.formulas.term import Recording, record
from gpumlp.formulas.vocabulary import sqrt, where

LAYER, BATCH = "layer", "batch"
KINDS = (LAYER, BATCH)
EPSILON = 1e-5
MOMENTUM = 0.1  # of running statistics: the share that the newest batch has in them


def standardise(z: Any, mean: Any, variance: Any) -> Any:
    """zhat."""
    return (z - mean) / sqrt(variance + EPSILON)


@cache
def scaled_recording() -> Recording:
    """Return gamma zhat as a Recording of (z, mean, variance, gamma); beta is then added as a bias is."""
    return record(
        lambda z, mean, variance, gamma: gamma * standardise(z, mean, variance), "z", "mean", "variance", "gamma"
    )


@cache
def gamma_gradient_recording() -> Recording:
    """Return d zhat, whose sum over the batch is dC/dgamma, as a Recording of (d, z, mean, variance); d is dC/du."""
    return record(lambda d, z, mean, variance: d * standardise(z, mean, variance), "d", "z", "mean", "variance")


def carried(g: Any, z: Any, mean: Any, variance: Any, mean_g: Any, mean_gz: Any) -> Any:
    """dC/dz from g = dC/dzhat: (g - mean(g) - zhat mean(g zhat)) / sqrt(variance + epsilon).

    The means are taken over what was normalised together, whose mean and variance depend on each z among it.

    Source: Ioffe and Szegedy 2015, the equations behind algorithm 1, with their sums carried out
    """
    return (g - mean_g - standardise(z, mean, variance) * mean_gz) / sqrt(variance + EPSILON)


@cache
def delta_of_rows_recording() -> Recording:
    """Return dC/dz for "layer" as a Recording of (d, z, mean, variance, gamma, mean_g, mean_gz), with g = gamma d."""

    def formula(d: Any, z: Any, mean: Any, variance: Any, gamma: Any, mean_g: Any, mean_gz: Any) -> Any:
        return carried(gamma * d, z, mean, variance, mean_g, mean_gz)

    return record(formula, "d", "z", "mean", "variance", "gamma", "mean_g", "mean_gz")


@cache
def delta_of_batch_recording() -> Recording:
    """Return dC/dz for "batch" as a Recording of (d, z, mean, variance, gamma, mean_d, mean_dz, weight).

    A unit's gamma is a factor of all that is carried; a row that does not count has no part in the mean: 0.
    """

    def formula(d: Any, z: Any, mean: Any, variance: Any, gamma: Any, mean_d: Any, mean_dz: Any, weight: Any) -> Any:
        return where(weight > 0, gamma * carried(d, z, mean, variance, mean_d, mean_dz), 0)

    return record(formula, "d", "z", "mean", "variance", "gamma", "mean_d", "mean_dz", "weight")


@cache
def running_recording() -> Recording:
    """Return what a running statistic becomes as a Recording of (old, new)."""
    return record(lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new, "old", "new")
