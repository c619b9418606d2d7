"""The mean cost, and the share of right answers, of a network on a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.backends.protocol import COST, HITS, WEIGHT, Backend, BatchSource, Tally
from gpumlp.formulas.output_delta import output_delta
from gpumlp.network.architecture import Architecture
from gpumlp.network.feedforward import feedforward_to_output
from gpumlp.network.members import Run, runs_of
from gpumlp.network.parameters import Parameters
from gpumlp.network.places import Places
from gpumlp.network.targets import Targets
from gpumlp.network.workspace import Workspace

ROWS_AT_A_TIME = 1024
INPUTS_AT_A_TIME = 2**25  # values of the inputs of models that have rows of their own


def build_source(
    backend: Backend,
    X: Any,
    targets: Targets,
    batch: int,
    sample_weight: Any,
    mean: bool,
    keys: Any = None,
    rows: Any = None,
    places: Places | None = None,
) -> BatchSource:
    """Return arrays as a source of batches on the backend; see BatchSource.

    places   the rows of each model; None: all, in the order that `rows` says if it is given
    """
    return BatchSource(
        X=backend.asarray(X, what="X"),
        Y=backend.asarray(targets.Y, what="Y"),
        codes=None if targets.codes is None else backend.asarray(targets.codes),
        sample_weight=None if sample_weight is None else backend.asarray(sample_weight, what="sample_weight"),
        batch=batch,
        mean=mean,
        keys=None if keys is None else backend.asarray(keys),
        **({"rows": rows} if places is None else places.on(backend)),
    )


class Evaluation:
    """Evaluates one data set again and again on the same buffers.

    places   the rows on which each model is evaluated; None: all
    runs     as of Workspace
    """

    def __init__(
        self,
        backend: Backend,
        net: Architecture,
        p: Parameters,
        X: Any,
        targets: Targets,
        sample_weight: Any = None,
        places: Places | None = None,
        runs: Sequence[Run] = (),
    ) -> None:
        batch = min(ROWS_AT_A_TIME, len(X))
        source = build_source(backend, X, targets, batch, sample_weight=sample_weight, mean=False)
        if places is None:
            self._parts = [_Part(backend, net, p, source, targets, runs)]
            return
        self._parts = [
            _Part(
                backend,
                net,
                p.of(models, net.sizes),
                of_models(source, models, places, backend),
                targets,
                runs_of(runs, models),
            )
            for models in alike(places, source, backend)
        ]

    def run(self) -> dict[str, Any]:
        """Return {"cost": (n_models,)}, and "accuracy" where the targets name classes."""
        found = [part.run() for part in self._parts]
        return {name: np.concatenate([values[name] for values in found]) for name in found[0]}

    def step(self) -> None:
        """Evaluate the next batch, for what looks at the step alone."""
        for part in self._parts:
            part.step()


class _Part:
    """The evaluation of neighbouring models whose batches are of one size."""

    def __init__(
        self,
        backend: Backend,
        net: Architecture,
        p: Parameters,
        source: BatchSource,
        targets: Targets,
        runs: Sequence[Run],
    ) -> None:
        n_models = p.theta.shape[0]
        n_weights = 1 if source.sample_weight is None else len(source.sample_weight)
        clock = backend.empty((3,), np.int64)
        tally = Tally(backend.empty((4, n_models), np.float64), targets.counts_hits, targets.threshold)
        inputs = (source.batch, source.n_orders, n_weights, source.n_codes)
        ws = Workspace(backend, net, p, *inputs, in_place=True, runs=runs)
        formulas = output_delta(net.cost, net.activations[-1])

        def step() -> None:  # which does not hold on to self: the buffers go when the last one lets go of it
            backend.gather_batch(source, clock, ws.batch, tally, None)
            feedforward_to_output(backend, ws)
            backend.evaluate(formulas, net.activations[-1], ws.z[-1], p.b[-1], ws.a[-1], ws.batch, clock, tally)

        self.backend, self.source, self.clock, self.tally = backend, source, clock, tally
        self.step = backend.capture(step)

    def run(self) -> dict[str, Any]:
        """Return the means of these models."""
        self.backend.fill(self.tally.values, 0)
        self.backend.fill(self.clock, 0)
        with self.backend.session():
            for _ in range(self.source.n_steps):
                self.step()
        return read_tally(self.backend, self.tally)


def alike(places: Places, source: BatchSource, backend: Backend) -> Iterator[slice]:
    """Yield the neighbouring models that are evaluated together.

    On a processor all of them have the batches that each would have alone, since the bits of a sum depend on its
    length; a device, where launches count, takes all that there is room for.
    """
    batches = np.minimum(ROWS_AT_A_TIME, places.counts)
    if backend.device != "cpu":
        batches[:] = batches.max()
    most = max(1, INPUTS_AT_A_TIME // (int(batches.max()) * source.X.shape[1])) if places.are_own else len(batches)
    begin = 0
    for m in range(1, len(batches) + 1):
        if m == len(batches) or batches[m] != batches[begin] or m - begin == most:
            yield slice(begin, m)
            begin = m


def of_models(source: BatchSource, models: slice, places: Places, backend: Backend) -> BatchSource:
    """Return the source of some models, each of which goes through its own rows as they stand."""
    own = places.of(models)
    batch = min(ROWS_AT_A_TIME, own.rows.shape[1])
    codes = source.codes if source.codes is None or source.n_codes == 1 else source.codes[models]
    return replace(source, batch=batch, codes=codes, **own.on(backend))


def read_tally(backend: Backend, tally: Tally) -> dict[str, Any]:
    """Return the means that a tally holds, on the host."""
    values = np.array(backend.to_host(tally.values))
    total = np.where(values[WEIGHT] > 0, values[WEIGHT], np.nan)
    means = {"cost": values[COST] / total}
    if tally.counts_hits:
        means["accuracy"] = values[HITS] / total
    return means
