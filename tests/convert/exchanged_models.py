"""Models that are exchanged: each kind of output, with and without scalers, of one network or of several."""

import dataclasses

import numpy as np

import gpumlp
from gpumlp.data import QuantileNormaliser, Standardiser
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.output_delta import fits

RANDOM = np.random.default_rng(5)
X = RANDOM.normal([3.0, -40.0, 0.1], [2.0, 8.0, 0.05], (23, 3))
SCALER = Standardiser.fit(X)
LABELS = {2: np.array(["ash", "elm"]), 3: np.array([3, 5, 70])}
NEAR = {"float32": 1e-6, "float64": 1e-12}
DTYPES = list(NEAR)
HIDDEN = [a for a in ACTIVATIONS.definitions() if not a.row_wise]
OUTPUTS = ACTIVATIONS.definitions()


def cost_for(output):
    """Return the first registered cost that an output activation goes with."""
    from gpumlp.formulas.costs import COSTS

    return next(cost for cost in COSTS.definitions() if fits(cost, output))


def network(sizes, output, activation="tanh", **options):
    """Return a network with biases, small enough for exp of exp."""
    output = ACTIVATIONS.get(output)
    options = {"cost": cost_for(output), "seed": 7, "initialiser": "nielsen"} | options
    net = gpumlp.Network(sizes, activation=activation, output=output, **options)
    for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        net.set_weights(l, 0.4 * W, 0.4 * b)
    return net


def classifier(n_classes=3, output="softmax", scaled=True, **options):
    """Return a classification; one sigmoid output serves two classes."""
    n_out = 1 if output == "sigmoid" and n_classes == 2 else n_classes
    net = network((3, 5, 4, n_out), output, **options)
    return gpumlp.SavedModel(
        net, "classification", LABELS[n_classes], ("a", "b", "c"), "tree", SCALER if scaled else None
    )


def regression(n_out=2, output="identity", scaled=True, **options):
    """Return a regression; targets are scaled where the output is the number itself."""
    net = network((3, 5, 4, n_out), output, **options)
    targets = Standardiser(np.array([10.0, -3.0])[:n_out], np.array([2.0, 0.5])[:n_out])
    return gpumlp.SavedModel(
        net,
        "regression",
        scaler=SCALER if scaled else None,
        target_scaler=targets if scaled and output == "identity" else None,
    )


def rows(model):
    """Return rows in the network's dtype, of a size that a model without a scaler can bear."""
    given = X if model.scaler is not None else SCALER.transform(X, np.float64)
    return given.astype(model.network.dtype)


def allowance(model, found):
    """Return how far a prediction may lie away: NEAR, times the units of the target."""
    units = 1.0 if model.target_scaler is None else float(np.abs(found).max())
    return NEAR[model.network.dtype.name] * max(units, 1.0)


def by_quantiles(model):
    """Return the model with features that become normal by their ranks, all but the second."""
    kept = np.array([False, True, False])
    return dataclasses.replace(model, scaler=QuantileNormaliser.fit(X, kept))
