"""`gpumlp bench compare`: what became slower or faster between two runs of the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gpumlp.bench.compare import NOT_JUDGED, SAME, THRESHOLD, Comparison, Verdict, as_json
from gpumlp.bench.compare import compare as judge
from gpumlp.bench.results import load
from gpumlp.cli.errors import tell
from gpumlp.cli.options import AsJson

Old = Annotated[Path, typer.Argument(metavar="A.json", help="What `gpumlp bench` wrote before.")]
New = Annotated[Path, typer.Argument(metavar="B.json", help="What it wrote now.")]
Threshold = Annotated[float, typer.Option("--threshold", help="The relative change from which on a case is another.")]
Seconds = Annotated[
    bool, typer.Option("--seconds", help="Judge the time itself where the products alone were not measured.")
]
WIDTH = 160
SHOWN = 8  # names of cases that one run lacks


def compare(
    old: Old, new: New, threshold: Threshold = THRESHOLD, seconds: Seconds = False, as_json_: AsJson = False
) -> None:
    """Tell what became slower or faster between two runs of `gpumlp bench`, beyond the noise.

    Judged is the time in times of the matrix products alone, which are measured beside each sample, so that two runs on
    a busy machine can be compared. The exit status is 1 if anything became slower, 0 if nothing did, 2 for wrong input.
    """
    found = judge(load(old), load(new), threshold, seconds)
    if as_json_:
        print(as_json(found))
    else:
        show(found)
    if not found.passed:
        raise typer.Exit(1)


def show(found: Comparison) -> None:
    """Print the table, regressions first, and the closing line; warnings go to stderr."""
    for warning in found.warnings:
        tell(f"warning   {warning}: the runs may not be comparable")
    for names, place in ((found.only_old, "the first"), (found.only_new, "the second")):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            tell(f"note      only in {place} run: {'; '.join(names[:SHOWN])}{more}")
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)  # a row stays a line for grep
    console.print(as_table(found.verdicts))
    for note in dict.fromkeys(verdict.note for verdict in found.verdicts if verdict.note):
        n = sum(verdict.note == note for verdict in found.verdicts)
        print(f"{n} of {len(found.verdicts)}: {note}")
    print(found.summary())


def as_table(verdicts: tuple[Verdict, ...]) -> Table:
    """Return a row for each case: how it changed, and which change would have been told."""
    table = Table(caption="change of the time in times of the matrix products alone")
    for column in ("outcome", "suite", "case", "contender"):
        table.add_column(column, overflow="fold")
    for column in ("change", "seen from"):
        table.add_column(column, justify="right", no_wrap=True)
    for verdict in verdicts:
        style = {SAME: "", NOT_JUDGED: "dim"}.get(verdict.outcome, "bold")
        words = (verdict.outcome, verdict.suite, verdict.case, verdict.contender)
        numbers = (_percent(verdict.change, "+"), _percent(verdict.visible))
        table.add_row(*(_plain(word) for word in words), *numbers, style=style)
    return table


def _plain(text: str) -> str:
    """Return a text in which Rich finds no markup."""
    from rich.markup import escape

    return escape(text)


def _percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f} %"
