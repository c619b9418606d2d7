"""Rows on a CUDA device, tensors and data frames: they train as arrays do, and predictions come back in their kind."""

import devices
import numpy as np
import pytest
from fitted import fit, flowers, same_bits

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.errors import ConfigurationError, DataError

TREES = np.array(["ash", "elm", "yew"])
SMALL = {"hidden_layer_sizes": (5,), "max_iter": 2, "random_state": 1, "batch_size": 50}
CASES = {
    "labels": (MLPClassifier, lambda X, y: y),
    "several labels": (MLPClassifier, lambda X, y: np.stack([y > 0, y < 2], axis=1).astype(int)),
    "number": (MLPRegressor, lambda X, y: X[:, 0].copy()),
    "numbers": (MLPRegressor, lambda X, y: X[:, :2].copy()),
}
WAYS = [{}, {"solver": "lbfgs"}, {"early_stopping": True}, {"n_models": 2}, {"early_stopping": True, "scoring": "r2"}]


def case(name, dtype=np.float32):
    kind, targets = CASES[name]
    X, y = flowers(dtype=dtype)
    return kind, X, targets(X, y)


def methods(mlp):
    return [getattr(mlp, name) for name in ("predict", "predict_proba", "predict_log_proba") if hasattr(mlp, name)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_rows_on_the_device_train_as_those_of_the_host(options, name, cupy):
    kind, X, y = case(name)
    if kind is MLPClassifier and "scoring" in options:
        options = options | {"scoring": "accuracy", "calibration": "temperature" if name == "labels" else None}
    weights = np.linspace(0.5, 2, len(X))
    here, there = (kind(**SMALL, **options, backend="cuda") for _ in range(2))
    fit(here, X, y, weights)
    fit(there, cupy.asarray(X), cupy.asarray(y), cupy.asarray(weights))
    assert same_bits(here, there)
    for ours, theirs in zip(methods(here), methods(there), strict=True):
        found = theirs(cupy.asarray(X))
        assert type(found) is cupy.ndarray
        np.testing.assert_array_equal(found.get(), ours(X))
        assert type(theirs(X)) is np.ndarray
    assert there.score(cupy.asarray(X), cupy.asarray(y)) == here.score(X, y)


def test_parts_and_rows_to_hold_out_may_lie_on_the_device(cupy):
    _, X, y = case("labels")
    here, there = (MLPClassifier(**SMALL, backend="cuda") for _ in range(2))
    X_there, y_there = cupy.asarray(X), cupy.asarray(y)
    assert same_bits(here.partial_fit(X, y, classes=[0, 1, 2]), there.partial_fit(X_there, y_there, classes=[0, 1, 2]))
    for mlp, rows in ((here, (X, y)), (there, (X_there, y_there))):
        fit(mlp.set_params(early_stopping=True), *rows, X_val=rows[0], y_val=rows[1])
    assert here.validation_scores_ == there.validation_scores_


def test_text_is_numpys_on_any_device(cupy):
    _, X, y = case("labels")
    mlp = fit(MLPClassifier(**SMALL, backend="cuda"), cupy.asarray(X), TREES[y])
    assert mlp.predict(cupy.asarray(X)).tolist() == mlp.predict(X).tolist()
    assert type(mlp.predict(cupy.asarray(X))) is np.ndarray
    assert type(mlp.predict_proba(cupy.asarray(X))) is cupy.ndarray


def test_rows_do_not_leave_the_device(cupy):
    if devices.in_use().kind != "emulated":
        pytest.skip("only the emulated device counts copies")
    import emulated_gpu

    X = cupy.asarray(np.random.default_rng(0).standard_normal((300, 200)), cupy.float32)
    mlp = MLPRegressor(**SMALL | {"hidden_layer_sizes": (2,), "max_iter": 1}, backend="cuda")
    emulated_gpu.reset()
    fit(mlp, X, X[:, 0]).predict(X)
    copied = emulated_gpu.snapshot()["memcpy_bytes"]
    assert max(copied["DeviceToHost"], copied["HostToDevice"]) < X.nbytes / 4


def test_wrong_rows_on_the_device_are_refused(cupy):
    _, X, y = case("labels")
    X_there = cupy.asarray(X)
    with pytest.raises(DataError, match=r'X lies on a CUDA device.*use backend="cuda"'):
        MLPClassifier(backend="numpy").fit(X_there, y)
    with pytest.raises(DataError, match=r'y lies on a CUDA device.*use backend="cuda"'):
        MLPClassifier(backend="numpy").fit(X, cupy.asarray(y))
    mlp = fit(MLPClassifier(**SMALL, backend="cuda"), X_there, y)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        mlp.predict(X_there[:, :3])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        mlp.fit(X_there, y[:5])
    spoilt = X_there.copy()
    spoilt[2, 1] = cupy.nan
    for call in (lambda: mlp.fit(spoilt, y), lambda: mlp.predict(spoilt)):
        with pytest.raises(DataError, match=r"not finite, the first at \[2, 1\]"):
            call()
    with pytest.raises(ConfigurationError, match="fills on the host, X lies on a CUDA device"):
        MLPClassifier(missing="indicator", backend="cuda").fit(X_there, y)


def test_the_dtype_is_chosen_as_for_rows_of_the_host(cupy):
    _, X, y = case("labels")
    for given, dtype, found in (
        ("float32", None, "float32"),
        ("int32", None, "float64"),
        ("float64", "float32", "float32"),
    ):
        mlp = fit(MLPClassifier(**SMALL, dtype=dtype, backend="cuda"), cupy.asarray(X.astype(given)), y)
        assert mlp.coefs_[0].dtype == found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_tensors_of_the_host_train_as_arrays_and_tensors_come_back(name, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    kind, X, y = case(name, dtype)
    weights = np.linspace(0.5, 2, len(X))
    here = fit(kind(**SMALL), X, y, weights)
    there = fit(kind(**SMALL), torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(weights))
    assert same_bits(here, there)
    for ours, theirs in zip(methods(here), methods(there), strict=True):
        found = theirs(torch.from_numpy(X))
        assert type(found) is torch.Tensor
        np.testing.assert_array_equal(found.numpy(), ours(X))
    assert there.score(torch.from_numpy(X), torch.from_numpy(y)) == here.score(X, y)
    if kind is MLPClassifier:
        y_there = torch.from_numpy(y)
        assert there.partial_fit(torch.from_numpy(X), y_there, classes=there.classes_).t_ == 3 * len(X)
        named = fit(MLPClassifier(**SMALL), torch.from_numpy(X), TREES[y.reshape(len(X), -1)[:, 0]])
        assert type(named.predict(torch.from_numpy(X))) is np.ndarray


class Foreign:
    """An array of another library that speaks DLPack in the host's memory, as torch and JAX do."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array.astype(dtype or self.dtype)

    def __len__(self):
        return len(self.array)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    @staticmethod
    def from_dlpack(array):
        return Foreign(np.from_dlpack(array))

    def __array_namespace__(self, **_):
        return Foreign


@pytest.mark.parametrize("name", CASES)
def test_predictions_come_back_in_the_kind_of_any_array_library(name):
    kind, X, y = case(name)
    here, there = fit(kind(**SMALL), X, y), fit(kind(**SMALL), Foreign(X), Foreign(y))
    assert same_bits(here, there)
    for ours, theirs in zip(methods(here), methods(there), strict=True):
        assert type(theirs(Foreign(X))) is Foreign
        np.testing.assert_array_equal(theirs(Foreign(X)).array, ours(X))
    assert there.score(Foreign(X), Foreign(y)) == here.score(X, y)


def test_a_data_frame_of_polars_trains_as_its_array():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    _, X, y = case("labels", np.float64)
    table = polars.DataFrame(X, schema=list("abcd"))
    here = fit(MLPClassifier(**SMALL), X, TREES[y])
    there = fit(MLPClassifier(**SMALL), table, polars.Series("tree", TREES[y]))
    assert there.feature_names_in_.tolist() == list("abcd")
    assert same_bits(here, there)
    assert there.predict(table).tolist() == here.predict(X).tolist()
    assert type(there.predict_proba(table)) is np.ndarray
    with pytest.raises(ValueError, match="feature names should match"):
        there.predict(table.rename({"a": "z"}))
