"""A copy of the weights of a stack, which monitors and a `fit` itself go back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.network.network import Network
from gpumlp.training.active import Active, neighbours
from gpumlp.training.monitors import WeightKeeper


class WeightCopy(WeightKeeper):
    """Keeps a copy of theta on the backend."""

    def __init__(self, net: Network, active: Callable[[], Active]) -> None:
        self._net, self._backend, self._theta, self._active = net, net.backend, net.parameters.theta, active
        self._kept = net.backend.empty(tuple(self._theta.shape), what="a copy of the parameters")

    def save(self, models: Any) -> None:
        self._active().bring_weights()
        self._move(models, self._theta, self._kept)

    def restore(self, models: Any) -> None:
        self._active().bring_weights()  # of the models that are not given any back
        self._move(models, self._kept, self._theta)
        self._active().send_weights()

    def kept(self) -> Any:
        return self._net.relaid(self._backend.to_host(self._kept), self._backend.pads_models, padded=True)

    def keep(self, weights: Any) -> None:
        own = self._net.relaid(weights, True, self._backend.pads_models)
        self._backend.copy(self._backend.asarray(own), self._kept)

    def _move(self, models: Any, src: Any, out: Any) -> None:
        with self._backend.session():
            for _, places in neighbours(np.flatnonzero(models)):
                self._backend.copy(src[places], out[places])
