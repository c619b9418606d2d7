"""`gpumlp sweep`: the best of many configurations, trained at once; a sweep that is killed goes on where it was."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gpumlp.cli import options as opt
from gpumlp.cli.embedding import embeddings_of, read_embed
from gpumlp.cli.errors import SOME_LOST, tell
from gpumlp.cli.notes import notes_told
from gpumlp.cli.places import check_folder
from gpumlp.cli.problem import (
    DEFAULTS,
    Array,
    Parts,
    Problem,
    encode,
    feature_scaler,
    in_memory,
    pose,
    split,
    target_scaler,
)
from gpumlp.cli.scores import compare, in_words
from gpumlp.cli.sweep_view import SweepView, print_table
from gpumlp.data import Scaler, Standardiser, load_table
from gpumlp.ensembles import OnRay, Sweep, SweepResult
from gpumlp.ensembles.configurations import Configuration, told
from gpumlp.ensembles.executors import EXECUTORS, Executor, get_executor
from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.formulas.costs import COSTS
from gpumlp.saved_model import SavedModel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = 10  # rows of the closing table

SWEEP = "Sweep"
SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE.toml", help="The parameters to try, by name.")]
Out = Annotated[
    Path | None,
    opt.option("--out", "-o", panel=SWEEP, metavar="FOLDER", help="Where the results go, and where a sweep goes on."),
]
Draws = Annotated[
    int | None,
    opt.option("--n", "-n", panel=SWEEP, min=1, help="So many random draws; without it the whole grid."),
]
FoldsOption = Annotated[
    str, opt.option("--folds", panel=SWEEP, metavar="K", help="Folds, or a share of the rows that judges, such as 0.2.")
]
MetricName = Annotated[
    str | None,
    opt.option("--metric", panel=SWEEP, metavar="NAME", help="accuracy or cost for classes; r2, rmse or cost else."),
]
SweepEpochs = Annotated[
    int | None,
    opt.option(*opt.EPOCHS, panel=SWEEP, min=1, help="In place of the file's."),
]
SweepPatience = Annotated[
    int | None,
    opt.option(
        "--early-stopping",
        panel=SWEEP,
        metavar="EPOCHS",
        min=1,
        help="Stop each model that has not improved, on the rows that judge it, for so many epochs.",
    ),
]
Bootstrap = Annotated[
    bool, opt.option("--bootstrap", panel=SWEEP, help="Draw each fold's training rows anew, with replacement.")
]
Shard = Annotated[
    str,
    opt.option("--shard", panel=SWEEP, metavar="I/N", help="Only part I of N, beside other processes on one folder."),
]
ExecutorName = Annotated[
    str, opt.option("--executor", panel=SWEEP, metavar="NAME", help=f"Who runs it: {', '.join(EXECUTORS)}.")
]
Address = Annotated[
    str | None,
    opt.option(
        "--address",
        panel=SWEEP,
        metavar="HOST:PORT",
        help="Of a Ray cluster, or auto for the one of this machine; without it Ray is started on this machine.",
    ),
]
Cpus = Annotated[
    int | None,
    opt.option("--cpus", panel=SWEEP, min=1, help="Processors, and threads, of each task on Ray; 1 without it."),
]
SweepSeed = Annotated[
    int,
    opt.option(
        *opt.SEED,
        panel=SWEEP,
        min=0,
        help="Of the rows held out, the draws and the folds; that of weights and orders is a parameter to try.",
    ),
]
PlanOnly = Annotated[bool, opt.option("--plan", panel=SWEEP, help="Only print which models would be trained together.")]


def sweep(
    ctx: typer.Context,
    space: SpaceFile,
    data: opt.Data,
    out: Out = None,
    n: Draws = None,
    folds: FoldsOption = "5",
    metric: MetricName = None,
    epochs: SweepEpochs = None,
    early_stopping: SweepPatience = None,
    bootstrap: Bootstrap = False,
    shard: Shard = "1/1",
    executor: ExecutorName = "local",
    address: Address = None,
    cpus: Cpus = None,
    plan: PlanOnly = False,
    target: opt.Target = None,
    header: opt.Header = None,
    task: opt.TaskName = None,
    val_fraction: opt.ValFraction = None,
    standardise: opt.Standardise = False,
    scale: opt.Scale = None,
    categorical: opt.Categorical = "",
    embed: opt.EmbedColumns = None,
    output: opt.Output = None,
    cost: opt.CostName = None,
    seed: SweepSeed = 0,
    dtype: opt.Dtype = "float32",
    backend: opt.BackendName = "auto",
    device: opt.Device = None,
    quiet: opt.Quiet = False,
    as_json: opt.AsJson = False,
) -> None:
    """Try many configurations on DATA at once, and save the best one, trained on all rows that it was chosen by.

    SPACE.toml has a line for each parameter that is tried, for example

    hidden = { layers = [1, 3], widths = [16, 128] }

    activation = ["relu", "gelu"]

    learning_rate = { log_uniform = [1e-3, 3e-2] }

    A fifth of the rows (--val-fraction) is held out and used for the closing line alone. All configurations are tried
    on the same folds of the other rows; scalings and categories are taken from these, all folds included.

    The folder has results.jsonl, a line for each configuration as soon as it is done; in the end results.csv, plot.png
    and best.npz. The same command goes on where it was killed, and adds what is new if --n is larger.

    --executor ray trains on all processors or GPUs of this machine, or of a cluster (--address). A configuration that
    ends the process that runs it is left out, and told in the end, with exit status 3.
    """
    opt.expect_task(task)
    found, part, runner = read_space(space), read_shard(shard), executor_of(executor, address, cpus)
    check_folder(out, "--out")
    scaling, named = opt.scaler_kind(scale, standardise), opt.column_names(categorical)
    embedded = read_embed(embed)
    problem = pose(load_table(data, target=target, header=opt.header_mode(header), categorical=named), task)
    parts = split(problem, val_fraction, False, seed)
    with notes_told(not quiet):
        problem, columns = encode(problem, parts.train, embedded)
        problem = in_memory(problem)
    default = DEFAULTS[problem.task]
    wanted = Sweep(
        found if epochs is None else {**found, "epochs": epochs},
        n,
        seed,
        read_folds(folds),
        metric,
        early_stopping,
        bootstrap,
        output or default[0],
        cost or default[1],
        dtype,
        backend,
        device,
        embeddings=embeddings_of(columns, embedded),
    )
    scalers = (
        feature_scaler(problem, parts.train, scaling, columns),
        target_scaler(problem, COSTS.get(wanted.cost or default[1]), parts.train),
    )
    X, Y = scaled(problem, parts.train, scalers, wanted.dtype)
    if plan:
        print(wanted.plan(X, Y))
        return
    if out is None:
        raise ConfigurationError("a sweep needs --out FOLDER for its results; --plan alone goes without")
    view = None
    if not quiet:
        of_all = wanted.task(X, Y)
        describe(problem, parts, wanted, len(of_all.folds))
        view = SweepView(of_all.metric, wanted.varied)
    with notes_told(not quiet):
        result = run(ctx, wanted, X, Y, out, part, runner, view)
    written = [result.to_csv(out / "results.csv"), *plotted(result, out / "plot.png")]
    closing = report(result)
    if not (as_json or quiet):
        print_table(result.ranked[:TOP], result.metric, result.varied)
    if not result.missing:
        net = result.refit()
        names, target_name = problem.table.feature_names, problem.table.target_name
        model = SavedModel(net, problem.task, problem.classes, names, target_name, *scalers, columns)
        written.append(model.save(out / "best.npz"))
        closing |= judged(problem, parts, model)
    print(json.dumps(closing) if as_json else closing_line(closing, result))
    if not quiet:
        tell(f"written   {', '.join(str(path) for path in written)}")
    for row in result.lost:
        tell(f"lost      {in_short(row['configuration'], result)}: {row['error']}")
    if result.lost:
        raise typer.Exit(SOME_LOST)


# ---------------------------------------------------------------- what is asked for


def read_space(path: Path) -> dict[str, Any]:
    """Return the parameters of a file; raise ConfigurationError for one that is no TOML."""
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path} ({error.strerror}); name a file of parameters") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no TOML ({error}); write a line for each parameter, such as learning_rate = [0.001, 0.01]"
        ) from error
    return found


def read_folds(text: str) -> int | float:
    """Read a number of folds, or a share; Sweep refuses what is neither."""
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError as error:
        raise ConfigurationError(
            f"--folds {text!r}: expected a number of folds such as 5, or a share such as 0.2"
        ) from error


def read_shard(text: str) -> tuple[int, int]:
    """Read "2/4"; Sweep refuses parts that there are not."""
    part, _, parts = text.partition("/")
    try:
        return int(part), int(parts)
    except ValueError as error:
        raise ConfigurationError(f"--shard {text!r}: expected I/N such as 2/4, part 2 of 4") from error


def executor_of(name: str, address: str | None, cpus: int | None) -> Executor:
    """Return who runs the sweep; raise ConfigurationError for options that only Ray has."""
    if name == "ray":
        return OnRay(address, cpus or 1)
    if address is not None or cpus is not None:
        raise ConfigurationError("--address and --cpus go with --executor ray; add it, or leave them away")
    return get_executor(name)


def command_again(ctx: typer.Context) -> str:
    """Return the command line that goes on."""
    words = ["gpumlp", "sweep"]
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words += [] if value == parameter.default else [(parameter.opts if value else parameter.secondary_opts)[0]]
        elif value is not None and value != parameter.default:
            words += [parameter.opts[0], str(value)]
    return shlex.join(words)


# ---------------------------------------------------------------- what is done

Scalers = tuple[Scaler | None, Standardiser | None]  # of features and target


def scaled(problem: Problem, rows: Array, scalers: Scalers, dtype: str) -> tuple[Array, Array]:
    """Return the rows as the networks are trained on them."""
    X, Y = problem.table.X[rows], problem.targets[rows]
    of_features, of_target = scalers
    kind = np.dtype(dtype)
    X = of_features.transform(X, kind) if of_features else X
    return X, of_target.transform(Y, kind) if of_target else Y


def describe(problem: Problem, parts: Parts, wanted: Sweep, n_folds: int) -> None:
    """Tell on stderr what is about to be tried on what."""
    n = len(wanted.configurations)
    tell(f"task      {problem.reason}")
    tell(f"data      {len(parts.train):,} rows to train and judge on, {len(parts.test):,} held out to test")
    tell(f"models    {n:,} configurations x {n_folds} fold{'s' * (n_folds > 1)} = {n * n_folds:,}")
    tell(f"varied    {', '.join(wanted.varied) or 'nothing'}")


def run(
    ctx: typer.Context,
    wanted: Sweep,
    X: Array,
    Y: Array,
    out: Path,
    shard: tuple[int, int],
    executor: Executor,
    view: SweepView | None,
) -> SweepResult:
    """Run the sweep; Ctrl-C tells how to go on."""
    try:
        with redirect_stdout(sys.stderr):  # Ray tells of dead workers on stdout
            return wanted.run(X, Y, out, shard, executor, view)
    except KeyboardInterrupt:
        tell(f"interrupted; what is done is in {out}; this goes on: {command_again(ctx)}")
        raise


def plotted(result: SweepResult, path: Path) -> list[Path]:
    """Write the figure if matplotlib is there and there is something to show, and return its file."""
    if not result.ranked:
        return []
    try:
        result.plot(path)
    except BackendUnavailable as error:
        tell(f"note      no plot: {error}")
        return []
    return [path]


def report(result: SweepResult) -> dict[str, Any]:
    """Return the closing result but for the scores on rows held out; the best is known when all are done."""
    closing = {
        "configurations": len(result),
        "missing": result.missing,
        "diverged": len(result) - len(result.ranked) - len(result.lost),
        "lost": len(result.lost),
        "folds": len(result.task.folds),
        "metric": result.metric,
        "seconds": sum(row["seconds"] for row in result.rows),
        "samples": sum(row["samples"] for row in result.rows),
    }
    if result.missing:
        return closing
    best = result.best
    names = ("deviation", "best_epoch", "configuration", "device")
    return closing | {"score": best[result.metric]} | {name: best[name] for name in names}


def judged(problem: Problem, parts: Parts, model: SavedModel) -> dict[str, Any]:
    """Return how well the model does on rows that nothing was learned or chosen from, if there are any."""
    rows = parts.test
    if not len(rows):
        return {}
    return {"test": compare(problem.task, model.predict(problem.table.X[rows]), problem.y[rows]), "rows": len(rows)}


def closing_line(closing: dict[str, Any], result: SweepResult) -> str:
    """Spell the closing result in one line."""
    n, folds, seconds = closing["configurations"], closing["folds"], closing["seconds"]
    folds_text = f" x {folds} folds" if folds > 1 else ""
    rate = f"{closing['samples'] / max(seconds, 1e-9):,.0f} models x samples/s"
    work = f"{n} configurations{folds_text}, {seconds:.1f} s of training, {rate}"
    if closing["missing"]:
        return f"{closing['missing']} configurations are missing still, so there is no best model yet; {work}"
    best = in_short(closing["configuration"], result)
    score = f"best of {n}: {closing['metric']} {closing['score']:.4f} ({best})"
    if "test" in closing:
        score = f"test {in_words(closing['test'])} ({closing['rows']:,} rows held out), {score}"
    return f"{score}; {work}, {closing['device']}"


def in_short(configuration: Configuration, result: SweepResult) -> str:
    """Spell what distinguishes a configuration from the others of its sweep."""
    return ", ".join(f"{name} {told(configuration[name])}" for name in result.varied)
