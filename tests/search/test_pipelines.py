"""Searches and pipelines in one another."""

import numpy as np
import pandas as pd
import pytest
from searched import UNCONVERGED, estimator_for, expect_same_search, problem
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from gpumlp import FleetSearchCV

pytestmark = UNCONVERGED


def both(estimator, grid, X, y, **fit_params):
    return [search(estimator, grid, cv=3).fit(X, y, **fit_params) for search in (FleetSearchCV, GridSearchCV)]


def test_a_pipeline_is_searched_as_a_whole():
    pipeline = Pipeline(
        [("scale", StandardScaler()), ("reduce", PCA(random_state=0)), ("mlp", estimator_for("digits"))]
    )
    grid = {
        "scale": [StandardScaler(), MinMaxScaler(), "passthrough"],
        "reduce__n_components": [3, 6],
        "mlp__alpha": [0.1, 1],
    }
    one, other = both(pipeline, grid, *problem("digits"))
    for search in (one, other):  # estimators among the parameters are equal to nothing but themselves
        for name in [name for name in search.cv_results_ if name in ("params", "param_scale")]:
            search.cv_results_[name] = [str(value) for value in search.cv_results_[name]]
        search.best_params_ = str(search.best_params_)
    expect_same_search(one, other)


def test_columns_may_be_treated_differently():
    X, y = problem("wine")
    table = pd.DataFrame(X, columns=[f"c{i}" for i in range(13)])
    steps = ColumnTransformer([("some", StandardScaler(), ["c1", "c4"])], remainder="passthrough")
    expect_same_search(
        *both(make_pipeline(steps, estimator_for("wine")), {"mlpclassifier__alpha": [0.1, 1.0]}, table, y)
    )


def test_weights_go_to_the_last_step():
    X, y = problem("wine")
    weights = {"mlpclassifier__sample_weight": np.random.default_rng(0).uniform(0.1, 2, len(y))}
    pipeline = make_pipeline(StandardScaler(), estimator_for("wine"))
    expect_same_search(*both(pipeline, {"mlpclassifier__alpha": [0.1, 1.0]}, X, y, **weights))


def test_an_estimator_within_another_step_is_fitted_at_once():
    X, y = problem("breast_cancer")
    chooses = SelectFromModel(
        estimator_for("breast_cancer"), importance_getter=lambda mlp: np.abs(mlp.coefs_[0]).sum(1)
    )
    pipeline = make_pipeline(chooses, estimator_for("breast_cancer"))
    expect_same_search(*both(pipeline, {"mlpclassifier__alpha": [0.1, 1.0]}, X, y))


def test_an_estimator_that_another_one_copies_is_fitted_alone():
    X, y = problem("diabetes")
    scaled = TransformedTargetRegressor(estimator_for("diabetes"), transformer=StandardScaler())
    expect_same_search(*both(scaled, {"regressor__alpha": [0.1, 1.0]}, X, y))


def test_a_search_is_the_last_step_of_a_pipeline():
    X, y = problem("wine")
    one, other = (
        make_pipeline(StandardScaler(), search(estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=3)).fit(X, y)
        for search in (FleetSearchCV, GridSearchCV)
    )
    expect_same_search(one[-1], other[-1])
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_a_search_is_validated_by_scikit_learn():
    X, y = problem("wine")
    one, other = (
        cross_val_score(search(estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=2), X, y, cv=3)
        for search in (FleetSearchCV, GridSearchCV)
    )
    np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("memory", [True, False])
def test_steps_may_be_remembered(memory, tmp_path):
    X, y = problem("wine")
    pipeline = make_pipeline(StandardScaler(), estimator_for("wine"), memory=str(tmp_path) if memory else None)
    expect_same_search(*both(pipeline, {"mlpclassifier__alpha": [0.1, 1.0]}, X, y))
