"""From the inputs to the outputs: z[l] = W[l] a[l] + b[l], a[l+1] = f(z[l]), a row for each example.

A normalised layer has a[l+1] = f(u[l]) with u[l] = gamma[l] zhat[l] + beta[l]; what zhat is says
`gpumlp.formulas.normalisation`.

a[0] are the inputs. Where some of their columns are codes of categories, a[0] has in place of a code c the row E[c] of
a table that is learned: an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gpumlp.backends.protocol import Backend, Dropout, of_all
from gpumlp.network.workspace import Part, Workspace, dropout_of


def hidden_layers(backend: Backend, part: Part, dropout: Sequence[Dropout | None]) -> None:
    """Set z and a of every hidden layer from the rows of the batch."""
    p, z, u, a = part.p, part.z, part.u, part.a
    if part.embedded is not None:
        backend.embed(part.embedded.lookup, part.embedded.rows, p.tables, a[0])  # a[0] = E[c]
    for l in range(part.n_layers - 1):
        f, drop, norm = part.activations[l], dropout[l], part.norms[l]
        if norm is None:
            backend.forward_layer(f, a[l], p.W[l], p.b[l], z[l], a[l + 1], drop)
        else:
            scales = p.b[l], p.gamma[l], p.beta[l]
            backend.normalised_layer(of_all(f), norm, a[l], p.W[l], *scales, z[l], u[l], a[l + 1], drop)


def feedforward(backend: Backend, ws: Workspace) -> None:
    """Set z and a of every layer from the rows of the batch."""

    def output_layer(part: Part) -> None:
        p, f = part.p, part.activations[-1]
        backend.forward_layer(f, part.a[-2], p.W[-1], p.b[-1], part.z[-1], part.a[-1])

    _through(backend, ws, None, output_layer)


def feedforward_to_output(backend: Backend, ws: Workspace, dropout: Sequence[Dropout | None] | None = None) -> None:
    """Set z and a of the hidden layers, and z = W a of the output layer.

    Its bias and activation are left to `output_delta` or `evaluate`, which do them in one pass with the cost.
    """
    _through(backend, ws, dropout, lambda part: backend.linear(part.a[-2], part.p.W[-1], part.z[-1]))


def _through(
    backend: Backend, ws: Workspace, dropout: Sequence[Dropout | None] | None, output_layer: Callable[[Part], None]
) -> None:
    """Go through the layers of every part of the stack."""

    def layers(part: Part) -> None:
        hidden_layers(backend, part, dropout_of(part, dropout))
        output_layer(part)

    backend.side_by_side([partial(layers, part) for part in ws.parts])
