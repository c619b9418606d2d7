"""A progress bar in the terminal."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.training.monitors import EpochReport, Monitor, RunInfo

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REDRAW = 0.1  # seconds between two drawings within an epoch


class ProgressBar(Monitor):
    """Shows the epoch under way, the cost, and the samples per second, on stderr.

    console   a rich Console; None: one on stderr
    """

    def __init__(self, console: Any = None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._steps = self._epochs_done = 0
        self._drawn = 0.0

    def training_began(self, run: RunInfo) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[last]}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console or Console(stderr=True),
            auto_refresh=False,
        )
        self._steps, self._epochs_done = run.n_steps, 0
        last = run.first_epoch + run.epochs
        self._task = self._progress.add_task(
            "training", total=run.epochs * run.n_steps, epoch=run.first_epoch, last=last, numbers=""
        )
        self._progress.start()

    def epoch_began(self, epoch: int) -> None:
        self._update(epoch=epoch)

    def step_ended(self, step: int) -> None:
        now = perf_counter()
        if now - self._drawn >= REDRAW:
            self._drawn = now
            self._update(completed=self._epochs_done * self._steps + step)

    def epoch_ended(self, report: EpochReport) -> None:
        self._epochs_done += 1
        parts = []
        for name in ("cost", "accuracy", "validation_cost", "validation_accuracy"):
            if name in report.values and report.active.any():
                value = float(np.nanmean(report.values[name][report.active]))
                short = name.replace("validation_", "val. ")
                parts.append(f"{short} {value:.1%}" if "accuracy" in name else f"{short} {value:.4f}")
        parts.append(f"{report.samples_per_second:,.0f} samples/s")
        self._update(completed=self._epochs_done * self._steps, numbers="  ".join(parts))

    def _update(self, **fields: Any) -> None:
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, refresh=True, **fields)

    def training_ended(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
