"""Models with normalised layers, exchanged."""

import numpy as np
import pytest
from exchanged_models import NEAR, X, classifier, regression

import gpumlp
from gpumlp.convert import from_torch, load_safetensors, one_of, save_safetensors, to_onnx, to_sklearn, to_torch
from gpumlp.errors import ConfigurationError

KINDS = [("batch", "batch"), ("layer", "layer"), ("batch", "layer"), (None, "layer")]
every_kind = pytest.mark.parametrize("kinds", KINDS, ids=str)
both_dtypes = pytest.mark.parametrize("dtype", list(NEAR))


def trained(kinds, make=classifier, **options):
    """A model whose gamma, beta and running statistics are those of a few steps."""
    model = make(normalisation=kinds, **options)
    rng = np.random.default_rng(0)
    for l, of_layer in enumerate(model.network.normalising):
        for name, x in of_layer.items():
            model.network.set_normalisation(l, **{name: rng.uniform(0.5, 1.5, x.shape)})
    return model


@every_kind
def test_safetensors_hold_what_normalises(kinds, tmp_path):
    model = trained(kinds, n_models=2)
    loaded = load_safetensors(save_safetensors(model, tmp_path / "m.safetensors"))
    assert loaded.network.architecture.normalisation == kinds
    assert np.array_equal(loaded.outputs(X), model.outputs(X))


@every_kind
def test_one_of_a_normalised_stack_is_that_model(kinds):
    model = trained(kinds, n_models=3)
    for number in range(3):
        assert np.array_equal(one_of(model, number).outputs(X)[0], model.outputs(X)[number])


@both_dtypes
@pytest.mark.parametrize("make", [classifier, regression])
@pytest.mark.parametrize("kinds", [("batch", "batch"), (None, "batch")], ids=str)
def test_scikit_learn_has_a_normalised_batch_in_its_weights(kinds, make, dtype):
    pytest.importorskip("sklearn")
    model = trained(kinds, make, dtype=dtype)
    model.feature_names = None
    theirs = to_sklearn(model)
    found = theirs.predict_proba(X) if make is classifier else theirs.predict(X)
    wanted = model.probabilities(X) if make is classifier else model.predict(X)
    assert np.allclose(found, wanted, rtol=10 * NEAR[dtype], atol=10 * NEAR[dtype])


def test_scikit_learn_cannot_normalise_units():
    pytest.importorskip("sklearn")
    with pytest.raises(ConfigurationError, match=r'normalisation="layer".*PyTorch or ONNX'):
        to_sklearn(trained((None, "layer")))


@both_dtypes
@every_kind
def test_torch_has_modules_that_normalise(kinds, dtype):
    torch = pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
    model = trained(kinds, dtype=dtype, dropout=0.1)
    sequential = to_torch(model)
    names = [type(module).__name__ for module in sequential]
    assert [names.count("BatchNorm1d"), names.count("LayerNorm")] == [kinds.count("batch"), kinds.count("layer")]
    with torch.no_grad():
        found = sequential(torch.from_numpy(X.astype(dtype))).numpy()
    near = 1e-11 if dtype == "float64" else 1e-4
    assert np.allclose(found, model.outputs(X)[0], rtol=near, atol=near)


@both_dtypes
@every_kind
def test_modules_that_normalise_come_back(kinds, dtype):
    pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
    net = trained(kinds, dtype=dtype, dropout=0.1).network
    back = from_torch(to_torch(net))
    assert back.architecture.normalisation == kinds
    assert (back.dropout, back.dtype) == (net.dropout, net.dtype)
    assert np.array_equal(back.predict(X), net.predict(X))


def test_modules_without_weights_of_their_own_come_back():
    torch = pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
    nn = torch.nn
    modules = [nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 5)]
    modules += [nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 2)]
    sequential = nn.Sequential(*modules)
    sequential(torch.from_numpy(X.astype(np.float32)))  # moves the running statistics
    with torch.no_grad():
        wanted = sequential.eval()(torch.from_numpy(X.astype(np.float32))).numpy()
    assert np.allclose(from_torch(sequential).predict(X)[0], wanted, rtol=1e-5, atol=1e-5)


def test_an_estimator_made_of_modules_that_normalise_goes_on_with_them():
    pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 3, 60)
    given = gpumlp.MLPClassifier((6, 5), normalisation=["batch", "layer"], max_iter=5, random_state=0, tol=0)
    with pytest.warns(UserWarning, match="converged"):
        given.fit(x, y)
    back = gpumlp.MLPClassifier.from_torch(given.to_torch())
    assert back.normalisation == ["batch", "layer"]
    assert np.allclose(back.predict_proba(x), given.predict_proba(x), atol=1e-6)
    back.partial_fit(x, y)
    assert not np.array_equal(back.normalising_[0]["running_mean"], given.normalising_[0]["running_mean"])


REFUSED = {
    "behind the output": (lambda nn: [nn.Linear(3, 2), nn.LayerNorm(2)], r"LayerNorm\(.*stands behind the output"),
    "behind an activation": (
        lambda nn: [nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2)],
        r"module 2, LayerNorm\(.*expected nn.Linear, then nn.LayerNorm or nn.BatchNorm1d, then one activation",
    ),
    "twice": (
        lambda nn: [nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Linear(4, 2)],
        r"module 2, BatchNorm1d\(.*none of its kind",
    ),
    "first of all": (lambda nn: [nn.BatchNorm1d(3), nn.Linear(3, 2)], r"module 0, BatchNorm1d\(.*none of its kind"),
    "another epsilon": (
        lambda nn: [nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-3), nn.Linear(4, 2)],
        r"module 1, BatchNorm1d\(.*expected 4 units, eps=1e-05",
    ),
    "no statistics": (
        lambda nn: [nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)],
        r"module 1, BatchNorm1d\(.*running statistics",
    ),
    "other units": (
        lambda nn: [nn.Linear(3, 4), nn.LayerNorm((2, 2)), nn.Linear(4, 2)],
        r"module 1, LayerNorm\(.*expected 4 units",
    ),
    "half as long": (
        lambda nn: [nn.Linear(3, 4), nn.LayerNorm(4).bfloat16(), nn.Linear(4, 2)],
        r"LayerNorm\(.*weights of torch.bfloat16, expected float32",
    ),
    "statistics half as long": (
        lambda nn: [nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False).bfloat16(), nn.Linear(4, 2)],
        r"BatchNorm1d\(.*weights of torch.bfloat16, expected float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_normalises_otherwise_is_named(case):
    torch = pytest.importorskip("torch", reason="needs PyTorch", exc_type=ImportError)
    modules, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        from_torch(torch.nn.Sequential(*modules(torch.nn)))


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 3])
@every_kind
def test_onnx_has_nodes_that_normalise(kinds, n_models, dtype, tmp_path):
    pytest.importorskip("onnx", reason='onnx is not installed (extra "onnx")')
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = trained(kinds, dtype=dtype, n_models=n_models)
    session = runtime.InferenceSession(to_onnx(model, tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    _, found = session.run(None, {"X": X.astype(dtype)})
    near = 1e-11 if dtype == "float64" else 1e-5
    assert np.allclose(found, model.probabilities(X.astype(dtype)), rtol=near, atol=near)


def test_a_network_is_exchanged_as_a_model_is():
    net = gpumlp.Network((3, 4, 2), normalisation="batch", seed=1)
    assert np.array_equal(one_of(net, 0).outputs(X), net.predict(X))
