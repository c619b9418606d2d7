"""`gpumlp plan`: what memory a training will need, before it is begun."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gpumlp.backends.select import asked_for, choose
from gpumlp.cli import options as opt
from gpumlp.data.files import shortened
from gpumlp.errors import ConfigurationError
from gpumlp.network.architecture import build_architecture
from gpumlp.network.embedding import Embedding
from gpumlp.network.members import Member
from gpumlp.training.memory import plan_memory

Sizes = Annotated[
    str, typer.Option("--sizes", metavar="N,N", help="Neurons of each layer from input to output: 784,128,10.")
]
Models = Annotated[int, typer.Option("--models", metavar="N", min=1, help="Networks that are trained at once.")]
Rows = Annotated[int | None, typer.Option("--rows", metavar="N", min=1, help="Of the training set; one batch of them.")]
ValidationRows = Annotated[
    int, typer.Option("--validation-rows", metavar="N", min=0, help="That are evaluated after each epoch.")
]

Embeddings = Annotated[
    str,
    typer.Option(
        "--embed",
        metavar="NxN,NxN",
        help="Columns that are embedded, the categories of each and its learned numbers: 1000x8,50x4.",
    ),
]


def plan(
    sizes: Sizes,
    rows: Rows = None,
    validation_rows: ValidationRows = 0,
    models: Models = 1,
    activation: opt.ActivationNames = "relu",
    output: opt.Output = None,
    cost: opt.CostName = None,
    dropout: opt.Dropout = 0.0,
    normalisation: opt.Normalisation = None,
    embed: Embeddings = "",
    optimizer: opt.Optimizer = "adam",
    batch_size: opt.BatchSize = "64",
    micro_batch: opt.MicroBatch = "none",
    clip_norm: opt.ClipNorm = None,
    dtype: opt.Dtype = "float32",
    backend: opt.BackendName = "auto",
    as_json: opt.AsJson = False,
) -> None:
    """Tell what memory a training with these options needs, part by part. Nothing is allocated or trained.

    On cuda it is the device's memory, without what the driver takes for its context; the data set lies there, too.
    On a processor Python's own objects, some 100 KiB, come on top, and with numba scratch of some percent.
    """
    architecture = build_architecture(
        opt.hidden_sizes(sizes, "--sizes"),
        opt.activation_names(activation),
        output or "softmax",
        cost or "categorical_cross_entropy",
        opt.normalisation_kinds(normalisation),
        read_embeddings(embed),
    )
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"--dropout {dropout:g}: expected a share from 0 up to, but not, 1")
    rates = (dropout,) * (architecture.n_layers - 1)
    name = asked_for(None if backend == "auto" else backend)
    found = plan_memory(
        [Member(architecture, rates, model_id=m) for m in range(models)],
        opt.batch_rows(batch_size),
        optimizer,
        rows,
        validation_rows,
        choose(None) if name == "auto" else name,
        dtype,
        labels=cost in (None, "categorical_cross_entropy"),
        clip_norm=clip_norm,
        micro_batch=opt.micro_batch_rows(micro_batch),
    )
    if as_json:
        print(json.dumps({"backend": found.backend, "parts": found.parts, "total": found.total}))
        return
    print(f"memory on {found.backend}, {architecture}, batch {batch_size}, {dtype}")
    print("\n".join(found.table()))


def read_embeddings(text: str) -> tuple[Embedding, ...]:
    """Read "1000x8,50x4" as embeddings of the first columns; which they are changes no number of bytes."""
    found = []
    for column, part in enumerate(part.strip() for part in text.split(",") if part.strip()):
        numbers = part.lower().split("x")
        if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
            raise ConfigurationError(
                f"--embed {shortened(part)!r}: expected the categories of a column and its learned numbers; write for "
                "example 1000x8,50x4"
            )
        found.append(Embedding(column, *(int(number) for number in numbers)))
    return tuple(found)
