"""What is shown of a sweep: live in a terminal, a line now and then elsewhere, and the table of the best in the end."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gpumlp.cli.errors import tell
from gpumlp.ensembles import Watcher
from gpumlp.ensembles.configurations import told
from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.result import best_first

EVERY = 10.0  # seconds between two lines where there is no terminal
SHOWN = 5  # of the best while it runs


class SweepView(Watcher):
    """Shows how many configurations are done, the best so far, and models x samples per second, on stderr.

    metric, varied   as of SweepResult and Sweep
    """

    def __init__(self, metric: str, varied: Sequence[str], console: Console | None = None) -> None:
        self.metric, self.varied = metric, varied
        self.console = console or Console(stderr=True)
        self.rows: list[Row] = []
        self.wanted = self.samples = 0
        self._live: Live | None = None

    def sweep_began(self, wanted: int, rows: Sequence[Row]) -> None:
        self.wanted, self.rows = wanted, list(rows)
        self._began = self._told = monotonic()
        if not self.console.is_terminal:
            return
        columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("configurations"), TimeElapsedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.description}"), console=self.console)
        self._task = self._bar.add_task("", total=wanted, completed=len(rows))
        self._live = Live(get_renderable=self._shown, console=self.console, refresh_per_second=4, transient=True)
        self._live.start()

    def epoch_ended(self, samples: int) -> None:
        self.samples += samples

    def row_added(self, row: Row) -> None:
        self.rows.append(row)
        if self._live is None and monotonic() - self._told >= EVERY:
            self._told = monotonic()
            tell(f"sweep     {self.line()}")

    def sweep_ended(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def rate(self) -> float:
        """Return how many samples all models together were trained on in a second."""
        return self.samples / max(monotonic() - self._began, 1e-9)

    def line(self) -> str:
        """Return what is known in one line."""
        ranked = best_first(self.rows, self.metric)
        best = f"best {self.metric} {ranked[0][self.metric]:.4g}, " if ranked else ""
        return f"{len(self.rows)} of {self.wanted} configurations, {best}{self.rate():,.0f} models x samples/s"

    def _shown(self) -> Group:
        speed = f"{self.rate():,.0f} models x samples/s"
        self._bar.update(self._task, completed=len(self.rows), description=speed)
        return Group(self._bar, as_table(best_first(self.rows, self.metric)[:SHOWN], self.metric, self.varied))


def as_table(ranked: Sequence[Row], metric: str, varied: Sequence[str]) -> Table:
    """Return rows, best first, with what was varied."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = (metric, "+-", "epoch", "weights")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for name in varied:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in ranked:
        cells = (f"{row[metric]:.4f}", f"{row['deviation']:.4f}", f"{row['best_epoch']:.0f}", f"{row['parameters']:,}")
        table.add_row(*cells, *(told(row["configuration"][name]) for name in varied))
    return table


def print_table(ranked: Sequence[Row], metric: str, varied: Sequence[str]) -> None:
    """Print the table on stdout, a row a line where nobody reads it on a terminal."""
    console: Any = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(as_table(ranked, metric, varied))
