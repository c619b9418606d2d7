"""Initial weights: drawn on the host in double from each model's own generator, so that they are equal everywhere."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, ShapeError, unknown_name
from gpumlp.shapes import HostArray

# (generator, out, in) -> W (out, in), or (W, b) with b (out,)
Initialiser = Callable[[np.random.Generator, int, int], Any]


def he(generator: np.random.Generator, n_out: int, n_in: int) -> HostArray:
    """Return N(0, 2 / in): keeps the variance through layers of ReLU (He et al. 2015)."""
    return generator.standard_normal((n_out, n_in)) * sqrt(2 / n_in)


def glorot(generator: np.random.Generator, n_out: int, n_in: int) -> HostArray:
    """Return U(-r, r), r = sqrt(6 / (in + out)): for tanh and sigmoid (Glorot and Bengio 2010)."""
    return generator.uniform(-1, 1, (n_out, n_in)) * sqrt(6 / (n_in + n_out))


def lecun(generator: np.random.Generator, n_out: int, n_in: int) -> HostArray:
    """Return N(0, 1 / in): for selu (LeCun et al. 1998)."""
    return generator.standard_normal((n_out, n_in)) / sqrt(n_in)


def nielsen(generator: np.random.Generator, n_out: int, n_in: int) -> tuple[HostArray, HostArray]:
    """Return N(0, 1 / in) and biases N(0, 1): the textbook's default (Nielsen ch. 3)."""
    return generator.standard_normal((n_out, n_in)) / sqrt(n_in), generator.standard_normal(n_out)


def zeros(generator: np.random.Generator, n_out: int, n_in: int) -> HostArray:
    """Return zeros: for networks without a hidden layer, and for weights that are set by hand."""
    return np.zeros((n_out, n_in))


INITIALISERS: dict[str, Initialiser] = {
    "he": he,
    "glorot": glorot,
    "lecun": lecun,
    "nielsen": nielsen,
    "zeros": zeros,
}


def get_initialiser(given: str | Initialiser) -> Initialiser:
    """Return the initialiser of a name, or a callable itself."""
    if callable(given):
        return given
    if given not in INITIALISERS:
        raise unknown_name("initialiser", given, INITIALISERS)
    return INITIALISERS[given]


def initialiser_name(initialiser: Initialiser) -> str | None:
    """Return the name of an initialiser of this file, None for a user's own."""
    return next((name for name, known in INITIALISERS.items() if known is initialiser), None)


def draw_layer(initialiser: Initialiser, generator: np.random.Generator, n_out: int, n_in: int) -> Any:
    """Return W (out, in) and b (out,) of one layer of one model; raise if a user's initialiser gives anything else."""
    drawn = initialiser(generator, n_out, n_in)
    W, b = drawn if isinstance(drawn, tuple) else (drawn, np.zeros(n_out))
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    if W.shape != (n_out, n_in) or b.shape != (n_out,):
        raise ShapeError(
            f"the initialiser gave W {W.shape} and b {b.shape}, expected W (out={n_out}, in={n_in}) and b ({n_out},)"
        )
    if not (np.isfinite(W).all() and np.isfinite(b).all()):
        raise ConfigurationError("the initialiser gave weights that are not finite; draw them smaller")
    return W, b
