"""The accelerated classes stand where scikit-learn's stood, look like them, and go and come as they do."""

import inspect
import pickle
import sys
import warnings
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.neural_network
from problems import TARGETS, X, both, expect_equal, weights
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import _multilayer_perceptron

import gpumlp.accel
from gpumlp.accel.installation import ACCELERATED, NAMES, ORIGINALS, install, uninstall
from gpumlp.accel.ledger import LEDGER
from gpumlp.errors import UnknownName


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.mark.parametrize("name", NAMES)
def test_the_names_are_replaced_and_given_back(accelerated, name):
    for place in (sklearn.neural_network, _multilayer_perceptron):
        assert getattr(place, name) is ACCELERATED[name]
    uninstall()
    for place in (sklearn.neural_network, _multilayer_perceptron):
        assert getattr(place, name) is ORIGINALS[name]


def test_an_unknown_backend_changes_nothing():
    with pytest.raises(UnknownName, match="abacus"):
        install("abacus")
    assert sklearn.neural_network.MLPClassifier is ORIGINALS["MLPClassifier"]


@pytest.mark.parametrize("name", NAMES)
def test_an_accelerated_class_looks_like_scikit_learns(name):
    own, accelerated = ORIGINALS[name], ACCELERATED[name]
    assert issubclass(accelerated, own)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(accelerated, attribute) == getattr(own, attribute)
    for method in ("__init__", "fit", "partial_fit", "predict", "score"):
        assert inspect.signature(getattr(accelerated(), method)) == inspect.signature(getattr(own(), method))
        assert getattr(accelerated, method).__doc__ == getattr(own, method).__doc__
    assert repr(accelerated(alpha=0.5)) == repr(own(alpha=0.5))
    assert accelerated().get_params() == own().get_params()
    assert hasattr(accelerated(solver="lbfgs"), "partial_fit") == hasattr(own(solver="lbfgs"), "partial_fit")


def test_clones_and_copies_are_accelerated(accelerated):
    _, estimator = both("classes")
    estimator.partial_fit(X, TARGETS["classes"], classes=[0, 1, 2])
    assert type(clone(estimator)) is type(estimator)
    copied = deepcopy(estimator).partial_fit(X, TARGETS["classes"])
    assert type(copied) is type(estimator)
    expect_equal(estimator.partial_fit(X, TARGETS["classes"]), copied, rtol=1e-14)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_scikit_learns_own(accelerated, protocol):
    own, estimator = (e.fit(X, TARGETS["classes"]).partial_fit(X, TARGETS["classes"]) for e in both("classes"))
    pickled = pickle.dumps(estimator, protocol)
    assert b"gpumlp" not in pickled
    assert type(pickle.loads(pickled)) is ACCELERATED["MLPClassifier"]
    uninstall()
    back = pickle.loads(pickled)
    assert type(back) is ORIGINALS["MLPClassifier"]
    assert np.array_equal(weights(back), weights(estimator))
    expect_equal(own.partial_fit(X, TARGETS["classes"]), back.partial_fit(X, TARGETS["classes"]))
    later = pickle.loads(pickle.dumps(estimator, protocol))  # of what was left from before
    assert type(later) is ORIGINALS["MLPClassifier"]
    assert np.array_equal(weights(later), weights(estimator))


def test_a_pickle_is_read_where_there_is_no_gpumlp(accelerated, run_program, tmp_path):
    _, estimator = both("classes")
    estimator.fit(X, TARGETS["classes"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(estimator))
    np.save(tmp_path / "X.npy", X)
    program = (
        "import pickle, sys, numpy as np\n"
        "sys.modules['gpumlp'] = None\n"  # importing it fails
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "print(type(model), *model.predict(np.load('X.npy')))"
    )
    done = run_program("-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    kind, _, labels = done.stdout.partition("> ")
    assert kind == "<class 'sklearn.neural_network._multilayer_perceptron.MLPClassifier'"
    assert labels.split() == [str(label) for label in estimator.predict(X)]


def test_a_pickle_of_scikit_learns_comes_back_accelerated(accelerated):
    uninstall()
    own = both("numbers")[0].fit(X, TARGETS["numbers"])
    pickled = pickle.dumps(own)
    install("numpy")
    assert type(pickle.loads(pickled)) is ACCELERATED["MLPRegressor"]


def test_a_notebook_loads_and_unloads(capsys):
    shell = SimpleNamespace(user_ns={"Old": ORIGINALS["MLPRegressor"], "x": np.zeros(2), "np": np})
    gpumlp.accel.load_ipython_extension(shell)
    said = capsys.readouterr().err
    assert "train on gpumlp (numpy)" in said
    assert "not accelerated: Old" in said
    estimator = sklearn.neural_network.MLPRegressor(max_iter=2).fit(X, TARGETS["numbers"])
    gpumlp.accel.unload_ipython_extension(shell)
    assert sklearn.neural_network.MLPRegressor is ORIGINALS["MLPRegressor"]
    assert "MLPRegressor.fit  1 call  43 rows" in capsys.readouterr().err
    assert type(estimator) is ACCELERATED["MLPRegressor"]
    LEDGER.close()


def test_importing_it_changes_nothing(run_program):
    program = "import sklearn.neural_network as n, gpumlp.accel as a; print(n.MLPClassifier.__init__ is not None, "
    program += "n.MLPClassifier is a.installation.ORIGINALS['MLPClassifier'])"
    assert run_program("-c", program).stdout.split() == ["True", "True"]


def test_gpumlp_alone_loads_no_scikit_learn(run_program):
    assert run_program("-c", "import sys, gpumlp; print('sklearn' in sys.modules)").stdout.strip() == "False"
    assert "gpumlp.accel" not in sys.modules or "sklearn" in sys.modules
