"""The weights of an estimator: drawn as scikit-learn draws them, and in and out of a Network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.backends.select import asked_for
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray

Layers = list[HostArray]


def draw_weights(
    sizes: Sequence[int], saturating: Sequence[bool], dtype: Any, random: np.random.RandomState, n_models: int = 1
) -> tuple[Layers, Layers]:
    """Return coefs (in, out) and intercepts (out,) of each layer: U(-r, r), r = sqrt(6 / (in + out)), biases, too.

    saturating   for each layer, whether it belongs to a logistic activation, for which 6 becomes 2
    n_models     with several, the models are the first axis of all of them
    Source       Glorot and Bengio 2010
    """
    if n_models > 1:
        each = [draw_weights(sizes, saturating, dtype, random) for _ in range(n_models)]
        coefs, intercepts = ([np.stack(layer) for layer in zip(*part, strict=True)] for part in zip(*each, strict=True))
        return coefs, intercepts
    coefs, intercepts = [], []
    for (n_in, n_out), narrow in zip(pairwise(sizes), saturating, strict=True):
        bound = np.sqrt((2.0 if narrow else 6.0) / (n_in + n_out))
        coefs.append(random.uniform(-bound, bound, (n_in, n_out)).astype(dtype, copy=False))
        intercepts.append(random.uniform(-bound, bound, n_out).astype(dtype, copy=False))
    return coefs, intercepts


def draw_tables(
    seen: Mapping[Embedding, HostArray], dtype: Any, random: np.random.RandomState, n_models: int = 1
) -> dict[int, HostArray]:
    """Return the table (n_categories, n_units) of each embedded column, by its number: N(0, 1).

    seen       for each embedding (n_categories,) whether a row has the category; those that none has begin as zeros, as
               those that are not known are
    n_models   with several, the models are the first axis
    """
    stack = () if n_models == 1 else (n_models,)
    return {
        e.column: (random.standard_normal((*stack, e.n_categories, e.n_units)) * there[:, None]).astype(dtype)
        for e, there in seen.items()
    }


def put_weights(net: Network, coefs: Layers, intercepts: Layers) -> None:
    """Overwrite a network's parameters."""
    for l, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        net.set_weights(l, np.swapaxes(W, -1, -2), b)


def take_weights(net: Network) -> tuple[Layers, Layers]:
    """Return copies of a network's parameters as coefs and intercepts; of a stack, with the models as first axis."""
    coefs = [np.swapaxes(np.array(W), -1, -2) for W in net.weights]
    intercepts = [np.array(b) for b in net.biases]
    if net.n_models == 1:
        return [W[0] for W in coefs], [b[0] for b in intercepts]
    return coefs, intercepts


def put_tables(net: Network, tables: Sequence[HostArray]) -> None:
    """Overwrite the tables of a network's embeddings, in the order of their columns."""
    for i, E in enumerate(tables):
        net.set_embedding(i, E)


def take_tables(net: Network) -> dict[int, HostArray]:
    """Return copies of the tables of a network's embeddings, by column; of a stack, with the models as first axis."""
    one = 0 if net.n_models == 1 else slice(None)
    return {e.column: np.array(E)[one] for e, E in zip(net.architecture.embeddings, net.embeddings, strict=True)}


def put_normalising(net: Network, layers: Sequence[dict[str, HostArray]]) -> None:
    """Overwrite what normalises a network's hidden layers."""
    for l, tensors in enumerate(layers):
        net.set_normalisation(l, **tensors)


def take_normalising(net: Network) -> list[dict[str, HostArray]]:
    """Return copies of what normalises each hidden layer, by name; of a stack, with the models as first axis."""
    one = 0 if net.n_models == 1 else slice(None)
    return [{name: np.array(x)[one] for name, x in tensors.items()} for tensors in net.normalising]


class LiveNetwork:
    """Keeps the network that an estimator has built last; a copy or a pickle of it is empty, and builds its own."""

    def __init__(self) -> None:
        self._key: Any = None
        self._net: Network | None = None

    def get(self, **options: Any) -> Network:
        """Return a network of these options, with any parameters: the one that is there if it has the same."""
        key = (asked_for(None if options["backend"] == "auto" else options["backend"]), options)
        if self._net is None or key != self._key:
            self._key, self._net = key, Network(initialiser="zeros", **options)
        return self._net

    @property
    def backend(self) -> Backend:
        """The backend of the network that is there."""
        assert self._net is not None
        return self._net.backend

    def __reduce__(self) -> tuple[type[LiveNetwork], tuple[()]]:
        return LiveNetwork, ()
