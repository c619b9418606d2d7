"""What watches a training from the command line, and the page that is written of it in the end."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp.bench.environment import describe
from gpumlp.bench.tables import count_text, time_text
from gpumlp.cli.embedding import embedded_in_words
from gpumlp.cli.places import writing
from gpumlp.cli.problem import Array, Parts, Problem
from gpumlp.cli.streaming import predicted_for
from gpumlp.report.content import Outcome, Training
from gpumlp.report.page import as_html
from gpumlp.saved_model import SavedModel
from gpumlp.training.history import History
from gpumlp.training.mlflow_log import MlflowLog
from gpumlp.training.monitors import CsvLog, EarlyStopping, JsonLinesLog, Monitor
from gpumlp.training.progress import ProgressBar
from gpumlp.training.tensorboard_log import TensorBoardLog


@dataclass(frozen=True)
class Watchers:
    """The options that ask for something that watches.

    options                    all of the command, name -> value
    command                    as it was given
    log, tensorboard, report   where it writes
    mlflow                     address of the store, and name of the experiment
    """

    options: dict[str, Any]
    command: str
    patience: int | None = None
    log: Path | None = None
    tensorboard: Path | None = None
    mlflow: tuple[str, str] | None = None
    report: Path | None = None
    quiet: bool = False

    @classmethod
    def of(cls, ctx: typer.Context, mlflow: str | None, experiment: str, **given: Any) -> Watchers:
        """Return those of the command under way."""
        options = {name: value for name, value in ctx.params.items() if value is not None}
        store = None if mlflow is None else (mlflow, experiment)
        return cls(options, shlex.join(["gpumlp", *ctx.find_root().obj]), mlflow=store, **given)

    @property
    def compare(self) -> bool:
        """Whether curves of rows held out are wanted beside those of the training."""
        return any(place is not None for place in (self.tensorboard, self.mlflow, self.report))

    def monitors(self) -> list[Monitor]:
        """Return the monitors, but for what needs data; raise BackendUnavailable where a package is missing."""
        found: list[Monitor] = [] if self.quiet else [ProgressBar()]
        if self.patience is not None:
            found.append(EarlyStopping(patience=self.patience, restore_best=False))
        if self.log is not None:
            found.append(CsvLog(self.log) if self.log.suffix.lower() == ".csv" else JsonLinesLog(self.log))
        if self.tensorboard is not None:
            found.append(TensorBoardLog(self.tensorboard))
        if self.mlflow is not None:
            found.append(MlflowLog(*self.mlflow, params=self.options))
        return found


def add_model(monitors: list[Monitor], model: SavedModel, saved: Path | None) -> None:
    """Store the model where a monitor keeps files."""
    for monitor in monitors:
        if isinstance(monitor, MlflowLog):
            if saved is not None:
                monitor.add_file(saved)
                continue
            with tempfile.TemporaryDirectory() as folder:
                monitor.add_file(model.save(Path(folder) / "model.npz"))


def write_report(
    watchers: Watchers, problem: Problem, parts: Parts, model: SavedModel, history: History, result: dict[str, Any]
) -> None:
    """Write the page of a training that has ended."""
    assert watchers.report is not None
    rows = {"test": parts.test, "validation": parts.choice, "training": parts.train}[result["part"]]
    training = Training(
        f"{watchers.options['data']}: {problem.task}",
        watchers.command,
        tiles(result),
        summary(watchers, problem, parts, model, result),
        model.network,
        history,
        "validation rows" if len(parts.choice) else "test rows",
        result["best_epoch"],
        outcome(problem, model, rows, f"{len(rows):,} {result['part']} rows"),
        {"device": result["device"], **describe()},
    )
    with writing(watchers.report) as file:
        file.write(as_html(training).encode())


def outcome(problem: Problem, model: SavedModel, rows: Array, what: str) -> Outcome:
    """Return what the model says of rows beside what is true."""
    predicted, name = predicted_for(model, problem, rows), problem.table.target_name or "target"
    if problem.classes is None:
        y = problem.targets[rows]
        several = tuple(f"{name} {k}" for k in range(y.shape[1])) if y.shape[1] > 1 else (name,)
        return Outcome(what, y, predicted.reshape(y.shape), None, several)
    places = {label: k for k, label in enumerate(problem.classes.tolist())}
    found = np.array([places[label] for label in predicted.tolist()], np.int64)
    return Outcome(what, problem.targets[rows], found, tuple(str(label) for label in problem.classes))


def summary(
    watchers: Watchers, problem: Problem, parts: Parts, model: SavedModel, result: dict[str, Any]
) -> dict[str, Any]:
    """Return the facts of a training by name."""
    options, uses = watchers.options, {"train": parts.train, "choose the epoch": parts.choice, "test": parts.test}
    names = (
        "optimizer",
        "lr",
        "l2",
        "clip_norm",
        "schedule",
        "dropout",
        "early_stopping",
        "seed",
    )
    scored = [name for name in ("accuracy", "r2", "rmse") if name in result]
    return {
        "task": problem.reason,
        "data": f"{len(problem.y):,} rows, {problem.n_features:,} features",
        "rows to": {use: f"{len(rows):,}" for use, rows in uses.items() if len(rows)},
        "features": "as they are" if model.scaler is None else model.scaler.name,
        **({"embedded": told} if (told := embedded_in_words(model)) else {}),
        "batch size": result["batch_size"],
        **{name: options[name] for name in names if name in options},
        **{f"{result['part']} {name}": f"{result[name]:.5g}" for name in scored},
        "epochs": f"{result['epochs']}, the best of them {result['best_epoch']}",
        "seconds": f"{result['seconds']:.3g}",
    }


def tiles(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the closing result as some large figures."""
    scores = {
        "accuracy": ("{:.1%}".format, f"{result['part']} accuracy"),
        "r2": ("{:.3f}".format, f"{result['part']} R2"),
        "rmse": ("{:.4g}".format, f"{result['part']} RMSE"),
    }
    found = [(text(result[name]), what) for name, (text, what) in scores.items() if name in result]
    found.append((f"{result['epochs']}", f"epochs, the best {result['best_epoch']}"))
    found.append((time_text(result["seconds"]), "training"))
    found.append((count_text(result["samples_per_second"]), "samples/s"))
    found.append((f"{result['parameters']:,}", "parameters"))
    return tuple(found)
