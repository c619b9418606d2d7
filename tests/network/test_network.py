import numpy as np
import pytest

import gpumlp
from gpumlp.backends.protocol import PADDING
from gpumlp.errors import ConfigurationError, DataError, FormulaError, ShapeError, UnknownName
from gpumlp.network.evaluation import ROWS_AT_A_TIME
from gpumlp.network.initialisers import INITIALISERS
from gpumlp.network.parameters import ParameterLayout


@pytest.fixture
def net(backend):
    return gpumlp.Network((4, 6, 2), "tanh", "identity", "quadratic", n_models=3, dtype="float64", backend=backend)


def rows(n=5, features=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features))


# ---------------------------------------------------------------- what it is built from


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4,), "at least an input and an output size"),
        ((), "at least an input and an output size"),
        ((4, 0, 2), "whole numbers of at least 1"),
        ((4, -3, 2), "whole numbers of at least 1"),
        ((4, 2.5, 2), "whole numbers of at least 1"),
        (4, "no list of layer sizes"),
        (None, "no list of layer sizes"),
        ("432", "sizes="),
        ("abc", "sizes="),
        ((4, float("nan"), 2), "sizes="),
    ],
)
def test_impossible_sizes_raise(sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        gpumlp.Network(sizes)


def test_the_number_of_activations_must_be_that_of_the_hidden_layers():
    with pytest.raises(ConfigurationError, match=r"names 1 layers, sizes=\(4, 6, 5, 2\) has 2 hidden ones"):
        gpumlp.Network((4, 6, 5, 2), ["relu"])
    net = gpumlp.Network((4, 6, 5, 2), ["relu", "tanh"])
    assert [a.name for a in net.architecture.activations] == ["relu", "tanh", "softmax"]


def test_softmax_works_at_the_output_only():
    with pytest.raises(FormulaError, match="softmax couples the units of a row and works at the output only"):
        gpumlp.Network((4, 6, 2), "softmax")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "rellu"}, UnknownName, "did you mean 'relu'"),
        ({"output": "softmx"}, UnknownName, "did you mean 'softmax'"),
        ({"cost": "quadratik"}, UnknownName, "did you mean 'quadratic'"),
        ({"initialiser": "glorott"}, UnknownName, "did you mean 'glorot'"),
        ({"n_models": 0}, ConfigurationError, "n_models=0"),
        ({"n_models": -1}, ConfigurationError, "n_models=-1"),
        ({"n_models": 2.5}, ConfigurationError, "n_models"),
        ({"n_models": 3, "model_ids": [1, 2]}, ConfigurationError, "n_models=3 with 2 model_ids"),
        ({"model_ids": []}, ConfigurationError, "at least 1"),
        ({"model_ids": [-1]}, ConfigurationError, "model_ids=.*whole numbers"),
        ({"seed": -1}, ConfigurationError, "seed=.*whole numbers"),
        ({"seed": 1.5}, ConfigurationError, "seed=1.5: expected whole numbers"),
        ({"seed": [1, 2], "n_models": 3}, ConfigurationError, "2 seeds for 3 models"),
        ({"dropout": 1.0}, ConfigurationError, "dropout=1.0 is no share"),
        ({"dropout": -0.1}, ConfigurationError, "dropout=-0.1 is no share"),
        ({"dropout": [0.1, 0.2]}, ConfigurationError, "2 dropout rates for 1 hidden layers"),
        ({"dropout": "some"}, ConfigurationError, "dropout='some': expected a share, or one for each hidden layer"),
        ({"dropout": None}, ConfigurationError, "dropout=None: expected a share"),
        ({"activation": gpumlp.activations.leaky_relu}, ConfigurationError, "leaky_relu"),
    ],
)
def test_an_impossible_argument_raises_and_says_what_is_expected(options, error, message):
    with pytest.raises(error, match=message):
        gpumlp.Network((4, 6, 2), **options)


def test_a_share_of_dropout_may_be_any_number_of_numpy():
    assert gpumlp.Network((4, 6, 2), dropout=np.float32(0.5), backend="numpy").dropout == (0.5,)


def test_a_network_says_what_it_is(net):
    assert repr(net) == f"<Network 3 models 4-6-2 (tanh, identity; quadratic) float64 on {net.backend.name}>"
    assert net.sizes == (4, 6, 2)
    assert net.dtype == np.float64


# ---------------------------------------------------------------- parameters


def test_each_tensor_begins_at_a_multiple_of_the_padding():
    layout = ParameterLayout((4, 6, 2))
    assert layout.offsets == [0, 32, 64, 96, 128]
    assert layout.n_weights == 64
    assert layout.n_params == 128
    assert layout.n_trainable == 4 * 6 + 6 + 6 * 2 + 2
    assert all(offset % PADDING == 0 for offset in ParameterLayout((33, 32, 1)).offsets)


def test_running_statistics_stand_behind_all_that_is_learned():
    net = gpumlp.Network((4, 33, 5, 2), normalisation=["batch", "layer"])
    layout = net.parameters.layout
    n_learned = 4 * 33 + 33 + 33 * 5 + 5 + 5 * 2 + 2 + 2 * (33 + 5)
    assert layout.n_trainable == n_learned
    assert layout.n_learned < layout.n_params == layout.n_learned + 2 * 64
    assert gpumlp.Trainer(net).hyper.bounds == (0, layout.n_learned)
    assert gpumlp.Trainer(net, l2=0.1).hyper.bounds == (0, layout.n_weights, layout.n_learned)


def test_weights_and_biases_are_views_of_one_buffer():
    net = gpumlp.Network((4, 6, 2), "tanh", "identity", n_models=3, cost="quadratic", backend="numpy")
    assert [w.shape for w in net.weights] == [(3, 6, 4), (3, 2, 6)]
    assert [b.shape for b in net.biases] == [(3, 6), (3, 2)]
    before = net.predict(rows())
    net.weights[1][2] = 0
    net.biases[1][2] = 7
    assert (net.predict(rows())[2] == 7).all()
    assert np.array_equal(net.predict(rows())[:2], before[:2])
    assert (net.backend.to_host(net.parameters.theta)[2] == 7).sum() == 2


def test_weights_are_set_for_all_models_or_for_each(net):
    W, b = rows(6), np.arange(6.0)
    net.set_weights(0, W, b)
    assert all(np.array_equal(net.weights[0][m], W) for m in range(3))
    assert all(np.array_equal(net.biases[0][m], b) for m in range(3))
    each, biases = np.arange(36.0).reshape(3, 2, 6), np.arange(6.0).reshape(3, 2)
    net.set_weights(1, each.tolist(), biases.tolist())
    assert np.array_equal(net.weights[1], each)
    assert np.array_equal(net.biases[1], biases)
    net.set_weights(1, 0 * each)
    assert np.array_equal(net.biases[1], biases)


@pytest.mark.parametrize(
    ("layer", "W", "b", "message"),
    [
        (0, (4, 6), None, r"W\[0\] has shape \(4, 6\), expected \(6, 4\); or \(3, 6, 4\)"),
        (0, (2, 6, 4), None, r"W\[0\] has shape \(2, 6, 4\)"),
        (0, (), None, r"W\[0\] has shape"),
        (1, (2, 6), (6,), r"b\[1\] has shape \(6,\), expected \(2,\); or \(3, 2\)"),
        (1, (2, 6), (2, 3), r"b\[1\] has shape"),
    ],
)
def test_weights_of_a_wrong_shape_raise_and_change_nothing(net, layer, W, b, message):
    before = [x.copy() for x in (*net.weights, *net.biases)]
    with pytest.raises(ShapeError, match=message):
        net.set_weights(layer, np.ones(W), None if b is None else np.ones(b))
    for x, y in zip((*net.weights, *net.biases), before, strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_does_not_exist_raises(net, layer):
    with pytest.raises(ConfigurationError, match=rf"layer {layer} does not exist; 4-6-2 has layers 0 to 1"):
        net.set_weights(layer, np.ones((2, 6)))


# ---------------------------------------------------------------- initial weights


def test_initial_weights_depend_on_seed_and_number_alone():
    stack = gpumlp.Network((4, 6, 2), n_models=3, seed=5)
    for m in range(3):
        alone = gpumlp.Network((4, 6, 2), seed=5, model_ids=[m])
        assert np.array_equal(alone.parameters.theta[0], stack.parameters.theta[m])
    by_seeds = gpumlp.Network((4, 6, 2), seed=[5, 6], model_ids=[1, 1])
    assert np.array_equal(by_seeds.parameters.theta[0], stack.parameters.theta[1])
    assert not np.array_equal(by_seeds.parameters.theta[0], by_seeds.parameters.theta[1])
    double = gpumlp.Network((4, 6, 2), n_models=3, seed=5, dtype="float64")
    assert np.array_equal(double.parameters.theta.astype(np.float32), stack.parameters.theta)


WIDTH = {
    "he": lambda n_in, n_out: np.sqrt(2 / n_in),
    "glorot": lambda n_in, n_out: np.sqrt(2 / (n_in + n_out)),
    "lecun": lambda n_in, n_out: np.sqrt(1 / n_in),
    "nielsen": lambda n_in, n_out: np.sqrt(1 / n_in),
    "zeros": lambda n_in, n_out: 0.0,
}


@pytest.mark.parametrize("name", list(INITIALISERS))
def test_an_initialiser_draws_with_its_variance(name):
    net = gpumlp.Network((300, 200, 10), initialiser=name)
    assert np.isclose(net.weights[0].std(), WIDTH[name](300, 200), rtol=0.02)
    assert np.isclose(net.weights[0].mean(), 0, atol=0.002)
    assert np.isclose(net.biases[0].std(), 1.0 if name == "nielsen" else 0.0, rtol=0.2)


def test_a_users_initialiser_draws():
    def ones(generator, n_out, n_in):
        return np.ones((n_out, n_in)), np.full(n_out, 2)

    net = gpumlp.Network((4, 6, 2), initialiser=ones)
    assert (net.weights[1] == 1).all()
    assert (net.biases[0] == 2).all()


@pytest.mark.parametrize(
    ("drawn", "error"),
    [
        (np.ones((4, 6)), ShapeError),
        ((np.ones((6, 4)), np.ones(4)), ShapeError),
        (np.full((6, 4), np.nan), ConfigurationError),
    ],
)
def test_a_users_initialiser_that_draws_nonsense_raises(drawn, error):
    with pytest.raises(error, match="the initialiser gave"):
        gpumlp.Network((4, 6, 2), initialiser=lambda generator, n_out, n_in: drawn)


# ---------------------------------------------------------------- passes


def test_forward_is_the_textbooks_formula_layer_by_layer(net):
    X = rows()
    passed = net.forward(X)
    assert np.array_equal(passed.a[0], X[None])
    for m in range(3):
        a = X
        for l, f in enumerate((np.tanh, lambda z: z)):
            z = a @ net.weights[l][m].T + net.biases[l][m]
            a = f(z)
            assert np.allclose(passed.z[l][m], z, rtol=1e-13)
            assert np.allclose(passed.a[l + 1][m], a, rtol=1e-13)
    assert np.allclose(net.predict(X), passed.a[-1], rtol=1e-13)


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "exp", "identity"])
def test_predictions_are_the_output_activations(output, backend):
    cost = {"softmax": "categorical_cross_entropy", "sigmoid": "cross_entropy"}.get(output, "quadratic")
    net = gpumlp.Network((4, 6, 3), "relu", output, cost, n_models=2, backend=backend, dtype="float64")
    passed = net.forward(rows())
    z = passed.z[-1]
    wanted = {
        "softmax": np.exp(z) / np.exp(z).sum(axis=2, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "exp": np.exp(z),
        "identity": z,
    }[output]
    assert np.allclose(net.predict(rows()), wanted, rtol=1e-12)
    assert np.allclose(passed.a[-1], wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, ROWS_AT_A_TIME - 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1, 2 * ROWS_AT_A_TIME + 7])
def test_predictions_in_pieces_are_those_of_the_whole(n, dtype, backend):
    net = gpumlp.Network((4, 6, 3), "gelu", n_models=2, backend=backend, dtype=dtype)
    X = rows(n)
    whole = net.forward(X).a[-1]
    found = net.predict(X)
    assert found.shape == (2, n, 3)
    assert found.dtype == dtype
    assert np.allclose(found, whole, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_predictions_do_not_share_memory_with_the_network(net):
    first = net.predict(rows())
    kept = first.copy()
    net.predict(rows(seed=1))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("passing", ["predict", "forward"])
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (
            np.ones((5, 3)),
            ShapeError,
            r"X has shape \(5, 3\), expected \(n_samples, 4\); architecture 4-6-2 takes 4 features",
        ),
        (np.ones(4), ShapeError, r"X has shape \(4,\), expected \(n_samples, 4\)"),
        (np.ones((2, 2, 2)), ShapeError, r"X has shape \(2, 2, 2\)"),
        (np.ones((0, 4)), DataError, "X has no rows"),
        ([["a"] * 4], ShapeError, "X has dtype .*expected numbers"),
        ([[1, 2], [3]], ShapeError, "X cannot become an array"),
        ([[1, 2, np.nan, 4]], DataError, r"X holds 1 values that are not finite, the first at \[0, 2\]"),
        ([[1, 2, 3, 4], [np.inf, 2, 3, 4]], DataError, r"the first at \[1, 0\]"),
    ],
)
def test_inputs_that_do_not_fit_raise(net, passing, X, error, message):
    with pytest.raises(error, match=message):
        getattr(net, passing)(X)


def test_an_extreme_network_warns_of_nothing(backend):
    net = gpumlp.Network((4, 6, 2), "exp", backend=backend)
    net.set_weights(0, np.full((6, 4), 1e30))
    X = np.abs(rows()) * 1e5
    net.predict(X)
    net.forward(X)
    net.evaluate(X, np.zeros(5, int))
    net.backpropagate(X, np.zeros(5, int))
