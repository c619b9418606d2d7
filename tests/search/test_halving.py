"""Successive halving comes to what scikit-learn's halving comes to."""

import numpy as np
import pytest
from scipy.stats import loguniform
from searched import UNCONVERGED, estimator_for, expect_same_search, problem
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV, KFold

from gpumlp import FleetSearchCV
from gpumlp.errors import ConfigurationError

pytestmark = UNCONVERGED
GRID = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [0.003, 0.03, 0.3]}
COUNTS = (
    "n_resources_",
    "n_candidates_",
    "n_iterations_",
    "n_required_iterations_",
    "n_possible_iterations_",
    "n_remaining_candidates_",
    "min_resources_",
    "max_resources_",
)


@pytest.mark.parametrize(
    "settings",
    [
        {"resource": "max_iter", "max_resources": 9},
        {"resource": "max_iter", "max_resources": 7, "min_resources": "smallest", "factor": 2},
        {"resource": "max_iter", "max_resources": 5, "min_resources": 2, "aggressive_elimination": True},
        {},
        {"factor": 2, "min_resources": "smallest"},
        {"resource": "max_iter", "max_resources": 15, "factor": 1.5},
        {"min_resources": 30, "aggressive_elimination": True},
    ],
    ids=str,
)
def test_the_rounds_are_the_same(settings):
    X, y = problem("digits" if "resource" in settings else "wine")
    given = {"cv": KFold(3), "random_state": 0, "return_train_score": True, **settings}
    mlp = estimator_for("wine", batch_size="auto")
    one = FleetSearchCV(mlp, GRID, successive_halving=True, **given).fit(X, y)
    other = HalvingGridSearchCV(mlp, GRID, **given).fit(X, y)
    assert {name: getattr(one, name) for name in COUNTS} == {name: getattr(other, name) for name in COUNTS}
    expect_same_search(one, other)
    assert one.best_score_ == pytest.approx(other.best_score_)


def test_candidates_may_be_drawn_and_scored_by_several_metrics():
    X, y = problem("wine")
    search = FleetSearchCV(
        estimator_for("wine"),
        param_distributions={"alpha": loguniform(1e-5, 1)},
        n_iter=6,
        cv=3,
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
        random_state=0,
        successive_halving=True,
        resource="max_iter",
        max_resources=6,
    ).fit(X, y)
    assert search.n_candidates_ == [6, 2]
    assert search.n_resources_ == [2, 6]
    last = search.cv_results_["mean_test_neg_log_loss"][np.asarray(search.cv_results_["iter"]) == 1]
    assert search.best_score_ == last.max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resource": "epochs"}, "resource='epochs' is no parameter of MLPClassifier"),
        ({"resource": "max_iter"}, 'max_resources="auto" is for resource="n_samples" only'),
        ({"resource": "alpha", "max_resources": 3}, "alpha is the resource"),
        ({"min_resources": 1}, "a round would have 0 of the 72 rows in a part of a split"),
        ({"max_resources": 1000}, "a round would have .* of the 72 rows.*at most the rows of X"),
        ({"min_resources": 1000}, "min_resources=1000: expected at least 1 and at most max_resources=90"),
        ({"scoring": ["accuracy"], "refit": False}, "refit=False names no metric"),
    ],
)
def test_rounds_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FleetSearchCV(estimator_for("wine"), GRID, successive_halving=True, **settings).fit(*problem("wine"))
