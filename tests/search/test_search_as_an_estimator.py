"""FleetSearchCV is an estimator like any other: parameters, copies, files, tags, metadata and printed lines."""

import inspect
import pickle
from dataclasses import replace
from itertools import count
from unittest import SkipTest

import numpy as np
import pytest
import sklearn
from searched import UNCONVERGED, estimator_for, expect_same_search, problem
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV
from sklearn.utils.estimator_checks import estimator_checks_generator

import gpumlp
from gpumlp import FleetSearchCV, MLPClassifier, MLPRegressor
from gpumlp.errors import ConfigurationError
from gpumlp.search import evaluation, fits, fleet_search

pytestmark = UNCONVERGED


def test_it_has_every_parameter_of_scikit_learns_searches():
    own = inspect.signature(FleetSearchCV).parameters
    for other in (GridSearchCV, RandomizedSearchCV):
        for name, parameter in inspect.signature(other).parameters.items():
            assert name in own
            if name not in ("cv", "error_score", "param_grid", "param_distributions"):
                assert own[name].default == parameter.default


def test_it_has_every_attribute_of_a_search():
    X, y = problem("wine")
    one, other = (
        search(estimator_for("wine"), {"alpha": [0.1]}, cv=3).fit(X, y) for search in (FleetSearchCV, GridSearchCV)
    )
    public = {name for name in vars(other) if name.endswith("_") and not name.startswith("_")}
    assert public <= set(vars(one))
    assert (one.classes_ == other.classes_).all()
    assert one.n_features_in_ == other.n_features_in_


def test_copies_and_files_of_it_are_the_same():
    X, y = problem("wine")
    search = FleetSearchCV(estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=3)
    assert clone(search).get_params(deep=False).keys() == search.get_params(deep=False).keys()
    search.set_params(estimator__batch_size=30, n_iter=4)
    assert (search.estimator.batch_size, search.n_iter) == (30, 4)
    search.fit(X, y)
    again = pickle.loads(pickle.dumps(search))
    expect_same_search(again, search)
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))
    expect_same_search(clone(search).fit(X, y), search)


def test_it_is_what_its_estimator_is():
    assert is_classifier(FleetSearchCV(MLPClassifier(), {}))
    assert is_regressor(FleetSearchCV(MLPRegressor(), {}))


@pytest.mark.parametrize("grids", [{}, {"param_grid": {"alpha": [1]}, "param_distributions": {"alpha": [1]}}])
def test_it_wants_one_kind_of_candidates(grids):
    with pytest.raises(ConfigurationError, match="give exactly one"):
        FleetSearchCV(MLPClassifier(), **grids).fit(*problem("wine"))


def test_parameters_of_it_are_checked():
    for wrong in ({"n_iter": 0}, {"successive_halving": 1}, {"factor": 1}, {"resource": 3}, {"error_score": "no"}):
        with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter of FleetSearchCV must be"):
            FleetSearchCV(MLPClassifier(), {}, **wrong).fit(*problem("wine"))
    with pytest.raises(ConfigurationError, match='expected a number or "raise"'):
        gpumlp.cross_validate(MLPClassifier(), *problem("wine"), error_score="no")


def test_metadata_go_where_they_are_asked_for():
    X, y = problem("wine")
    given = {"sample_weight": np.random.default_rng(0).uniform(0.1, 2, len(y)), "groups": np.arange(len(y)) % 7}
    with sklearn.config_context(enable_metadata_routing=True):
        mlp = estimator_for("wine").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        searches = [
            search(mlp, {"alpha": [0.1, 1.0]}, cv=GroupKFold(3)).fit(X, y, **given)
            for search in (FleetSearchCV, GridSearchCV)
        ]
    expect_same_search(*searches)


def test_each_fit_prints_a_line(capsys):
    X, y = problem("wine")
    FleetSearchCV(estimator_for("wine"), {"alpha": [0.5, 1.0]}, cv=2, verbose=2).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Fitting 2 folds for each of 2 candidates, totalling 4 fits"
    assert [line[: line.index(";")] for line in lines[1:]] == [
        f"[CV {split}/2] alpha={alpha}" for alpha in (0.5, 1.0) for split in (1, 2)
    ]
    assert all("score=0." in line for line in lines[1:])


def test_times_of_fits_are_shares_of_their_common_time(monkeypatch):
    def in_8_seconds(jobs, *data, done, **options):
        def done_in_time(i, outcome):
            done(i, replace(outcome, seconds=8.0 / len(jobs)))

        return train(jobs, *data, done=done_in_time, **options)

    train, seconds = fits.train, count()
    monkeypatch.setattr(fits, "train", in_8_seconds)
    monkeypatch.setattr(fits, "perf_counter", lambda: 0.0)
    for module in (evaluation, fleet_search):
        monkeypatch.setattr(module, "perf_counter", lambda: float(next(seconds)))
    search = FleetSearchCV(estimator_for("wine"), {"alpha": [0.5, 1.0]}, cv=2).fit(*problem("wine"))
    assert search.cv_results_["mean_fit_time"].tolist() == [2.0, 2.0]
    assert search.cv_results_["mean_score_time"].tolist() == [1.0, 1.0]
    assert search.refit_time_ == 1.0


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor], ids=lambda kind: kind.__name__)
def test_it_passes_scikit_learns_checks_as_grid_search_does(kind):
    def failures(search):
        found = set()
        mlp = kind(hidden_layer_sizes=(4,), max_iter=5, learning_rate_init=0.1, random_state=0)
        given = search(mlp, {"alpha": [1e-4, 1e-2]}, cv=2, error_score="raise")
        for estimator, check in estimator_checks_generator(given):
            try:
                check(estimator)
            except SkipTest:  # noqa: PERF203
                continue
            except Exception:
                found.add((check.func.__name__, str(check.keywords)))
        return found

    assert failures(FleetSearchCV) == failures(GridSearchCV)
