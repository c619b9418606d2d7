"""Models with columns of codes, in every format that can hold them, and the ones that cannot."""

import numpy as np
import pytest

import gpumlp
from gpumlp.convert import from_torch, load_safetensors, save_safetensors, to_onnx, to_sklearn, to_torch
from gpumlp.data import Standardiser
from gpumlp.errors import ConfigurationError

RANDOM = np.random.default_rng(3)
EMBEDDINGS = (gpumlp.Embedding(1, 5, 3), gpumlp.Embedding(3, 2, 1))
PLACES = {"among others": (4, EMBEDDINGS), "alone": (1, (gpumlp.Embedding(0, 5, 2),)), "side by side": (
    3, (gpumlp.Embedding(0, 4, 2), gpumlp.Embedding(1, 3, 4)))}  # fmt: skip
NEAR = {"float32": 1e-5, "float64": 1e-12}


def rows_for(n_columns, embeddings):
    """Return rows of numbers and codes, among them -1 for what is not known."""
    X = RANDOM.normal(30, 4, (17, n_columns))
    for each in embeddings:
        X[:, each.column] = RANDOM.integers(-1, each.n_categories, 17)
    return X


def model_of(n_columns, embeddings, n_models=1, dtype="float64", scaled=True):
    net = gpumlp.Network(
        (n_columns, 4, 2), "tanh", "identity", "quadratic", dtype=dtype, n_models=n_models, embeddings=embeddings
    )
    is_code = np.isin(np.arange(n_columns), [each.column for each in embeddings])
    scaler = Standardiser.fit(rows_for(n_columns, embeddings), is_code) if scaled else None
    return gpumlp.SavedModel(net, "regression", scaler=scaler)


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("place", list(PLACES))
def test_onnx_looks_codes_up_as_gpumlp_does(place, n_models, scaled, dtype, tmp_path):
    pytest.importorskip("onnx", reason='onnx is not installed (extra "onnx")')
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, which would run the file")
    model, X = model_of(*PLACES[place], n_models, dtype, scaled), rows_for(*PLACES[place]).astype(dtype)
    session = runtime.InferenceSession(to_onnx(model, tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"X": X})
    assert found.dtype == dtype
    assert np.abs(found - model.predict(X)).max() <= NEAR[dtype] * max(1, np.abs(X).max())


def test_onnx_gives_zeros_for_what_is_no_code(tmp_path):
    pytest.importorskip("onnx", reason='onnx is not installed (extra "onnx")')
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, which would run the file")
    model = model_of(4, EMBEDDINGS, scaled=False)
    session = runtime.InferenceSession(to_onnx(model, tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    X = np.ones((6, 4))
    X[:, 1] = -1, -7, 5, 1e30, 0.5, np.nan
    (found,) = session.run(None, {"X": X})
    assert np.abs(found - model.predict(X[:1])).max() <= 1e-12


@pytest.mark.parametrize("model", [model_of(4, EMBEDDINGS, 3), model_of(1, EMBEDDINGS[:0])], ids=["stack", "none"])
def test_safetensors_bring_back_tables(model, tmp_path):
    loaded = load_safetensors(save_safetensors(model, tmp_path / "m.safetensors"))
    assert loaded.network.architecture.embeddings == model.network.architecture.embeddings
    X = rows_for(model.network.sizes[0], model.network.architecture.embeddings)
    assert np.array_equal(loaded.outputs(X), model.outputs(X))


def test_a_scikit_learn_mlp_is_refused_with_the_columns_by_number():
    with pytest.raises(ConfigurationError, match=r"a scikit-learn MLP cannot embed .* in columns 1, 3; export to"):
        to_sklearn(model_of(4, EMBEDDINGS))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("place", list(PLACES))
def test_torch_embeds_the_same_and_brings_it_back(place, scaled):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, to which it would be given")
    model, X = model_of(*PLACES[place], scaled=scaled), rows_for(*PLACES[place])
    sequential = to_torch(model)
    with torch.no_grad():
        found = sequential(torch.from_numpy(X)).numpy()
    assert np.abs(found - model.predict(X)).max() <= 1e-10
    back = from_torch(sequential)
    assert back.architecture.embeddings == model.network.architecture.embeddings
    assert np.array_equal(back.embeddings[0], model.network.embeddings[0])
    assert np.abs(back.predict(X)[0] - model.predict(X)).max() <= 1e-10


def test_torch_gives_zeros_and_no_gradient_for_what_is_no_code():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, to which it would be given")
    model = model_of(4, EMBEDDINGS, scaled=False)
    sequential = to_torch(model)
    X = np.ones((6, 4))
    X[:, 1] = -1, -7, 5, 1e30, 0.5, np.nan
    found = sequential(torch.from_numpy(X))
    assert np.abs(found.detach().numpy() - model.predict(X[:1])).max() <= 1e-10
    found.sum().backward()
    assert not sequential[0].tables[0].weight.grad.any()


def test_codes_that_are_scaled_cannot_become_part_of_the_weights():
    model = model_of(4, EMBEDDINGS)
    model.scaler = Standardiser.fit(rows_for(4, EMBEDDINGS))
    pytest.importorskip("torch", reason="PyTorch is not installed, to which it would be given")
    with pytest.raises(ConfigurationError, match="column 1 is embedded, but its codes are scaled"):
        to_torch(model)
