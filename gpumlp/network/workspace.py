"""The buffers of one pass through a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Array, Backend, Batch, Dropout, Normalisation, StepNumbers
from gpumlp.formulas.activations import reads_z
from gpumlp.formulas.normalisation import LAYER
from gpumlp.network.architecture import Architecture
from gpumlp.network.parameters import Parameters


class Workspace:
    """Buffers for batches of one size; every pass overwrites them.

    n_inputs   1 if all models see the same rows, else n_models
    n_weights  1 if all models give their rows the same weights, else n_models
    n_codes    1 if a label means the same target to all models, else n_models
    in_place   u and a of a hidden layer share a buffer where f' does not read u: saves memory while training
    backward   whether there are buffers for deltas, too, and a batch is normalised with its own statistics; else with
               the running ones of p
    numbers    of the training whose running statistics follow those of its batches; None: they stay
    """

    def __init__(
        self,
        backend: Backend,
        architecture: Architecture,
        p: Parameters,
        batch: int,
        n_inputs: int = 1,
        n_weights: int = 1,
        n_codes: int = 1,
        in_place: bool = False,
        backward: bool = False,
        numbers: StepNumbers | None = None,
    ) -> None:
        sizes, empty, n_models = architecture.sizes, backend.empty, p.theta.shape[0]
        self.batch = Batch(
            a0=empty((n_inputs, batch, sizes[0]), what="the inputs of a batch"),
            y=empty((max(n_inputs, n_codes), batch, sizes[-1]), what="the targets of a batch"),
            row_weight=empty((max(n_inputs, n_weights), batch)),
            scale=empty((max(n_inputs, n_weights),), np.float64),
        )
        self.norms = [
            build_normalisation(backend, kind, p, l, self.batch, backward, numbers)
            for l, kind in enumerate(architecture.normalisation)
        ]
        self.z: list[Array] = []  # z[l]: (n_models, batch, sizes[l + 1])
        self.u: list[Array] = []  # u[l], of which a[l + 1] = f(u[l]): z[l] itself, or what it is normalised to
        self.a: list[Array] = [self.batch.a0]  # a[l]: (n_models, batch, sizes[l])
        for l, (n, norm) in enumerate(zip(sizes[1:], [*self.norms, None], strict=True)):
            hidden = l < architecture.n_layers - 1
            a = empty((n_models, batch, n), what=f"a of layer {l}")
            shared = in_place and hidden and not reads_z(architecture.activations[l])
            u = a if shared else empty((n_models, batch, n), what=f"z of layer {l}")
            self.z.append(u if norm is None else empty((n_models, batch, n), what=f"z of layer {l}"))
            self.u.append(u)
            self.a.append(a)
        self.delta: list[Array] = (
            [empty((n_models, batch, n), what=f"delta of layer {l}") for l, n in enumerate(sizes[1:])]
            if backward
            else []
        )  # delta[l]: (n_models, batch, sizes[l + 1])


def build_normalisation(
    backend: Backend,
    kind: str | None,
    p: Parameters,
    layer: int,
    batch: Batch,
    measures: bool,
    numbers: StepNumbers | None,
) -> Normalisation | None:
    """Return the normalisation of a hidden layer, None if it has none.

    measures   whether a "batch" is normalised with its own statistics; else with the running ones
    """
    if kind is None:
        return None
    n_models, features = p.gamma[layer].shape
    running = p.running_mean[layer], p.running_variance[layer]
    if kind == LAYER:
        n_rows = batch.row_weight.shape[1]
        return Normalisation(kind, *(backend.empty((n_models, n_rows)) for _ in range(2)))
    if not measures:
        return Normalisation(kind, *running)
    mean, variance = (backend.empty((n_models, features)) for _ in range(2))
    count = backend.empty((n_models,))
    return Normalisation(kind, mean, variance, batch.row_weight, count, None if numbers is None else running, numbers)


def build_dropout(
    backend: Backend,
    rates: Sequence[float],
    sizes: Sequence[int],
    n_models: int,
    batch: int,
    keys: Any,
    clock: Array,
) -> list[Dropout | None]:
    """Return the dropout of each hidden layer, None where nothing is dropped, and None for the output layer."""
    found: list[Dropout | None] = []
    for layer, (rate, n) in enumerate(zip(rates, sizes[1:-1], strict=True)):
        if rate == 0:
            found.append(None)
        else:
            mask = backend.empty((n_models, batch, n), np.bool_) if backend.keeps_masks else None
            found.append(Dropout(layer, rate, backend.asarray(keys), clock, mask))
    return [*found, None]
