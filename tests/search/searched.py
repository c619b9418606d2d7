"""Small problems for searches, and a way to compare two searches."""

from functools import cache

import numpy as np
import pytest
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_multilabel_classification,
    make_regression,
)
from sklearn.preprocessing import scale

from gpumlp import MLPClassifier, MLPRegressor

UNCONVERGED = pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")
FEW = 3  # epochs


def rows_of(load, n, seed=0):
    """Return n rows of a data set, drawn at random, with scaled features."""
    X, y = load(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(len(X))[:n]
    return scale(X[chosen]), y[chosen]


@cache
def problem(name):
    """Return X and y of a problem."""
    if name == "multilabel":
        return make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    if name == "two numbers":
        return make_regression(80, 5, n_targets=2, random_state=0)
    if name == "iris by name":
        X, y = rows_of(load_iris, 90)
        return X, np.array(["setosa", "versicolor", "virginica"])[y]
    loads = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine, "diabetes": load_diabetes}
    return rows_of(loads[name], 90)


CLASSES = ("digits", "breast_cancer", "wine", "iris by name", "multilabel")
NUMBERS = ("diabetes", "two numbers")


def estimator_for(name, **settings):
    """Return an estimator for a problem that is fitted in no time."""
    kind = MLPRegressor if name in NUMBERS else MLPClassifier
    return kind(**{"hidden_layer_sizes": (6,), "max_iter": FEW, "batch_size": 20, "random_state": 1} | settings)


def expect_same_search(one, other):
    """Expect two searches to have found the same, but for times."""
    assert one.best_params_ == other.best_params_
    assert one.best_index_ == other.best_index_
    assert one.multimetric_ == other.multimetric_
    assert one.n_splits_ == other.n_splits_
    expect_same_results(one.cv_results_, other.cv_results_)


def expect_same_results(one, other):
    """Expect two tables to have the same columns with the same values, but for times."""
    assert list(one) == list(other)
    for name, column in one.items():
        if "time" in name or name in ("estimator", "indices"):
            continue
        if np.asarray(column).dtype.kind == "f":
            np.testing.assert_allclose(column, other[name], rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            assert np.array_equal(np.ma.filled(column, None), np.ma.filled(other[name], None)), name
