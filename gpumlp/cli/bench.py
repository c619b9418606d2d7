"""`gpumlp bench`: how fast gpumlp is here, beside other libraries and the limits of the machine, as files to cite."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gpumlp.bench.results import SUITES, Run, write
from gpumlp.cli.compare import compare
from gpumlp.cli.errors import INTERRUPTED, tell
from gpumlp.cli.interruption import ending_early
from gpumlp.cli.notes import notes_told
from gpumlp.cli.options import AsJson
from gpumlp.cli.places import check_place

log = logging.getLogger("gpumlp")

bench = typer.Typer(name="bench", pretty_exceptions_enable=False)
bench.command()(compare)

SuiteNames = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME", help=f"{', '.join(SUITES)}; may be repeated. All by default."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer sizes and shorter samples: under two minutes.")]
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", metavar="NAME", help="numpy, numba or cuda; may be repeated. All that work, by default."),
]
BenchDevice = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NAME", help="cpu, cuda, cuda:1; a GPU if there is one.")
]
Peers = Annotated[bool, typer.Option("--peers/--no-peers", help="Whether PyTorch, JAX and scikit-learn take part.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the files go.")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Of a sample; of all trials with --suggest.")]
Suggest = Annotated[
    str | None,
    typer.Option(
        "--suggest",
        metavar="DATA",
        help="Measure nothing but which batch size and backend train on DATA fastest; DATA as of `gpumlp train`.",
    ),
]
HIDDEN = (100,)  # of the network that --suggest tries, the default of `gpumlp train`


@bench.callback(invoke_without_command=True)
def run(
    ctx: typer.Context,
    suite: SuiteNames = None,
    quick: Quick = False,
    backend: Backends = None,
    device: BenchDevice = None,
    peers: Peers = True,
    out: Out = Path(),
    seconds: Seconds = None,
    suggest: Suggest = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast gpumlp is here, beside other libraries, slow ways, and the limits of the machine.

    Suites: recursion, the deltas alone; steps, whole training steps and epochs; growth, what a step costs by its sizes.
    All take about twenty minutes. Everyone's result is checked before it is timed. Ctrl-C and SIGTERM end it
    early, and what was measured until then is written.

    Writes bench.json, bench.md, bench.html and the plots into a folder bench-plots; existing ones are kept and the new
    ones numbered. `gpumlp bench compare A.json B.json` tells what became slower.
    """
    if ctx.invoked_subcommand is not None:
        return
    if suggest is not None:
        suggest_for(suggest, backend, seconds, as_json)
        return
    check_place(out / "bench.json", "--out")
    from gpumlp.bench.suites import run_suites

    again = command(suite, quick, backend, device, peers, seconds)
    with ending_early() as be_over:
        with notes_told(True), progress() as told:
            found = run_suites(suite or (), backend, device, quick, peers, told, seconds)
        be_over()
        found = replace(found, options={**found.options, "command": again})
        written = save(found, out)
    print(found.as_json() if as_json else closing(found))
    tell(f"written: {', '.join(str(place) for place in written)}")
    if "ended" in found.options:
        raise typer.Exit(INTERRUPTED)


def command(
    suite: list[str] | None,
    quick: bool,
    backend: list[str] | None,
    device: str | None,
    peers: bool,
    seconds: float | None,
) -> str:
    """Return the command line that measures the same again."""
    words = ["gpumlp", "bench"]
    words += [word for name in suite or () for word in ("--suite", name)]
    words += ["--quick"] if quick else []
    words += [word for name in backend or () for word in ("--backend", name)]
    words += ["--device", device] if device else []
    words += [] if peers else ["--no-peers"]
    words += ["--seconds", f"{seconds:g}"] if seconds else []
    return shlex.join(words)


# ---------------------------------------------------------------- files


def save(found: Run, folder: Path) -> list[Path]:
    """Write the run as JSON, Markdown, figures and a page, beside what is there already; return the files.

    Without matplotlib there are JSON and Markdown, and a line says what brings the figures.
    """
    from gpumlp.bench import page, plots, tables
    from gpumlp.pages.figures import why_missing

    stem = free_stem(folder)
    written = [found.save(folder / f"{stem}.json"), write(folder / f"{stem}.md", tables.as_markdown(found))]
    if why_missing():
        tell('note      no plots and no page: they need matplotlib; install it: pip install "gpumlp[bench]"')
        return written
    written.append(write(folder / f"{stem}.html", page.as_html(found)))
    figures = folder / f"{stem}-plots"
    figures.mkdir()
    plots.draw(found, figures)
    return [*written, figures]


def free_stem(folder: Path) -> str:
    """Return "bench", or "bench-2" and so on: the first of which nothing exists yet. The JSON file is created."""
    number = 1
    while True:
        stem = "bench" if number == 1 else f"bench-{number}"
        if not any((folder / f"{stem}{ending}").exists() for ending in (".json", ".md", ".html", "-plots")):
            (folder / f"{stem}.json").open("x").close()  # never over what another process has written meanwhile
            return stem
        number += 1


# ---------------------------------------------------------------- what is shown


@contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Give what is told of each visit: a bar on stderr in a terminal, elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, what: None
        return
    columns = (BarColumn(bar_width=30), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def closing(found: Run) -> str:
    """Return the times of the steps, or of the first suite that was measured, as lines of text."""
    from gpumlp.bench.statistics import share_of_limit, spread
    from gpumlp.bench.tables import time_text, with_article

    suite = next((name for name in ("steps", *SUITES) if found.of(name)), None)
    lines = []
    for name, cases in (found.of(suite) if suite else {}).items():
        lines.append(name)
        for case in cases:
            share = share_of_limit(case)
            told = "" if share is None else f"   {share:.2f} of the limit"
            took = time_text(spread(case.seconds).median)
            lines.append(f"    {case.contender:<28} {took:>9} {with_article(case.unit)}{told}")
    return "\n".join(lines) or "nothing was measured"


# ---------------------------------------------------------------- --suggest


def suggest_for(name: str, backends: list[str] | None, seconds: float | None, as_json: bool) -> None:
    """Print which batch size and backend train a network on some data fastest, and all that was measured."""
    from gpumlp.cli.problem import DEFAULTS, pose
    from gpumlp.data import load_table
    from gpumlp.network.network import Network
    from gpumlp.training.tuning import tune

    problem = pose(load_table(name), None)
    X, (output, cost) = problem.table.X, DEFAULTS[problem.task]
    net = Network((X.shape[1], *HIDDEN, problem.n_out), "relu", output, cost)
    with notes_told(not as_json):
        choice = tune(net, X, problem.targets, **_given(seconds=seconds, backends=backends))
    if as_json:
        print(as_object(choice))
        return
    print("\n".join(choice.table()))
    print(f"{choice}: gpumlp train {name} --batch-size {choice.batch_size} --backend {choice.backend}")


def as_object(choice: Any) -> str:
    """Return a choice as JSON, which has no NaN."""
    import json
    from dataclasses import asdict

    found = asdict(choice)
    for measurement in found["measurements"]:
        measurement.update({name: None for name, value in measurement.items() if value != value})
    return json.dumps(found)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
