"""`gpumlp train`: from data to a trained network and one honest line about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp import __version__
from gpumlp.backends import threads
from gpumlp.cli import options as opt
from gpumlp.cli import streaming
from gpumlp.cli.embedding import embedded_in_words, embeddings_of, read_embed
from gpumlp.cli.errors import tell
from gpumlp.cli.interruption import going_on
from gpumlp.cli.notes import notes_told
from gpumlp.cli.places import check_folder, check_place
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
from gpumlp.cli.watching import Watchers, add_model, write_report
from gpumlp.data import Encoding, Scaler, load_table
from gpumlp.data.files import listed
from gpumlp.errors import ConfigurationError, DivergenceError
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.delta_norms import SAMPLE, DeltaNorms
from gpumlp.training.history import History
from gpumlp.training.monitors import KeepBest, Monitor
from gpumlp.training.pools import Pool
from gpumlp.training.trainer import Trainer

LARGE = 10.0  # features beyond it deserve a word about --standardise


def train(
    ctx: typer.Context,
    data: opt.Data,
    target: opt.Target = None,
    header: opt.Header = None,
    task: opt.TaskName = None,
    val_fraction: opt.ValFraction = None,
    standardise: opt.Standardise = False,
    scale: opt.Scale = None,
    categorical: opt.Categorical = "",
    embed: opt.EmbedColumns = None,
    hidden: opt.Hidden = "100",
    activation: opt.ActivationNames = "relu",
    output: opt.Output = None,
    cost: opt.CostName = None,
    dropout: opt.Dropout = 0.0,
    normalisation: opt.Normalisation = None,
    optimizer: opt.Optimizer = "adam",
    lr: opt.LearningRate = 0.001,
    batch_size: opt.BatchSize = "64",
    micro_batch: opt.MicroBatch = "auto",
    epochs: opt.Epochs = 100,
    l2: opt.L2 = 0.0,
    clip_norm: opt.ClipNorm = None,
    schedule: opt.ScheduleName = None,
    early_stopping: opt.Patience = None,
    seed: opt.Seed = 0,
    dtype: opt.Dtype = "float32",
    backend: opt.BackendName = "auto",
    device: opt.Device = None,
    precision: opt.Precision = None,
    save: opt.Save = None,
    log: opt.Log = None,
    memory: opt.Memory = None,
    tensorboard: opt.TensorBoard = None,
    mlflow: opt.Mlflow = None,
    mlflow_experiment: opt.MlflowExperiment = "gpumlp",
    report: opt.Report = None,
    nvtx: opt.Nvtx = False,
    checkpoint: opt.CheckpointFolder = None,
    every: opt.CheckpointEvery = "1min",
    keep: opt.Keep = 3,
    resume: opt.Resume = False,
    quiet: opt.Quiet = False,
    as_json: opt.AsJson = False,
) -> None:
    """Train a network on DATA; the closing line says how well it does.

    A fifth of the rows (--val-fraction) is held out and used for the closing line alone, so that its number is honest.

    The weights reported and saved are those of the epoch with the lowest cost on the training rows.
    With --early-stopping a tenth of the training rows is set aside, and the lowest cost on these decides.

    With --batch-size tune the fastest batch size is measured first, and, unless --backend names one, the fastest
    backend; two runs may then differ, as the machine's speed does.

    With --checkpoint a training that was broken off, by whatever, goes on with --resume as if it had not been.

    With --embed a category is not a feature of its own: some numbers are learned for it, and take its column's place.

    Features that take more than --memory are streamed from their file, best from a data folder of `gpumlp convert`.

    The target of a regression is standardised for training, and predictions are scaled back.
    It is left as it is where the cost does not take all numbers, such as poisson.

    With --report, --tensorboard or --mlflow the rows held out are evaluated after each epoch, too, to be drawn beside
    the training rows; nothing is chosen by them.
    """
    check_place(save, "--save")
    check_place(log, "--log", (".csv", ".jsonl"))
    check_place(report, "--report", (".html", ".htm"))
    opt.expect_task(task)
    scaling = opt.scaler_kind(scale, standardise)
    checkpoints = checkpoints_in(checkpoint, every, keep, resume)
    watchers = Watchers.of(
        ctx,
        mlflow,
        mlflow_experiment,
        patience=early_stopping,
        log=log,
        tensorboard=tensorboard,
        report=report,
        quiet=quiet,
    )
    monitors = watchers.monitors()
    named, embedded = opt.column_names(categorical), read_embed(embed)
    problem = pose(load_table(data, target=target, header=opt.header_mode(header), categorical=named), task)
    parts = split(problem, val_fraction, early_stopping is not None, seed)
    problem, columns = encode(problem, parts.train, embedded)
    default, allowed = DEFAULTS[problem.task], streaming.memory_of(memory, checkpoint if resume else None)
    net = Network(
        (problem.n_features, *opt.hidden_sizes(hidden), problem.n_out),
        opt.activation_names(activation),
        output or default[0],
        cost or default[1],
        dropout=dropout,
        normalisation=opt.normalisation_kinds(normalisation),
        dtype=dtype,
        backend=backend,
        device=device,
        precision=precision,
        seed=seed,
        embeddings=embeddings_of(columns, embedded),
    )
    row = streaming.bytes_of_row(problem, scaling is not None, net.dtype)
    pool = streaming.pool_for(problem, allowed, opt.batch_rows(batch_size), row)
    with notes_told(not quiet):
        if pool is None:
            problem = in_memory(problem)
        else:
            beside = streaming.bytes_beside(problem, scaling is not None, net.dtype)
            parts = streaming.few_enough(parts, beside, pool)
            streaming.tell_unseen(problem)
    trainer = Trainer(
        net,
        optimizer,
        lr,
        opt.batch_rows(batch_size),
        l2=l2,
        clip_norm=clip_norm,
        schedule=schedule,
        nvtx=nvtx or None,
        micro_batch=opt.micro_batch_rows(micro_batch),
    )
    model = package(problem, net, parts.train, scaling, columns, pool)
    if save is not None:
        model.expect_saveable()
    if not quiet:
        if pool is not None:
            tell(f"memory    {streaming.in_words(problem, allowed, pool)}")
        training = f"{optimizer}, learning rate {lr:g}, {epochs} epochs at most, seed {seed}"
        describe(problem, parts, model, training, pool)
    best = KeepBest("validation_cost" if len(parts.choice) else "cost")
    with notes_told(not quiet), going_on(checkpoints, ctx.find_root().obj):
        if checkpoints is not None:
            streaming.keep_memory(checkpoints, problem, allowed)
        history = fit(problem, parts, model, trainer, epochs, best, watchers, monitors, save, checkpoints, resume, pool)
    result = close(problem, parts, model, history, best, pool) | {"batch_size": trainer.batch_size}
    print(as_object(result) if as_json else closing_line(result))
    saved = None if save is None else model.save(save)
    add_model(monitors, model, saved)
    if report is not None:
        write_report(watchers, problem, parts, model, history, result)
    for what, place in (("saved", saved), ("report", report)):
        if place is not None and not quiet:
            tell(f"{what:<9} {place}")


def package(
    problem: Problem,
    net: Network,
    rows: Array,
    scaling: type[Scaler] | None,
    columns: Encoding | None,
    pool: Pool | None,
) -> SavedModel:
    """Return the network with all that belongs to it; scalings are measured on the training rows alone."""
    names = problem.feature_names, problem.table.target_name
    if pool is None:
        scaler = feature_scaler(problem, rows, scaling, columns)
    else:
        scaler = streaming.feature_scaler(problem, rows, scaling, columns)
    y_scaler = target_scaler(problem, net.architecture.cost, rows)
    return SavedModel(net, problem.task, problem.classes, *names, scaler, y_scaler, columns)


def describe(problem: Problem, parts: Parts, model: SavedModel, training: str, pool: Pool | None) -> None:
    """Tell on stderr what is about to be trained on what."""
    net = model.network
    kind = f"{len(problem.classes)} classes" if problem.classes is not None else f"{problem.n_out} target(s)"
    uses = [(parts.train, "to train"), (parts.choice, "to choose the epoch"), (parts.test, "held out to test")]
    rows = ", ".join(f"{len(part):,} {use}" for part, use in uses if len(part))
    kinds = [f"{kind} normalisation" for kind in dict.fromkeys(net.architecture.normalisation) if kind]
    names = ", ".join([*(a.name for a in net.architecture.activations), *kinds, net.architecture.cost.name])
    scaled = [
        f"{name} ({scaler.name})"
        for name, scaler in (("features", model.scaler), ("target", model.target_scaler))
        if scaler
    ]
    tell(f"task      {problem.reason}")
    tell(f"data      {len(problem.y):,} rows, {problem.n_features:,} features, {kind}; {rows}")
    if model.columns is not None:
        counts = zip(model.columns.names, model.columns.categories, strict=True)
        told = listed(f"{name} ({len(texts)})" for name, texts in counts if texts is not None)
        tell(f"columns   {len(model.columns.names)}, of these with categories: {told}")
    if embedded := embedded_in_words(model):
        tell(f"embedded  {embedded}")
    if scaled:
        tell(f"scaling   {' and '.join(scaled)}, measured on the training rows; predictions are in the data's units")
    largest = largest_feature(problem, model.columns) if pool is None else 0.0
    if not model.scaler and largest > LARGE:
        tell(f"hint      features reach {largest:g}; --standardise usually helps")
    tell(f"network   {net.architecture}, {names}; {net.parameters.layout.n_trainable:,} parameters")
    tell(f"training  {training}")
    tell(f"device    {device_of(net)}, {threads.count()} threads, {net.dtype.name}")


def largest_feature(problem: Problem, columns: Encoding | None) -> float:
    """Return the largest absolute value of the features that are numbers."""
    X = problem.table.X
    of_each = np.maximum(X.max(axis=0), -X.min(axis=0).astype(np.float64))
    return float(of_each.max(initial=0, where=True if columns is None else ~columns.is_category))


def checkpoints_in(folder: Path | None, every: str, keep: int, resume: bool) -> Checkpoints | None:
    """Return the checkpoints that the options ask for; raise ConfigurationError for what means nothing."""
    if folder is not None:
        check_folder(folder, "--checkpoint")
        return Checkpoints(folder, every, keep)
    if resume:
        raise ConfigurationError("--resume: needs --checkpoint DIR, the folder to go on from; give it")
    return None


def fit(
    problem: Problem,
    parts: Parts,
    model: SavedModel,
    trainer: Trainer,
    epochs: int,
    best: KeepBest,
    watchers: Watchers,
    others: list[Monitor],
    save: Path | None,
    checkpoints: Checkpoints | None,
    resume: bool,
    pool: Pool | None,
) -> History:
    """Train until the end and leave the network with its best weights; Ctrl-C or divergence saves them if wanted."""

    def rows(part: Array) -> tuple[Array, Array]:
        X, Y = problem.features(part), problem.targets[part]
        X = model.scaler.transform(X, model.network.dtype) if model.scaler else X
        return X, model.target_scaler.transform(Y, model.network.dtype) if model.target_scaler else Y

    beside = parts.choice if len(parts.choice) or not watchers.compare else parts.test
    X, Y = rows(parts.train) if pool is None else (streaming.training_rows(problem, parts, model), None)
    if pool is not None:
        row = streaming.bytes_beside(problem, model.scaler is not None, model.network.dtype)
        beside = streaming.that_fit(beside, row, pool)
    first: list[Monitor] = [best]
    if watchers.report is not None:
        first.append(DeltaNorms(model.network, *rows(streaming.spread(parts.train, SAMPLE))))
    try:
        return trainer.fit(
            X,
            Y,
            epochs,
            rows(beside) if len(beside) else None,
            monitors=[*first, *others],
            checkpoints=checkpoints,
            resume=resume,
            pool=pool,
        )
    except (KeyboardInterrupt, DivergenceError) as end:
        what = "diverged" if isinstance(end, DivergenceError) else "interrupted"
        if save is not None and best.best is not None and best.best_epoch is not None and np.isfinite(best.best).all():
            tell(f"{what}; the weights of epoch {best.best_epoch[0]} are saved to {model.save(save)}")
        elif save is not None:
            tell(f"{what} before the first epoch ended; nothing is saved")
        raise


def close(
    problem: Problem, parts: Parts, model: SavedModel, history: History, best: KeepBest, pool: Pool | None
) -> dict[str, Any]:
    """Return the closing result: scores on rows that nothing was learned from, where there are any."""
    part, rows = next(
        (name, rows)
        for name, rows in (("test", parts.test), ("validation", parts.choice), ("training", parts.train))
        if len(rows)
    )
    assert best.best_epoch is not None
    found = model.predict(problem.features(rows)) if pool is None else streaming.predicted_for(model, problem, rows)
    scores = compare(problem.task, found, problem.y[rows])
    net = model.network
    return {
        "task": problem.task,
        "part": part,
        "rows": len(rows),
        **scores,
        "epochs": len(history),
        "best_epoch": int(best.best_epoch[0]),
        "seconds": float(history.seconds.sum()),
        "samples_per_second": float(np.median(history.samples_per_second)),  # the first epoch may compile
        "device": device_of(net),
        "sizes": list(net.sizes),
        "parameters": net.parameters.layout.n_trainable,
        "seed": net.seeds[0],
        "gpumlp": __version__,
    }


def closing_line(result: dict[str, Any]) -> str:
    """Spell the closing result in one line."""
    rows = f"{result['rows']:,}"
    on = {
        "test": f"{rows} rows held out",
        "validation": f"{rows} rows, which also chose the epoch",
        "training": f"the {rows} rows trained on, none held out",
    }[result["part"]]
    speed = f"{result['samples_per_second']:,.0f} samples/s"
    return f"{result['part']} {in_words(result)} ({on}), {speed}, {result['device']}"


def as_object(result: dict[str, Any]) -> str:
    """Spell the closing result in JSON, which has no NaN."""
    return json.dumps({name: None if value != value else value for name, value in result.items()})


def device_of(net: Network) -> str:
    """Return for example "numpy on cpu"."""
    return f"{net.backend.name} on {net.backend.device}"
