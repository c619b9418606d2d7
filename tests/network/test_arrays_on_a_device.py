"""What lies on a CUDA device stays there, and predictions come back in the kind that came in."""

import sys

import devices
import numpy as np
import pytest

import gpumlp
from gpumlp.errors import ConfigurationError, DataError, ShapeError


class Foreign:
    """An array of another library that speaks DLPack, as torch and JAX do."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    @staticmethod
    def from_dlpack(array):
        return Foreign(array)

    def __array_namespace__(self, **_):
        return Foreign


class Interface:
    """An array of another library that speaks the older protocol, as Numba does."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


KINDS = {
    "cupy": lambda x: x,
    "dlpack": Foreign,
    "interface": Interface,
    "columns": lambda x: x.copy(order="F"),
    "every second row": lambda x: x.repeat(2, axis=0)[::2],
}


def problem(n=37, dtype=np.float32):
    rng = np.random.default_rng(0)
    return (4 * rng.standard_normal((n, 5))).astype(dtype), rng.integers(0, 3, n)


def network(**options):
    return gpumlp.Network((5, 7, 3), n_models=2, backend="cuda", **options)


def host(x):
    return getattr(x, "array", x).get()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_on_the_device_give_what_those_of_the_host_give(kind, dtype, cupy):
    X, y = problem(dtype=dtype)
    weights = np.linspace(0, 2, len(X))
    there = [KINDS[kind](cupy.asarray(v)) for v in (X, y, weights)]
    found = []
    for X_, y_, weights_ in ((X, y, weights), there):
        net = network()
        history = gpumlp.Trainer(net, batch_size=8).fit(X_, y_, 2, validation=(X_, y_), sample_weight=weights_)
        evaluated = net.evaluate(X_, y_, weights_)
        gradients = net.backpropagate(X_, y_)
        found.append([history["cost"], history["validation_cost"], evaluated["accuracy"], gradients.dW[0]])
        predicted = net.predict(X_)
        found[-1].append(predicted if X_ is X else host(predicted))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", ["cupy", "dlpack", "interface"])
def test_predictions_come_back_in_the_kind_that_came_in(kind, cupy):
    X = KINDS[kind](cupy.asarray(problem(n=1500)[0]))
    wanted = {"cupy": cupy.ndarray, "dlpack": Foreign, "interface": cupy.ndarray}[kind]
    predicted = network().predict(X)
    assert type(predicted) is wanted
    assert np.array_equal(host(predicted), network().predict(problem(n=1500)[0]))
    assert type(network().predict(problem()[0])) is np.ndarray


def test_nothing_of_the_size_of_the_data_passes_through_the_host(cupy):
    if devices.in_use().kind != "emulated":
        pytest.skip("only the emulated device counts copies")
    import emulated_gpu

    X, y = problem(n=3000)
    X, y = cupy.asarray(X), cupy.asarray(y)
    net = network()
    trainer = gpumlp.Trainer(net, batch_size=500)
    emulated_gpu.reset()
    trainer.fit(X, y, 2, validation=(X, y))
    net.predict(X)
    copied = emulated_gpu.snapshot()["memcpy_bytes"]
    assert copied["HostToDevice"] < 5000
    assert copied["DeviceToHost"] < 5000
    X_kept = X.copy()
    trainer.fit(X, y, 1)
    assert (X_kept == X).all()


def test_a_metric_sees_arrays_of_the_host(cupy):
    seen = []

    def share(Y, outputs):
        seen.append((type(Y), type(outputs)))
        return (outputs.argmax(axis=1) == Y).mean()

    X, y = (cupy.asarray(v) for v in problem())
    metric = gpumlp.Metric("share", share)
    history = gpumlp.Trainer(network()).fit(X, y, 1, validation=(X, y), monitors=[metric])
    assert seen == 2 * [(np.ndarray, np.ndarray)]
    assert np.allclose(history["share"], history["validation_accuracy"])


def test_regression_targets_may_lie_on_the_device(cupy):
    X, _ = problem()
    Y = np.tanh(X[:, :2])
    costs = []
    for X_, Y_ in ((X, Y), (cupy.asarray(X), cupy.asarray(Y))):
        net = gpumlp.Network((5, 4, 2), output="identity", cost="quadratic", backend="cuda")
        costs.append(gpumlp.Trainer(net, batch_size=8).fit(X_, Y_, 2)["cost"])
    assert np.array_equal(costs[0], costs[1])


def test_the_host_is_no_place_for_arrays_of_a_device(cupy):
    X, y = problem()
    net = gpumlp.Network((5, 7, 3), backend="numpy")
    with pytest.raises(DataError, match=r'X lies on a CUDA device.*backend "numpy" on the host; use backend="cuda"'):
        net.predict(cupy.asarray(X))
    with pytest.raises(DataError, match="Y lies on a CUDA device"):
        gpumlp.Trainer(net).fit(X, cupy.asarray(y), 1)


@pytest.mark.parametrize("kind", ["cupy", "dlpack", "interface", "columns"])
def test_what_a_network_knows_may_be_set_from_the_device(kind, cupy):
    rng, net = np.random.default_rng(1), network(normalisation="batch", embeddings=[gpumlp.Embedding(1, 4, 2)])
    W, b, E, variance = (rng.uniform(0.5, 2, shape) for shape in ((2, 7, 6), (2, 7), (4, 2), (7,)))
    there = [KINDS[kind](cupy.asarray(x)) for x in (W, b, E, variance)]
    net.set_weights(0, there[0], there[1])
    net.set_embedding(0, there[2])
    net.set_normalisation(0, running_variance=there[3])
    found = net.weights[0], net.biases[0], net.embeddings[0], net.normalising[0]["running_variance"]
    for x, wanted in zip(found, (W, b, E, variance), strict=True):
        np.testing.assert_array_equal(x, np.broadcast_to(wanted.astype(np.float32), x.shape))
    with pytest.raises(ConfigurationError, match=r"running_variance\[0\] holds values below 0"):
        net.set_normalisation(0, running_variance=KINDS[kind](cupy.asarray(-variance)))
    with pytest.raises(ShapeError, match=r"W\[1\] has shape \(7, 6\), expected \(3, 7\)"):
        net.set_weights(1, KINDS[kind](cupy.asarray(W[0])))


def test_a_rule_goes_on_with_the_state_of_another_trainer_on_the_device(cupy):
    X, y = problem()
    first, one, other = network(), network(), network()
    trained = gpumlp.Trainer(first, shuffle=False)
    trained.fit(X, y, 2)
    on_host = {name: x.get() for name, x in trained.state.items()}
    gpumlp.Trainer(one, state=trained.state, shuffle=False).fit(X, y, 2)
    gpumlp.Trainer(other, state=on_host, shuffle=False).fit(X, y, 2)
    np.testing.assert_array_equal(one.weights[0], other.weights[0])
    with pytest.raises(ShapeError, match=r"state\['m'\] has shape \(1, "):
        gpumlp.Trainer(one, state={"m": trained.state["m"][:1]})
    pairs = [(W.copy(), b.copy()) for W, b in zip(first.parameters.W, first.parameters.b, strict=True)]
    found = gpumlp.Trainer(one, state={"m": pairs}).state["m"]
    np.testing.assert_array_equal(found.get(), first.parameters.theta.get())


def test_what_lies_on_a_device_is_no_value_for_a_network_of_the_host(cupy):
    net = gpumlp.Network((5, 7, 3), backend="numpy")
    with pytest.raises(DataError, match=r"W\[0\] lies on a CUDA device"):
        net.set_weights(0, cupy.zeros((7, 5)))
    with pytest.raises(DataError, match=r"state\['m'\] lies on a CUDA device"):
        gpumlp.Trainer(net, state={"m": cupy.zeros((1, 9))})


def test_wrong_arrays_on_the_device_raise_as_those_of_the_host_do(cupy):
    X, y = (cupy.asarray(v) for v in problem())
    net = network()
    with pytest.raises(ShapeError, match=r"X has shape \(37, 3\), expected \(n_samples, 5\)"):
        net.predict(X[:, :3])
    bad = X.copy()
    bad[2, 1] = cupy.nan
    with pytest.raises(DataError, match=r"X holds 1 values that are not finite, the first at \[2, 1\]"):
        net.predict(bad)
    with pytest.raises(DataError, match=r"Y holds values from -1 to 1; expected labels 0 to 2"):
        gpumlp.Trainer(net).fit(X, y - 1, 1)
    with pytest.raises(DataError, match=r"Y\[0\] sums to 0, but the outputs of softmax sum to 1"):
        gpumlp.Trainer(net).fit(X, cupy.zeros((37, 3)), 1)
    with pytest.raises(DataError, match=r"order lies on a CUDA device"):
        gpumlp.Trainer(net).fit(X, y, 1, order=cupy.arange(37)[None])


def test_work_on_the_callers_stream_comes_before_and_after(cupy):
    """The caller's kernels that fill X are waited for, and what the caller does with the predictions waits for them."""
    if devices.in_use().kind == "emulated":
        import emulated_gpu

        emulated_gpu.set_mode("lazy")
    try:
        X = problem(n=64)[0]
        net = network()
        wanted = net.predict(X).copy() * 2
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            there = cupy.zeros(X.shape, X.dtype)
            there += cupy.asarray(X)
            doubled = net.predict(there) * 2
            assert np.array_equal(doubled.get(), wanted)
    finally:
        if "emulated_gpu" in sys.modules and devices.in_use().kind == "emulated":
            emulated_gpu.set_mode("eager")


def test_codes_on_a_device_that_do_not_exist_are_taken_for_unknown_ones(cupy):
    """To look at them would wait for the device; tables are never left, whatever the codes are."""
    X, y = np.array([[0.0], [9.0], [0.5], [-3.0], [1.0]]), np.array([0, 1, 0, 1, 0])
    nets = [
        gpumlp.Network((1, 4, 2), embeddings=[gpumlp.Embedding(0, 2, 3)], backend="cuda", dtype="float64")
        for _ in range(2)
    ]
    unknown = np.where(np.isin(X, [0, 1]), X, -1)
    for net, given in zip(nets, (cupy.asarray(X), unknown), strict=True):
        gpumlp.Trainer(net, batch_size=2).fit(given, cupy.asarray(y) if given is not unknown else y, 3)
    assert np.array_equal(nets[0].embeddings[0], nets[1].embeddings[0])
    assert np.array_equal(nets[0].predict(cupy.asarray(X)).get(), nets[1].predict(unknown))
