"""The buffers of one pass through a network, and the parts of a stack that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp.backends.protocol import (
    Array,
    Backend,
    Batch,
    Dropout,
    LayerActivation,
    Lookup,
    Normalisation,
    PerModel,
    Rates,
    StepNumbers,
)
from gpumlp.formulas.activations import reads_z
from gpumlp.formulas.normalisation import LAYER
from gpumlp.network.architecture import Architecture
from gpumlp.network.members import Run
from gpumlp.network.parameters import Parameters
from gpumlp.randomness.streams import dropout_threshold


@dataclass(frozen=True)
class EmbeddedRows:
    """What the layer before the first one needs, which reads codes.

    rows    (1 or n_models, batch, in_features), of the batch
    units   of a[0], from the first to the last of those that codes become
    delta   (n_models, batch, as many units), or None if there is no way back
    """

    lookup: Lookup
    rows: Array
    units: slice
    delta: Array | None


@dataclass(frozen=True)
class Part:
    """Models of a stack that are computed together, with their views of its buffers.

    models        their places in the stack
    sizes         neurons of each layer, the input first
    activations   by layer
    dropout       rate of each hidden layer, where the parts of a stack differ; else None: as the stack's
    p, z, u, a, delta, norms   as of Parameters and Workspace
    embedded      where a[0] comes from, where that is not the batch's rows
    """

    models: slice
    sizes: tuple[int, ...]
    activations: tuple[LayerActivation, ...]
    dropout: tuple[float, ...] | None
    p: Parameters
    z: list[Array]
    u: list[Array]
    a: list[Array]
    delta: list[Array]
    norms: list[Normalisation | None]
    embedded: EmbeddedRows | None = None

    @property
    def n_layers(self) -> int:
        """Number of layers with weights."""
        return len(self.sizes) - 1


class Workspace:
    """Buffers for batches of one size; every pass overwrites them.

    n_inputs   1 if all models see the same rows, else n_models
    n_weights  1 if all models give their rows the same weights, else n_models
    n_codes    1 if a label means the same target to all models, else n_models
    in_place   u and a of a hidden layer share a buffer where f' does not read u: saves memory while training
    backward   whether there are buffers for deltas, too, and a batch is normalised with its own statistics; else with
               the running ones of p
    numbers    of the training whose running statistics follow those of its batches; None: they stay
    runs       of a stack whose models differ; () where all are alike

    parts      what is computed together: the whole stack, or on a processor each run
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
        runs: Sequence[Run] = (),
    ) -> None:
        sizes, empty, n_models = architecture.sizes, backend.empty, p.theta.shape[0]
        self.architecture, self.p = architecture, p
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
        alike = [run.architecture for run in runs] or [architecture]
        self.z: list[Array] = []  # z[l]: (n_models, batch, sizes[l + 1])
        self.u: list[Array] = []  # u[l], of which a[l + 1] = f(u[l]): z[l] itself, or what it is normalised to
        self.embedded = build_embedded_rows(backend, p, self.batch.a0, backward)
        self.a: list[Array] = [self.batch.a0]  # a[l]: (n_models, batch, widths[l])
        if self.embedded is not None:
            self.a = [empty((n_models, batch, architecture.n_embedded), what="a of the embedding")]
        for l, (n, norm) in enumerate(zip(sizes[1:], [*self.norms, None], strict=True)):
            hidden = l < architecture.n_layers - 1
            a = empty((n_models, batch, n), what=f"a of layer {l}")
            shared = in_place and hidden and not any(reads_z(net.activations[l]) for net in alike)
            u = a if shared else empty((n_models, batch, n), what=f"z of layer {l}")
            self.z.append(u if norm is None else empty((n_models, batch, n), what=f"z of layer {l}"))
            self.u.append(u)
            self.a.append(a)
        self.delta: list[Array] = (
            [empty((n_models, batch, n), what=f"delta of layer {l}") for l, n in enumerate(sizes[1:])]
            if backward
            else []
        )  # delta[l]: (n_models, batch, sizes[l + 1])
        if runs and not backend.pads_models:
            self.parts = [self._run(run, in_place) for run in runs]
        else:
            activations = padded_activations(backend, architecture, runs) if runs else architecture.activations
            buffers = (self.p, self.z, self.u, self.a, self.delta, self.norms)
            self.parts = [Part(slice(0, n_models), sizes, activations, None, *buffers, self.embedded)]

    def with_rows(self, batch: Batch) -> Workspace:
        """Return the same buffers for another part of a batch, whose rows and targets lie in the same place."""
        other = copy(self)
        other.batch = batch
        return other

    def _run(self, run: Run, in_place: bool) -> Part:
        """Return a run's views: its numbers lie side by side, in the room that the stack has for its models."""
        net = run.architecture
        of = self.embedded
        if of is not None:
            delta_of_run = None if of.delta is None else of.delta[run.models]
            of = replace(of, rows=models_of(of.rows, run.models), delta=delta_of_run)
        a = [
            models_of(self.a[0], run.models),
            *(side_by_side(x, run.models, n) for x, n in zip(self.a[1:], net.sizes[1:], strict=True)),
        ]
        z = [side_by_side(x, run.models, n) for x, n in zip(self.z, net.sizes[1:], strict=True)]
        for l, f in enumerate(net.activations[:-1]):
            if in_place and not reads_z(f):
                z[l] = a[l + 1]
        delta = [side_by_side(x, run.models, n) for x, n in zip(self.delta, net.sizes[1:], strict=bool(self.delta))]
        p, norms = self.p.of(run.models, net.sizes), self.norms
        return Part(run.models, net.sizes, net.activations, run.dropout, p, z, z, a, delta, norms, of)


def models_of(x: Array, models: slice) -> Array:
    """Return what some models have of x (1 or n_models, ...)."""
    return x if len(x) == 1 else x[models]


def build_embedded_rows(backend: Backend, p: Parameters, rows: Array, backward: bool) -> EmbeddedRows | None:
    """Return what the layer before the first one needs, None if there is none."""
    layout = p.layout
    if not layout.embeddings:
        return None
    lookup = layout.lookup()
    begin, end = int(lookup.firsts[0]), int(lookup.firsts[-1]) + layout.embeddings[-1].n_units
    shape = p.theta.shape[0], rows.shape[1], end - begin
    delta = backend.empty(shape, what="delta of the embedding") if backward else None
    arrays = {"units": backend.asarray(lookup.units), "firsts": backend.asarray(lookup.firsts)}
    return EmbeddedRows(replace(lookup, **arrays), rows, slice(begin, end), delta)


def side_by_side(x: Array, models: slice, n: int) -> Array:
    """Return room for n units of some models in x (n_models, batch, at least n), without gaps: (.., batch, n)."""
    part = x[models]
    if part.shape[2] == n:
        return part
    n_models, batch, _ = part.shape
    return part.reshape(-1)[: n_models * batch * n].reshape(n_models, batch, n)


def padded_activations(
    backend: Backend, architecture: Architecture, runs: Sequence[Run]
) -> tuple[LayerActivation, ...]:
    """Return the activations of a padded stack by layer: one for all models where they are alike there."""
    found: list[LayerActivation] = []
    counts = [run.models.stop - run.models.start for run in runs]
    for l, (f, n) in enumerate(zip(architecture.activations, architecture.sizes[1:], strict=True)):
        of_runs = [run.architecture.activations[l] for run in runs]
        widths = [run.architecture.sizes[l + 1] for run in runs]
        different = tuple(sorted(dict.fromkeys(of_runs), key=lambda f: f.name))  # whatever the order: one kernel
        if different == (f,) and set(widths) == {n}:
            found.append(f)
        else:
            kinds = [different.index(activation) for activation in of_runs]
            tables = (np.repeat(np.array(x, np.int32), counts) for x in (kinds, widths))
            found.append(PerModel(different, *(backend.asarray(table) for table in tables)))
    return tuple(found)


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
    rates: Sequence[Sequence[float]],
    sizes: Sequence[int],
    batch: int,
    keys: Any,
    clock: Array,
) -> list[Dropout | None]:
    """Return the dropout of each hidden layer, None where nothing is dropped, and None for the output layer.

    rates   of each model, by hidden layer
    """
    found: list[Dropout | None] = []
    for layer, (n, of_models) in enumerate(zip(sizes[1:-1], zip(*rates, strict=True), strict=True)):
        if not any(of_models):
            found.append(None)
        else:
            shape = len(of_models), batch, n
            mask = backend.empty(shape, np.bool_, "a dropout mask") if backend.keeps_masks else None
            differ = backend.pads_models and len(set(of_models)) > 1
            of_each = build_rates(backend, of_models) if differ else None
            found.append(Dropout(layer, max(of_models), backend.asarray(keys), clock, mask, of_each))
    return [*found, None]


def build_rates(backend: Backend, rates: Sequence[float]) -> Rates:
    """Return the dropout of a layer in which models have these rates."""
    thresholds = np.array([dropout_threshold(rate) for rate in rates], np.uint32)
    scales = np.array([(1 / (1 - rate), 1 - rate) for rate in rates], backend.dtype)
    return Rates(backend.asarray(thresholds), backend.asarray(scales))


def dropout_of(part: Part, dropout: Sequence[Dropout | None] | None) -> list[Dropout | None]:
    """Return what is dropped behind each layer of a part of the stack."""
    if dropout is None:
        return [None] * part.n_layers
    if part.dropout is None:
        return list(dropout)
    found: list[Dropout | None] = []
    for drop, rate, n in zip(dropout, (*part.dropout, 0.0), part.sizes[1:], strict=True):
        if drop is None or rate == 0:
            found.append(None)
        else:
            mask = None if drop.mask is None else side_by_side(drop.mask, part.models, n)
            found.append(replace(drop, rate=rate, keys=drop.keys[part.models], mask=mask, rates=None))
    return found
