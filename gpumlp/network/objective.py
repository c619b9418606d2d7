"""Objective: cost and gradient of a whole data set as a function of all parameters, for optimisers that want that."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.protocol import COST, POSITION, Tally
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.normalisation import BATCH
from gpumlp.network.backpropagation import backpropagation
from gpumlp.network.evaluation import build_source
from gpumlp.network.feedforward import feedforward_to_output
from gpumlp.network.kinds import bring
from gpumlp.network.network import Network
from gpumlp.network.parameters import Parameters
from gpumlp.network.targets import check_inputs, check_sample_weight, check_targets
from gpumlp.network.workspace import Workspace
from gpumlp.shapes import HostArray

ROWS = 4096  # rows at a time: large enough that adding up the gradients of the pieces on the host costs little


class Objective:
    """The mean cost of a network's one model on a data set, with the penalty (l2 / 2) |W|^2 on its weights.

    X, Y           as of Trainer.fit
    sample_weight  (n_samples,), or None for 1 everywhere
    l2             strength of the penalty

    cost, penalty  of the last call
    Raises         ShapeError, DataError, ConfigurationError
    """

    def __init__(self, net: Network, X: Any, Y: Any, sample_weight: Any = None, l2: float = 0.0) -> None:
        backend, architecture = net.backend, net.architecture
        if BATCH in architecture.normalisation:
            raise ConfigurationError(
                'normalisation="batch" makes the cost depend on how rows are put into batches, so that a data set has '
                'no one cost to descend; normalise by "layer", or train with a gpumlp.Trainer'
            )
        self.net, self.l2, self.cost = net, l2, float("nan")
        self.penalty = float("nan")
        with backend.session():
            inputs = check_inputs(bring(X, "X", backend), architecture)
            targets = check_targets(bring(Y, "Y", backend), len(inputs), architecture, net.dtype)
            weights = None if sample_weight is None else check_sample_weight(sample_weight, len(inputs), 1)
            batch = min(ROWS, len(inputs))
            source = build_source(backend, inputs, targets, batch, sample_weight=weights, mean=False)
            clock = backend.empty((3,), np.int64)
            backend.fill(clock, 0)
            tally = Tally(backend.empty((4, 1), np.float64))
            ws = Workspace(backend, architecture, net.parameters, batch, in_place=True, backward=True)
            grad = Parameters(backend, net.parameters.layout, 1, "the gradients")

        def piece() -> None:  # which does not hold on to self: the buffers go when the last one lets go of it
            backend.gather_batch(source, clock, ws.batch, tally, None)
            feedforward_to_output(backend, ws)
            backpropagation(backend, ws, grad, tally, clock)

        self._piece = backend.capture(piece)
        self._source, self._clock, self._tally, self._grad = source, clock, tally, grad
        self.total_weight = float(len(inputs) if weights is None else weights.sum())

    def parameters(self) -> HostArray:
        """Return the network's parameters as a row of theta, (n_params,) float64."""
        return np.array(self.net.backend.to_host(self.net.parameters.theta)[0], np.float64)

    def set_parameters(self, theta: HostArray) -> None:
        """Overwrite the network's parameters by a row of theta, (n_params,)."""
        backend = self.net.backend
        backend.copy(backend.asarray(theta[None].astype(backend.dtype)), self.net.parameters.theta)

    def __call__(self, theta: HostArray) -> tuple[float, HostArray]:
        """Return cost with penalty and gradient (n_params,) float64 at theta (n_params,), where the network then is."""
        backend, source = self.net.backend, self._source
        gradient = np.zeros(len(theta))
        with backend.session():
            self.set_parameters(theta)
            backend.fill(self._tally.values, 0)
            for start in range(0, source.n_rows, source.batch):
                backend.fill(self._clock[POSITION : POSITION + 1], start)
                self._piece()
                gradient += backend.to_host(self._grad.theta)[0]
            self.cost = float(backend.to_host(self._tally.values)[COST, 0]) / self.total_weight
        gradient /= self.total_weight
        W = slice(0, self.net.parameters.layout.n_weights)
        gradient[W] += self.l2 * theta[W]
        self.penalty = 0.5 * self.l2 * float(theta[W] @ theta[W])
        return self.cost + self.penalty, gradient
