"""SweepResult: the rows of a sweep, the best of them, and its network."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from gpumlp.atomic import replacing
from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.trials import METRICS, Task, Trial
from gpumlp.errors import ConfigurationError
from gpumlp.network.network import Network
from gpumlp.training.monitors import mode_of


def best_first(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the rows that have the metric; of equals the one with the lower cost is first, then the earlier."""
    sign = -1 if mode_of(metric) == "max" else 1
    finished = [row for row in rows if row[metric] is not None]
    return sorted(finished, key=lambda row: (sign * row[metric], inf if row["cost"] is None else row["cost"]))


class SweepResult:
    """What was found.

    rows      a dict for each configuration that is done, in the order of the sweep: "configuration", the means over the
              folds of "accuracy" and "cost", or "r2", "rmse" and "cost", at each model's best epoch, the metric's
              "deviation" over the folds, "best_epoch", "epochs_run" and "seconds"; in "folds" the same for each. A
              configuration of which a model diverged, or is judged by no finite number, has None for what is not known;
              a row with "error" is of a configuration that ended the process that ran it (see `lost`)
    wanted    how many configurations the sweep has in all
    metric    what decides
    """

    def __init__(self, task: Task, trials: Sequence[Trial], rows: Sequence[Row]) -> None:
        self.task, self.rows, self.metric, self.wanted = task, list(rows), task.metric, len(trials)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def missing(self) -> int:
        """How many configurations are not done yet, such as those of other shards."""
        return self.wanted - len(self.rows)

    @property
    def lost(self) -> list[Row]:
        """The rows of configurations that ended the process that ran them; "error" says how it ended."""
        return [row for row in self.rows if "error" in row]

    @property
    def ranked(self) -> list[Row]:
        """The rows from the best on; those that are lost or of which a model diverged are left out."""
        return best_first(self.rows, self.metric)

    @property
    def best(self) -> Row:
        """The best row; raise ConfigurationError where there is none."""
        ranked = self.ranked
        if not ranked:
            raise ConfigurationError(f"the sweep has no best configuration: {self._why_none()}")
        return ranked[0]

    def _why_none(self) -> str:
        if not self.rows:
            return "none is done yet"
        if self.lost:
            return f"{len(self.lost)} of {len(self)} ended the process that ran them, and the others have no score"
        if any("error" in fold for row in self.rows for fold in row["folds"]):
            return "every configuration diverged; lower learning_rate, or set clip_norm"
        return f"{self.metric} is not defined, since the target is constant on a fold's rows; take another metric"

    @property
    def varied(self) -> list[str]:
        """The parameters that are not the same in all rows."""
        several = [row["configuration"] for row in self.rows]
        return [name for name in (several[0] if several else ()) if any(c[name] != several[0][name] for c in several)]

    # ---------------------------------------------------------------- networks

    def best_network(self, fold: int = 0) -> Network:
        """Return the best configuration's network of a fold, with the weights of its best epoch.

        It is trained again, as it was in the sweep.
        """
        if not 0 <= fold < len(self.task.folds):
            raise ConfigurationError(f"fold={fold}: the sweep has folds 0 to {len(self.task.folds) - 1}")
        return self._train(self.task.job(self.best["configuration"], fold))

    def refit(self) -> Network:
        """Return a network of the best configuration, trained on all rows for the number of epochs best on average."""
        best = self.best
        return self._train(self.task.final_job(best["configuration"], max(1, round(best["best_epoch"]))))

    def _train(self, job: Any) -> Network:
        ((_, outcome),) = self.task.train([job])
        if outcome.error is not None:
            raise outcome.error
        return outcome.network

    # ---------------------------------------------------------------- files

    def to_json_lines(self, path: str | Path) -> Path:
        """Write a JSON object for each row, and return the file."""
        return _write(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def to_csv(self, path: str | Path) -> Path:
        """Write a line for each row, best first: what was measured, then all parameters; and return the file."""
        columns = (*METRICS, "deviation", "best_epoch", "epochs_run", "samples", "parameters", "seconds")
        known = [name for name in columns if any(name in row for row in self.rows)]
        parameters = list(self.rows[0]["configuration"]) if self.rows else []
        failed = [row for row in self.rows if row[self.metric] is None]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([*known, *parameters])
        for row in (*self.ranked, *failed):
            cells = [row.get(name) for name in known] + [row["configuration"][name] for name in parameters]
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
        return _write(path, text.getvalue())

    def plot(self, path: str | Path | None = None) -> Any:
        """Return a matplotlib figure: all configurations by rank, and the metric by each parameter that was varied.

        Saved if a path is given. Raises BackendUnavailable without matplotlib (extra "plot")
        """
        from gpumlp.ensembles.plot import draw

        return draw(self, path)


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path} ({error.strerror}); choose another place") from error
    return path
