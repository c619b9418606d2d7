"""Members: the models of a stack, each with sizes, activations and dropout of its own.

The stack has room for its largest member in every layer. Neighbours that are alike form a run, which a processor
computes by itself, without padding; a device computes all of them padded, and sees to it that padding stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from gpumlp.errors import ConfigurationError
from gpumlp.network.architecture import Architecture
from gpumlp.network.initialisers import Initialiser


@dataclass(frozen=True)
class Member:
    """One model of a stack: what a Network of one model is built from.

    dropout       share of units dropped, by hidden layer
    initialiser   as of Network
    """

    architecture: Architecture
    dropout: tuple[float, ...]
    seed: int = 0
    model_id: int = 0
    initialiser: str | Initialiser = "he"


@dataclass(frozen=True)
class Run:
    """Neighbours in a stack that are alike.

    models         their places
    architecture   which all of them have
    dropout        likewise, by hidden layer
    """

    models: slice
    architecture: Architecture
    dropout: tuple[float, ...]


def find_runs(members: Sequence[Member]) -> tuple[Run, ...]:
    """Return the runs of a stack; label smoothing, which is a matter of targets, does not divide them."""
    runs: list[Run] = []
    for (sizes, activations, dropout), group in groupby(
        members, lambda m: (m.architecture.sizes, m.architecture.activations, m.dropout)
    ):
        alike, begin = list(group), runs[-1].models.stop if runs else 0
        architecture = replace(alike[0].architecture, sizes=sizes, activations=activations)
        runs.append(Run(slice(begin, begin + len(alike)), architecture, dropout))
    return tuple(runs)


def runs_of(runs: Sequence[Run], models: slice) -> tuple[Run, ...]:
    """Return the runs of a stack of some of its models, which are neighbours."""
    found: list[Run] = []
    for run in runs:
        begin, end = max(run.models.start, models.start), min(run.models.stop, models.stop)
        if begin < end:
            found.append(replace(run, models=slice(begin - models.start, end - models.start)))
    return tuple(found)


def stacked_architecture(members: Sequence[Member]) -> Architecture:
    """Return what a stack of these members has room for: the first one's architecture, with the largest sizes.

    Raises   ConfigurationError where they do not go together
    """
    if not members:
        raise ConfigurationError("a stack needs at least one member; none was given")
    first = members[0].architecture
    for place, member in enumerate(members):
        for what, found, expected in zip(COMMON, common(member.architecture), common(first), strict=True):
            if found != expected:
                raise ConfigurationError(
                    f"member {place} has {what} {found}, member 0 has {expected}; put them into stacks of their own"
                )
        if len(member.dropout) != first.n_layers - 1:
            raise ConfigurationError(
                f"member {place} has {len(member.dropout)} dropout rates for {first.n_layers - 1} hidden layers; give "
                "one for each"
            )
    if any(first.normalisation) and len(find_runs(members)) > 1:
        raise ConfigurationError(
            "members with normalised layers have to be alike in sizes, activations and dropout; put those that differ "
            "into stacks of their own"
        )
    sizes = tuple(max(widths) for widths in zip(*(m.architecture.sizes for m in members), strict=True))
    return replace(first, sizes=sizes)


COMMON = (
    "number of layers",
    "input size",
    "output size",
    "output activation",
    "cost",
    "normalisation",
    "embeddings",
)


def common(net: Architecture) -> tuple[Any, ...]:
    """Return what all members of a stack have in common, in the order of COMMON."""
    cost = net.cost.name.partition("(label_smoothing")[0]
    output = net.sizes[-1], net.activations[-1].name
    return net.n_layers, net.sizes[0], *output, cost, net.normalisation, net.embeddings
