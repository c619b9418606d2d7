import numpy as np
import pytest

import gpumlp
from gpumlp.errors import ConfigurationError
from gpumlp.network import objective
from gpumlp.network.objective import Objective


def labelled():
    generator = np.random.default_rng(5)
    X = generator.standard_normal((23, 4))
    return X, (X[:, 0] > 0) + (X[:, 1] > 0) * 1


def made(backend, monkeypatch, weights=None, rows=4096):
    monkeypatch.setattr(objective, "ROWS", rows)
    X, y = labelled()
    net = gpumlp.Network((X.shape[1], 5, int(y.max()) + 1), "tanh", dtype="float64", backend=backend, seed=3)
    return net, X, y, Objective(net, X, y, weights, l2=0.3)


def test_the_gradient_is_that_of_finite_differences(backend, monkeypatch):
    *_, f = made(backend, monkeypatch, np.linspace(0, 2, len(labelled()[0])))
    theta = f.parameters()
    _, gradient = f(theta)
    generator = np.random.default_rng(0)
    for _ in range(3):
        direction = generator.standard_normal(len(theta)) * (theta != 0)
        slope = (f(theta + 1e-6 * direction)[0] - f(theta - 1e-6 * direction)[0]) / 2e-6
        assert slope == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_cost_and_gradient_are_those_of_the_network(backend, monkeypatch):
    net, X, y, f = made(backend, monkeypatch)
    theta = f.parameters()
    value, gradient = f(theta)
    squares = sum((W**2).sum() for W in net.weights)
    assert f.cost == pytest.approx(net.cost_of(X, y)[0], rel=1e-12)
    assert f.penalty == pytest.approx(0.15 * squares)
    assert value == f.cost + f.penalty
    W = net.parameters.views(gradient[None])[0][0]
    np.testing.assert_allclose(W, net.backpropagate(X, y).dW[0][0] + 0.3 * net.weights[0][0], rtol=1e-9, atol=1e-14)


def test_pieces_of_the_rows_add_up_to_the_whole(backend, monkeypatch):
    theta = made(backend, monkeypatch)[3].parameters()
    whole, pieces = (made(backend, monkeypatch, rows=rows)[3](theta) for rows in (4096, 7))
    assert whole[0] == pytest.approx(pieces[0], rel=1e-12)
    np.testing.assert_allclose(whole[1], pieces[1], rtol=1e-9, atol=1e-14)


def test_the_gradient_of_layers_that_are_normalised_over_units_is_that_of_finite_differences(backend):
    X, y = labelled()
    net = gpumlp.Network((4, 5, 3), "tanh", dtype="float64", backend=backend, seed=3, normalisation="layer")
    f = Objective(net, X, y)
    theta = f.parameters()
    _, gradient = f(theta)
    direction = np.random.default_rng(0).standard_normal(len(theta)) * (gradient != 0)
    slope = (f(theta + 1e-6 * direction)[0] - f(theta - 1e-6 * direction)[0]) / 2e-6
    assert slope == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_a_data_set_has_no_one_cost_if_batches_are_normalised():
    net = gpumlp.Network((4, 5, 3), normalisation="batch")
    with pytest.raises(ConfigurationError, match="no one cost"):
        Objective(net, *labelled())
