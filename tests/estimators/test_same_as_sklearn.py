"""With one batch an epoch nothing is left to chance, and the estimators are scikit-learn's up to rounding."""

import inspect
import re

import numpy as np
import pytest
from fitted import expect_close, fit, flowers, patients
from sklearn import neural_network as sklearns
from sklearn.exceptions import ConvergenceWarning

import gpumlp

STOCHASTIC = [
    {},
    {"solver": "sgd"},
    {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    {"solver": "sgd", "momentum": 0.0, "alpha": 0.0},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2, "learning_rate_init": 0.1},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.05, "tol": 1e-2, "n_iter_no_change": 3},
    {"activation": "logistic", "alpha": 0.5},
    {"activation": "tanh", "hidden_layer_sizes": (7, 5), "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3},
    {"activation": "identity", "hidden_layer_sizes": 6, "n_iter_no_change": 2, "tol": 1e-2},
    {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 5},
    {"hidden_layer_sizes": ()},
]


def pair(kind, **params):
    params = {"max_iter": 60, "random_state": 3} | params
    return getattr(sklearns, kind)(**params), getattr(gpumlp, kind)(**params)


def expect_same(theirs, ours):
    expect_close(theirs, ours)
    assert (theirs.n_iter_, theirs.t_, theirs.n_layers_, theirs.n_outputs_) == (
        ours.n_iter_,
        ours.t_,
        ours.n_layers_,
        ours.n_outputs_,
    )
    assert theirs.out_activation_ == ours.out_activation_
    for name in ("loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"):
        one, other = getattr(theirs, name, "missing"), getattr(ours, name, "missing")
        if one is None or isinstance(one, str):
            assert one == other, name
        else:
            np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("params", STOCHASTIC, ids=str)
@pytest.mark.parametrize("task", ["three classes", "two classes", "several labels"])
def test_a_classifier_trains_as_scikit_learns_does(task, params):
    X, y = flowers()
    y = {
        "three classes": y,
        "two classes": np.array(["no", "yes"])[(y == 1) * 1],
        "several labels": np.eye(3, dtype=int)[y],
    }[task]
    theirs, ours = (fit(e, X, y) for e in pair("MLPClassifier", **params))
    expect_same(theirs, ours)
    np.testing.assert_array_equal(theirs.predict(X), ours.predict(X))
    assert theirs.predict(X).dtype == ours.predict(X).dtype
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(theirs.predict_log_proba(X), ours.predict_log_proba(X), rtol=1e-7)


@pytest.mark.parametrize("params", STOCHASTIC, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["one number", "two numbers", "counts"])
def test_a_regressor_trains_as_scikit_learns_does(task, weighted, params):
    X, y = patients()
    y, loss = {
        "one number": (y, "squared_error"),
        "two numbers": (np.column_stack([y, -X[:, 2]]), "squared_error"),
        "counts": (np.round(np.exp(y)), "poisson"),
    }[task]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None
    theirs, ours = (fit(e, X, y, weights) for e in pair("MLPRegressor", loss=loss, **params))
    expect_same(theirs, ours)
    np.testing.assert_allclose(theirs.predict(X), ours.predict(X), rtol=1e-8, atol=1e-11)
    assert theirs.score(X, y) == pytest.approx(ours.score(X, y), rel=1e-9)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs_goes_the_same_way(loss, weighted):
    X, y = patients()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None
    theirs, ours = (
        fit(e, X, np.exp(y), weights) for e in pair("MLPRegressor", loss=loss, solver="lbfgs", max_iter=15, alpha=0.1)
    )
    expect_close(theirs, ours, rtol=1e-6, atol=1e-8)
    assert theirs.n_iter_ == ours.n_iter_
    assert theirs.loss_ == pytest.approx(ours.loss_, rel=1e-9)
    assert not hasattr(ours, "loss_curve_")


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_small_batches_in_the_rows_order_are_the_same_too(kind):
    X, y = flowers()
    theirs, ours = (fit(e, X, y) for e in pair(kind, shuffle=False, batch_size=16))
    expect_close(theirs, ours)
    np.testing.assert_allclose(
        theirs.loss_curve_, ours.loss_curve_, rtol=1e-3
    )  # the penalty is of an epoch's beginning


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_parameter_of_scikit_learn_is_there_with_its_default(kind):
    theirs, ours = (inspect.signature(getattr(m, kind)).parameters for m in (sklearns, gpumlp))
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(theirs) :])


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_public_attribute_of_scikit_learn_is_there(kind):
    X, y = flowers()
    for params in ({}, {"early_stopping": True}, {"solver": "lbfgs"}):
        theirs, ours = (fit(e, X, y) for e in pair(kind, max_iter=2, **params))
        of_lbfgs = {"partial_fit"} if params.get("solver") == "lbfgs" else set()  # which their regressor shows, too
        assert {n for n in dir(theirs) if not n.startswith("_")} - of_lbfgs <= set(dir(ours))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("solver", "adamm"),
        ("alpha", -1.0),
        ("batch_size", 0),
        ("learning_rate", 0.1),
        ("learning_rate_init", 0),
        ("power_t", -0.5),
        ("max_iter", 1.5),
        ("shuffle", "yes"),
        ("random_state", -1),
        ("tol", float("nan")),
        ("verbose", -1),
        ("warm_start", None),
        ("momentum", 1.1),
        ("nesterovs_momentum", 2),
        ("early_stopping", "auto"),
        ("validation_fraction", 1.0),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
        ("epsilon", 0.0),
        ("n_iter_no_change", 0),
        ("max_fun", 0),
        ("hidden_layer_sizes", "100"),
    ],
)
def test_a_wrong_parameter_is_refused_in_scikit_learns_words(name, value):
    X, y = flowers()
    texts = []
    for e in pair("MLPClassifier", **{name: value}):
        with pytest.raises((ValueError, TypeError)) as caught:
            e.fit(X, y)
        texts.append({*re.split(r"[{}, ]+", str(caught.value))})  # the order of a set is no one's promise
    assert texts[0] == texts[1] or name == "hidden_layer_sizes"


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ({"classes": None}, {}),
        ({"classes": [0, 1, 2]}, {"early_stopping": True}),
        ({"classes": [0, 1]}, {}),
    ],
    ids=["no classes", "early stopping", "new labels"],
)
def test_partial_fit_refuses_in_scikit_learns_words(arguments, params):
    X, y = flowers()
    texts = []
    for e in pair("MLPClassifier", **params):
        with pytest.raises(ValueError) as caught:
            e.partial_fit(X, y, **arguments)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda e, X, y: e.fit(X, y, [1.0, 2.0]),
        lambda e, X, y: e.fit(X, y, np.ones((len(y), 2))),
        lambda e, X, y: e.fit(X, y, np.zeros(len(y))),
        lambda e, X, y: e.set_params(hidden_layer_sizes=(4, 0)).fit(X, y),
        lambda e, X, y: e.set_params(early_stopping=True, validation_fraction=0.005).fit(X, y == 1),
        lambda e, X, y: e.fit(X * 1e300, y),
        lambda e, X, y: e.set_params(warm_start=True).fit(X, y).fit(X[:60], y[:60]),
        lambda e, X, y: e.predict(X),
    ],
    ids=[
        "short weights",
        "wide weights",
        "no weight",
        "empty layer",
        "few held out",
        "huge",
        "fewer classes",
        "unfitted",
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")
def test_what_cannot_be_fitted_is_refused_in_scikit_learns_words(call):
    texts = []
    for e in pair("MLPClassifier", solver="sgd", learning_rate_init=1.0, max_iter=5):
        with pytest.raises(ValueError) as caught:
            call(e, *flowers())
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "params", [{"tol": 0.5}, {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0}, {"early_stopping": True}]
)
def test_the_lines_of_verbose_are_scikit_learns(params, capsys):
    X, y = flowers()
    said = []
    for e in pair("MLPClassifier", verbose=True, n_iter_no_change=2, **params):
        fit(e, X, y)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "Iteration 2" in said[0]


@pytest.mark.parametrize("params", [{"max_iter": 3}, {"max_iter": 3, "solver": "lbfgs"}])
def test_the_warning_that_it_has_not_converged_is_scikit_learns(params):
    X, y = flowers()
    texts = []
    for e in pair("MLPClassifier", **params):
        with pytest.warns(ConvergenceWarning) as caught:
            e.fit(X, y)
        texts.append(str(caught[0].message))
        assert caught[0].filename == __file__ or e.__module__.startswith("sklearn")
    assert texts[0] == texts[1]


def test_a_batch_larger_than_the_set_is_clipped_with_scikit_learns_warning():
    X, y = flowers()
    texts = []
    for e in pair("MLPClassifier", batch_size=500, max_iter=400, tol=1e-2):
        with pytest.warns(UserWarning, match="is going to be clipped") as caught:
            e.fit(X, y)
        texts.append(str(caught[0].message))
    assert texts[0] == texts[1]
