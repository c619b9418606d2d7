"""cross_validate returns what scikit-learn's function of this name returns."""

import inspect

import numpy as np
import pytest
import sklearn
from searched import CLASSES, FEW, NUMBERS, UNCONVERGED, estimator_for, expect_same_results, problem
from sklearn import model_selection
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpumlp

pytestmark = UNCONVERGED


def both(*arguments, **settings):
    return [module.cross_validate(*arguments, **settings) for module in (gpumlp, model_selection)]


@pytest.mark.parametrize("name", CLASSES + NUMBERS)
def test_scores_are_the_same(name):
    X, y = problem(name)
    one, other = both(estimator_for(name), X, y, cv=3, return_train_score=True, return_indices=True)
    expect_same_results(one, other)
    for part in ("train", "test"):
        assert all(map(np.array_equal, one["indices"][part], other["indices"][part]))
    assert (one["fit_time"] > 0).all()


@pytest.mark.parametrize("scoring", ["neg_log_loss", ["accuracy", "neg_log_loss"], {"a": "accuracy"}, None])
def test_scorers_are_the_same(scoring):
    expect_same_results(*both(estimator_for("wine"), *problem("wine"), scoring=scoring))


def test_the_estimators_are_as_if_each_had_been_fitted_alone():
    X, y = problem("wine")
    mlp = estimator_for("wine", early_stopping=True, max_iter=6)
    one, other = both(mlp, X, y, cv=KFold(3), return_estimator=True)
    for a, b in zip(one["estimator"], other["estimator"], strict=True):
        assert all(map(np.array_equal, a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_))
        for name in ("loss_curve_", "validation_scores_", "best_validation_score_", "n_iter_", "t_", "n_features_in_"):
            assert getattr(a, name) == getattr(b, name)
        assert vars(a).keys() == vars(b).keys()


def test_the_estimators_can_be_trained_on():
    X, y = problem("wine")
    one, other = both(estimator_for("wine"), X, y, cv=3, return_estimator=True)
    for a, b in zip(one["estimator"], other["estimator"], strict=True):
        for mlp in (a, b):
            mlp.partial_fit(X, y)
        assert a.t_ == b.t_
        assert a._progress["epochs"] == b._progress["epochs"] == FEW + 1
        assert a._progress["steps"] == b._progress["steps"]
        np.testing.assert_allclose(a.coefs_[0], b.coefs_[0])


def test_a_pipeline_and_groups_are_divided_likewise():
    X, y = problem("breast_cancer")
    groups = np.arange(len(y)) % 7
    pipeline = make_pipeline(StandardScaler(), estimator_for("breast_cancer"))
    expect_same_results(*both(pipeline, X, y, groups=groups, cv=GroupKFold(3)))


def test_weights_are_divided_like_the_rows():
    X, y = problem("diabetes")
    weights = np.random.default_rng(0).uniform(0.1, 2, len(y))
    expect_same_results(*both(estimator_for("diabetes"), X, y, params={"sample_weight": weights}))


def test_parameters_go_where_they_are_asked_for():
    X, y = problem("wine")
    given = {"sample_weight": np.random.default_rng(0).uniform(0.1, 2, len(y)), "groups": np.arange(len(y)) % 7}
    with sklearn.config_context(enable_metadata_routing=True):
        mlp = estimator_for("wine").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        expect_same_results(*both(mlp, X, y, params=given, cv=GroupKFold(3)))
        with pytest.raises(ValueError, match="groups"):
            gpumlp.cross_validate(mlp, X, y, groups=given["groups"])


def test_it_takes_the_same_arguments():
    one, other = (inspect.signature(module.cross_validate).parameters for module in (gpumlp, model_selection))
    assert [p.default for p in one.values() if p.name != "error_score"] == [
        p.default for p in other.values() if p.name != "error_score"
    ]
    assert list(one) == list(other)
