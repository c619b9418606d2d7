"""Sweep: hundreds of different configurations, each on every fold, trained as few stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.ensembles.configurations import Configuration, smoothed
from gpumlp.ensembles.executors import Executor, batches_of, get_executor
from gpumlp.ensembles.ledger import Ledger, Row
from gpumlp.ensembles.plan import Plan
from gpumlp.ensembles.resampling import build_folds
from gpumlp.ensembles.result import SweepResult
from gpumlp.ensembles.space import Space
from gpumlp.ensembles.trials import METRICS_OF, Task, Trial, deviation
from gpumlp.ensembles.watcher import Watcher
from gpumlp.errors import ConfigurationError, DataError, ShapeError, unknown_name
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.network.embedding import Embedding
from gpumlp.shapes import HostArray, is_on_device

DEFAULTS = {True: ("softmax", "categorical_cross_entropy"), False: ("identity", "quadratic")}  # whether Y are labels


class Sweep:
    """Configurations to try, and how they are judged.

    space       name -> a value, a list of values, or a distribution such as gpumlp.distributions.uniform(0, 0.5). Names
                are hidden (widths of the hidden layers), activation, dropout, normalisation, initialiser, optimizer and
                its numbers (momentum, beta1, ...), learning_rate, batch_size, l1, l2, clip_norm, schedule,
                label_smoothing, epochs and seed; what is not named has its default
    n           so many different random draws; None: the whole grid
    seed        of the draws, the folds and the bootstrap
    folds       k for k folds, a share such as 0.2 for one part that judges, or pairs of row numbers
    metric      "accuracy" or "cost" for labels, "r2", "rmse" or "cost" for numbers; None: the first of them
    patience    epochs after which a model stops that has not improved on the rows that judge it; None: none stops.
                A model is judged by its best epoch in both cases: by accuracy where that is the metric, else by cost
    bootstrap   whether each fold's training rows are drawn anew with replacement
    output, cost   of all networks; None: softmax and categorical_cross_entropy for labels, identity and quadratic else
    memory      bytes that a stack may take; None: what is free
    embeddings  columns of X that hold codes of categories, of all networks

    configurations   all parameters of each, as plain values
    Raises           UnknownName, ConfigurationError
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        n: int | None = None,
        seed: int = 0,
        folds: Any = 0.2,
        metric: str | None = None,
        patience: int | None = None,
        bootstrap: bool = False,
        output: str | None = None,
        cost: str | None = None,
        dtype: str = "float32",
        backend: str | None = "auto",
        device: str | None = None,
        memory: int | None = None,
        embeddings: Sequence[Embedding] = (),
    ) -> None:
        self.space = Space(space)
        self.configurations: list[Configuration] = self.space.configurations(n, seed)
        if patience is not None and not (isinstance(patience, int | np.integer) and patience >= 1):
            raise ConfigurationError(f"patience={patience!r}: expected a whole number of epochs of at least 1, or None")
        self.seed, self.folds, self.metric = seed, folds, metric
        self.patience, self.bootstrap = None if patience is None else int(patience), bootstrap
        self.output, self.cost = output, cost
        self.dtype, self.backend, self.device, self.memory = np.dtype(dtype).name, backend, device, memory
        self.embeddings = tuple(embeddings)

    @property
    def varied(self) -> list[str]:
        """The parameters that are not the same in all configurations."""
        first = self.configurations[0]
        return [name for name in first if any(c[name] != first[name] for c in self.configurations)]

    def task(self, X: Any, Y: Any) -> Task:
        """Return what all configurations have in common on some data; raise if the data do not fit."""
        X, Y, classifies = _host(X, "X"), _host(Y, "Y"), False
        if X.ndim != 2 or not len(X) or len(X) != len(Y):
            raise ShapeError(f"X has shape {X.shape}, Y {Y.shape}; expected (n_samples, n_features), and a target each")
        if Y.dtype.kind not in "biuf":
            raise DataError(f"Y has dtype {Y.dtype}; gpumlp.data.encode_labels turns labels into whole numbers")
        classifies = Y.ndim == 1 and Y.dtype.kind in "biu"
        Y = Y.astype(np.int64) if classifies else Y
        metrics, (output, cost) = METRICS_OF[classifies], DEFAULTS[classifies]
        metric = self.metric or metrics[0]
        if metric not in metrics:
            raise unknown_name(f"metric of {'labels' if classifies else 'numbers'}", metric, metrics)
        output, cost = ACTIVATIONS.get(self.output or output).name, COSTS.get(self.cost or cost).name
        for c in self.configurations:
            smoothed(cost, c)
        return Task(
            X,
            Y,
            int(Y.max()) + 1 if classifies else Y.reshape(len(Y), -1).shape[1],
            classifies,
            output,
            cost,
            build_folds(self.folds, len(X), Y if classifies else None, self.seed, self.bootstrap),
            metric,
            self.patience,
            self.dtype,
            self.backend,
            self.device,
            self.memory,
            self.embeddings,
        )

    def plan(self, X: Any, Y: Any) -> Plan:
        """Return how all models would be divided into stacks if they were trained in one go; str() of it is a table."""
        task = self.task(X, Y)
        jobs = [task.job(c, fold) for c in self.configurations for fold in range(len(task.folds))]
        return task.plan(jobs)

    def run(
        self,
        X: Any,
        Y: Any,
        folder: str | Path | None = None,
        shard: tuple[int, int] = (1, 1),
        executor: str | Executor = "local",
        watcher: Watcher | None = None,
    ) -> SweepResult:
        """Try every configuration that the folder does not hold yet, and return all that are there.

        X         (n_samples, n_features); kept once for all models
        Y         (n_samples,) labels 0 to n_classes - 1 as whole numbers; else (n_samples,) or (n_samples, n_out)
                  numbers of a regression, best standardised
        folder    where the rows go, one as soon as a configuration is done, so that a sweep that dies goes on where it
                  was, with the same result; None: nowhere
        shard     (i, n): only part i of n, from 1, for processes that run side by side on one folder
        executor  "local" for this process, "ray" for all processors or GPUs of this machine, each with a process of its
                  own; gpumlp.ensembles.OnRay(address) for a cluster
        Raises    ShapeError, DataError, ConfigurationError, UnknownName, OutOfMemory; BackendUnavailable where the
                  executor cannot work
        """
        part, parts = _check_shard(shard)
        task = self.task(X, Y)
        trials = task.trials(self.configurations)
        wanted = trials[part - 1 :: parts]
        runner, watcher = get_executor(executor), watcher or Watcher()
        with Ledger(folder, (part, parts)) as ledger:
            lacking = [trial for trial in wanted if trial.key not in ledger.rows]
            watcher.sweep_began(len(wanted), _rows(ledger, wanted, task.metric))

            def done(row: Row) -> None:
                ledger.add(row)
                watcher.row_added(row)

            try:
                if lacking:
                    runner.run(task, batches_of(lacking, len(task.folds)), done, watcher.epoch_ended)
            finally:
                watcher.sweep_ended()
            ledger.refresh()
            return SweepResult(task, trials, _rows(ledger, trials, task.metric))


def _rows(ledger: Ledger, trials: list[Trial], metric: str) -> list[Row]:
    """Return the rows that there are; the sweep that wrote one may have had another metric."""
    found = [ledger.rows[trial.key] for trial in trials if trial.key in ledger.rows]
    return [row | {"deviation": deviation(row["folds"], metric)} for row in found]


def _host(values: Any, name: str) -> HostArray:
    if is_on_device(values):
        raise DataError(f"{name} lies on a CUDA device, but a sweep reads it on the host; pass {name}.get()")
    return np.asarray(values)


def _check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    numbers = isinstance(shard, tuple | list) and len(shard) == 2 and all(isinstance(x, int) for x in shard)
    if not numbers or not 1 <= shard[0] <= shard[1]:
        raise ConfigurationError(f"shard={shard!r}: expected (i, n), part i of n, from 1 to n")
    return shard[0], shard[1]
