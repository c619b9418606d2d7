"""From the inputs to the outputs: a[l+1] = f(W[l] a[l] + b[l]), a row for each example."""

from __future__ import annotations

from collections.abc import Sequence

from gpumlp.backends.protocol import Backend, Dropout
from gpumlp.network.architecture import Architecture
from gpumlp.network.parameters import Parameters
from gpumlp.network.workspace import Workspace


def feedforward(backend: Backend, net: Architecture, p: Parameters, ws: Workspace) -> None:
    """Set z and a of every layer from a[0]."""
    for l in range(net.n_layers):
        backend.forward_layer(net.activations[l], ws.a[l], p.W[l], p.b[l], ws.z[l], ws.a[l + 1])


def feedforward_to_output(
    backend: Backend, net: Architecture, p: Parameters, ws: Workspace, dropout: Sequence[Dropout | None]
) -> None:
    """Set z and a of the hidden layers, and z = W a of the output layer for `output_delta` or `evaluate`."""
    last = net.n_layers - 1
    for l in range(last):
        backend.forward_layer(net.activations[l], ws.a[l], p.W[l], p.b[l], ws.z[l], ws.a[l + 1], dropout[l])
    backend.linear(ws.a[last], p.W[last], ws.z[last])
