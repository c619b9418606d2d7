"""What a report tells of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gpumlp.network.network import Network
from gpumlp.pages.html import Table
from gpumlp.training.history import History


@dataclass(frozen=True)
class Outcome:
    """Predictions beside what is true, of the rows of one part.

    rows         in words, such as "360 rows held out"
    y            (n,) class numbers, or (n, n_out) numbers
    predicted    the same
    classes      names of the classes; None for numbers
    targets      names of the numbers
    """

    rows: str
    y: NDArray[Any]
    predicted: NDArray[Any]
    classes: tuple[str, ...] | None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One training of one network.

    name          of the data
    command       that trains the same again
    tiles         (figure, what it is), shown large
    summary       name -> value
    history       of the fit; validation_... are of `held_out`
    held_out      in words, whose values stand beside those of the training rows
    best_epoch    whose weights were kept; None where the last one's were
    environment   as gpumlp.bench.environment tells it
    """

    name: str
    command: str
    tiles: tuple[tuple[str, str], ...]
    summary: Mapping[str, Any]
    network: Network
    history: History
    held_out: str
    best_epoch: int | None
    outcome: Outcome | None
    environment: Mapping[str, Any]


def layers(net: Network) -> Table:
    """Return a line for each embedding and each layer."""
    architecture = net.architecture
    rows = [
        (f"column {e.column}", "embedding", "-", f"{e.n_categories:,} codes", f"{e.n_units:,}", "-", f"{n:,}")
        for e in architecture.embeddings
        for n in [e.n_categories * e.n_units]
    ]
    for l, f in enumerate(architecture.activations):
        n_in, n_out = architecture.widths[l : l + 2]
        hidden = l < architecture.n_layers - 1
        kind = architecture.normalisation[l] if hidden else None
        dropped = f"{net.dropout[l]:g}" if hidden and net.dropout[l] else "-"
        n_params = n_in * n_out + n_out + (2 * n_out if kind else 0)
        rows.append((f"{l}", f.name, kind or "-", f"{n_in:,}", f"{n_out:,}", dropped, f"{n_params:,}"))
    columns = ("layer", "activation", "normalisation", "inputs", "units", "dropout", "parameters")
    total = ("cost", architecture.cost.name, "", "", "", "", f"{net.parameters.layout.n_trainable:,}")
    return Table("Architecture", "", columns, (*rows, total), labels=3)
