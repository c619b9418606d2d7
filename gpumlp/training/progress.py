"""A progress bar in the terminal."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from gpumlp.training.monitors import EpochReport, Monitor, RunInfo

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REDRAW = 0.1  # seconds between two drawings within an epoch
OTHER_COLUMNS = 72  # characters that all but the bar take


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
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = self._console or Console(stderr=True)

        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[last]}"),
            BarColumn(bar_width=max(6, min(40, console.width - OTHER_COLUMNS))),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            auto_refresh=False,
        )
        self._steps, self._epochs_done = run.n_steps, run.epochs_done
        self._task = self._progress.add_task(
            "training",
            total=run.epochs * run.n_steps,
            completed=run.epochs_done * run.n_steps,
            epoch=run.first_epoch + run.epochs_done,
            last=run.first_epoch + run.epochs,
            numbers="",
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
        parts = [self._score(report, "", "cost"), self._score(report, "validation_", "val")]
        parts.append(f"{report.samples_per_second / 1000:,.0f}k/s")
        self._update(completed=self._epochs_done * self._steps, numbers="  ".join(part for part in parts if part))

    def _score(self, report: EpochReport, prefix: str, label: str) -> str:
        """Return cost and accuracy, the mean over the models that were trained, in few characters."""
        names = [prefix + name for name in ("cost", "accuracy") if prefix + name in report.values]
        means = [float(report.values[name][report.active].mean()) for name in names]
        numbers = [f"{m:.1%}" if "accuracy" in n else f"{m:.4f}" for n, m in zip(names, means, strict=True)]
        return " ".join([label or "cost", *numbers]) if names else ""

    def _update(self, **fields: Any) -> None:
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, refresh=True, **fields)

    def training_ended(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
