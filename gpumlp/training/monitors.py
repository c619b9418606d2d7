"""Monitors: what watches a training and may stop it. They see numbers on the host, never buffers.

The moments are those of a run: training_began, epoch_began, step_ended, epoch_ended, training_ended. At each of them
the monitors are told in the order given, at the end in the opposite one: what began last ends first.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpumlp.atomic import replacing
from gpumlp.errors import ConfigurationError, unknown_name
from gpumlp.network.network import Network
from gpumlp.training.differences import expect_same

PerModel = NDArray[Any]


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step of a `fit`.

    first_epoch   epochs done before, since the last reset
    epochs_done   epochs of this `fit` that are done already, where it goes on from a checkpoint
    keeper        keeper() -> WeightKeeper: a place for one copy of all weights
    network       network() -> Network: the models with their present weights, to look at
    """

    n_models: int
    model_ids: tuple[int, ...]
    first_epoch: int
    epochs: int
    n_rows: int
    n_steps: int
    batch: int
    device: str
    keeper: Callable[[], WeightKeeper]
    network: Callable[[], Network]
    epochs_done: int = 0


class WeightKeeper(Protocol):
    """Keeps a copy of weights and gives it back, model by model; the copy stays on the device."""

    def save(self, models: PerModel) -> None:
        """Keep the present weights of the models for which `models` (n_models,) is true."""
        ...

    def restore(self, models: PerModel) -> None:
        """Give the kept weights back to these models."""
        ...

    def kept(self) -> PerModel:
        """Return what is kept, (n_models, n) on the host, laid out as on any backend; it may be the same memory."""
        ...

    def keep(self, weights: PerModel) -> None:
        """Keep what `kept` has returned of another keeper of this network."""
        ...


class OfEachModel(list[Any]):
    """What each model of a stack has of its own."""


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    epoch        number of the epoch since the last reset, from 1
    step         steps done since then
    values       name -> (n_models,): cost, accuracy, validation_cost, validation_accuracy, learning_rate and what
                 monitors add; NaN for models that are stopped
    active       (n_models,) bool: the models that were trained in this epoch
    seconds      time of the epoch without evaluation and monitors
    predictions  predictions() -> (Y, outputs (n_models, n_samples, out)) of the validation set; where each model has
                 rows of its own, both OfEachModel: with (n_samples, ...) of them for each model
    """

    epoch: int
    step: int
    values: dict[str, PerModel]
    active: PerModel
    seconds: float
    samples_per_second: float
    predictions: Callable[[], tuple[Any, Any]]

    def metric(self, name: str) -> PerModel:
        """Return a value by name; raise UnknownName, naming what there is."""
        if name not in self.values:
            raise unknown_name("metric", name, self.values)
        return self.values[name]


@dataclass(frozen=True)
class Stop:
    """A monitor's wish to stop models: those for which `models` is true, or all."""

    reason: str
    models: PerModel | None = None


class Monitor:
    """Does nothing at any moment; derive from it and override what you need."""

    def training_began(self, run: RunInfo) -> None:
        """Before the first step of a `fit`."""

    def epoch_began(self, epoch: int) -> None:
        """Before the first step of an epoch, numbered from 1."""

    def step_ended(self, step: int) -> None:
        """After each step, numbered from 1 within its epoch; on a GPU the step may still be running."""

    def epoch_ended(self, report: EpochReport) -> Stop | None:
        """After the last step of an epoch and its evaluation; return a Stop to end it for some models or all."""
        return None

    def training_ended(self) -> None:
        """After the last epoch, also after an error or Ctrl-C."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint is to hold of this monitor: plain values and arrays, {} if it remembers nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, after `training_began`; moments before the checkpoint are not told again.

        Raises   CheckpointError if it comes from a monitor with other options
        """


def check_monitors(given: Any) -> list[Monitor]:
    """Return what is to watch a training as a list; raise ConfigurationError unless all of it are monitors."""
    monitors: list[Any] = list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(monitor, Monitor) for monitor in monitors):
        raise ConfigurationError(f"monitors={given!r}: expected a list of monitors, such as [gpumlp.EarlyStopping()]")
    return monitors


def is_better(value: PerModel, best: PerModel, name: str, mode: str | None, margin: float = 0.0) -> PerModel:
    """Tell for each model whether `value` improves on `best` by more than `margin`; NaN never does."""
    return value < best - margin if mode_of(name, mode) == "min" else value > best + margin


def mode_of(name: str, mode: str | None = None) -> str:
    """Return the mode that is given, else "min" or "max" by a metric's name.

    Raises   ConfigurationError for another mode, and if the name does not tell
    """
    if mode not in (None, "min", "max"):
        raise ConfigurationError(f'mode={mode!r}: expected "min", "max" or None')
    if mode is not None:
        return mode
    if any(part in name for part in ("cost", "loss", "error", "rmse", "mse", "mae")):
        return "min"
    if any(part in name for part in ("accuracy", "score", "auc", "r2")):
        return "max"
    raise ConfigurationError(f'is more of metric {name!r} better, or less? say mode="max" or mode="min"')


class Metric(Monitor):
    """Adds a metric of the validation set to the reports and so to the history.

    function   function(Y, outputs) -> float, Y as given to `fit` and outputs (n_samples, out) of one model
    """

    def __init__(self, name: str, function: Callable[[Any, Any], float]) -> None:
        self.name, self.function = name, function

    def epoch_ended(self, report: EpochReport) -> None:
        report.values[self.name] = self.compute(report)

    def compute(self, report: EpochReport) -> PerModel:
        """Return the metric of each model that was trained, NaN for the others."""
        Y, outputs = report.predictions()
        targets = Y if isinstance(Y, OfEachModel) else [Y] * len(outputs)
        each = zip(targets, outputs, report.active, strict=True)
        return np.array([float(self.function(y, out)) if on else np.nan for y, out, on in each])


class _Watcher(Monitor):
    """Follows one metric and keeps the weights of each model's best epoch."""

    def __init__(self, metric: str | Callable[[Any, Any], float], mode: str | None, min_delta: float) -> None:
        self.computes = None if isinstance(metric, str) else Metric(getattr(metric, "__name__", "metric"), metric)
        self.metric = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
        mode_of(self.metric, mode)  # raises before anything is trained
        self.mode, self.min_delta = mode, min_delta
        self.best: PerModel | None = None
        self.best_epoch: PerModel | None = None
        self._keeper: WeightKeeper | None = None

    def training_began(self, run: RunInfo) -> None:
        self._keeper = run.keeper()
        self.best = self.best_epoch = None

    def state(self) -> dict[str, Any]:
        assert self._keeper is not None
        kept = None if self.best is None else self._keeper.kept()
        return {"options": self.options(), "best": self.best, "best_epoch": self.best_epoch, "weights": kept}

    def options(self) -> dict[str, Any]:
        """Return what must not change between a checkpoint and the training that goes on from it."""
        return {"metric": self.metric, "mode": self.mode, "min_delta": self.min_delta}

    def restore(self, state: dict[str, Any]) -> None:
        assert self._keeper is not None
        expect_same(type(self).__name__, state["options"], self.options())
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        if self.best is not None:
            self._keeper.keep(state["weights"])

    def watch(self, report: EpochReport) -> PerModel:
        """Note the models that are better than ever, keep their weights, and return which they are."""
        if self.computes is None:
            value = report.metric(self.metric)
        else:
            value = self.computes.compute(report)
            report.values.setdefault(self.metric, value)
        if self.best is None or self.best_epoch is None:
            better = np.isfinite(value)
            self.best, self.best_epoch = value.copy(), np.full(len(value), report.epoch)
        else:
            better = is_better(value, self.best, self.metric, self.mode, self.min_delta)
            better |= np.isfinite(value) & ~np.isfinite(self.best)
            self.best = np.where(better, value, self.best)
            self.best_epoch = np.where(better, report.epoch, self.best_epoch)
        assert self._keeper is not None
        if better.any():
            self._keeper.save(better)
        return better

    def give_back(self) -> None:
        """Restore each model's best weights, if there are any."""
        if self.best is not None and self._keeper is not None:
            self._keeper.restore(np.isfinite(self.best))


class KeepBest(_Watcher):
    """Leaves each model with the weights of its best epoch, also after Ctrl-C.

    metric   a name in the reports, or a function (Y, outputs) -> float on the validation set
    mode     "min" or "max"; None: by the name, "min" for cost, loss and error, "max" for accuracy and score
    """

    def __init__(self, metric: str | Callable[[Any, Any], float] = "validation_cost", mode: str | None = None) -> None:
        super().__init__(metric, mode, 0.0)

    def epoch_ended(self, report: EpochReport) -> None:
        self.watch(report)

    def training_ended(self) -> None:
        self.give_back()


class EarlyStopping(_Watcher):
    """Stops each model when a metric has not improved for `patience` epochs.

    metric, mode   as of KeepBest
    min_delta      by how much it must improve
    restore_best   whether the weights of the best epoch come back in the end
    """

    def __init__(
        self,
        metric: str | Callable[[Any, Any], float] = "validation_cost",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        super().__init__(metric, mode, min_delta)
        if not (isinstance(patience, int | float | np.number) and patience >= 1):
            raise ConfigurationError(f"patience={patience!r}: expected a number of epochs of at least 1")
        self.patience, self.restore_best = patience, restore_best
        self._waited: PerModel | None = None

    def training_began(self, run: RunInfo) -> None:
        super().training_began(run)
        self._waited = np.zeros(run.n_models, int)

    def state(self) -> dict[str, Any]:
        return super().state() | {"waited": self._waited}

    def options(self) -> dict[str, Any]:
        return super().options() | {"patience": self.patience, "restore_best": self.restore_best}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._waited = state["waited"]

    def epoch_ended(self, report: EpochReport) -> Stop | None:
        assert self._waited is not None
        better = self.watch(report)
        self._waited = np.where(better, 0, self._waited + report.active)
        done = (self._waited >= self.patience) & report.active
        if not done.any():
            return None
        return Stop(f"{self.metric} has not improved for {self.patience} epochs", done)

    def training_ended(self) -> None:
        if self.restore_best:
            self.give_back()


class _Log(Monitor, ABC):
    """Writes a line for each epoch and model that was trained, at once, so that a run that dies leaves its lines.

    One that goes on from a checkpoint takes away the lines of epochs that are trained again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None
        self._model_ids: tuple[int, ...] = ()

    def training_began(self, run: RunInfo) -> None:
        done = run.first_epoch + run.epochs_done
        if run.epochs_done and self.path.exists():
            self._cut(done)
        self._file = self.path.open("a" if done else "w", encoding="utf-8", newline="")
        self._model_ids = run.model_ids

    def epoch_ended(self, report: EpochReport) -> None:
        assert self._file is not None
        for m, model_id in enumerate(self._model_ids):
            if report.active[m]:
                self.write(
                    {
                        "epoch": report.epoch,
                        "step": report.step,
                        "model": model_id,
                        **{name: float(value[m]) for name, value in report.values.items()},
                        "seconds": report.seconds,
                        "samples_per_second": report.samples_per_second,
                    }
                )
        self._file.flush()

    def _cut(self, last_epoch: int) -> None:
        """Take away what was written after an epoch, and a last line that is not whole."""
        whole = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        with replacing(self.path) as file:
            file.writelines(line for line in whole if self.epoch_of(line.decode()) <= last_epoch)

    @abstractmethod
    def epoch_of(self, line: str) -> int:
        """Return the number of the epoch that a line is about, 0 for a header."""

    @abstractmethod
    def write(self, line: dict[str, float]) -> None:
        """Write one line."""

    def training_ended(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class CsvLog(_Log):
    """Writes a CSV file with a header line; a `fit` that goes on appends to it, and adds columns if it has more."""

    def training_began(self, run: RunInfo) -> None:
        super().training_began(run)
        self._columns: list[str] = []
        if self.path.stat().st_size:
            with self.path.open(encoding="utf-8", newline="") as file:
                self._columns = next(csv.reader(file))

    def epoch_of(self, line: str) -> int:
        number = line.partition(",")[0]  # the first column
        return 0 if number == "epoch" else int(number)

    def write(self, line: dict[str, float]) -> None:
        """Write one line, the header before the first."""
        if not set(line) <= set(self._columns):
            self._widen([*self._columns, *(name for name in line if name not in self._columns)])
        assert self._file is not None
        csv.DictWriter(self._file, self._columns).writerow(line)

    def _widen(self, columns: list[str]) -> None:
        """Write the file again with these columns; what earlier lines do not have stays empty."""
        assert self._file is not None
        self._file.close()
        with self.path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(lines)
        with replacing(self.path) as whole:
            whole.write(text.getvalue().encode())
        self._file, self._columns = self.path.open("a", encoding="utf-8", newline=""), columns


class JsonLinesLog(_Log):
    """Writes a JSON object a line; NaN becomes null. A `fit` that goes on appends to it."""

    def epoch_of(self, line: str) -> int:
        return int(json.loads(line)["epoch"])

    def write(self, line: dict[str, float]) -> None:
        """Write one line."""
        assert self._file is not None
        clean = {name: (value if np.isfinite(value) else None) for name, value in line.items()}
        self._file.write(json.dumps(clean) + "\n")
