"""How far two backends drift apart when they train the same network on the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.monitors import Monitor
from gpumlp.training.trainer import Trainer

BATCH, STEPS_OF_EPOCH = 32, 8
LOOKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
TOLERANCES = {"float32": 1e-4, "float64": 1e-11}  # largest relative differences within 100 steps


@dataclass(frozen=True)
class LayerDrift:
    """The largest differences in a layer after a step, each relative to the largest value of its array.

    gradient, delta   of the first batch of the data, computed with the weights of that step
    """

    step: int
    layer: int
    weights: float
    gradient: float
    delta: float

    @property
    def largest(self) -> float:
        """The largest of the three; NaN if one is."""
        return float(np.max([self.weights, self.gradient, self.delta]))


@dataclass(frozen=True)
class Drift:
    """What `verify` found, by step and layer."""

    backends: tuple[str, str]
    sizes: tuple[int, ...]
    dtype: str
    optimizer: str
    tolerance: float
    layers: tuple[LayerDrift, ...]

    @property
    def largest(self) -> float:
        """The largest difference anywhere; NaN if one is."""
        return float(np.max([found.largest for found in self.layers]))

    @property
    def within(self) -> bool:
        """Whether all differences are within the tolerance; NaN is not."""
        return self.largest <= self.tolerance


@dataclass(frozen=True)
class Look:
    """What a network is after a step: W, dW and delta of each layer, on the host."""

    step: int
    weights: list[HostArray]
    gradients: list[HostArray]
    deltas: list[HostArray]


class Watch(Monitor):
    """Takes a Look after each of the given steps."""

    def __init__(self, net: Network, X: HostArray, labels: HostArray, steps: Sequence[int]) -> None:
        self._net, self._X, self._labels, self._steps = net, X, labels, steps
        self._done = 0
        self.looks: list[Look] = []

    def step_ended(self, step: int) -> None:
        self._done += 1
        if self._done in self._steps:
            found = self._net.backpropagate(self._X, self._labels)
            weights = [np.array(W) for W in self._net.weights]
            self.looks.append(Look(self._done, weights, found.dW, [np.array(d) for d in found.delta]))


def verify(
    backends: Sequence[str] = ("numpy", "cuda"),
    sizes: Sequence[int] = (20, 32, 16, 3),
    steps: int = 100,
    dtype: str = "float32",
    activation: Any = "tanh",
    optimizer: str | UpdateRule = "adam",
    seed: int = 0,
) -> Drift:
    """Train the same network on two backends and return how far they drift apart in `steps` steps.

    The data are random, of 250 rows: the last batch of each epoch is short, and each epoch has an order of its own.
    Raises   ConfigurationError, BackendUnavailable, and whatever Network and Trainer raise
    """
    if len(backends) != 2:
        raise ConfigurationError(f"{len(backends)} backends to compare; name two, such as numpy,cuda")
    if steps < 1:
        raise ConfigurationError(f"steps={steps}: expected at least 1")
    if tuple(sizes)[-1:] == (1,):
        raise ConfigurationError(f"sizes={tuple(sizes)}: expected two outputs or more, since the data are of classes")
    looks = [_train(name, sizes, steps, dtype, activation, optimizer, seed) for name in backends]
    layers = tuple(found for expected, other in zip(*looks, strict=True) for found in _layers(expected, other))
    rule = optimizer if isinstance(optimizer, str) else optimizer.name
    name = np.dtype(dtype).name
    return Drift((backends[0], backends[1]), tuple(sizes), name, rule, TOLERANCES[name], layers)


def _train(
    backend: str, sizes: Sequence[int], steps: int, dtype: str, activation: Any, optimizer: Any, seed: int
) -> list[Look]:
    net = Network(sizes, activation, dtype=dtype, backend=backend, seed=seed)
    random = np.random.default_rng(seed)
    n_rows = BATCH * STEPS_OF_EPOCH - 6
    X = random.standard_normal((n_rows, net.sizes[0])).astype(net.dtype)
    labels = random.integers(0, net.sizes[-1], n_rows)
    wanted = sorted({step for step in LOOKS if step < steps} | {steps})
    watch = Watch(net, X[:BATCH], labels[:BATCH], wanted)
    epochs = -(-steps // STEPS_OF_EPOCH)
    Trainer(net, optimizer, batch_size=BATCH).fit(X, labels, epochs, monitors=[watch])
    return watch.looks


def _layers(expected: Look, found: Look) -> list[LayerDrift]:
    parts = ((expected.weights, found.weights), (expected.gradients, found.gradients), (expected.deltas, found.deltas))
    return [
        LayerDrift(expected.step, l, *(_relative(a[l], b[l]) for a, b in parts)) for l in range(len(expected.weights))
    ]


def _relative(expected: HostArray, found: HostArray) -> float:
    """Return the largest difference relative to the largest value; NaN where there is any."""
    difference, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    return difference / scale if scale else difference
