"""An accelerated estimator ends where scikit-learn's own ends, but for rounding."""

import pickle
import warnings

import numpy as np
import pytest
from problems import REGRESSIONS, TARGETS, WEIGHTS, N, X, both, expect_equal, weights
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.utils import shuffle

from gpumlp.accel.ledger import LEDGER
from gpumlp.accel.settings import SETTINGS
from gpumlp.accel.stochastic import shuffled
from gpumlp.backends.select import why_unavailable

SOLVERS = [
    {"solver": "adam", "beta_1": 0.8, "epsilon": 1e-3},
    {"solver": "sgd", "learning_rate_init": 0.02},
    {"solver": "sgd", "learning_rate_init": 0.02, "learning_rate": "invscaling", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate_init": 0.02, "learning_rate": "adaptive", "momentum": 0.5, "n_iter_no_change": 1},
]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture
def on(backend, monkeypatch):
    """Compute on each backend in turn; the fits must not go elsewhere."""
    monkeypatch.setattr(SETTINGS, "backend", backend)
    LEDGER.open()
    yield backend
    assert {entry.where for entry in LEDGER.totals if "predict" not in entry.method} <= {backend}
    LEDGER.close()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("sample_weight", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{s['solver']}-{s.get('learning_rate', 'constant')}")
@pytest.mark.parametrize("target", TARGETS)
def test_a_fit_ends_where_scikit_learns_ends(on, target, solver, sample_weight, early_stopping):
    estimators = both(target, early_stopping=early_stopping, tol=1e-2, **solver)
    for estimator in estimators:
        estimator.fit(X, TARGETS[target], sample_weight)
    expect_equal(*estimators)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", SOLVERS[:3:2], ids=["adam", "sgd"])
def test_a_fit_stops_before_its_time_when_scikit_learns_does(on, solver, early_stopping):
    estimators = both(
        "two classes", early_stopping=early_stopping, n_iter_no_change=2, tol=0.02, **solver | {"max_iter": 60}
    )
    for estimator in estimators:
        estimator.fit(X, TARGETS["two classes"])
    assert estimators[0].n_iter_ < 60
    expect_equal(*estimators)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation_is_scikit_learns(on, activation):
    estimators = both("classes", activation=activation, alpha=0)
    for estimator in estimators:
        estimator.fit(X, TARGETS["classes"])
    expect_equal(*estimators)


@pytest.mark.parametrize("parameters", [{"shuffle": False}, {"batch_size": "auto"}, {"batch_size": N}, {"alpha": 0}])
def test_batches_are_scikit_learns(on, parameters):
    estimators = both("numbers", **parameters)
    for estimator in estimators:
        estimator.fit(X, TARGETS["numbers"])
    expect_equal(*estimators)


def test_float32_stays_float32(on):
    own, accelerated = (e.fit(X.astype(np.float32), TARGETS["classes"]) for e in both("classes"))
    assert {array.dtype for array in accelerated.coefs_ + accelerated.intercepts_} == {np.dtype(np.float32)}
    np.testing.assert_allclose(weights(accelerated), weights(own), atol=1e-4)
    np.testing.assert_allclose(accelerated.loss_curve_, own.loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", ["classes", "two classes", "several labels"])
def test_the_loss_of_outputs_that_are_surely_wrong_is_held_where_scikit_learn_holds_it(target, dtype, accelerated):
    given = {"solver": "sgd", "learning_rate_init": 1e-9, "activation": "identity", "shuffle": False}
    losses = []
    for estimator in both(target, **given):
        estimator.partial_fit(X.astype(dtype), TARGETS[target], classes=_classes(target))
        estimator.coefs_[-1] *= 1e4
        estimator.partial_fit(X.astype(dtype), TARGETS[target])
        losses.append(estimator.loss_)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if dtype == np.float32 else 1e-9)
    assert losses[0] > 5


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{s['solver']}-{s.get('learning_rate', 'constant')}")
@pytest.mark.parametrize("target", ["classes", "several labels", "two numbers"])
def test_pieces_are_fitted_as_by_scikit_learn(on, target, solver):
    y, more = TARGETS[target], {} if target in REGRESSIONS else {"classes": _classes(target)}
    estimators = both(target, **solver)
    for estimator in estimators:
        for rows in (slice(0, 20), slice(20, 40), slice(3, 43), slice(0, 20), slice(11, 31)):
            estimator.partial_fit(X[rows], y[rows], **more)
        estimator.partial_fit(X, y, WEIGHTS)
        estimator.partial_fit(X, y, WEIGHTS[::-1].copy())
    expect_equal(*estimators)


def test_what_a_program_changes_between_two_pieces_acts(on):
    estimators = both("numbers", solver="sgd", learning_rate_init=0.02)
    for estimator in estimators:
        estimator.partial_fit(X, TARGETS["numbers"])
        estimator.coefs_[0][:] = 0.25
        estimator.intercepts_ = [b + 1 for b in estimator.intercepts_]
        estimator._optimizer.learning_rate = 0.5
        estimator.partial_fit(X, TARGETS["numbers"])
        estimator.set_params(alpha=0.3)
        estimator.partial_fit(X, TARGETS["numbers"])
    expect_equal(*estimators)


def test_the_backend_may_change_between_two_pieces(accelerated, monkeypatch):
    estimators = both("numbers")
    for name in ("numpy", "numba" if not why_unavailable("numba") else "numpy"):
        monkeypatch.setattr(SETTINGS, "backend", None)
        monkeypatch.setenv("GPUMLP_BACKEND", name)
        for estimator in estimators:
            estimator.partial_fit(X, TARGETS["numbers"])
        assert name in {entry.where for entry in LEDGER.gathered()}
    expect_equal(*estimators)


def test_a_step_count_that_is_set_back_acts(on):
    estimators = both("numbers")
    for estimator in estimators:
        estimator.partial_fit(X, TARGETS["numbers"])
        estimator.partial_fit(X, TARGETS["numbers"])
        estimator._optimizer.t = 6  # as after the first piece
        estimator._optimizer.learning_rate_init = 0.3
        estimator.partial_fit(X, TARGETS["numbers"])
    expect_equal(*estimators)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_warm_start_goes_on(on, solver):
    estimators = both("classes", solver=solver, warm_start=True, max_iter=2, random_state=np.random.RandomState(3))
    estimators[1].set_params(random_state=np.random.RandomState(3))
    for estimator in estimators:
        for _ in range(3):
            estimator.fit(X, TARGETS["classes"])
    expect_equal(*estimators)
    assert estimators[1].random_state.randint(1000) == estimators[0].random_state.randint(1000)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_fit_is_carried_on_by_the_other_side(accelerated, solver):
    y = TARGETS["classes"]
    for first, second in (both("classes", solver=solver), both("classes", solver=solver)[::-1]):
        expected = both("classes", solver=solver)[0].fit(X, y).partial_fit(X, y)
        first.fit(X, y)
        second.__setstate__(pickle.loads(pickle.dumps(first.__getstate__())))
        expect_equal(expected, second.partial_fit(X, y))


def test_fitted_arrays_are_plain_and_stay_the_same_objects(on):
    _, estimator = both("classes")
    estimator.partial_fit(X, TARGETS["classes"], classes=[0, 1, 2])
    arrays = estimator.coefs_ + estimator.intercepts_
    before = [array.copy() for array in arrays]
    estimator.partial_fit(X, TARGETS["classes"])
    for array, now, old in zip(arrays, estimator.coefs_ + estimator.intercepts_, before, strict=True):
        assert type(array) is np.ndarray
        assert array is now
        assert array.flags.c_contiguous
        assert not np.array_equal(now, old)


def test_an_order_is_drawn_as_scikit_learn_draws_it():
    given, own = np.random.RandomState(4), np.random.RandomState(4)
    order = expected = np.arange(23)
    for _ in range(3):
        order, expected = shuffled(order, given), shuffle(expected, random_state=own)
        assert np.array_equal(order, expected)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("rate", ["constant", "adaptive"])
def test_what_is_said_and_warned_of_is_scikit_learns(accelerated, capsys, rate, early_stopping):
    said, warned = [], []
    for estimator in both(
        "two classes",
        solver="sgd",
        learning_rate=rate,
        verbose=True,
        tol=10,
        n_iter_no_change=2,
        max_iter=5,
        batch_size=99,
        early_stopping=early_stopping,
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(X, TARGETS["two classes"])
        said.append(capsys.readouterr().out)
        warned.append([(str(w.message), w.category, w.filename) for w in caught])
    assert said[1] == said[0]
    assert warned[1] == warned[0]
    assert "Iteration 3, loss = " in said[1]


def test_ctrl_c_ends_a_fit_as_in_scikit_learn(accelerated, monkeypatch):
    _, estimator = both("numbers", max_iter=50)
    count = type(estimator)._update_no_improvement_count

    def interrupted(self, *arguments):
        if self.n_iter_ == 3:
            raise KeyboardInterrupt
        count(self, *arguments)

    monkeypatch.setattr(BaseMultilayerPerceptron, "_update_no_improvement_count", interrupted)
    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator.fit(X, TARGETS["numbers"])
    monkeypatch.undo()
    own, _ = both("numbers", max_iter=3)
    np.testing.assert_allclose(weights(estimator), weights(own.fit(X, TARGETS["numbers"])), rtol=1e-9)


def _classes(target):
    y = TARGETS[target]
    return np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
