"""TrainingStep: the ordered list of calls that is one step, for a given data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpumlp.backends.protocol import Array, Backend, BatchSource, StepNumbers, Tally
from gpumlp.network.backpropagation import backpropagation
from gpumlp.network.feedforward import feedforward_to_output
from gpumlp.network.network import Network
from gpumlp.network.parameters import Parameters, within
from gpumlp.network.workspace import Workspace, build_dropout
from gpumlp.randomness.seeds import model_keys
from gpumlp.training.hyper_table import HyperTable


class TrainingStep:
    """Trains on the next batch, or the next few at once.

    source             with its `part`, where batches are done in parts of so many rows, whose gradients are added up
    steps_per_launch   how many steps are captured together, where that many are left
    captured           what the backend has made of one step; together: of the several that are launched at once
    """

    def __init__(
        self,
        net: Network,
        source: BatchSource,
        hyper: HyperTable,
        numbers: StepNumbers,
        state: Array,
        clock: Array,
        tally: Tally,
        steps_per_launch: int = 1,
    ) -> None:
        backend, architecture, p = net.backend, net.architecture, net.parameters
        n_weights = 1 if source.sample_weight is None else len(source.sample_weight)
        rows = source.part or source.batch
        ws = Workspace(
            backend,
            architecture,
            p,
            rows,
            source.n_orders,
            n_weights,
            source.n_codes,
            in_place=True,
            backward=True,
            numbers=numbers,
            runs=net.runs,
        )
        grad = Parameters(backend, p.layout, net.n_models, "the gradients")
        keys = model_keys(net.seeds, net.model_ids)
        dropout = build_dropout(backend, [m.dropout for m in net.members], net.sizes, rows, keys, clock)
        others = [another_part(backend, ws, k * rows) for k in range(1, source.n_parts)]
        addend = Parameters(backend, p.layout, net.n_models, "the gradients of a part") if others else grad
        clip_norm = None if hyper.clip_norm is None else backend.asarray(hyper.clip_norm)

        def gradients(ws: Workspace, grad: Parameters, numbers: StepNumbers | None) -> None:
            backend.gather_batch(source, clock, ws.batch, tally, numbers)
            dropped = [None if drop is None else replace(drop, first=ws.batch.first) for drop in dropout]
            feedforward_to_output(backend, ws, dropped)
            backpropagation(backend, ws, grad, tally, clock, dropped)

        def step() -> None:
            gradients(ws, grad, numbers)
            for other in others:
                gradients(other, addend, None)
                backend.add(addend.theta, grad.theta)
            if clip_norm is not None:
                begin, end = hyper.bounds[0], hyper.bounds[-1]
                layouts = [within(p.layout, member.architecture.sizes) for member in net.members]
                own = [layout.own(begin, end) for layout in layouts]
                backend.gradient_norm(grad.theta[:, begin:end], clip_norm, numbers, own)
            backend.update(numbers, p.theta, grad.theta, state, hyper.bounds, clock, source.batch)

        self.captured, self._n = backend.capture(step), steps_per_launch
        self.together = self.captured if steps_per_launch == 1 else backend.capture(step, steps_per_launch)

    def __call__(self, left: int = 1) -> int:
        """Perform the next step, or the next few of `left` that there are; return how many."""
        if self._n == 1 or left < self._n:
            self.captured()
            return 1
        self.together()
        return self._n


def another_part(backend: Backend, ws: Workspace, first: int) -> Workspace:
    """Return the buffers for the rows of a batch from `first` on: the same ones, but for what the rows weigh."""
    row_weight, scale = (tuple(x.shape) for x in (ws.batch.row_weight, ws.batch.scale))
    batch = replace(ws.batch, row_weight=backend.empty(row_weight), scale=backend.empty(scale, np.float64), first=first)
    return ws.with_rows(batch)
