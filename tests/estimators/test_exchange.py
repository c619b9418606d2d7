"""Estimators there and back: files and other libraries answer as the estimator does."""

import numpy as np
import pytest
from fitted import fit, flowers, patients
from sklearn import neural_network
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.convert import load_safetensors
from gpumlp.errors import ConfigurationError

NEAR = {"float32": 1e-6, "float64": 1e-12}
TREES = np.array(["ash", "elm", "yew"])
PROBLEMS = ["two", "three", "names", "two names", "number", "numbers", "counts", "several labels"]
SINGLE = PROBLEMS[:-1]


def problem(kind, dtype="float64"):
    """Return an estimator's class, its parameters, X and y."""
    X, y = flowers(dtype=dtype)
    if kind in ("number", "numbers", "counts"):
        targets = {"number": X[:, 0], "numbers": X[:, :2], "counts": y}[kind]
        return MLPRegressor, {"loss": "poisson" if kind == "counts" else "squared_error"}, X, targets
    targets = {
        "two": np.minimum(y, 1), "three": 3 * y - 2, "names": TREES[y], "two names": TREES[np.minimum(y, 1)],
        "several labels": np.stack([y > 0, y < 2], axis=1).astype(int),
    }  # fmt: skip
    return MLPClassifier, {}, X, targets[kind]


def learned(kind, dtype="float64", peer=False, **params):
    cls, own, X, y = problem(kind, dtype)
    cls = getattr(neural_network, cls.__name__) if peer else cls
    params = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "max_iter": 5, "random_state": 1} | own | params
    return fit(cls(**params), X, y), X


def expect_same(one, other, X, near=0):
    """Expect two of them, estimators or SavedModels, to answer the same."""
    shares = [getattr(each, "predict_proba", getattr(each, "probabilities", None)) for each in (one, other)]
    if hasattr(one, "classes_"):
        np.testing.assert_allclose(shares[0](X), shares[1](X), rtol=0, atol=near)
        assert one.predict(X).tolist() == other.predict(X).tolist()
    else:
        assert one.predict(X).shape == other.predict(X).shape
        np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("n_models", [1, 3])
def test_a_saved_model_answers_as_its_estimator_from_every_file(n_models, kind, dtype, tmp_path):
    mlp, X = learned(kind, dtype, n_models=n_models)
    for model in (
        mlp.to_saved_model(),
        gpumlp.load(mlp.save(tmp_path / "model")),
        load_safetensors(mlp.save_safetensors(tmp_path / "model.safetensors")),
    ):
        assert model.network.dtype == dtype
        expect_same(mlp, model, X)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("n_models", [1, 3])
def test_an_onnx_file_answers_as_the_estimator(n_models, kind, dtype, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    mlp, X = learned(kind, dtype, n_models=n_models)
    path = mlp.to_onnx(tmp_path / "model.onnx")
    found = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"X": X})
    if hasattr(mlp, "classes_"):
        assert found[0].tolist() == mlp.predict(X).tolist()
        np.testing.assert_allclose(found[1], mlp.predict_proba(X), rtol=0, atol=NEAR[dtype])
    else:
        np.testing.assert_allclose(np.squeeze(found[0]), mlp.predict(X), rtol=0, atol=10 * NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_scikit_learn_is_given_an_estimator_of_its_own_that_answers_the_same(solver, kind, dtype):
    if kind == "counts" and "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no Poisson loss")
    mlp, X = learned(kind, dtype, solver=solver, alpha=0.01)
    theirs = mlp.to_sklearn()
    check_is_fitted(theirs)
    assert type(theirs) is getattr(neural_network, type(mlp).__name__)
    expect_same(mlp, theirs, X, NEAR[dtype])
    shared = theirs.get_params()
    assert shared == {name: value for name, value in mlp.get_params().items() if name in shared}
    same_kind, _ = learned(kind, dtype, solver=solver, peer=True)
    assert {name for name in vars(same_kind) if name.endswith("_")} <= set(vars(theirs))
    assert getattr(theirs, "loss_curve_", None) == getattr(mlp, "loss_curve_", None)
    assert (theirs.n_iter_, theirs.t_, theirs.loss_) == (mlp.n_iter_, mlp.t_, mlp.loss_)
    expect_same(mlp, type(mlp).from_sklearn(theirs), X)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_what_scikit_learn_learnt_is_an_estimator_here(solver, kind, dtype):
    if kind == "counts" and "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no Poisson loss")
    theirs, X = learned(kind, dtype, solver=solver, peer=True)
    mlp = problem(kind)[0].from_sklearn(theirs)
    expect_same(mlp, theirs, X, NEAR[dtype])
    assert mlp.coefs_[0] is not theirs.coefs_[0]
    assert (mlp.n_iter_, mlp.t_, mlp.loss_) == (theirs.n_iter_, theirs.t_, theirs.loss_)


@pytest.mark.parametrize("kind", PROBLEMS[:-2])
def test_learning_goes_on_in_either_library(kind):
    mlp, X = learned(kind, learning_rate_init=0.01)
    y = problem(kind)[3]
    there, here = mlp.to_sklearn(), type(mlp).from_sklearn(mlp.to_sklearn())
    for each in (there, here):
        for _ in range(5):
            each.partial_fit(X, y)
        assert len(each.loss_curve_) == 10
        assert each.loss_ < mlp.loss_
        assert each.t_ == mlp.t_ + 5 * len(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_warm_start_in_scikit_learn_comes_back_to_the_best_epoch_from_here():
    mlp, X = learned("three", early_stopping=True, max_iter=20)
    mlp.best_validation_score_ = 2.0  # which no epoch can reach
    there = mlp.to_sklearn().set_params(warm_start=True).fit(X, problem("three")[3])
    expect_same(mlp, there, X, 1e-12)


@pytest.mark.parametrize(("cost", "loss"), [("huber", "poisson"), ("poisson", "squared_error")])
def test_scikit_learns_loss_is_that_of_the_output_that_a_cost_has_asked_for(cost, loss):
    mlp, X = learned("counts", cost=cost, loss=loss)
    there = mlp.to_sklearn()
    assert there.loss == {"identity": "squared_error", "exp": "poisson"}[mlp.out_activation_] != loss
    expect_same(type(mlp).from_sklearn(there), mlp, X, 1e-12)
    there.partial_fit(X, problem("counts")[3])


def test_names_of_features_and_further_parameters_come_along():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, y = flowers()
    table = pandas.DataFrame(X, columns=list("abcd"))
    mlp = fit(MLPClassifier(max_iter=2), table, y)
    assert mlp.to_saved_model().feature_names == ("a", "b", "c", "d")
    back = MLPClassifier.from_sklearn(mlp.to_sklearn(), max_iter=9, backend="numpy")
    assert back.feature_names_in_.tolist() == list("abcd")
    assert (back.max_iter, back.backend) == (9, "numpy")
    assert back.predict(table).tolist() == mlp.predict(table).tolist()


@pytest.mark.parametrize("kind", ["two", "names"])
def test_a_temperature_becomes_part_of_the_weights(kind, tmp_path):
    mlp, X = learned(kind, calibration="temperature", validation_fraction=0.3)
    assert abs(mlp.temperature_ - 1) > 0.01
    expect_same(mlp, mlp.to_saved_model(), X, 1e-12)
    expect_same(mlp, mlp.to_sklearn(), X, 1e-12)


def test_what_cannot_be_expressed_is_refused_with_what_to_do_instead():
    several, X = learned("several labels")
    with pytest.raises(ConfigurationError, match="a SavedModel gives one; use to_torch or to_sklearn"):
        several.to_saved_model()
    filled, _ = learned("two", missing="indicator")
    for way in (filled.to_saved_model, filled.to_sklearn, filled.to_torch):
        with pytest.raises(ConfigurationError, match="SimpleImputer"):
            way()
    stack, _ = learned("two", n_models=3, calibration="temperature")
    with pytest.raises(ConfigurationError, match="temperature of n_models > 1"):
        stack.to_saved_model()
    with pytest.raises(ConfigurationError, match="is one network, this estimator has 3; use to_onnx"):
        learned("three", n_models=3)[0].to_sklearn()
    with pytest.raises(ConfigurationError, match="has softmax outputs here, with cost='hinge' they are identity"):
        learned("three", cost="hinge")[0].to_sklearn()
    with pytest.raises(ConfigurationError, match="no activation gelu"):
        learned("three", activation="gelu")[0].to_sklearn()
    one = fit(MLPClassifier(max_iter=2), X, np.zeros(len(X), int))
    with pytest.raises(ConfigurationError, match=r"knows the class \[0\] alone"):
        one.to_saved_model()
    with pytest.raises(ConfigurationError, match="is no MLPRegressor of scikit-learn"):
        MLPRegressor.from_sklearn(several.to_sklearn())
    with pytest.raises(ConfigurationError, match="is not fitted; call its fit first"):
        MLPRegressor.from_sklearn(neural_network.MLPRegressor())


def test_a_saved_estimator_serves_the_command_line(tmp_path, capsys):
    from gpumlp.cli import main

    mlp, X = learned("names")
    path = mlp.save(tmp_path / "model.npz")
    np.savetxt(tmp_path / "rows.csv", X, delimiter=",")
    main(["predict", str(path), str(tmp_path / "rows.csv"), "--out", str(tmp_path / "labels.csv")])
    found = np.loadtxt(tmp_path / "labels.csv", delimiter=",", dtype=str, skiprows=1)
    assert found.reshape(len(X), -1)[:, 0].tolist() == mlp.predict(X).tolist()
    main(["export", str(path), "--to", "sklearn"])
    assert (tmp_path / "model.joblib").is_file()


# -------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kind", ["two", "names", "number", "numbers", "several labels"])
def test_an_estimator_keeps_its_answers_in_pytorch_and_back(kind, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    mlp, X = learned(kind, dtype)
    sequential = mlp.to_torch()
    with torch.no_grad():
        outputs = sequential(torch.from_numpy(X)).numpy()
    wanted = mlp.predict_proba(X) if hasattr(mlp, "classes_") else mlp.predict(X).reshape(len(X), -1)
    wanted = wanted[:, 1:] if kind == "two" else wanted
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=10 * NEAR[dtype])
    names = {"classes": TREES} if kind == "names" else {}
    back = type(mlp).from_torch(sequential, **names, max_iter=3)
    expect_same(mlp, back, X)
    X, y = problem(kind, dtype)[2:]
    assert fit(clone(back), X, y).n_iter_ == 3
    assert back.partial_fit(X, y).t_ == len(X)


def test_logits_of_two_classes_become_one_output():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    X, _ = flowers()
    sequential = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ELU(0.5), torch.nn.Linear(5, 2)).double()
    mlp = MLPClassifier.from_torch(sequential, "softmax", ["no", "yes"])
    with torch.no_grad():
        shares = torch.softmax(sequential(torch.from_numpy(X)), 1).numpy()
    np.testing.assert_allclose(mlp.predict_proba(X), shares, rtol=0, atol=1e-12)
    assert mlp.predict(X).tolist() == np.array(["no", "yes"])[shares.argmax(1)].tolist()
    with pytest.raises(ConfigurationError, match='2 x identity; say output="softmax"'):
        MLPClassifier.from_torch(sequential)
    with pytest.raises(ConfigurationError, match="expected 2 labels, each once and sorted"):
        MLPClassifier.from_torch(sequential, "softmax", ["yes", "no"])
    with pytest.raises(ConfigurationError, match="identity or exp outputs"):
        MLPRegressor.from_torch(sequential, "sigmoid")


def test_a_regressor_of_counts_comes_from_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    X, _ = patients()
    sequential = torch.nn.Sequential(torch.nn.Linear(10, 1)).double()
    mlp = MLPRegressor.from_torch(sequential, "exp")
    with torch.no_grad():
        np.testing.assert_allclose(mlp.predict(X), torch.exp(sequential(torch.from_numpy(X)))[:, 0].numpy(), rtol=1e-12)
    assert mlp.loss == "poisson"
