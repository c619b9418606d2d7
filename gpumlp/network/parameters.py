"""All parameters of a stack as one buffer, and the weights and biases as views of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from gpumlp.backends.protocol import Array, Backend

PADDING = 32  # values: each tensor begins at a multiple of 128 bytes in float32


@dataclass(frozen=True)
class ParameterLayout:
    """Where each tensor of a network stands in a row of theta: all weights first, then all biases.

    Each tensor is padded with zeros, which stay zero under every update rule since their gradient is zero.
    """

    sizes: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of W[0], W[1], ..., then of b[0], b[1], ..."""
        weights: list[tuple[int, ...]] = [(o, i) for i, o in pairwise(self.sizes)]
        return weights + [(o,) for o in self.sizes[1:]]

    @property
    def offsets(self) -> list[int]:
        """Where each tensor begins, and behind the last one the length of the row."""
        offsets = [0]
        for shape in self.shapes:
            offsets.append(offsets[-1] + -(-prod(shape) // PADDING) * PADDING)
        return offsets

    @property
    def n_params(self) -> int:
        """Length of a row of theta, padding included."""
        return self.offsets[-1]

    @property
    def n_weights(self) -> int:
        """Where the weights end and the biases begin: decay acts on the first part only."""
        return self.offsets[len(self.sizes) - 1]

    @property
    def n_trainable(self) -> int:
        """Number of weights and biases of one model, without padding."""
        return sum(prod(shape) for shape in self.shapes)


class Parameters:
    """A buffer theta (n_models, n_params) with its views W[l] (n_models, out, in) and b[l] (n_models, out)."""

    def __init__(self, backend: Backend, layout: ParameterLayout, n_models: int, what: str = "the parameters") -> None:
        self.layout, self.backend = layout, backend
        self.theta = backend.empty((n_models, layout.n_params), what=what)
        backend.fill(self.theta, 0.0)
        views = self.views(self.theta)
        n_layers = len(layout.sizes) - 1
        self.W, self.b = views[:n_layers], views[n_layers:]

    def views(self, theta: Array) -> list[Array]:
        """Return every tensor of a buffer that is laid out as theta."""
        n_models = theta.shape[0]
        return [
            theta[:, start : start + prod(shape)].reshape(n_models, *shape)
            for start, shape in zip(self.layout.offsets[:-1], self.layout.shapes, strict=True)
        ]
