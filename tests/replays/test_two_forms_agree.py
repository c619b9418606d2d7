"""Matrix form and per-neuron form are one rule; a net of equal layers tells the right matrix from the wrong one."""

from itertools import pairwise

import numpy as np
import pytest
import reference
from replaying import close, network, of_model

from gpumlp import Activation, Trainer
from gpumlp.formulas.vocabulary import sin


def arrays(values):
    return [np.array(v) for v in values]


def test_deltas_and_gradients_of_one_row(fixture_file, backend):
    case = fixture_file("agree_plain_mlp")
    net = network(case["W0"], case["b0"], backend)
    x, t, row = np.array(case["X"][:1]), np.array(case["T"][:1]), case["sample0"]
    close([a[0, 0] for a in net.forward(x).a], arrays(row["activations"]))
    gradients = net.backpropagate(x, t)
    close([d[0, 0] for d in gradients.delta], arrays(row["deltas_matrix"]))
    close([-d[0, 0] for d in gradients.delta], arrays(row["deltas_per_neuron"]))
    close(of_model(gradients.dW), arrays(row["grad_W"]))
    close(of_model(gradients.db), arrays(row["deltas_matrix"]))


def test_thirty_online_epochs(fixture_file, backend):
    case = fixture_file("agree_plain_mlp")
    net = network(case["W0"], case["b0"], backend)
    trainer = Trainer(net, "sgd", case["eta"], batch_size=1, shuffle=False)
    done = 0
    for epoch, expected in case["after_epoch"].items():
        trainer.fit(np.array(case["X"]), np.array(case["T"]), int(epoch) - done)
        done = int(epoch)
        close(of_model(net.weights), arrays(expected["W"]))
        close(of_model(net.biases), arrays(expected["b"]))
    assert done == 30


@pytest.fixture
def square(fixture_file, backend):
    case = fixture_file("agree_square_net")
    net = network(case["W"], case["b"], backend)
    x, target = np.array([case["x"]]), np.array([case["target"]])
    return case, net, x, target, net.backpropagate(x, target)


def test_the_delta_goes_back_through_the_weights_that_leave_the_layer(square):
    case, net, x, _, gradients = square
    close([a[0, 0] for a in net.forward(x).a], arrays(case["activations"]))
    close([d[0, 0] for d in gradients.delta], arrays(case["deltas"]))
    close([-d[0, 0] for d in gradients.delta], arrays(case["deltas_per_neuron"]))
    close(gradients.dW[0][0], np.array(case["grad_W1"]))


def test_the_matrix_of_the_same_shape_gives_other_deltas(square):
    case, _, _, _, gradients = square
    for found, wrong in zip(gradients.delta[:-1], case["wrong_deltas_with_incoming_weights"][:-1], strict=True):
        assert np.all(np.abs(found[0, 0] - wrong) > 1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_derivative_taken_directly_is_that_of_backpropagation(square, layer):
    case, _, x, target, gradients = square
    W, b, f = arrays(case["W"]), arrays(case["b"]), ["sigmoid"] * 3
    outputs = reference.forward(W, b, f, x[0])[1][-1]
    for row in range(4):
        for column in range(4):
            da = reference.directional_derivative(W, b, f, x[0], layer, row, column)[-1]
            direct = np.dot(reference.cost_gradient("quadratic", outputs, target[0]), da)
            close(gradients.dW[layer][0, row, column], direct, atol=1e-17)


@pytest.mark.parametrize("sizes", [(3, 2), (3, 5, 2), (4, 3, 5, 2), (3, 4, 2, 5, 3), (2, 3, 4, 3, 4, 3, 2)])
def test_gradients_of_any_depth_are_central_differences(sizes, backend):
    rng = np.random.default_rng(len(sizes))
    W = [rng.normal(0, 1, (o, i)) for i, o in pairwise(sizes)]
    b = [rng.normal(0, 1, o) for o in sizes[1:]]
    net = network(W, b, backend, activation="tanh", output="sigmoid")
    X, Y = rng.normal(0, 1, (5, sizes[0])), rng.uniform(0, 1, (5, sizes[-1]))
    gradients = net.backpropagate(X, Y)
    h = 1e-5
    for l in range(len(W)):
        differences = np.empty_like(W[l])
        for place in np.ndindex(*W[l].shape):
            costs = []
            for step in (h, -h):
                moved = W[l].copy()
                moved[place] += step
                net.set_weights(l, moved)
                costs.append(net.cost_of(X, Y)[0])
            differences[place] = (costs[0] - costs[1]) / (2 * h)
        net.set_weights(l, W[l])
        scale = np.abs(differences).max()
        close(gradients.dW[l][0], differences, rtol=1e-6, atol=1e-6 * scale)


def test_backpropagation_is_the_chain_rule(backend):
    """y = exp(sin(x^2)) as a chain of three units: dy/dx = exp(sin(x^2)) cos(x^2) 2 x, from formulas without f'."""
    square = Activation("square", value=lambda z: z * z)
    sine = Activation("sine", value=lambda z: sin(z))
    net = network([[[1.0]]] * 3, None, backend, activation=[square, sine], output="exp")
    x = np.array([[-1.3], [0.2], [0.9], [2.1]])
    y = np.exp(np.sin(x**2))
    close(net.predict(x)[0], y)
    delta = net.backpropagate(x, y - 1).delta[0][0]  # this target makes dC/dy = 1, and z of the first unit is x
    close(delta, y * np.cos(x**2) * 2 * x, rtol=1e-12)
