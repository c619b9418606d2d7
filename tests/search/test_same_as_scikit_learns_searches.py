"""A search comes to what scikit-learn's search over the same estimator comes to."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform, uniform
from searched import CLASSES, NUMBERS, UNCONVERGED, estimator_for, expect_same_search, problem, rows_of
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RandomizedSearchCV, ShuffleSplit, StratifiedKFold

from gpumlp import FleetSearchCV, MLPClassifier

pytestmark = UNCONVERGED

GRID = {"hidden_layer_sizes": [(4,), (7,)], "alpha": [1e-4, 1.0], "learning_rate_init": [0.003, 0.03]}


def both(estimator, grid, X, y, fit_params=None, **settings):
    """Return FleetSearchCV and GridSearchCV, fitted."""
    return [
        search(estimator, grid, **{"cv": 3} | settings).fit(X, y, **(fit_params or {}))
        for search in (FleetSearchCV, GridSearchCV)
    ]


@pytest.mark.parametrize("name", CLASSES + NUMBERS)
def test_a_grid_comes_to_the_same(name):
    one, other = both(estimator_for(name), GRID, *problem(name), return_train_score=True)
    expect_same_search(one, other)
    assert one.best_score_ == pytest.approx(other.best_score_, rel=1e-6)
    X, y = problem(name)
    assert np.array_equal(one.predict(X), other.predict(X))
    assert one.score(X, y) == other.score(X, y)


SETTINGS = {
    "sgd": {
        "solver": ["sgd"],
        "learning_rate": ["constant", "invscaling", "adaptive"],
        "nesterovs_momentum": [True, False],
    },
    "depth": {"hidden_layer_sizes": [(), (5,), (5, 3)], "activation": ["relu", "tanh"]},
    "epochs": {"max_iter": [1, 4], "batch_size": [10, "auto"]},
    "what scikit-learn has not": {
        "dropout": [0.0, 0.3],
        "clip_norm": [None, 0.1],
        "optimizer": [None, "lion", "rmsprop"],
    },
    "schedules": {"schedule": [None, "cosine", "cosine(warmup=1)"], "shuffle": [True, False]},
    "adam": {"beta_1": [0.8, 0.9], "epsilon": [1e-8, 1e-3], "random_state": [0, 5]},
    "progress": {"n_iter_no_change": [1], "tol": [0.0, 0.5], "max_iter": [8]},
    "normalised": {"normalisation": [None, "layer", "batch"]},
    "lists": [{"alpha": [0.1, 0.2]}, {"solver": ["lbfgs"], "max_iter": [3]}],
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_every_kind_of_candidate_comes_to_the_same(settings):
    expect_same_search(*both(estimator_for("wine"), SETTINGS[settings], *problem("wine")))


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "multilabel", "diabetes"])
@pytest.mark.parametrize("settings", [{}, {"tol": 0.05, "n_iter_no_change": 2, "max_iter": 20}])
def test_each_fit_holds_out_rows_of_its_own(name, settings):
    mlp = estimator_for(name, early_stopping=True, validation_fraction=0.2, **settings)
    expect_same_search(*both(mlp, {"learning_rate_init": [0.003, 0.03, 0.3]}, *problem(name)))


def test_a_scorer_decides_when_each_fit_stops():
    mlp = estimator_for("wine", early_stopping=True, scoring="neg_log_loss", max_iter=12, n_iter_no_change=1)
    expect_same_search(*both(mlp, {"learning_rate_init": [0.003, 0.3]}, *problem("wine")))


def test_rows_to_hold_out_may_be_given():
    X, y = problem("wine")
    mlp = estimator_for("wine", early_stopping=True)
    expect_same_search(*both(mlp, {"alpha": [0.1, 1.0]}, X, y, fit_params={"X_val": X[:20], "y_val": y[:20]}))


def test_calibration_smoothing_and_weights_of_classes_come_to_the_same():
    grid = {"calibration": [None, "temperature"], "label_smoothing": [0.0, 0.1], "class_weight": [None, "balanced"]}
    for name in ("wine", "breast_cancer"):
        expect_same_search(*both(estimator_for(name), grid, *problem(name), scoring="neg_log_loss"))


@pytest.mark.parametrize("refit", ["neg_log_loss", False, lambda results: 1])
def test_several_metrics_come_to_the_same(refit):
    X, y = problem("digits")
    searches = both(
        estimator_for("digits"), {"alpha": [0.1, 1.0]}, X, y, scoring=["accuracy", "neg_log_loss"], refit=refit
    )
    assert [hasattr(search, "best_estimator_") for search in searches] == [bool(refit)] * 2
    if refit:
        expect_same_search(*searches)
    assert list(searches[0].scorer_) == ["accuracy", "neg_log_loss"]


def test_a_callable_may_score_several_metrics():
    def scores(estimator, X, y):
        return {"right": estimator.score(X, y), "wrong": -estimator.score(X, y)}

    one, other = both(estimator_for("wine"), {"alpha": [0.1, 10.0]}, *problem("wine"), scoring=scores, refit="right")
    expect_same_search(one, other)


@pytest.mark.parametrize(
    "cv", [KFold(3, shuffle=True, random_state=0), ShuffleSplit(2, random_state=0), 2, StratifiedKFold(4)], ids=str
)
def test_any_splits_come_to_the_same(cv):
    expect_same_search(*both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, *problem("wine"), cv=cv))


FIRST = np.arange(90) < 60
SPELLED = {
    "truth values": (FIRST, ~FIRST),
    "numbers from the end": (np.arange(-60, 0), np.arange(-90, -60)),
    "lists": (list(range(60)), list(range(60, 90))),
    "rows that come twice": (np.arange(60) // 2, np.arange(60, 90)),
}


@pytest.mark.parametrize("split", SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}], ids=["all", "some held out"])
def test_rows_of_a_split_may_be_spelled_in_any_way(split, settings):
    expect_same_search(
        *both(estimator_for("wine", **settings), {"alpha": [0.1, 1.0]}, *problem("wine"), cv=[split], refit=False)
    )


def test_a_split_may_lack_a_class():
    X, y = rows_of(load_iris, 90)
    order = np.argsort(y, kind="stable")
    searches = both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, X[order], y[order], cv=KFold(3))
    expect_same_search(*searches)


def test_weights_and_groups_of_rows_are_divided_like_the_rows():
    X, y = problem("wine")
    source = np.random.default_rng(0)
    given = {"sample_weight": source.uniform(0.5, 2, len(y)), "groups": source.integers(6, size=len(y))}
    expect_same_search(*both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, X, y, given, cv=GroupKFold(3)))


@pytest.mark.parametrize("kind", [pd.DataFrame, lambda X: X.astype(np.float32), lambda X: X.tolist(), np.round])
def test_any_kind_of_table_comes_to_the_same(kind):
    X, y = problem("wine")
    one, other = both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, kind(X), y)
    expect_same_search(one, other)
    assert getattr(one, "feature_names_in_", None) is None or list(one.feature_names_in_) == list(range(13))


def test_columns_have_their_names():
    X, y = problem("wine")
    table = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    one, other = both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, table, pd.Series(y))
    expect_same_search(one, other)
    assert list(one.feature_names_in_) == list(other.feature_names_in_) == list(table.columns)


def test_sparse_rows_and_missing_values_come_to_the_same():
    from scipy.sparse import csr_matrix

    X, y = problem("wine")
    expect_same_search(*both(estimator_for("wine"), {"alpha": [0.1, 1.0]}, csr_matrix(X), y))
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    expect_same_search(*both(estimator_for("wine", missing="indicator"), {"alpha": [0.1, 1.0]}, holes, y))


def test_several_models_each_come_to_the_same():
    expect_same_search(*both(estimator_for("wine"), {"n_models": [1, 2]}, *problem("wine")))


def test_candidates_in_float32_come_to_nearly_the_same():
    X, y = problem("wine")
    one, other = both(estimator_for("wine"), {"dtype": ["float32", "float64"]}, X, y)
    np.testing.assert_allclose(one.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"], atol=0.02)


def test_candidates_that_are_drawn_come_to_the_same():
    X, y = problem("wine")
    drawn = {"alpha": loguniform(1e-5, 1), "learning_rate_init": loguniform(1e-3, 1), "dropout": uniform(0, 0.5)}
    settings = {"n_iter": 5, "random_state": 3, "cv": 3}
    one = FleetSearchCV(estimator_for("wine"), param_distributions=drawn, **settings).fit(X, y)
    other = RandomizedSearchCV(estimator_for("wine"), drawn, **settings).fit(X, y)
    expect_same_search(one, other)


def test_other_estimators_are_searched_as_scikit_learn_does_it():
    from sklearn.tree import DecisionTreeClassifier

    expect_same_search(*both(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, *problem("wine")))


def test_estimators_that_have_no_targets_are_searched_as_scikit_learn_does_it():
    from sklearn.cluster import KMeans

    X, _ = problem("wine")
    expect_same_search(*both(KMeans(n_init=1, random_state=0), {"n_clusters": [2, 3]}, X, None))


def test_an_estimator_with_a_fit_of_its_own_is_fitted_by_it():
    class Careful(MLPClassifier):
        def fit(self, X, y):
            super().fit(X, y)
            self.largest_ = max(np.abs(W).max() for W in self.coefs_)
            return self

    one, other = both(Careful(max_iter=2, random_state=0), {"alpha": [0.1, 1.0]}, *problem("wine"))
    expect_same_search(one, other)
    assert one.best_estimator_.largest_ == other.best_estimator_.largest_
