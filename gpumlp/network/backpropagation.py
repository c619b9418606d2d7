"""The heart: the four equations of back-propagation, from the output layer to the first.

Layer l leads from a[l] to a[l+1]: z[l] = W[l] a[l] + b[l], a[l+1] = f(z[l]), and delta[l] = dC/dz[l].

    BP1   delta[L-1] = dC/da[L] * f'(z[L-1])                the error of the output layer, L being the number of layers
    BP2   delta[l-1] = (W[l]^T delta[l]) * f'(z[l-1])       the error of a layer from that of the next
    BP3   dC/db[l]   = delta[l]                             summed over the batch
    BP4   dC/dW[l]   = delta[l] a[l]^T                      summed over the batch

An example is a row in memory: W^T delta of the textbook's columns is delta W.
Source: Nielsen, Neural Networks and Deep Learning, ch. 2, whose layer l + 1 is our layer l.

Between z and f a layer may be normalised: a[l+1] = f(u[l]), u[l] = gamma zhat[l] + beta. There BP2 and BP3 read u for z
and beta for b: they give d = dC/du[l] and dC/dbeta. From d, with g = gamma d, follows

    BN    dC/dgamma  = d zhat                               summed over the batch
          delta[l]   = (g - mean(g) - zhat mean(g zhat)) / sqrt(variance + epsilon)

with means over the units of a row ("layer") or over the rows of the batch ("batch"), as mean and variance are.
Source: Ba, Kiros and Hinton 2016, Layer Normalization; Ioffe and Szegedy 2015, Batch Normalization, section 3.

Where an input is the code c of a category, a[0] = E[c] comes from one layer more, before the first: its own input is 1
at place c and 0 elsewhere, its weights are E, it has no bias, and its f is the identity. The same equations lead on:

    BP2   delta[-1] = W[0]^T delta[0]
    BP4   dC/dE[c]  = delta[-1]                             summed over the examples of the batch with code c
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gpumlp.backends.protocol import Array, Backend, Dropout, Tally
from gpumlp.formulas.output_delta import output_delta
from gpumlp.network.parameters import Parameters
from gpumlp.network.workspace import Part, Workspace, dropout_of


def backpropagation(
    backend: Backend,
    ws: Workspace,
    grad: Parameters,
    tally: Tally,
    clock: Array,
    dropout: Sequence[Dropout | None] | None = None,
) -> None:
    """Set delta of every layer and the gradient of every parameter; `feedforward_to_output` has set z, u and a."""
    net, z, a, delta, b = ws.architecture, ws.z, ws.a, ws.delta, ws.p.b
    bp1, f = output_delta(net.cost, net.activations[-1]), net.activations[-1]
    backend.output_delta(bp1, f, z[-1], b[-1], a[-1], ws.batch, clock, delta[-1], grad.b[-1], tally)  # BP1, BP3

    def hidden(part: Part) -> None:
        hidden_deltas(backend, part, grad.of(part.models, part.sizes), dropout_of(part, dropout))

    backend.side_by_side([partial(hidden, part) for part in ws.parts])


def hidden_deltas(backend: Backend, part: Part, grad: Parameters, dropout: Sequence[Dropout | None]) -> None:
    """Set delta of every hidden layer and all gradients but those of the output biases, from delta[L-1] on."""
    f, p, z, u, a, delta = part.activations, part.p, part.z, part.u, part.a, part.delta
    for l in reversed(range(part.n_layers)):
        backend.weight_gradient(delta[l], a[l], grad.W[l])  # BP4
        if l > 0:
            drop, norm = dropout[l - 1], part.norms[l - 1]
            db = grad.b[l - 1] if norm is None else grad.beta[l - 1]
            backend.hidden_delta(f[l - 1], delta[l], p.W[l], u[l - 1], a[l], delta[l - 1], db, drop)  # BP2, BP3
            if norm is not None:
                backend.normalised_delta(  # BN
                    norm, z[l - 1], p.gamma[l - 1], db, delta[l - 1], grad.gamma[l - 1], grad.b[l - 1]
                )
    if part.embedded is not None:
        learned, W = part.embedded, p.W[0][:, :, part.embedded.units]
        backend.linear_delta(delta[0], W, learned.delta)  # BP2
        backend.embedding_gradient(learned.lookup, learned.rows, learned.delta, grad.tables)  # BP4
