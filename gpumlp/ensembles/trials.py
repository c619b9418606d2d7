"""Trials: a configuration on every fold as jobs, and what became of them as one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from gpumlp import __version__
from gpumlp.ensembles.configurations import Configuration, dropout_rates, smoothed, update_rule
from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.plan import Plan, plan
from gpumlp.ensembles.training import outcomes_of
from gpumlp.network.architecture import build_architecture
from gpumlp.network.embedding import Embedding
from gpumlp.network.members import Member
from gpumlp.shapes import HostArray
from gpumlp.training.monitors import EarlyStopping, EpochReport, KeepBest, Monitor, RunInfo, mode_of
from gpumlp.training.schedules import ReduceOnPlateau, Schedule, get_schedule

NUMERICS = 1  # counts up whenever the same configuration and data train to other numbers than before

# what is measured of labels and of numbers, and what is watched from epoch to epoch for it
METRICS = {
    "accuracy": "validation_accuracy",
    "cost": "validation_cost",
    "r2": "validation_cost",
    "rmse": "validation_cost",
}
METRICS_OF = {True: ("accuracy", "cost"), False: ("r2", "rmse", "cost")}  # whether Y are labels; the first by default


@dataclass(frozen=True)
class Trial:
    """A configuration that is to be tried.

    number   its place in the sweep
    key      sha256 of all that its result depends on
    """

    number: int
    configuration: Configuration
    key: str


Batch = Sequence[Trial]


@dataclass(frozen=True)
class Fold:
    """Rows to train on and to judge by, and the weights of all rows where there are any: (n_rows,)."""

    rows: HostArray
    validation_rows: HostArray
    sample_weight: HostArray | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """All that every trial has in common; it can be pickled, so that trials may run elsewhere.

    X, Y       the data, on the host
    n_out      outputs of each network
    classifies whether Y are labels
    output     activation of the output; cost likewise
    metric     one of METRICS
    patience   epochs without improvement after which a model stops; None: it never does
    embeddings columns of X that hold codes of categories
    """

    X: HostArray
    Y: HostArray
    n_out: int
    classifies: bool
    output: str
    cost: str
    folds: tuple[Fold, ...]
    metric: str
    patience: int | None
    dtype: str
    backend: str | None
    device: str | None
    memory: int | None
    embeddings: tuple[Embedding, ...]

    def fingerprint(self) -> str:
        """Return a sha256 of all that decides about results: data, folds and how they are used, but not where."""
        digest = hashlib.sha256()
        plain = (NUMERICS, self.n_out, self.output, self.cost, METRICS[self.metric], self.patience, self.dtype)
        embedded = [astuple(each) for each in self.embeddings]
        digest.update(json.dumps((*plain, *([embedded] if embedded else []))).encode())
        of_folds = [part for fold in self.folds for part in (fold.rows, fold.validation_rows, fold.sample_weight)]
        for array in (self.X, self.Y, *of_folds):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def trials(self, configurations: Sequence[Configuration]) -> list[Trial]:
        """Return the configurations with their keys."""
        common = self.fingerprint()
        keys = [hashlib.sha256(json.dumps([common, c]).encode()).hexdigest() for c in configurations]
        return [Trial(i, c, key) for i, (c, key) in enumerate(zip(configurations, keys, strict=True))]

    # ---------------------------------------------------------------- jobs

    def job(self, c: Configuration, fold: int, pulse: Callable[[int], None] | None = None) -> Job:
        """Return the training of a configuration on a fold.

        pulse   pulse(rows) is told after each epoch how many rows were trained on
        """
        part = self.folds[fold]
        watched = METRICS[self.metric]
        keeper = KeepBest(watched) if self.patience is None else EarlyStopping(watched, self.patience)
        return self._job(
            c,
            model_id=fold,
            rows=part.rows,
            validation_rows=part.validation_rows,
            sample_weight=part.sample_weight,
            monitors=[keeper] if pulse is None else [keeper, _Pulse(pulse)],
        )

    def final_job(self, c: Configuration, epochs: int) -> Job:
        """Return the training of a configuration on all rows for a number of epochs, at the rates of its full plan."""
        schedule = get_schedule(c["schedule"])
        if isinstance(schedule, Schedule):
            schedule = replace(schedule, epochs=schedule.epochs or c["epochs"])
        else:  # there are no rows left to validate on
            schedule = ReduceOnPlateau("cost", schedule.factor, schedule.patience, schedule.threshold, schedule.floor)
        return replace(self._job(c, model_id=0), epochs=epochs, schedule=schedule)

    def _job(self, c: Configuration, model_id: int, **others: Any) -> Job:
        sizes = (self.X.shape[1], *c["hidden"], self.n_out)
        cost = smoothed(self.cost, c)
        return Job(
            Member(
                build_architecture(sizes, c["activation"], self.output, cost, c["normalisation"], self.embeddings),
                dropout_rates(c),
                c["seed"],
                model_id,
                c["initialiser"],
            ),
            optimizer=update_rule(c),
            **{
                name: c[name] for name in ("epochs", "learning_rate", "batch_size", "l1", "l2", "clip_norm", "schedule")
            },
            **others,
        )

    def plan(self, jobs: Sequence[Job]) -> Plan:
        """Return how jobs of this task are divided into stacks."""
        return plan(
            jobs, self.X, self.Y, dtype=self.dtype, backend=self.backend, device=self.device, memory=self.memory
        )

    def train(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Train jobs of this task; yield the number of each, and what became of it, once its stack has finished."""
        return outcomes_of(jobs, self.X, self.Y, self.plan(jobs), self.dtype, self.device)


class _Pulse(Monitor):
    """Tells after each epoch how many rows were trained on."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.tell, self.n_rows = tell, 0

    def training_began(self, run: RunInfo) -> None:
        self.n_rows = run.n_rows

    def epoch_ended(self, report: EpochReport) -> None:
        self.tell(self.n_rows)


def run_trials(task: Task, trials: Sequence[Trial], pulse: Callable[[int], None] | None = None) -> Iterator[Row]:
    """Train all folds of the trials at once; yield the row of each as soon as its last fold has finished."""
    n_folds = len(task.folds)
    jobs = [task.job(trial.configuration, fold, pulse) for trial in trials for fold in range(n_folds)]
    found: list[dict[int, Row]] = [{} for _ in trials]
    for i, outcome in task.train(jobs):
        place, fold = divmod(i, n_folds)
        found[place][fold] = fold_row(task, fold, outcome)
        if len(found[place]) == n_folds:
            net = outcome.network
            size, where = net.parameters.layout.n_trainable, f"{net.backend.name} on {net.backend.device}"
            yield row_of(task, trials[place], [found[place][f] for f in range(n_folds)], size, where)


# ---------------------------------------------------------------- rows


def fold_row(task: Task, fold: int, outcome: Outcome) -> Row:
    """Return the numbers of one model's best epoch; null where a number is not finite, as after a divergence."""
    history, watched = outcome.history, METRICS[task.metric]
    row: Row = {"cost": None, "epochs": len(history), "best_epoch": None, "seconds": outcome.seconds}
    if outcome.error is not None:
        return row | {"error": str(outcome.error)}
    values = history[watched][:, 0]
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return row | {"error": f"{watched} is not finite in any epoch"}
    best = finite[(np.argmax if mode_of(watched) == "max" else np.argmin)(values[finite])]
    row |= {"best_epoch": int(history.epochs[best]), "cost": _finite(history["validation_cost"][best, 0])}
    if task.classifies:
        return row | {"accuracy": float(history["validation_accuracy"][best, 0])}
    rows = task.folds[fold].validation_rows
    return row | of_numbers(np.asarray(outcome.network.predict(task.X[rows]))[0], task.Y[rows])


def of_numbers(outputs: HostArray, Y: HostArray) -> Row:
    """Return {"rmse", "r2"}: the root of the mean squared error, and 1 - its share of the variance, averaged."""
    Y = Y.reshape(outputs.shape).astype(np.float64)
    squares, spread = np.mean((outputs - Y) ** 2, axis=0), np.var(Y, axis=0)
    r2 = _finite(np.mean(1 - squares / spread)) if (spread > 0).all() else None
    return {"rmse": _finite(np.sqrt(np.mean(squares))), "r2": r2}


def _finite(value: Any) -> float | None:
    """Return a number as JSON can hold it."""
    return float(value) if np.isfinite(value) else None


def lost_row(task: Task, trial: Trial, error: str, exit_status: int | None = None) -> Row:
    """Return the row of a trial that ended the process that ran it, with how that ended as far as it is known."""
    fold = {"cost": None, "epochs": 0, "best_epoch": None, "seconds": 0.0, "error": error}
    row = row_of(task, trial, [fold] * len(task.folds), None, None)
    return row | {"error": error, "exit_status": exit_status}


def row_of(task: Task, trial: Trial, folds: Sequence[Row], parameters: int | None, device: str | None) -> Row:
    """Return what is kept of a trial: means over its folds, and the folds themselves; no mean where one is missing."""
    means = {name: _mean([fold.get(name) for fold in folds]) for name in (*METRICS_OF[task.classifies], "best_epoch")}
    return {
        "key": trial.key,
        "configuration": trial.configuration,
        **means,
        "deviation": deviation(folds, task.metric),
        "epochs_run": sum(fold["epochs"] for fold in folds),
        "samples": sum(fold["epochs"] * len(part.rows) for fold, part in zip(folds, task.folds, strict=True)),
        "parameters": parameters,
        "seconds": sum(fold["seconds"] for fold in folds),
        "device": device,
        "gpumlp": __version__,
        "folds": list(folds),
    }


def deviation(folds: Sequence[Row], metric: str) -> float | None:
    """Return how far a metric deviates over the folds; None where one of them does not have it."""
    values = [fold.get(metric) for fold in folds]
    return None if None in values else float(np.std(np.array(values, np.float64)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
