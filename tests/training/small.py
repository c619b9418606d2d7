"""Small networks and data for the tests of training."""

import numpy as np

import gpumlp


def data(n=23, n_in=4, n_out=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_in))
    return X, np.tanh(X @ rng.standard_normal((n_in, n_out))) + 0.1 * rng.standard_normal((n, n_out))


def labelled(n=60, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.standard_normal((n, 4)) + 4 * np.eye(classes, 4)[y], y


def network(sizes=(4, 6, 2), activation="tanh", output="identity", cost="quadratic", dtype="float64", **options):
    return gpumlp.Network(sizes, activation, output, cost, dtype=dtype, **options)


def classifier(**options):
    return network((4, 6, 3), output="softmax", cost="categorical_cross_entropy", **options)
