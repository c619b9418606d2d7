"""The mean cost, and the share of right answers, of a network on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.protocol import COST, HITS, WEIGHT, Backend, BatchSource, Tally
from gpumlp.formulas.output_delta import output_delta
from gpumlp.network.architecture import Architecture
from gpumlp.network.feedforward import feedforward_to_output
from gpumlp.network.members import Run
from gpumlp.network.parameters import Parameters
from gpumlp.network.targets import Targets
from gpumlp.network.workspace import Workspace

ROWS_AT_A_TIME = 1024


def build_source(
    backend: Backend,
    X: Any,
    targets: Targets,
    batch: int,
    sample_weight: Any,
    mean: bool,
    keys: Any = None,
    rows: Any = None,
) -> BatchSource:
    """Return arrays as a source of batches on the backend; see BatchSource."""
    return BatchSource(
        X=backend.asarray(X, what="X"),
        Y=backend.asarray(targets.Y, what="Y"),
        codes=None if targets.codes is None else backend.asarray(targets.codes),
        sample_weight=None if sample_weight is None else backend.asarray(sample_weight, what="sample_weight"),
        batch=batch,
        mean=mean,
        keys=None if keys is None else backend.asarray(keys),
        rows=rows,
    )


class Evaluation:
    """Evaluates one data set again and again on the same buffers."""

    def __init__(
        self,
        backend: Backend,
        net: Architecture,
        p: Parameters,
        X: Any,
        targets: Targets,
        sample_weight: Any = None,
        runs: Sequence[Run] = (),
    ) -> None:
        n_models = p.theta.shape[0]
        batch = min(ROWS_AT_A_TIME, len(X))
        n_weights = 1 if sample_weight is None else len(sample_weight)
        source = build_source(backend, X, targets, batch, sample_weight=sample_weight, mean=False)
        clock = backend.empty((3,), np.int64)
        tally = Tally(backend.empty((4, n_models), np.float64), targets.counts_hits, targets.threshold)
        ws = Workspace(backend, net, p, batch, n_weights=n_weights, in_place=True, runs=runs)
        formulas = output_delta(net.cost, net.activations[-1])

        def step() -> None:  # which does not hold on to self: the buffers go when the last one lets go of it
            backend.gather_batch(source, clock, ws.batch, tally, None)
            feedforward_to_output(backend, ws)
            backend.evaluate(formulas, net.activations[-1], ws.z[-1], p.b[-1], ws.a[-1], ws.batch, clock, tally)

        self.backend, self.source, self.clock, self.tally = backend, source, clock, tally
        self.step = backend.capture(step)

    def run(self) -> dict[str, Any]:
        """Return {"cost": (n_models,)}, and "accuracy" where the targets name classes."""
        self.backend.fill(self.tally.values, 0)
        self.backend.fill(self.clock, 0)
        with self.backend.session():
            for _ in range(self.source.n_steps):
                self.step()
        return read_tally(self.backend, self.tally)


def read_tally(backend: Backend, tally: Tally) -> dict[str, Any]:
    """Return the means that a tally holds, on the host."""
    values = np.array(backend.to_host(tally.values))
    total = np.where(values[WEIGHT] > 0, values[WEIGHT], np.nan)
    means = {"cost": values[COST] / total}
    if tally.counts_hits:
        means["accuracy"] = values[HITS] / total
    return means
