"""All fits of a round are handed over at once, as rows of one copy of the data."""

import numpy as np
import pandas as pd
import pytest
from searched import UNCONVERGED, estimator_for, problem
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpumlp import FleetSearchCV
from gpumlp.search import fits, tables

pytestmark = UNCONVERGED
GRID = {"hidden_layer_sizes": [(4,), (7, 2)], "alpha": [1e-4, 1.0]}


@pytest.fixture
def trainings(monkeypatch):
    """The jobs, inputs and targets of each training that is asked for."""
    found, train = [], fits.train

    def noting(jobs, X, Y, **options):
        found.append((jobs, X, Y))
        return train(jobs, X, Y, **options)

    monkeypatch.setattr(fits, "train", noting)
    return found


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "multilabel", "diabetes", "iris by name"])
@pytest.mark.parametrize("held_out", [False, True])
def test_all_fits_have_rows_of_the_users_own_array(name, held_out, trainings):
    X, y = problem(name)
    FleetSearchCV(estimator_for(name, early_stopping=held_out), GRID, cv=KFold(3)).fit(X, y)
    ((jobs, table, targets),) = trainings
    assert table is X
    assert len(targets) == len(X)
    assert len(jobs) == 4 * 3
    for number, (rows, _) in enumerate(KFold(3).split(X)):
        assert all(set(job.rows) <= set(rows) for job in jobs[4 * number : 4 * number + 4])
        assert held_out or np.array_equal(jobs[4 * number].rows, rows)


def test_a_data_frame_is_checked_and_copied_once(trainings):
    X, y = problem("wine")
    FleetSearchCV(estimator_for("wine"), GRID, cv=3).fit(pd.DataFrame(X), y)
    ((jobs, table, _),) = trainings
    assert len(jobs) == 12
    assert table.shape == X.shape


def test_steps_before_an_estimator_make_one_table_a_split(trainings):
    X, y = problem("wine")
    grid = {f"mlpclassifier__{name}": values for name, values in GRID.items()}
    FleetSearchCV(make_pipeline(StandardScaler(), estimator_for("wine")), grid, cv=3).fit(X, y)
    ((jobs, table, targets),) = trainings
    assert len(jobs) == 12
    assert table.shape == (3 * 60, X.shape[1])
    assert targets.shape == (3 * 60,)


def test_tables_of_another_width_are_trained_apart(trainings):
    X, y = problem("wine")
    pipeline = make_pipeline(SelectKBest(), estimator_for("wine"))
    FleetSearchCV(pipeline, {"selectkbest__k": [3, 5], "mlpclassifier__alpha": [0.1, 1.0]}, cv=3).fit(X, y)
    assert [(len(jobs), table.shape[1]) for jobs, table, _ in trainings] == [(6, 3), (6, 5)]


def test_tables_that_are_too_large_together_are_trained_one_by_one(trainings, monkeypatch):
    X, y = problem("wine")
    monkeypatch.setattr(tables, "TOGETHER", 2 * 60 * 14 * 8)
    pipeline = make_pipeline(StandardScaler(), estimator_for("wine"))
    FleetSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 1.0]}, cv=3).fit(X, y)
    assert [(len(jobs), len(table)) for jobs, table, _ in trainings] == [(4, 120), (2, 60)]


def test_a_split_without_one_of_the_classes_has_a_table_of_its_own(trainings):
    X, y = problem("wine")
    order = np.argsort(y, kind="stable")
    X, y = X[order], np.where(y[order] == 2, 2, y[order])
    FleetSearchCV(estimator_for("wine"), {"alpha": [0.1, 1.0]}, cv=KFold(3)).fit(X, y)
    n_classes = sorted(len(np.unique(y[rows])) for rows, _ in KFold(3).split(X))
    assert n_classes == [2, 3, 3] or n_classes == [2, 2, 3]
    assert sum(len(jobs) for jobs, _, _ in trainings) == 6
    assert len(trainings) > 1
