"""Fits that go on: partial_fit, warm_start, pickles and copies, Ctrl-C."""

import copy
import io
import pickle
import re

import joblib
import numpy as np
import pytest
from fitted import fit, flowers, patients, same_bits
from sklearn.base import clone

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.errors import ConfigurationError

SOLVERS = [
    {"solver": "adam"},
    {"solver": "sgd", "learning_rate_init": 0.05},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1, "learning_rate_init": 0.1},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 1.0},
]


def small(kind=MLPClassifier, **params):
    return kind(**{"hidden_layer_sizes": (5,), "random_state": 1, "batch_size": 16} | params)


@pytest.mark.parametrize("params", SOLVERS, ids=str)
def test_n_partial_fits_are_one_fit_of_n_epochs_bit_for_bit(params, backend, monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", backend)
    X, y = flowers()
    whole = fit(small(max_iter=5, n_iter_no_change=6, **params), X, y)
    parts = small(n_iter_no_change=6, **params)
    for _ in range(5):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert same_bits(whole, parts)
    assert whole.loss_curve_ == parts.loss_curve_
    assert (whole.n_iter_, parts.n_iter_, whole.t_, parts.t_) == (5, 1, 750, 750)


@pytest.mark.parametrize(
    "round_trip", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
@pytest.mark.parametrize("params", SOLVERS, ids=str)
def test_partial_fit_goes_on_exactly_after_a_round_trip(params, round_trip):
    X, y = patients()
    here = small(MLPRegressor, **params)
    there = small(MLPRegressor, **params)
    for _ in range(3):
        here.partial_fit(X, y)
        there = round_trip(there.partial_fit(X, y))
    assert same_bits(here, there)
    np.testing.assert_array_equal(here.predict(X), there.predict(X))


def test_a_fitted_estimator_is_plain_arrays_and_numbers():
    X, y = flowers()
    stored = pickle.dumps(fit(small(max_iter=2), X, y))

    class Careful(pickle.Unpickler):
        def find_class(self, module, name):
            assert module.split(".")[0] in ("numpy", "sklearn", "builtins") or module.startswith("gpumlp.estimators")
            return super().find_class(module, name)

    loaded = Careful(io.BytesIO(stored)).load()
    assert loaded._live._net is None
    assert loaded.predict(X).shape == (150,)


def test_joblib_brings_it_back(tmp_path):
    X, y = flowers()
    fitted = fit(small(max_iter=3), X, y)
    joblib.dump(fitted, tmp_path / "mlp.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "mlp.joblib").predict_proba(X), fitted.predict_proba(X))


def test_a_clone_is_not_fitted_and_learns_the_same():
    X, y = flowers()
    fitted = fit(small(max_iter=3), X, y)
    other = clone(fitted)
    assert not hasattr(other, "coefs_")
    assert same_bits(fitted, fit(other, X, y))


def test_predicting_changes_nothing_of_the_estimator():
    X, y = flowers()
    fitted = fit(small(max_iter=3), X, y)
    before = pickle.dumps(fitted)
    fitted.predict(X), fitted.predict_proba(X[:1]), fitted.score(X, y)
    assert pickle.dumps(fitted) == before


def test_predictions_follow_what_is_written_into_the_weights():
    X, y = patients()
    fitted = fit(small(MLPRegressor, max_iter=3), X, y)
    before = fitted.predict(X)
    fitted.intercepts_[-1] += 2
    np.testing.assert_allclose(fitted.predict(X), before + 2)
    fitted.coefs_ = [np.zeros_like(W) for W in fitted.coefs_]
    np.testing.assert_allclose(fitted.predict(X), fitted.intercepts_[-1][0])


def test_a_warm_start_begins_at_the_present_weights_and_lengthens_the_curve():
    X, y = flowers()
    mlp = fit(small(max_iter=4, warm_start=True), X, y)
    before = mlp.loss_
    fit(mlp, X, y)
    assert len(mlp.loss_curve_) == 8
    assert mlp.n_iter_ == 4
    assert mlp.loss_curve_[4] < before
    cold = fit(mlp.set_params(warm_start=False), X, y)
    assert len(cold.loss_curve_) == 4


def test_the_same_random_state_gives_the_same_fit_and_another_another():
    X, y = flowers()
    fits = [fit(small(max_iter=2, random_state=s), X, y) for s in (1, 1, 2, np.random.RandomState(1))]
    assert same_bits(fits[0], fits[1])
    assert same_bits(fits[0], fits[3])
    assert not same_bits(fits[0], fits[2])
    assert not same_bits(
        fit(small(max_iter=2, random_state=None), X, y), fit(small(max_iter=2, random_state=None), X, y)
    )


def test_each_fit_draws_on_from_a_random_state_that_is_given():
    X, y = flowers()
    source = np.random.RandomState(0)
    one, other = (fit(small(max_iter=1, random_state=source), X, y) for _ in range(2))
    assert not same_bits(one, other)


def test_ctrl_c_leaves_the_epochs_done_and_a_warning(monkeypatch):
    X, y = flowers()
    mlp = small(max_iter=50)
    begin = gpumlp.estimators.stopping.EpochWatch.epoch_began

    def interrupted(self, epoch):
        if epoch == 4:
            raise KeyboardInterrupt
        begin(self, epoch)

    monkeypatch.setattr(gpumlp.estimators.stopping.EpochWatch, "epoch_began", interrupted)
    with pytest.warns(UserWarning, match=r"^Training interrupted by user\.$"):
        mlp.fit(X, y)
    assert (mlp.n_iter_, len(mlp.loss_curve_)) == (3, 3)
    assert same_bits(mlp, fit(small(max_iter=3), X, y))


def test_partial_fit_is_there_for_stochastic_solvers_only():
    for kind in (MLPClassifier, MLPRegressor):
        assert hasattr(kind(solver="sgd"), "partial_fit")
        with pytest.raises(AttributeError) as caught:
            kind(solver="lbfgs").partial_fit  # noqa: B018
        assert "lbfgs is not stochastic" in str(caught.value.__cause__ or caught.value)


def test_partial_fit_takes_new_rows_and_few_of_the_classes():
    X, y = flowers()
    mlp = small(learning_rate_init=0.01)
    for _ in range(20):
        for rows in np.split(np.random.default_rng(0).permutation(150), 5):
            mlp.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    mlp.partial_fit(X[:17], y[:17])
    assert mlp.score(X, y) > 0.9
    assert mlp.t_ == 20 * 150 + 17


def test_partial_fit_learns_several_labels():
    X, y = flowers()
    mlp = small(learning_rate_init=0.02)
    for _ in range(30):
        mlp.partial_fit(X, np.eye(3, dtype=int)[y], classes=[0, 1, 2])
    assert mlp.predict(X).shape == (150, 3)
    assert mlp.score(X, np.eye(3, dtype=int)[y]) > 0.8


def test_early_stopping_ends_with_the_weights_of_the_best_epoch():
    X, y = flowers()
    mlp = fit(small(early_stopping=True, max_iter=200, learning_rate_init=0.02, validation_fraction=0.3), X, y)
    assert mlp.best_validation_score_ == max(mlp.validation_scores_)
    assert mlp.best_loss_ is None
    best = int(np.argmax(mlp.validation_scores_))
    short = fit(small(early_stopping=True, max_iter=best + 1, learning_rate_init=0.02, validation_fraction=0.3), X, y)
    assert same_bits(mlp, short)


def test_training_that_diverges_keeps_the_best_epoch_if_rows_are_held_out():
    X, y = patients()
    mlp = small(MLPRegressor, solver="sgd", learning_rate_init=20.0, early_stopping=True, activation="identity")
    with pytest.warns(UserWarning, match="diverged"):
        mlp.fit(X, y)
    assert np.isnan(mlp.validation_scores_[-1])
    assert np.isfinite(mlp.predict(X)).all()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"early_stopping": True}, {"early_stopping": False}),
        ({}, {"early_stopping": True}),
        ({"solver": "lbfgs"}, {"solver": "adam"}),
    ],
    ids=str,
)
def test_a_fit_that_goes_on_may_have_its_progress_told_in_another_way(first, then):
    X, y = flowers()
    mlp = fit(small(max_iter=3, warm_start=True, **first), X, y)
    before = len(getattr(mlp, "loss_curve_", []))
    fit(mlp.set_params(**then), X, y)
    assert len(mlp.loss_curve_) == before + 3
    if then.get("early_stopping"):
        assert len(mlp.validation_scores_) == 3
        assert mlp.best_validation_score_ == max(mlp.validation_scores_)
    else:
        assert mlp.validation_scores_ is None
        assert mlp.best_loss_ == min(mlp.loss_curve_[before:])


def test_partial_fit_goes_on_where_a_fit_with_early_stopping_ended():
    X, y = flowers()
    mlp = fit(small(max_iter=3, early_stopping=True), X, y)
    mlp.set_params(early_stopping=False).partial_fit(X, y)
    assert len(mlp.loss_curve_) == 4
    assert mlp.best_loss_ == mlp.loss_


@pytest.mark.parametrize(
    ("first", "then", "named"),
    [
        ({}, {"hidden_layer_sizes": (4,)}, "hidden_layer_sizes is [4], but [5]"),
        ({}, {"n_models": 2}, "n_models is 2, but 1"),
        ({"n_models": 2}, {"n_models": 1}, "n_models is 1, but 2"),
        ({}, {"missing": "indicator"}, "missing is 'indicator', but 'error'"),
        ({"missing": "indicator"}, {"missing": "error"}, "missing is 'error', but 'indicator'"),
        ({}, {"normalisation": "layer"}, "normalisation is ['layer'], but [None]"),
        ({"normalisation": "batch"}, {"normalisation": None}, "normalisation is [None], but ['batch']"),
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_a_training_that_goes_on_keeps_its_network(how, first, then, named):
    X, y = flowers()
    X[0, 1] = np.nan if "missing" in first else 0
    mlp = fit(small(max_iter=1, warm_start=True, **first), X, y).set_params(**then)
    with pytest.raises(ConfigurationError, match=re.escape(named) + ".*warm_start=False"):
        getattr(mlp, how)(np.nan_to_num(X), y)
    fit(mlp.set_params(warm_start=False), np.nan_to_num(X), y)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"solver": "sgd"}, {"solver": "adam"}),
        ({"solver": "adam"}, {"solver": "sgd"}),
        ({"solver": "sgd"}, {"optimizer": "rmsprop"}),
    ],
    ids=str,
)
def test_the_state_of_one_update_rule_is_not_taken_for_that_of_another(first, then):
    X, y = flowers()
    mlp = fit(small(max_iter=2, **first), X, y).set_params(**then)
    with pytest.raises(ConfigurationError, match=r"state of update rule .*warm_start=True"):
        mlp.partial_fit(X, y)
    fit(mlp.set_params(warm_start=True), X, y)
    mlp.partial_fit(X, y)


def test_partial_fit_goes_on_from_the_velocity_of_the_other_momentum():
    X, y = flowers()
    mlp = fit(small(solver="sgd", max_iter=2), X, y)
    mlp.set_params(nesterovs_momentum=False).partial_fit(X, y)
    assert len(mlp.loss_curve_) == 3
