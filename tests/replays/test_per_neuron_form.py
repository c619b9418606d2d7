"""The per-neuron form: toy data 2-2-2. Its delta is (expected - output) f', the opposite of dC/dz."""

import numpy as np
import pytest
from replaying import close, network, neurons, of_model

from gpumlp import Trainer


@pytest.fixture
def toy(fixture_file):
    case = fixture_file("b_toy")
    data = np.array(case["data"])
    return case, data[:, :2], np.eye(2)[data[:, 2].astype(int)]


def test_the_first_sample(toy, backend):
    case, X, Y = toy
    W, b = neurons(case["weights0"])
    net = network(W, b, backend)
    first = case["first_sample"]
    close([a[0, 0] for a in net.forward(X[:1]).a[1:]], [np.array(o) for o in first["outputs"]])
    close([-d[0, 0] for d in net.backpropagate(X[:1], Y[:1]).delta], [np.array(d) for d in first["deltas"]])
    Trainer(net, "sgd", case["l_rate"], batch_size=1, shuffle=False).fit(X[:1], Y[:1], 1)
    W_after, b_after = neurons(first["weights_after"])
    close(of_model(net.weights), W_after)
    close(of_model(net.biases), b_after)


def test_the_twenty_printed_errors_and_the_final_weights(toy, backend):
    """The history's cost is taken before each row's update, as the printed error is: a sum of squares, not halved."""
    case, X, Y = toy
    net = network(*neurons(case["weights0"]), backend)
    history = Trainer(net, "sgd", case["l_rate"], batch_size=1, shuffle=False).fit(X, Y, case["epochs"])
    errors = 2 * len(X) * history["cost"][:, 0]
    close(errors, case["sum_error_per_epoch"])
    assert np.round(errors, 3).tolist() == case["published_sum_error"]
    W, b = neurons(case["published_weights_final"])
    close(of_model(net.weights), W)
    close(of_model(net.biases), b)


def test_the_same_errors_row_by_row(toy, backend):
    """Nothing depends on how many rows a `fit` is given: the error of a row, then its update."""
    case, X, Y = toy
    net = network(*neurons(case["weights0"]), backend)
    trainer = Trainer(net, "sgd", case["l_rate"], batch_size=1, shuffle=False)
    for expected in case["sum_error_per_epoch"][:3]:
        error = 0.0
        for x, y in zip(X, Y, strict=True):
            error += np.sum((net.predict(x[None])[0, 0] - y) ** 2)
            trainer.fit(x[None], y[None], 1)
        close(error, expected)


def test_the_printed_forward_pass(toy, backend):
    steps = toy[0]["single_steps"]
    net = network(*neurons(steps["network"]), backend)
    a = net.forward(np.array([steps["input"]])).a
    close([v[0, 0] for v in a[1:]], [np.array(v) for v in steps["forward"]])
    close(a[-1][0, 0], steps["published_forward"])


def test_the_printed_deltas_belong_to_given_outputs(toy, backend):
    """The page gives outputs that its weights do not produce; biases that do produce them leave the deltas alone."""
    steps = toy[0]["single_steps"]
    W, _ = neurons(steps["network"])
    outputs = [np.array(o) for o in steps["backward_given_outputs"]]
    a, b = np.array(steps["input"]), []
    for w, out in zip(W, outputs, strict=True):
        b.append(np.log(out / (1 - out)) - w @ a)
        a = out
    net = network(W, b, backend)
    x, y = np.array([steps["input"]]), np.array([steps["expected"]])
    close(net.predict(x)[0, 0], outputs[-1])
    close([-d[0, 0] for d in net.backpropagate(x, y).delta], [np.array(d) for d in steps["published_deltas"]])


def test_the_printed_predictions(toy, backend):
    case, X, Y = toy
    net = network(*neurons(case["predict"]["network"]), backend)
    assert net.predict(X)[0].argmax(axis=1).tolist() == case["predict"]["published_predictions"]
    assert net.evaluate(X, Y)["accuracy"] == 1
