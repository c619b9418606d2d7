"""The matrix form and its bias trick: a net without biases, an input 1, and one extra sigmoid unit a hidden layer."""

import numpy as np
import pytest
from replaying import close, columns_are_neurons, network, neurons, of_model

from gpumlp import Trainer


def with_one(X):
    return np.column_stack([X, np.ones(len(X))])


def online(net, alpha):
    return Trainer(net, "sgd", alpha, batch_size=1, shuffle=False, train_biases=False)


def sum_of_squares(net, X, Y):
    """The article's loss: half the squared errors, summed over rows and outputs."""
    return net.cost_of(X, Y)[0] * len(X)


@pytest.fixture
def xor(fixture_file):
    case = fixture_file("a_xor_bias_trick")
    return case, with_one(case["X"]), np.array(case["Y"])


@pytest.mark.parametrize("sample", ["sample0", "sample1_from_W0"])
def test_activations_and_deltas_of_one_row(xor, sample, backend):
    case, _, _ = xor
    net = network(columns_are_neurons(case["W0"]), None, backend)
    row = case[sample]
    x, y = np.array([row["x"]]), np.array([row["y"]])
    close([a[0] for a in net.forward(x).a], [np.array(a) for a in row["activations"]], atol=1e-14, rtol=0)
    close([d[0] for d in net.backpropagate(x, y).delta], [np.array(d) for d in row["deltas"]], atol=1e-14, rtol=0)


def test_one_row_moves_every_weight_as_published(xor, backend):
    case, _, _ = xor
    net = network(columns_are_neurons(case["W0"]), None, backend)
    row = case["sample0"]
    online(net, case["alpha"]).fit(np.array([row["x"]]), np.array([row["y"]]), 1)
    close(of_model(net.weights), columns_are_neurons(row["W_after"]), rtol=0, atol=1e-14)
    assert not any(b.any() for b in net.biases)


def test_xor_follows_the_article_for_20000_epochs(xor, backend, affordable_steps):
    case, X, Y = xor
    net = network(columns_are_neurons(case["W0"]), None, backend)
    trainer = online(net, case["alpha"])
    close(sum_of_squares(net, X, Y), case["loss_initial"])
    done = 0
    for epoch, loss in case["loss_after_epoch"].items():
        if int(epoch) * len(X) > affordable_steps:
            return
        trainer.fit(X, Y, int(epoch) - done)
        done = int(epoch)
        tolerance = 1e-12 if done <= 100 else 1e-8
        close(sum_of_squares(net, X, Y), loss, rtol=0, atol=tolerance)
        if epoch in case["W_after_epoch"]:
            close(of_model(net.weights), columns_are_neurons(case["W_after_epoch"][epoch]), rtol=0, atol=tolerance)
    assert (done, trainer.epoch_count) == (20_000, 20_000)
    close(of_model(net.weights), columns_are_neurons(case["W_after_20000"]), rtol=0, atol=1e-8)
    close(net.predict(X)[0, :, 0], case["pred_after_20000"], rtol=0, atol=1e-8)
    assert not any(b.any() for b in net.biases)


def test_a_net_with_true_biases_is_another_net(xor, backend):
    case, X, _ = xor
    W = columns_are_neurons(case["W0"])
    plain = network([W[0][:2, :2], W[1][:, :2]], [W[0][:2, 2], W[1][:, 2]], backend)
    assert np.abs(plain.predict(X[:, :2]) - network(W, None, backend).predict(X)).max() > 0.01


def trained_without_hidden_layer(starts, X, Y, case, backend):
    """Outputs (n_starts, 4) of 2-1 nets; the constant input of the first layer is a true bias, so they have one."""
    net = network([starts[:, :, :2]], [starts[:, :, 2]], backend)
    Trainer(net, "sgd", case["alpha"], batch_size=1, shuffle=False).fit(X[:, :2], Y, case["epochs"])
    return net.predict(X[:, :2])[:, :, 0]


def test_xor_without_hidden_layer_ends_on_the_published_digits(fixture_file, xor, backend, long_training):
    """From any start that the article may draw: N(0, 1 / 2). Wider draws also meet minima with one row wrong and
    saturated, where descent stays: 4 or 5 % of starts from N(0, 1), 4 in 10 from N(0, 4).
    """
    case = fixture_file("a_xor_2_1")
    _, X, Y = xor
    drawn = np.random.default_rng(1).normal(0, 0.5**0.5, (30, 1, 3))
    outputs = trained_without_hidden_layer(np.concatenate([[np.array(case["W0"][0]).T], drawn]), X, Y, case, backend)
    close(outputs[0], case["pred_after_20000"], rtol=0, atol=1e-8)
    assert np.round(outputs, 4).tolist() == [case["published_pred"]] * 31


@pytest.fixture
def deep(fixture_file):
    case = fixture_file("a_deep_bias_trick")
    return case, with_one(case["X"]), np.array(case["Y"])


def test_activations_and_deltas_of_the_deep_net(deep, backend):
    case, X, Y = deep
    net = network(columns_are_neurons(case["W0"]), None, backend)
    expected = case["sample0"]
    close([a[0] for a in net.forward(X[:1]).a], [np.array(a) for a in expected["activations"]])
    close([d[0] for d in net.backpropagate(X[:1], Y[:1]).delta], [np.array(d) for d in expected["deltas"]], atol=1e-17)


def test_the_deep_net_follows_the_matrix_form(deep, backend):
    case, X, Y = deep
    net = network(columns_are_neurons(case["W0"]), None, backend)
    trainer = online(net, case["alpha"])
    close(sum_of_squares(net, X, Y), case["loss_initial"])
    done = 0
    for epoch, expected in case["after_epoch"].items():
        trainer.fit(X, Y, int(epoch) - done)
        done = int(epoch)
        close(of_model(net.weights), columns_are_neurons(expected["W"]))
        close(sum_of_squares(net, X, Y), expected["loss"])
    assert done == 50


def test_the_deep_net_as_per_neuron_loops_has_the_opposite_deltas(deep, backend):
    case, X, Y = deep
    form = case["per_neuron"]
    W, b = neurons(form["net"])
    assert not b[1].any()
    assert not b[2].any()
    net = network(W, b, backend)
    x = X[:1, :4]
    close([a[0, 0] for a in net.forward(x).a[1:]], [np.array(a) for a in form["outputs"]])
    gradients = net.backpropagate(x, Y[:1])
    close([-d[0, 0] for d in gradients.delta], [np.array(d) for d in form["deltas"]], atol=1e-17)
    matrix_form = network(columns_are_neurons(case["W0"]), None, backend).backpropagate(X[:1], Y[:1])
    close(gradients.delta, matrix_form.delta, rtol=1e-13)
    close(gradients.dW[0][0], matrix_form.dW[0][0][:, :4])
    close(gradients.db[0][0], matrix_form.dW[0][0][:, 4])
