"""`gpumlp verify`: how far two backends drift apart when they train the same network."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gpumlp.cli import options as opt
from gpumlp.errors import ConfigurationError
from gpumlp.verify import Drift
from gpumlp.verify import verify as measure

Backends = Annotated[str, typer.Option("--backends", metavar="A,B", help="The two to compare; see `gpumlp info`.")]
Sizes = Annotated[str, typer.Option("--sizes", metavar="N,N", help="Neurons of each layer, from input to output.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps of 32 rows.")]


def verify(
    backends: Backends = "numpy,cuda",
    sizes: Sizes = "20,32,16,3",
    steps: Steps = 100,
    dtype: opt.Dtype = "float32",
    activation: opt.ActivationNames = "tanh",
    optimizer: opt.Optimizer = "adam",
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Train the same network on two backends and tell how far they drift apart, by step and layer.

    The exit status is 0 if all differences are within the tolerance: 1e-4 for float32, 1e-11 for float64.
    It is meant for 100 steps: rounding grows with every further one.
    """
    names = [name.strip() for name in backends.split(",")]
    drift = measure(names, _sizes(sizes), steps, dtype, opt.activation_names(activation), optimizer, seed)
    if as_json:
        print(as_object(drift))
    else:
        Console().print(as_table(drift))
        print(verdict(drift))
    if not drift.within:
        raise typer.Exit(1)


def as_object(drift: Drift) -> str:
    """Return the drift as JSON, in which null stands for what is not finite."""
    found = {**asdict(drift), "largest": drift.largest, "within": drift.within}
    found["layers"] = [{k: _finite(v) for k, v in layer.items()} for layer in found["layers"]]
    return json.dumps({k: _finite(v) for k, v in found.items()})


def as_table(drift: Drift) -> Table:
    """Return the drift by step and layer, for people."""
    table = Table(title=" and ".join(drift.backends), caption="largest relative differences")
    for column in ("step", "layer", "weights", "gradient", "delta"):
        table.add_column(column, justify="right")
    for i, row in enumerate(drift.layers):
        ends = i + 1 == len(drift.layers) or drift.layers[i + 1].step != row.step
        cells = (f"{value:.1e}" for value in (row.weights, row.gradient, row.delta))
        table.add_row("" if row.layer else str(row.step), str(row.layer), *cells, end_section=ends)
    return table


def verdict(drift: Drift) -> str:
    """Return the closing line."""
    sizes = "-".join(str(n) for n in drift.sizes)
    word = "within" if drift.within else "NOT within"
    return f"{word} tolerance: largest {drift.largest:.2g}, {drift.tolerance:g} allowed ({sizes}, {drift.dtype})"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--sizes {text!r}: expected whole numbers such as 20,32,16,3") from error
