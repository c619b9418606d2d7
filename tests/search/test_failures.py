"""A fit that fails fails alone, and is told of as scikit-learn tells of it."""

import warnings

import numpy as np
import pytest
from searched import UNCONVERGED, estimator_for, expect_same_search, problem
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold

import gpumlp
from gpumlp import FleetSearchCV
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.errors import OutOfMemory

pytestmark = UNCONVERGED


def both(estimator, grid, X, y, **settings):
    return [search(estimator, grid, **{"cv": 3} | settings).fit(X, y) for search in (FleetSearchCV, GridSearchCV)]


FAILING = {
    "a parameter": {"alpha": [0.1, -1.0]},
    "layers": {"hidden_layer_sizes": [(3,), (3, 0)]},
    "activations": {"activation": ["relu", ["relu", "tanh"]]},
    "dropout": {"dropout": [0.1, [0.1, 0.2]]},
    "divergence": {"solver": ["sgd"], "activation": ["identity"], "learning_rate_init": [0.001, 1e200]},
}


@pytest.mark.parametrize("why", FAILING)
@pytest.mark.parametrize("error_score", [np.nan, -7.0])
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite", "ignore:overflow", "ignore:invalid")
def test_candidates_that_fail_get_the_error_score(why, error_score):
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"):
        one, other = both(estimator_for("diabetes"), FAILING[why], *problem("diabetes"), error_score=error_score)
    expect_same_search(one, other)
    assert np.isnan(error_score) or one.cv_results_["mean_test_score"][1] == error_score


@pytest.mark.parametrize("why", [why for why in FAILING if why != "divergence"])
def test_an_error_is_raised_where_that_is_wanted(why):
    errors = []
    for search in (FleetSearchCV, GridSearchCV):
        with pytest.raises(ValueError) as caught:
            search(estimator_for("diabetes"), FAILING[why], error_score="raise").fit(*problem("diabetes"))
        errors.append(caught.value)
    assert isinstance(errors[0], ValueError)
    assert why == "dropout" or str(errors[0]) == str(errors[1])


def test_a_search_of_which_all_fits_fail_says_why():
    with pytest.raises(ValueError, match=r"All the 3 fits failed(.|\n)*'alpha' parameter"):
        FleetSearchCV(estimator_for("wine"), {"alpha": [-1.0]}, cv=3).fit(*problem("wine"))
    with pytest.raises(ValueError, match=r"All the 5 fits failed"):
        gpumlp.cross_validate(estimator_for("wine", alpha=-1), *problem("wine"))


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_candidate_for_which_there_is_no_memory_fails_alone(monkeypatch):
    grid, (X, y) = {"hidden_layer_sizes": [(3,), (300, 300), (4,)]}, problem("wine")
    other = GridSearchCV(estimator_for("wine"), grid, cv=3).fit(X, y).cv_results_["mean_test_score"]
    monkeypatch.setattr(NumpyBackend, "free_bytes", lambda backend: 2**20)
    search = FleetSearchCV(estimator_for("wine", backend="numpy"), grid, cv=3, refit=False)
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 9"):
        search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], [other[0], np.nan, other[2]])
    with pytest.raises(OutOfMemory, match="takes"):
        search.set_params(error_score="raise").fit(X, y)
    with pytest.raises(ValueError, match=r"All the 3 fits failed(.|\n)*OutOfMemory"):
        search.set_params(error_score=np.nan, param_grid={"hidden_layer_sizes": [(300, 300)]}).fit(X, y)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_rows_that_are_no_numbers_fail_the_splits_that_have_them():
    X, y = problem("wine")
    X = X.copy()
    X[:25] = np.nan
    with pytest.warns(FitFailedWarning, match="4 fits failed out of a total of 6"):
        search = FleetSearchCV(
            estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=KFold(3), refit=False, scoring=lambda e, X, y: 1.0
        ).fit(X, y)
    assert np.isnan(search.cv_results_["split1_test_score"]).all()
    assert (search.cv_results_["split0_test_score"] == 1).all()


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_targets_outside_of_a_cost_fail_the_splits_that_have_them():
    X, y = problem("diabetes")
    y = np.abs(y) + 1
    y[:5] = -1
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 6"):
        one, other = both(
            estimator_for("diabetes"), {"loss": ["squared_error", "poisson"]}, X, y, cv=KFold(3), refit=False
        )
    for s in range(3):
        name = f"split{s}_test_score"
        np.testing.assert_allclose(one.cv_results_[name], other.cv_results_[name])


def test_a_scorer_that_fails_is_told_of():
    def fails(estimator, X, y):
        raise ValueError("no score today")

    for scoring in (fails, {"a": fails, "b": "accuracy"}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search = FleetSearchCV(estimator_for("wine"), {"alpha": [0.1]}, cv=3, scoring=scoring, refit=False)
            search.fit(*problem("wine"))
        assert any("no score today" in str(w.message) for w in caught)
        with pytest.raises(ValueError, match="no score today"):
            search.set_params(error_score="raise").fit(*problem("wine"))


def test_every_fit_that_has_not_converged_warns():
    counts = []
    for search in (FleetSearchCV, GridSearchCV):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search(estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=3, refit=False).fit(*problem("wine"))
        counts.append(sum(issubclass(w.category, ConvergenceWarning) for w in caught))
    assert counts == [6, 6]


def test_training_that_diverges_keeps_the_best_epoch_of_each_fit():
    mlp = estimator_for(
        "diabetes", solver="sgd", activation="identity", early_stopping=True, max_iter=30, learning_rate_init=0.5
    )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expect_same_search(*both(mlp, {"alpha": [0.1, 1.0], "momentum": [0.99]}, *problem("diabetes")))
