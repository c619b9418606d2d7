"""The buffers of one pass through a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Array, Backend, Batch, Dropout
from gpumlp.formulas.activations import reads_z
from gpumlp.network.architecture import Architecture


class Workspace:
    """Buffers for batches of one size; every pass overwrites them.

    n_inputs   1 if all models see the same rows, else n_models
    n_weights  1 if all models give their rows the same weights, else n_models
    in_place   z and a of a hidden layer share a buffer where f' does not read z: saves memory while training
    backward   whether there are buffers for deltas, too
    """

    def __init__(
        self,
        backend: Backend,
        architecture: Architecture,
        n_models: int,
        batch: int,
        n_inputs: int = 1,
        n_weights: int = 1,
        in_place: bool = False,
        backward: bool = False,
    ) -> None:
        sizes, empty = architecture.sizes, backend.empty
        self.batch = Batch(
            a0=empty((n_inputs, batch, sizes[0]), what="the inputs of a batch"),
            y=empty((n_inputs, batch, sizes[-1]), what="the targets of a batch"),
            row_weight=empty((max(n_inputs, n_weights), batch)),
            scale=empty((max(n_inputs, n_weights),), np.float64),
        )
        self.z: list[Array] = []  # z[l]: (n_models, batch, sizes[l + 1])
        self.a: list[Array] = [self.batch.a0]  # a[l]: (n_models, batch, sizes[l])
        for l, n in enumerate(sizes[1:]):
            hidden = l < architecture.n_layers - 1
            a = empty((n_models, batch, n), what=f"a of layer {l}")
            shared = in_place and hidden and not reads_z(architecture.activations[l])
            self.z.append(a if shared else empty((n_models, batch, n), what=f"z of layer {l}"))
            self.a.append(a)
        self.delta: list[Array] = (
            [empty((n_models, batch, n), what=f"delta of layer {l}") for l, n in enumerate(sizes[1:])]
            if backward
            else []
        )  # delta[l]: (n_models, batch, sizes[l + 1])


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
