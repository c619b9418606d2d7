"""What is not accelerated runs on scikit-learn's own code, gives its results, and is said with the reason."""

import warnings

import numpy as np
import pytest
from problems import TARGETS, WEIGHTS, X, both, weights
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from gpumlp.accel.installation import ACCELERATED
from gpumlp.accel.ledger import LEDGER, SCIKIT_LEARN, Entry
from gpumlp.accel.settings import SETTINGS


@pytest.fixture(autouse=True)
def counting(accelerated):
    """Count from nothing, and do not mind that six epochs are few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def expect_stays(why, method="MLPClassifier.fit"):
    """Assert that one call was noted, on scikit-learn itself for this reason."""
    (entry,) = (e for e in LEDGER.gathered() if e.method == method)
    assert (entry.where, LEDGER.gathered()[entry].calls) == (SCIKIT_LEARN, 1)
    assert why in entry.why


def some(n_zero):
    given = WEIGHTS.copy()
    given[:n_zero] = 0
    return given


@pytest.mark.parametrize(
    ("parameters", "arguments", "why"),
    [
        ({"solver": "lbfgs"}, (X,), "lbfgs"),
        ({}, (csr_array(X),), "X is a csr_array"),
        ({"shuffle": False}, (X, -WEIGHTS), "sample_weight must be finite and not negative"),
        ({}, (X, some(8)), "may sum to 0"),  # of which all may come in one batch
        ({}, (X, some(3)), "may sum to 0"),  # or in the short last one
    ],
    ids=["lbfgs", "sparse", "negative", "zeros", "zeros of a short batch"],
)
def test_a_fit_stays_and_gives_scikit_learns_result(parameters, arguments, why):
    own, accelerated = both("classes", **parameters)
    given = (arguments[0], TARGETS["classes"], *arguments[1:])
    assert np.array_equal(weights(own.fit(*given)), weights(accelerated.fit(*given)))
    expect_stays(why)


def test_numbers_that_are_written_as_text_are_refused_in_scikit_learns_words():
    texts = []
    for estimator in both("numbers"):
        with pytest.raises(TypeError) as caught:
            estimator.fit(X, TARGETS["numbers"].astype(str))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    expect_stays("y has dtype <U", "MLPRegressor.fit")


def test_targets_below_0_of_a_poisson_loss_are_one_line_of_the_report_however_many_sets_have_them():
    own, accelerated = both("numbers", loss="poisson")
    for sign in (1, -1):
        y = sign * np.linspace(-2, 3, len(X))
        assert np.array_equal(weights(own.fit(X, y)), weights(accelerated.fit(X, y)))
    assert [entry.why for entry in LEDGER.gathered()] == ["a Poisson loss is not defined for its targets below 0"]


def test_few_zeros_among_the_weights_do_not_matter():
    own, accelerated = both("classes", batch_size=20)
    given = (X, TARGETS["classes"], some(2))
    np.testing.assert_allclose(weights(accelerated.fit(*given)), weights(own.fit(*given)), rtol=1e-9)
    assert [entry.where for entry in LEDGER.gathered()] == ["numpy"]


@pytest.mark.parametrize("name", ["_backprop", "_forward_pass", "_update_no_improvement_count", "_score"])
def test_a_subclass_with_a_step_of_its_own_is_trained_by_it(name):
    called = []

    def own(self, *args, **kwargs):
        called.append(name)
        return getattr(ACCELERATED["MLPClassifier"], name)(self, *args, **kwargs)

    mine = type("Mine", (ACCELERATED["MLPClassifier"],), {name: own})(max_iter=2, early_stopping=True)
    mine.fit(X, TARGETS["classes"])
    assert called
    expect_stays(f"Mine has a {name} of its own", "Mine.fit")


def test_an_object_with_a_step_of_its_own_is_trained_by_it():
    _, estimator = both("classes")
    backprop, called = estimator._backprop, []
    estimator._backprop = lambda *args: called.append(1) or backprop(*args)
    estimator.fit(X, TARGETS["classes"])
    assert called
    expect_stays("_backprop of its own")


def test_a_subclass_that_changes_no_step_is_accelerated():
    class Mine(ACCELERATED["MLPClassifier"]):
        def predict(self, X):
            return super().predict(X)[::-1]

    mine = Mine(max_iter=2).fit(X, TARGETS["classes"])
    mine.predict(X)
    assert {(e.method, e.where) for e in LEDGER.gathered()} == {("Mine.fit", "numpy"), ("Mine.predict", SCIKIT_LEARN)}


def test_weights_of_another_dtype_stay():
    own, accelerated = both("classes")
    for estimator in (own, accelerated):
        estimator.fit(X, TARGETS["classes"])
        estimator.partial_fit(X.astype(np.float32), TARGETS["classes"])
    np.testing.assert_allclose(weights(accelerated), weights(own), rtol=1e-9)
    expect_stays("X has dtype float32", "MLPClassifier.partial_fit")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.set_params(validation_fraction=0.01).fit(X, TARGETS["classes"]), "validation set is too small"),
        (lambda e: e.partial_fit(X, TARGETS["classes"], classes=[0, 1, 2]), "does not support early_stopping"),
    ],
)
def test_what_scikit_learn_refuses_is_refused_in_its_words(call, message):
    _, estimator = both("classes", early_stopping=True)
    with pytest.raises(ValueError, match=message):
        call(estimator)


def test_weights_that_are_not_finite_are_refused_in_scikit_learns_words():
    _, estimator = both("numbers", solver="sgd", learning_rate_init=1e6, activation="identity")
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        estimator.fit(X, TARGETS["numbers"])


def test_predictions_are_scikit_learns_and_are_noted_with_their_rows():
    _, estimator = both("classes")
    estimator.fit(X, TARGETS["classes"])
    estimator.predict(X)
    estimator.predict_proba(X[:7])
    estimator.predict_proba(X[:4].tolist())
    estimator.predict(csr_array(X[:2]))
    estimator.score(X[:3], TARGETS["classes"][:3])
    found = {entry.method: (total.calls, total.rows) for entry, total in LEDGER.gathered().items()}
    assert found["MLPClassifier.predict"] == (3, len(X) + 2 + 3)
    assert found["MLPClassifier.predict_proba"] == (2, 11)


@pytest.mark.parametrize("nothing", [None, np.float64(3), []])
def test_a_prediction_for_nothing_is_refused_in_scikit_learns_words(nothing):
    said = []
    for estimator in both("classes"):
        estimator.fit(X, TARGETS["classes"])
        with pytest.raises(ValueError, match=r"Expected|None") as refused:
            estimator.predict(nothing)
        said.append(str(refused.value))
    assert said[1] == said[0]


def test_a_backend_that_was_asked_for_and_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(SETTINGS, "backend", "abacus")
    _, estimator = both("classes")
    with pytest.raises(ValueError, match="unknown backend"):
        estimator.fit(X, TARGETS["classes"])


def test_a_call_that_fails_is_noted():
    with pytest.raises(ZeroDivisionError), LEDGER.call("A.fit", 3):
        raise ZeroDivisionError
    assert LEDGER.gathered()[Entry("A.fit", SCIKIT_LEARN)].rows == 3
