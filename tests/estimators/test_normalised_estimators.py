"""Estimators with normalised layers: what normalises is learned, kept and exchanged as weights are."""

import copy
import pickle

import numpy as np
import pytest
from fitted import checks_of, fit, flowers, patients

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def small(kind=MLPClassifier, **params):
    defaults = {"hidden_layer_sizes": (9, 7), "random_state": 1, "max_iter": 30, "learning_rate_init": 0.02}
    return kind(**defaults | {"n_iter_no_change": 99, "batch_size": 32} | params)


def same_normalising(one, other):
    for a, b in zip(one.normalising_, other.normalising_, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("estimator", "check"),
    checks_of(MLPClassifier(max_iter=60, normalisation="layer")),
)
def test_every_check_of_scikit_learn_holds_with_normalised_rows(estimator, check):
    check(estimator)


@pytest.mark.parametrize("normalisation", ["layer", "batch", [None, "batch"], ("batch", "layer")])
@pytest.mark.parametrize("n_models", [1, 3])
def test_what_normalises_is_learned_and_survives_a_pickle(normalisation, n_models, backend):
    X, y = flowers()
    mlp = small(normalisation=normalisation, n_models=n_models, backend=backend).fit(X, y)
    assert mlp.score(X, y) > 0.9
    kinds = normalisation if not isinstance(normalisation, str) else [normalisation] * 2
    names = {None: set(), "layer": {"gamma", "beta"}, "batch": {"gamma", "beta", "running_mean", "running_variance"}}
    assert [set(layer) for layer in mlp.normalising_] == [names[kind] for kind in kinds]
    stack = () if n_models == 1 else (n_models,)
    assert all(
        x.shape == (*stack, n) for layer, n in zip(mlp.normalising_, (9, 7), strict=True) for x in layer.values()
    )
    again = pickle.loads(pickle.dumps(mlp))
    same_normalising(mlp, again)
    assert np.array_equal(mlp.predict_proba(X), again.predict_proba(X))


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_partial_fit_again_and_again_is_fit_bit_for_bit(normalisation):
    X, y = flowers()
    whole = fit(small(normalisation=normalisation, max_iter=4), X, y)
    parts = small(normalisation=normalisation)
    for _ in range(4):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, y, classes=[0, 1, 2])))
    same_normalising(whole, parts)
    assert np.array_equal(whole.predict_proba(X), parts.predict_proba(X))


def test_a_fit_begins_anew_and_a_warm_start_goes_on():
    X, y = flowers()
    mlp = fit(small(normalisation="batch", max_iter=3), X, y)
    first = copy.deepcopy(mlp.normalising_)
    fit(mlp, X, y)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, mlp.normalising_, strict=True) for name in a)
    fit(mlp.set_params(warm_start=True), X, y)
    assert not np.array_equal(first[0]["running_mean"], mlp.normalising_[0]["running_mean"])
    fit(mlp.set_params(warm_start=False, normalisation=None), X, y)
    assert not hasattr(mlp, "normalising_")


@pytest.mark.parametrize("n_models", [1, 3])
def test_lbfgs_learns_what_normalises_rows_and_refuses_batches(n_models):
    X, y = patients()
    mlp = small(MLPRegressor, solver="lbfgs", normalisation="layer", n_models=n_models, max_iter=60).fit(X, y)
    assert mlp.score(X, y) > 0.5
    assert not np.allclose(mlp.normalising_[0]["gamma"], 1)
    with pytest.raises(ConfigurationError, match='normalise by "layer"'):
        small(MLPRegressor, solver="lbfgs", normalisation="batch").fit(X, y)


def test_early_stopping_brings_back_the_statistics_of_the_best_epoch():
    """The score of the weights that are there is the best one that was seen."""
    X, y = flowers()
    X = X + np.random.default_rng(0).normal(0, 1.5, X.shape)
    mlp = small(
        normalisation="batch", early_stopping=True, validation_fraction=0.3, learning_rate_init=0.1, max_iter=15
    )
    rows = np.arange(0, 150, 3)
    mlp.fit(np.delete(X, rows, 0), np.delete(y, rows), X_val=X[rows], y_val=y[rows])
    assert mlp.validation_scores_[-1] != mlp.best_validation_score_  # else this would say nothing
    assert mlp.score(X[rows], y[rows]) == mlp.best_validation_score_


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_a_saved_model_answers_as_the_estimator(normalisation, tmp_path):
    X, y = flowers()
    mlp = small(normalisation=normalisation).fit(X, y)
    model = gpumlp.load(mlp.save(tmp_path / "model.npz"))
    np.testing.assert_allclose(model.probabilities(X), mlp.predict_proba(X), rtol=1e-12)
    with pytest.raises(ConfigurationError, match="normalises no layer"):
        mlp.to_sklearn()


def test_another_kind_of_normalisation_is_refused():
    X, y = flowers()
    for wrong in ("group", ["layer", "group"], 3):
        with pytest.raises(ValueError, match="'normalisation' parameter of MLPClassifier must be"):
            small(normalisation=wrong).fit(X, y)
    with pytest.raises(ConfigurationError, match="normalisation names 1 layers, there are 2 hidden ones"):
        small(normalisation=["layer"]).fit(X, y)
