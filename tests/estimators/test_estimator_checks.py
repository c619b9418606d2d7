"""scikit-learn's own examination of an estimator, with no exception granted."""

import pytest
from fitted import checks_of
from sklearn.utils import estimator_checks

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.backends.select import why_unavailable

ESTIMATORS = [
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    MLPClassifier(max_iter=100, solver="lbfgs"),
    MLPRegressor(max_iter=100, solver="lbfgs"),
]
OF_DEVICES = (  # what says something of a device; the others would take an emulated one minutes
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_dict_unchanged",
    "check_fit_idempotent",
    "check_methods_subset_invariance",
    "check_classifiers_one_label",
    "check_sample_weights_not_overwritten",
)
not_converged = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def compute_with(name, monkeypatch):
    reason = why_unavailable(name)
    if reason:
        pytest.skip(f"backend {name} {reason}")
    monkeypatch.setenv("GPUMLP_BACKEND", name)


@not_converged
@pytest.mark.parametrize(("estimator", "check"), checks_of(*ESTIMATORS))
def test_every_check_of_scikit_learn_holds(estimator, check, monkeypatch):
    compute_with("numpy", monkeypatch)
    check(estimator)


@not_converged
@pytest.mark.parametrize(("estimator", "check"), checks_of(*ESTIMATORS[:2]))
def test_every_check_holds_on_numba(estimator, check, monkeypatch):
    compute_with("numba", monkeypatch)
    check(estimator)


@not_converged
@pytest.mark.parametrize(
    ("estimator", "check"), checks_of(MLPClassifier(max_iter=3), MLPRegressor(max_iter=3), only=OF_DEVICES)
)
def test_the_checks_that_say_something_of_devices_hold_on_cuda(estimator, check, monkeypatch):
    compute_with("cuda", monkeypatch)
    check(estimator)


@not_converged
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("params", [{"solver": "sgd", "tol": 1e-2}, {"solver": "lbfgs"}, {"batch_size": 1000}], ids=str)
@pytest.mark.filterwarnings("ignore:Got `batch_size`")
def test_a_weight_is_worth_as_many_rows_with_every_solver(kind, params, backend, monkeypatch):
    compute_with(backend, monkeypatch)
    check = getattr(estimator_checks, "check_sample_weight_equivalence_on_dense_data", None)
    if check is None:
        pytest.skip("this scikit-learn does not ask for it")
    check(kind.__name__, kind(max_iter=20, random_state=42, **params))
