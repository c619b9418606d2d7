"""Slow ways to the deltas of a network, in plain NumPy and plain Python, to see what the fast way saves.

    per-sample loops    one example after the other, W^T delta * f'(z) as a product of a matrix and a vector
    per-neuron loops    one neuron after the other, in Python, as a textbook writes the sum
    forward mode        dC/dw of one weight after the other, by a pass of tangents through the layers behind it

The first two give the deltas that batched back-propagation gives; the last gives the gradient of the weights, which
back-propagation has from the deltas by one product a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, tanh

import numpy as np

from gpumlp.shapes import HostArray

# name -> (f, f') on arrays; written out, since a recorded formula that is played would slow the baselines down, which
# would flatter gpumlp; a test holds them to the registry
FORMULAS: dict[str, tuple[Callable[[HostArray], HostArray], Callable[[HostArray], HostArray]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "silu": (lambda z: z * _logistic(z), lambda z: _logistic(z) * (1 + z * (1 - _logistic(z)))),
}
# the same f' for one number
DERIVATIVES: dict[str, Callable[[float], float]] = {
    "relu": lambda z: 1.0 if z > 0 else 0.0,
    "tanh": lambda z: 1 - tanh(z) ** 2,
    "silu": lambda z: (1 + z * (1 - 1 / (1 + exp(-z)))) / (1 + exp(-z)),
}


@dataclass(frozen=True)
class Problem:
    """What the recursion starts from: W[l] (width, width), z[l] (batch, width) of all layers but the last.

    a0       (batch, width) the inputs
    delta    (batch, width) that of the last layer
    """

    activation: str
    a0: HostArray
    W: list[HostArray]
    z: list[HostArray]
    delta: HostArray

    @property
    def n_layers(self) -> int:
        """Layers of weights; the recursion goes through all but one of them."""
        return len(self.W)


def new_problem(batch: int, width: int, n_layers: int, activation: str) -> Problem:
    """Return the same random problem at each call: z of a network of such layers, and a delta for its outputs."""
    random = np.random.default_rng(0)
    f = FORMULAS[activation][0]
    gain = np.float32(np.sqrt(2 / width))
    a0 = random.standard_normal((batch, width), np.float32)
    W = [gain * random.standard_normal((width, width), np.float32) for _ in range(n_layers)]
    z, a = [], a0
    for w in W[:-1]:
        z.append(a @ w.T)
        a = f(z[-1])
    return Problem(activation, a0, W, z, random.standard_normal((batch, width), np.float32))


def in_float64(problem: Problem) -> list[HostArray]:
    """Return the deltas of all layers but the last, the first one first, by NumPy in float64: what is right."""
    derivative = FORMULAS[problem.activation][1]
    deltas = [problem.delta.astype(np.float64)]
    for l in range(problem.n_layers - 1, 0, -1):
        W, z = problem.W[l].astype(np.float64), problem.z[l - 1].astype(np.float64)
        deltas.insert(0, (deltas[0] @ W) * derivative(z))
    return deltas[:-1]


def per_sample(problem: Problem) -> list[HostArray]:
    """Return the deltas, one example after the other."""
    derivative = FORMULAS[problem.activation][1]
    found = [np.empty_like(z) for z in problem.z]
    for i, delta in enumerate(problem.delta):
        for l in range(problem.n_layers - 1, 0, -1):
            delta = (problem.W[l].T @ delta) * derivative(problem.z[l - 1][i])
            found[l - 1][i] = delta
    return found


def per_neuron(problem: Problem) -> list[HostArray]:
    """Return the deltas, one neuron after the other, in Python."""
    derivative = DERIVATIVES[problem.activation]
    W, z = [w.tolist() for w in problem.W], [x.tolist() for x in problem.z]
    found: list[list[list[float]]] = [[] for _ in z]
    for i, delta in enumerate(problem.delta.tolist()):
        for l in range(problem.n_layers - 1, 0, -1):
            below = []
            for j, z_j in enumerate(z[l - 1][i]):
                total = 0.0
                for k, delta_k in enumerate(delta):
                    total += W[l][k][j] * delta_k
                below.append(total * derivative(z_j))
            delta = below
            found[l - 1].append(delta)
    return [np.array(x, np.float32) for x in found]


@dataclass(frozen=True)
class Weight:
    """One weight: that of layer l from unit k to unit j."""

    l: int
    j: int
    k: int


def some_weights(problem: Problem, n: int) -> list[Weight]:
    """Return n weights of all layers but the last, drawn at random; all of them if there are fewer."""
    width, layers = len(problem.W[0]), problem.n_layers - 1
    total = layers * width * width
    chosen = np.random.default_rng(1).permutation(total)[:n]
    return [Weight(*(int(x) for x in np.unravel_index(i, (layers, width, width)))) for i in chosen]


def forward_mode(problem: Problem, weights: list[Weight]) -> HostArray:
    """Return dC/dw, summed over the batch, of each of these weights, by a pass forward of its own.

    The cost is any whose derivative by the last layer's z is the problem's delta.
    """
    f, derivative = FORMULAS[problem.activation]
    slopes, inputs = [derivative(z) for z in problem.z], [problem.a0, *(f(z) for z in problem.z)]
    found = np.empty(len(weights))
    for n, w in enumerate(weights):
        tangent = np.outer(inputs[w.l][:, w.k] * slopes[w.l][:, w.j], problem.W[w.l + 1][:, w.j])  # dz of the next
        for l in range(w.l + 1, problem.n_layers - 1):
            tangent = (tangent * slopes[l]) @ problem.W[l + 1].T
        found[n] = np.vdot(problem.delta, tangent)
    return found


def gradients(problem: Problem, deltas: list[HostArray], weights: list[Weight]) -> HostArray:
    """Return the same from the deltas (BP4)."""
    f = FORMULAS[problem.activation][0]
    inputs = [problem.a0, *(f(z) for z in problem.z)]
    return np.array([np.vdot(deltas[w.l][:, w.j], inputs[w.l][:, w.k]) for w in weights])


def _logistic(z: HostArray) -> HostArray:
    return 1 / (1 + np.exp(-z))
