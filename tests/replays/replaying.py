"""How the replays put published weights into a network and compare what comes out."""

import numpy as np

from gpumlp import Network


def network(W, b, backend, activation="sigmoid", output=None, cost="quadratic", dtype="float64"):
    """A network with W[l] (out, in) or (n_models, out, in), and biases, None for zeros."""
    W = [np.asarray(w, np.float64) for w in W]
    n_models = len(W[0]) if W[0].ndim == 3 else 1
    sizes = [W[0].shape[-1], *(w.shape[-2] for w in W)]
    net = Network(
        sizes,
        activation,
        activation if output is None else output,
        cost,
        n_models=n_models,
        initialiser="zeros",
        dtype=dtype,
        backend=backend,
    )
    for l, w in enumerate(W):
        net.set_weights(l, w, None if b is None else np.asarray(b[l], np.float64))
    return net


def close(found, expected, rtol=1e-12, atol=1e-15):
    """Assert that two lists of arrays, or two arrays, agree; the floor is for sums that cancel."""
    if isinstance(expected, list) and isinstance(found, list):
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            close(f, e, rtol, atol)
    else:
        np.testing.assert_allclose(found, expected, rtol, atol)


def of_model(arrays, m=0):
    """One model's arrays, copied."""
    return [np.array(x[m]) for x in arrays]


def columns_are_neurons(W):
    """Matrices of the matrix form, (in, out), as the package's (out, in)."""
    return [np.array(w).T for w in W]


def neurons(layers):
    """W and b of the per-neuron form, in which a neuron's last weight is its bias."""
    layers = [np.array(layer) for layer in layers]
    return [layer[:, :-1].copy() for layer in layers], [layer[:, -1].copy() for layer in layers]
