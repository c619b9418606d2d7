"""Small data for the estimators, and ways to compare two of them."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import estimator_checks_generator


def flowers(rows=slice(None), dtype=np.float64):
    """Three classes of 50 rows with 4 features, scaled."""
    X, y = load_iris(return_X_y=True)
    return scale(X).astype(dtype)[rows], y[rows]


def patients(n=150):
    """A number for each of n rows with 10 features, scaled."""
    X, y = load_diabetes(return_X_y=True)
    return scale(X)[:n], scale(y)[:n]


def fit(estimator, *arguments, **named):
    """Fit for as long as it is told to, whether or not that converges."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*arguments, **named)


def same_bits(one, other):
    """Tell whether two estimators have the same weights, bit for bit."""
    pairs = zip((*one.coefs_, *one.intercepts_), (*other.coefs_, *other.intercepts_), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def expect_close(one, other, rtol=1e-9, atol=1e-11):
    """Expect two estimators to have nearly the same weights."""
    for a, b in zip((*one.coefs_, *one.intercepts_), (*other.coefs_, *other.intercepts_), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def checks_of(*estimators, only=None):
    """Return scikit-learn's checks of the estimators, or those of these names, as parameters (estimator, check)."""
    return [
        pytest.param(one, check, id=f"{one}-{check.func.__name__}-{check.keywords}")
        for estimator in estimators
        for one, check in estimator_checks_generator(estimator)
        if only is None or check.func.__name__ in only
    ]
