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


@cache
def normalised_delta_recording() -> Recording:
    """Return dC/dz as a Recording of (d, z, mean, variance, gamma, mean_g, mean_gz, weight), with d = dC/du.

    With g = gamma d it is (g - mean(g) - zhat mean(g zhat)) / sqrt(variance + epsilon), the means being taken over what
    was normalised together: mean and variance depend on each z among it. 0 for a row that does not count.

    Source: Ioffe and Szegedy 2015, the equations behind algorithm 1, with the sums carried out
    """

    def formula(d: Any, z: Any, mean: Any, variance: Any, gamma: Any, mean_g: Any, mean_gz: Any, weight: Any) -> Any:
        carried = gamma * d - mean_g - standardise(z, mean, variance) * mean_gz
        return where(weight > 0, carried / sqrt(variance + EPSILON), 0)

    return record(formula, "d", "z", "mean", "variance", "gamma", "mean_g", "mean_gz", "weight")


@cache
def running_recording() -> Recording:
    """Return what a running statistic becomes as a Recording of (old, new)."""
    return record(lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new, "old", "new")
