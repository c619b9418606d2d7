"""The options of the commands: their names, with those of scikit-learn and Chainer, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpumlp.data import SCALERS, Scaler, Standardiser, scaler_named
from gpumlp.errors import ConfigurationError, unknown_name

TASKS = ("classification", "regression")


def option(*names: str, panel: str, help: str, **more: Any) -> Any:
    """Return an option that stands in a panel of the help."""
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


DATA, NET, FIT, RUN = "Data", "Network", "Training", "Running"
EPOCHS, SEED = ("--epochs", "--epoch", "-e", "--max-iter"), ("--seed", "--random-state")

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, iris, wine, breast_cancer, diabetes, xor; a .csv, .tsv, .npz, .npy, idx, .parquet, .arrow, "
        ".feather, .h5 or .svmlight file; or a data folder, as `gpumlp convert` makes it.",
    ),
]
Target = Annotated[
    str | None,
    option(
        "--target",
        panel=DATA,
        metavar="NAME",
        help="Which y: a column's name or number (csv), an array's name (npz), a file (npy, idx). "
        "Without it the last column, the array y, or the labels beside the images.",
    ),
]
Header = Annotated[
    bool | None,
    option("--header/--no-header", panel=DATA, help="Whether line 1 of a csv file holds names; told by itself."),
]
TaskName = Annotated[
    str | None,
    option("--task", panel=DATA, metavar="NAME", help="classification or regression; told by the target itself."),
]
ValFraction = Annotated[
    float | None,
    option(
        "--val-fraction",
        "--validation-fraction",
        panel=DATA,
        help="Share of the rows held out for the closing line; 0 for none. Default 0.2, and 0 for fewer than 10 rows.",
    ),
]
Standardise = Annotated[
    bool,
    option(
        "--standardise/--no-standardise",
        "--standardize/--no-standardize",
        panel=DATA,
        help="Bring each feature to mean 0 and deviation 1, as measured on the training rows. Recommended for pixels.",
    ),
]
Scale = Annotated[
    str | None,
    option(
        "--scale",
        panel=DATA,
        metavar="NAME",
        help="Of the features, as measured on the training rows: none; standardise, as --standardise; or quantile, by "
        "their ranks to a normal distribution, for features with long tails.",
    ),
]
Categorical = Annotated[
    str,
    option(
        "--categorical",
        panel=DATA,
        metavar="NAMES",
        help="Columns whose values are categories though they are numbers: zip,month. Columns of text always are "
        "(csv, parquet and arrow files with names). Each category of the training rows becomes a feature of 0 and 1.",
    ),
]
EmbedColumns = Annotated[
    str | None,
    option(
        "--embed",
        panel=DATA,
        metavar="NAMES",
        help='Learn some numbers for each category instead: "all" for the categorical columns of more than two '
        "categories, or city=8,shop for these, with so many numbers or as many as is usual.",
    ),
]
Hidden = Annotated[
    str,
    option(
        "--hidden",
        "--hidden-layer-sizes",
        "--unit",
        "-u",
        panel=NET,
        metavar="N,N",
        help='Neurons of the hidden layers; "none" for no such layer.',
    ),
]
ActivationNames = Annotated[
    str,
    option(
        "--activation",
        panel=NET,
        metavar="NAMES",
        help="Of the hidden layers: one, or one for each: tanh,leaky_relu(0.2). `gpumlp info` lists them.",
    ),
]
Output = Annotated[
    str | None,
    option("--output", panel=NET, metavar="NAME", help="Activation of the output: softmax for classes, else identity."),
]
CostName = Annotated[
    str | None,
    option("--cost", panel=NET, metavar="NAME", help="categorical_cross_entropy for classes, else quadratic."),
]
Dropout = Annotated[float, option("--dropout", panel=NET, help="Share of hidden units dropped while training.")]
Normalisation = Annotated[
    str | None,
    option(
        "--normalisation",
        "--normalization",
        panel=NET,
        metavar="KINDS",
        help='Of the hidden layers, before the activation: "layer", "batch" or "none", or one for each.',
    ),
]
Optimizer = Annotated[str, option("--optimizer", "--solver", panel=FIT, metavar="NAME", help="Update rule.")]
LearningRate = Annotated[float, option("--lr", "--learning-rate-init", panel=FIT, help="Learning rate.")]
BatchSize = Annotated[
    str,
    option(
        "--batch-size",
        "--batchsize",
        "--batch",
        "-b",
        panel=FIT,
        metavar="N",
        help='Rows of a batch; "full"; or "tune" for what is fastest here, as three seconds of measuring show.',
    ),
]
MicroBatch = Annotated[
    str,
    option(
        "--micro-batch",
        panel=FIT,
        metavar="N",
        help='Rows of a batch that are computed at a time, as memory wants it: a number, "auto" or "none".',
    ),
]
Epochs = Annotated[int, option(*EPOCHS, panel=FIT, min=1, help="Epochs.")]
L2 = Annotated[
    float,
    option(
        "--l2",
        "--alpha",
        panel=FIT,
        help="Penalty l2 / 2 times the squared weights (scikit-learn divides its alpha by the rows of a batch).",
    ),
]
ClipNorm = Annotated[float | None, option("--clip-norm", panel=FIT, help="Largest norm of a gradient.")]
ScheduleName = Annotated[
    str | None,
    option("--schedule", panel=FIT, metavar="NAME", help="Of the learning rate, for example cosine or step(every=5)."),
]
Patience = Annotated[
    int | None,
    option(
        "--early-stopping",
        panel=FIT,
        metavar="EPOCHS",
        min=1,
        help="Stop when the cost of a tenth of the training rows, set aside, has not fallen for so many epochs.",
    ),
]
Seed = Annotated[int, option(*SEED, panel=RUN, min=0, help="Of the split, the weights and the order.")]
Dtype = Annotated[str, option("--dtype", panel=RUN, metavar="NAME", help="float32 or float64.")]
BackendName = Annotated[
    str, option("--backend", panel=RUN, metavar="NAME", help="auto, numpy, numba or cuda; see `gpumlp info`.")
]
Device = Annotated[
    str | None, option("--device", "-d", panel=RUN, metavar="NAME", help="cpu, cuda, cuda:1; auto by default.")
]
Precision = Annotated[
    str | None,
    option("--precision", panel=RUN, metavar="NAME", help="Of the products; that of dtype by default, tf32 on a GPU."),
]
Save = Annotated[Path | None, option("--save", "--out", "-o", panel=RUN, metavar="FILE", help="Save the model (.npz).")]
Log = Annotated[
    Path | None,
    option("--log", panel=RUN, metavar="FILE", help="Write a line for each epoch (.csv or .jsonl)."),
]
TensorBoard = Annotated[
    Path | None,
    option("--tensorboard", panel=RUN, metavar="FOLDER", help="Write what TensorBoard shows there, epoch by epoch."),
]
Mlflow = Annotated[
    str | None,
    option(
        "--mlflow",
        panel=RUN,
        metavar="URI",
        help="Log options, values by epoch and the model into MLflow: http://localhost:5000, or sqlite:///mlflow.db.",
    ),
]
MlflowExperiment = Annotated[
    str, option("--mlflow-experiment", panel=RUN, metavar="NAME", help="Which experiment of MLflow the run is of.")
]
Report = Annotated[
    Path | None,
    option("--report", panel=RUN, metavar="FILE", help="Write the training as one page with figures (.html)."),
]
Nvtx = Annotated[bool, option("--nvtx", panel=RUN, help="Name epochs, steps and evaluations for NVIDIA's profilers.")]
Memory = Annotated[
    str | None,
    option(
        "--memory",
        panel=RUN,
        metavar="SIZE",
        help="How much the features may take, such as 2GB; larger ones are streamed from their file. Default: half of "
        "what is free.",
    ),
]
CheckpointFolder = Annotated[
    Path | None,
    option(
        "--checkpoint",
        panel=RUN,
        metavar="DIR",
        help="Keep in this folder what is needed to go on; Ctrl-C and SIGTERM write it, too.",
    ),
]
CheckpointEvery = Annotated[
    str,
    option("--every", panel=RUN, metavar="N", help="How far checkpoints are apart: 1000steps, 1epoch, 30s, 5min, 2h."),
]
Keep = Annotated[int, option("--keep", panel=RUN, min=1, help="How many checkpoints stay.")]
Resume = Annotated[
    bool,
    option(
        "--resume",
        panel=RUN,
        help="Go on from the newest of --checkpoint, with all other options as they were; begin where there is none.",
    ),
]
Quiet = Annotated[bool, option("--quiet", panel=RUN, help="Only the closing line.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as one JSON object on stdout.")]


def header_mode(header: bool | None) -> Literal["auto"] | bool:
    """Return what load_table wants."""
    return "auto" if header is None else header


def hidden_sizes(text: str, option: str = "--hidden") -> tuple[int, ...]:
    """Read "128,64", "(128, 64)" or "none"."""
    parts = [part for part in text.strip(" ()[]").split(",") if part.strip()]
    if text.strip().lower() == "none":
        return ()
    try:
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise ConfigurationError(
            f'{option} {text!r}: expected whole numbers such as 128,64, or "none" for no hidden layer'
        ) from error


def activation_names(text: str) -> str | list[str]:
    """Return one name for all hidden layers, or one for each; a comma inside parentheses belongs to its name."""
    names = [name.strip() for name in re.split(r",(?![^(]*\))", text)]
    return names if len(names) > 1 else names[0]


def normalisation_kinds(text: str | None) -> str | list[str | None] | None:
    """Return one kind for all hidden layers, or one for each: "layer,none"."""
    kinds = [None if kind.strip().lower() == "none" else kind.strip() for kind in (text or "none").split(",")]
    return kinds if len(kinds) > 1 else kinds[0]


def batch_rows(text: str) -> int | str:
    """Read a number of rows; Trainer refuses what is neither that nor "full" or "tune"."""
    try:
        return int(text)
    except ValueError:
        return text


def micro_batch_rows(text: str) -> int | str | None:
    """Read a number of rows, "auto" or "none"; Trainer refuses everything else."""
    return None if text.strip().lower() == "none" else batch_rows(text)


def column_names(text: str) -> tuple[str, ...]:
    """Return the names of columns in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def scaler_kind(scale: str | None, standardise: bool) -> type[Scaler] | None:
    """Return what --scale and --standardise ask for; raise ConfigurationError if they contradict each other."""
    if scale is None:
        return Standardiser if standardise else None
    name = scale.strip().lower().replace("standardize", Standardiser.name)
    if standardise and name != Standardiser.name:
        raise ConfigurationError(f"--standardise and --scale {scale} contradict each other; leave one out")
    if name == "none":
        return None
    if name not in SCALERS:
        raise unknown_name("scaling", scale, ["none", *SCALERS])
    return scaler_named(name)


def expect_task(name: str | None) -> None:
    """Raise UnknownName unless `name` is a task or None."""
    if name is not None and name not in TASKS:
        raise unknown_name("task", name, TASKS)
