"""The estimators among scikit-learn's own tools."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from fitted import fit, flowers, patients
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.errors import OutOfMemory

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NAMES = np.array(["setosa", "versicolor", "virginica"])


def quick(kind=MLPClassifier, **params):
    return kind(**{"hidden_layer_sizes": (8,), "solver": "lbfgs", "max_iter": 30, "random_state": 0} | params)


def test_it_ends_a_pipeline():
    X, y = flowers()
    assert make_pipeline(StandardScaler(), quick()).fit(X, NAMES[y]).score(X, NAMES[y]) > 0.95


def test_it_follows_a_column_transformer():
    X, y = patients()
    table = pd.DataFrame(X[:, :3], columns=["age", "sex", "bmi"]).assign(kind=np.where(X[:, 3] > 0, "high", "low"))
    prepare = ColumnTransformer([("one", OneHotEncoder(), ["kind"])], remainder=StandardScaler())
    assert make_pipeline(prepare, quick(MLPRegressor)).fit(table, y).score(table, y) > 0.3


def test_a_grid_search_in_two_processes_finds_parameters():
    X, y = flowers()
    search = GridSearchCV(quick(), {"alpha": [1e-3, 1e3], "activation": ["tanh", "silu"]}, n_jobs=2, cv=2)
    assert search.fit(X, y).best_params_["alpha"] == 1e-3


def test_cross_validation_scores_it():
    X, y = flowers()
    assert cross_val_score(quick(), X, NAMES[y], cv=3).mean() > 0.9


def test_its_probabilities_can_be_calibrated():
    X, y = flowers()
    calibrated = CalibratedClassifierCV(quick(), cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_permutation_importance_sees_what_matters():
    X = patients()[0][:, :3].copy()
    y = 3 * X[:, 1]
    found = permutation_importance(fit(quick(MLPRegressor), X, y), X, y, random_state=0, n_repeats=3)
    assert found.importances_mean.argmax() == 1


def test_a_pipeline_around_it_gives_data_frames():
    X, y = flowers()
    table = pd.DataFrame(X, columns=list("abcd"))
    whole = make_pipeline(StandardScaler(), quick()).set_output(transform="pandas").fit(table, y)
    assert list(whole[-1].feature_names_in_) == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        whole[-1].predict(table[list("bacd")])


def test_sample_weights_are_routed():
    X, y = flowers()
    weights = np.where(y == 2, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = quick().set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        found = cross_validate(routed, X, y, params={"sample_weight": weights}, cv=3, return_estimator=True)
    assert not any((e.predict(X) == 2).any() for e in found["estimator"])


def test_unchecked_parameters_are_a_choice_of_scikit_learns():
    X, y = flowers()
    with sklearn.config_context(skip_parameter_validation=True):
        assert fit(quick(verbose=None), X, y).score(X, y) > 0.9


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_sparse_table_gives_what_the_dense_one_gives(form, solver):
    X, y = flowers()
    X = np.where(X > 0, X, 0)
    one, other = (fit(quick(solver=solver), table, y) for table in (X, form(X)))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(form(X)))
    np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])


def test_a_sparse_table_without_room_says_so(monkeypatch):
    X, y = flowers()

    def no_room(self, *arguments, **named):
        raise MemoryError

    monkeypatch.setattr(sparse.csr_matrix, "toarray", no_room)
    with pytest.raises(
        OutOfMemory, match=r"no room for X: 4.688 KiB needed \(150 x 4 values of float64\).*partial_fit"
    ):
        quick().fit(sparse.csr_matrix(X), y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_it_computes_in_the_dtype_of_the_table(dtype, solver, backend, monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", backend)
    X, y = flowers(dtype=dtype)
    mlp = fit(quick(solver=solver, max_iter=3), X, y)
    assert {a.dtype for a in (*mlp.coefs_, *mlp.intercepts_, mlp.predict_proba(X))} == {np.dtype(dtype)}
    assert fit(quick(MLPRegressor, solver=solver, max_iter=3), X, y).predict(X).dtype == dtype


def test_whole_numbers_are_computed_in_double_and_dtype_overrules():
    X, y = flowers()
    X = (10 * X).astype(int)
    assert fit(quick(), X, y).coefs_[0].dtype == np.float64
    assert fit(quick(dtype="float32"), X, y).coefs_[0].dtype == np.float32


def test_every_activation_of_the_registry_can_be_hidden():
    X, y = flowers()
    for name in ("sigmoid", "leaky_relu(slope=0.2)", "gelu", "mish"):
        assert fit(quick(activation=name, max_iter=50), X, y).score(X, y) > 0.9
    with pytest.raises(ValueError, match="The 'activation' parameter of MLPClassifier must be a str among"):
        quick(activation="softmax").fit(X, y)


def test_a_row_of_weight_two_counts_as_two_rows(backend, monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", backend)
    X, y = flowers(slice(None, None, 5))
    counts = np.arange(len(X)) % 3
    for solver in ("adam", "sgd", "lbfgs"):
        weighted = fit(quick(solver=solver, max_iter=10), X, y, counts)
        repeated = fit(quick(solver=solver, max_iter=10), np.repeat(X, counts, axis=0), np.repeat(y, counts))
        np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6, atol=1e-9)
        assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-7)


def test_one_class_is_what_is_predicted():
    X, _ = flowers()
    mlp = fit(quick(), X, np.full(150, "only"))
    assert (mlp.predict(X) == "only").all()


def test_counts_below_zero_are_refused_by_poisson():
    X, y = patients()
    with pytest.raises(ValueError, match=r"defined for targets in \[0, inf\)"):
        quick(MLPRegressor, loss="poisson").fit(X, y)
