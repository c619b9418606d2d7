"""All that a stack knows as one buffer, and the weights, biases and statistics as views of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from math import prod

import numpy as np

from gpumlp.backends.protocol import APART, CATEGORIES, COLUMN, FIRST, Array, Backend, Lookup, padded
from gpumlp.formulas.normalisation import BATCH
from gpumlp.network.architecture import Architecture
from gpumlp.network.embedding import Embedding, widths


@dataclass(frozen=True)
class ParameterLayout:
    """Where each tensor of a network stands in a row of theta.

    All weights come first, with the tables of embeddings as the last of them, then all biases; behind them gamma and
    beta of the normalised layers, and at the end the running statistics of those normalised over a batch, which no
    update rule moves. So a row is all that a model knows. Each tensor is padded with zeros, which stay zero under every
    update rule since their gradient is zero.

    sizes           of the network's layers
    normalisation   "layer", "batch" or None for each hidden layer; () for none at all
    room            of a model in a stack of several sizes: the largest ones, for which there is room in the row. Its
                    tensors begin where the largest ones would, and have the model's own shapes; () for none but its own
    embeddings      of columns of the inputs
    """

    sizes: tuple[int, ...]
    normalisation: tuple[str | None, ...] = ()
    room: tuple[int, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of all W, all E, all b, all gamma, all beta, and of all running means and variances."""
        weights: list[tuple[int, ...]] = [(o, i) for i, o in pairwise(widths(self.sizes, self.embeddings))]
        tables: list[tuple[int, ...]] = [(e.n_categories, e.n_units) for e in self.embeddings]
        biases: list[tuple[int, ...]] = [(o,) for o in self.sizes[1:]]
        return weights + tables + biases + 2 * self._of_layers(True) + 2 * self._of_layers(False)

    def _of_layers(self, learned: bool) -> list[tuple[int, ...]]:
        """Return the shape of what each normalised layer learns, or of its running statistics."""
        pairs = zip(self.normalisation, self.sizes[1:-1], strict=False)
        return [(n,) for kind, n in pairs if kind is not None and (learned or kind == BATCH)]

    @cached_property
    def offsets(self) -> list[int]:
        """Where each tensor begins, and behind the last one the length of the row."""
        if self.room:
            return sized(self, self.room).offsets
        offsets = [0]
        for shape in self.shapes:
            offsets.append(offsets[-1] + padded(prod(shape)))
        return offsets

    def own(self, begin: int, end: int) -> list[slice]:
        """Return where a model has its own numbers in this part of a row, tensor by tensor, counted from `begin` on."""
        starts = zip(self.offsets[:-1], self.shapes, strict=True)
        return [slice(at - begin, at - begin + prod(shape)) for at, shape in starts if begin <= at < end]

    @property
    def n_params(self) -> int:
        """Length of a row of theta, padding included."""
        return self.offsets[-1]

    @property
    def n_weights(self) -> int:
        """Where the weights end and the biases begin: decay acts on the first part only."""
        return self.offsets[self.n_layers + len(self.embeddings)]

    @property
    def tables(self) -> slice:
        """Where the tables of embeddings stand, which are the last of the weights."""
        return slice(self.offsets[self.n_layers], self.n_weights)

    @property
    def n_layers(self) -> int:
        """Number of layers with weights."""
        return len(self.sizes) - 1

    @property
    def n_learned(self) -> int:
        """Where all that is learned ends, and the running statistics begin."""
        return self.offsets[self._n_tensors_learned]

    @property
    def n_trainable(self) -> int:
        """Number of all that one model learns, without padding."""
        return sum(prod(shape) for shape in self.shapes[: self._n_tensors_learned])

    def views(self, theta: Array) -> list[Array]:
        """Return every tensor of theta (n_models, n_params), in the order of `shapes`."""
        return [
            theta[:, start : start + prod(shape)].reshape(len(theta), *shape)
            for start, shape in zip(self.offsets[:-1], self.shapes, strict=True)
        ]

    def of_model(self, row: Array, sizes: tuple[int, ...], padded: bool) -> list[Array]:
        """Return every tensor of a model of these sizes from its row of theta (n_params,).

        padded   whether a tensor lies in the corner of the largest one, whose other numbers are zero; else its numbers
                 lie side by side
        """
        if not padded or sizes == self.sizes:
            return [x[0] for x in within(self, sizes).views(row[None])]
        own = sized(self, sizes).shapes
        return [x[0][tuple(map(slice, shape))] for x, shape in zip(self.views(row[None]), own, strict=True)]

    def lookup(self) -> Lookup:
        """Return where the numbers come from that the first layer reads, as arrays of the host."""
        of_columns = np.zeros((4, self.sizes[0]), np.int64)
        of_columns[COLUMN] = np.arange(self.sizes[0])
        for e, at in zip(self.embeddings, self.offsets[self.n_layers :], strict=False):
            of_columns[[CATEGORIES, FIRST, APART], e.column] = e.n_categories, at - self.tables.start, e.n_units
        n_units = np.maximum(of_columns[APART], 1)
        begins = np.cumsum(n_units) - n_units
        units = np.repeat(of_columns, n_units, axis=1)
        places = np.arange(units.shape[1]) - np.repeat(begins, n_units)
        units[FIRST] += places
        firsts = begins[[e.column for e in self.embeddings]]
        return Lookup(units, firsts, tuple(e.n_categories for e in self.embeddings))

    @property
    def _n_tensors_learned(self) -> int:
        return 2 * (self.n_layers + len(self._of_layers(True))) + len(self.embeddings)


def layout_of(net: Architecture) -> ParameterLayout:
    """Return how the parameters of an architecture are laid out."""
    return ParameterLayout(net.sizes, net.normalisation, embeddings=net.embeddings)


@lru_cache(maxsize=4096)
def sized(layout: ParameterLayout, sizes: tuple[int, ...], room: tuple[int, ...] = ()) -> ParameterLayout:
    """Return the layout for other sizes; kept, for a large stack asks for those of its models again and again."""
    return replace(layout, sizes=sizes, room=room)


def within(layout: ParameterLayout, sizes: tuple[int, ...]) -> ParameterLayout:
    """Return how a model of these sizes is laid out in a stack, whose largest sizes `layout` has."""
    return sized(layout, sizes, layout.sizes)


class Parameters:
    """A buffer theta (n_models, n_params) with its views.

    theta                  new, all zeros, unless it is given

    W[l], b[l]             (n_models, out, in) and (n_models, out)
    E[i]                   (n_models, n_categories, n_units), the table of an embedding; tables: all of them as they
                           lie in theta, (n_models, n)
    gamma[l], beta[l]      (n_models, out) of a hidden layer; None where it is not normalised
    running_mean[l], running_variance[l]   (n_models, out); None where it is not normalised over a batch
    """

    def __init__(
        self,
        backend: Backend,
        layout: ParameterLayout,
        n_models: int,
        what: str = "the parameters",
        theta: Array | None = None,
    ) -> None:
        self.layout, self.backend = layout, backend
        if theta is None:
            theta = backend.empty((n_models, layout.n_params), what=what)
            backend.fill(theta, 0.0)
        self.theta = theta
        views = self.views(self.theta)
        n_layers, rest = layout.n_layers, iter(views)
        self.W, self.E, self.b = (list(islice(rest, n)) for n in (n_layers, len(layout.embeddings), n_layers))
        self.tables = self.theta[:, layout.tables]
        kinds = layout.normalisation or (None,) * (n_layers - 1)
        self.gamma: list[Array]
        self.beta: list[Array]
        self.gamma, self.beta = ([None if kind is None else next(rest) for kind in kinds] for _ in range(2))
        self.running_mean, self.running_variance = (
            [next(rest) if kind == BATCH else None for kind in kinds] for _ in range(2)
        )

    def of(self, models: slice, sizes: tuple[int, ...]) -> Parameters:
        """Return those of some models of a stack, which have these sizes, as views."""
        theta = self.theta[models]
        return Parameters(self.backend, within(self.layout, sizes), len(theta), theta=theta)

    def views(self, theta: Array) -> list[Array]:
        """Return every tensor of a buffer that is laid out as theta."""
        return self.layout.views(theta)
