"""From the inputs to the outputs: z[l] = W[l] a[l] + b[l], a[l+1] = f(z[l]), a row for each example.

A normalised layer has a[l+1] = f(u[l]) with u[l] = gamma[l] zhat[l] + beta[l]; what zhat is says
`gpumlp.formulas.normalisation`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpumlp.backends.protocol import Backend, Dropout
from gpumlp.network.architecture import Architecture
from gpumlp.network.parameters import Parameters
from gpumlp.network.workspace import Workspace


def hidden_layers(
    backend: Backend, net: Architecture, p: Parameters, ws: Workspace, dropout: Sequence[Dropout | None] | None = None
) -> None:
    """Set z and a of every hidden layer from a[0]."""
    for l in range(net.n_layers - 1):
        drop, norm, f = None if dropout is None else dropout[l], ws.norms[l], net.activations[l]
        if norm is None:
            backend.forward_layer(f, ws.a[l], p.W[l], p.b[l], ws.z[l], ws.a[l + 1], drop)
        else:
            backend.normalised_layer(
                f, norm, ws.a[l], p.W[l], p.b[l], p.gamma[l], p.beta[l], ws.z[l], ws.u[l], ws.a[l + 1], drop
            )


def feedforward(backend: Backend, net: Architecture, p: Parameters, ws: Workspace) -> None:
    """Set z and a of every layer from a[0]."""
    hidden_layers(backend, net, p, ws)
    backend.forward_layer(net.activations[-1], ws.a[-2], p.W[-1], p.b[-1], ws.z[-1], ws.a[-1])


def feedforward_to_output(
    backend: Backend, net: Architecture, p: Parameters, ws: Workspace, dropout: Sequence[Dropout | None] | None = None
) -> None:
    """Set z and a of the hidden layers, and z = W a of the output layer.

    Its bias and activation are left to `output_delta` or `evaluate`, which do them in one pass with the cost.
    """
    hidden_layers(backend, net, p, ws, dropout)
    backend.linear(ws.a[-2], p.W[-1], ws.z[-1])
