"""Architecture: what a network is, before it has any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpumlp.errors import ConfigurationError, FormulaError, unknown_name
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.normalisation import KINDS
from gpumlp.formulas.output_delta import check_pair
from gpumlp.formulas.register import check_definition
from gpumlp.network.embedding import Embedding, check_embeddings, widths

MOST_NEURONS = 2**31 - 1  # of a layer


@dataclass(frozen=True)
class Architecture:
    """Sizes of the layers from input to output, an activation for each layer but the input, and the cost.

    activations     the last one is the output activation
    normalisation   "layer", "batch" or None for each hidden layer
    embeddings      columns of codes that the first layer reads as learned numbers, in the order of their columns
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    cost: Cost
    normalisation: tuple[str | None, ...]
    embeddings: tuple[Embedding, ...] = ()

    @property
    def n_layers(self) -> int:
        """Number of layers with weights."""
        return len(self.sizes) - 1

    @property
    def n_embedded(self) -> int:
        """How many numbers the first layer reads: each embedded column is replaced, in its place, by its units."""
        return self.widths[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes, but for the first: how many numbers the first layer reads."""
        return widths(self.sizes, self.embeddings)

    def __str__(self) -> str:
        return "-".join(str(n) for n in self.sizes)


def build_architecture(
    sizes: Sequence[int],
    activation: str | Activation | Sequence[str | Activation],
    output: str | Activation,
    cost: str | Cost,
    normalisation: str | Sequence[str | None] | None = None,
    embeddings: Sequence[Embedding] = (),
) -> Architecture:
    """Return the Architecture that the names stand for.

    Raises   ConfigurationError for impossible sizes or embeddings, UnknownName, FormulaError if output and cost do not
             fit
    """
    try:
        layers = tuple(int(n) for n in sizes)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"sizes={sizes!r} is no list of layer sizes; write for example (64, 32, 10)"
        ) from error
    if len(layers) < 2 or min(layers) < 1 or any(n != m for n, m in zip(layers, sizes, strict=True)):
        raise ConfigurationError(
            f"sizes={tuple(sizes)!r}: expected at least an input and an output size, all whole numbers of at least 1"
        )
    n_hidden = len(layers) - 2
    if isinstance(activation, str | Activation) or callable(activation):
        several: list[Any] = [activation] * n_hidden
    else:
        several = list(activation)
    if len(several) != n_hidden:
        raise ConfigurationError(
            f"activation names {len(several)} layers, sizes={layers} has {n_hidden} hidden ones; give one for each"
        )
    hidden = tuple(ACTIVATIONS.get(a) for a in several)
    for a in hidden:
        if a.row_wise:
            raise FormulaError(f"activation {a.name} couples the units of a row and works at the output only")
    for definition in (*hidden, ACTIVATIONS.get(output), COSTS.get(cost)):
        check_definition(definition)
    kinds = normalisation_kinds(normalisation, n_hidden)
    embedded = check_embeddings(embeddings, layers[0])
    if max(widths(layers, embedded)) > MOST_NEURONS:
        raise ConfigurationError(
            f"sizes={layers}: expected layers of at most {MOST_NEURONS} neurons, units of embeddings counted in; "
            "make them smaller"
        )
    found = Architecture(layers, (*hidden, ACTIVATIONS.get(output)), COSTS.get(cost), kinds, embedded)
    check_pair(found.cost, found.activations[-1])
    return found


def normalisation_kinds(normalisation: str | Sequence[str | None] | None, n_hidden: int) -> tuple[str | None, ...]:
    """Return the kind of normalisation of each hidden layer."""
    several = isinstance(normalisation, Sequence) and not isinstance(normalisation, str)
    given: list[Any] = list(normalisation or ()) if several else [normalisation]
    for kind in given:
        if kind is not None and kind not in KINDS:
            raise unknown_name("normalisation", kind, KINDS)
    kinds = given if several else given * n_hidden
    if len(kinds) != n_hidden:
        raise ConfigurationError(
            f"normalisation names {len(kinds)} layers, there are {n_hidden} hidden ones; give one for each"
        )
    return tuple(kinds)
