"""Small data sets, and both kinds of estimators fitted to them."""

import numpy as np

from gpumlp.accel.installation import ACCELERATED, ORIGINALS

N = 43  # not a multiple of any batch below
_generator = np.random.default_rng(5)
X = _generator.normal(size=(N, 5))
WEIGHTS = _generator.uniform(0.5, 2, N)
TARGETS = {
    "classes": _generator.integers(0, 3, N),
    "two classes": _generator.choice(["no", "yes"], N),
    "several labels": _generator.integers(0, 2, (N, 3)),
    "numbers": _generator.normal(size=N),
    "two numbers": _generator.normal(size=(N, 2)),
    "counts": _generator.poisson(2, N).astype(float),
}
REGRESSIONS = {"numbers", "two numbers", "counts"}


def both(target, **parameters):
    """Return scikit-learn's own estimator for a target, and the accelerated one."""
    name = "MLPRegressor" if target in REGRESSIONS else "MLPClassifier"
    given = {
        "hidden_layer_sizes": (7, 4),
        "batch_size": 8,
        "max_iter": 6,
        "random_state": 1,
        "alpha": 0.05,
    } | parameters
    if target == "counts":
        given["loss"] = "poisson"
    return ORIGINALS[name](**given), ACCELERATED[name](**given)


def moments(estimator):
    """Return what an estimator's optimizer keeps for each weight, as one vector."""
    optimizer = estimator._optimizer
    kept = optimizer.ms + optimizer.vs if hasattr(optimizer, "ms") else optimizer.velocities
    return np.concatenate([moment.ravel() for moment in kept])


def weights(estimator):
    """Return all weights and biases as one vector."""
    return np.concatenate([array.ravel() for array in estimator.coefs_ + estimator.intercepts_])


def expect_equal(own, accelerated, rtol=1e-9):
    """Assert that two fitted estimators are the same but for rounding."""
    for values in (weights, moments):
        largest = np.abs(values(own)).max()
        np.testing.assert_allclose(values(accelerated), values(own), rtol=0, atol=rtol * largest)
    np.testing.assert_allclose(accelerated.loss_curve_, own.loss_curve_, rtol=rtol)
    for name in ("n_iter_", "t_", "_no_improvement_count", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(accelerated, name) == getattr(own, name), name
    assert accelerated._optimizer.learning_rate == own._optimizer.learning_rate
    assert getattr(accelerated._optimizer, "t", 0) == getattr(own._optimizer, "t", 0)
    assert (accelerated.validation_scores_ is None) == (own.validation_scores_ is None)
    if own.validation_scores_ is not None:
        np.testing.assert_allclose(accelerated.validation_scores_, own.validation_scores_, rtol=rtol, atol=1e-12)
    assert set(vars(accelerated)) == set(vars(own))
