"""Two pages worked by hand: Mazur's 2-2-2, and AGH's 2-3-2-1, whose rule is not the gradient."""

import numpy as np
import pytest
from replaying import close, network, of_model

from gpumlp import Trainer


@pytest.fixture
def mazur(fixture_file):
    case = fixture_file("e_mazur")
    return case, np.array([case["inputs"]]), np.array([case["targets"]])


def mazur_network(case, backend):
    w = list(case["weights0"].values())
    W = [np.reshape(w[:4], (2, 2)), np.reshape(w[4:], (2, 2))]
    return network(W, [np.full(2, case["b1"]), np.full(2, case["b2"])], backend)


def steps(trainer, n, x, y):
    """Train for n steps on one example: an epoch of n equal rows."""
    trainer.fit(np.repeat(x, n, axis=0), np.repeat(y, n, axis=0), 1)


def eight_weights(net):
    return np.concatenate([np.ravel(W) for W in of_model(net.weights)])


def same_digits(found, printed, digits):
    """The printed number is the found one, rounded or cut off after so many digits behind the point."""
    return abs(found - printed) < 1.001 * 10.0**-digits


def test_the_forward_pass_deltas_and_derivatives(mazur, backend):
    case, x, y = mazur
    net = mazur_network(case, backend)
    forward, gradients = net.forward(x), net.backpropagate(x, y)
    close(forward.a[1][0, 0], case["forward"]["hidden"])
    close(forward.a[2][0, 0], case["forward"]["out"])
    close(net.cost_of(x, y)[0], case["forward"]["error"])
    close(gradients.delta[1][0, 0], case["delta_out"])
    close(gradients.delta[0][0, 0], case["delta_hidden"])
    close(gradients.dW[1][0, 0, 0], case["dE_dw5"])
    close(gradients.dW[0][0, 0, 0], case["dE_dw1"])


def test_the_printed_digits_of_the_first_step(mazur, backend):
    case, x, y = mazur
    page, net = case["published"], mazur_network(case, backend)
    forward, gradients = net.forward(x), net.backpropagate(x, y)
    assert same_digits(forward.z[0][0, 0, 0], page["net_h1"], 4)
    assert same_digits(forward.z[1][0, 0, 0], page["net_o1"], 9)
    for found, name in [
        (forward.a[1][0, 0, 0], "out_h1"),
        (forward.a[1][0, 0, 1], "out_h2"),
        (forward.a[2][0, 0, 0], "out_o1"),
        (forward.a[2][0, 0, 1], "out_o2"),
        (net.cost_of(x, y)[0], "E_total"),
        (gradients.dW[1][0, 0, 0], "dE_dw5"),
        (gradients.dW[0][0, 0, 0], "dE_dw1"),
    ]:
        assert same_digits(found, page[name], 9), name
    Trainer(net, "sgd", case["eta"], batch_size=1, train_biases=False).fit(x, y, 1)
    for i, found in enumerate(eight_weights(net)):
        assert same_digits(found, page[f"w{i + 1}"], 8), i


@pytest.mark.parametrize(("order", "train_biases"), [("simultaneous", False), ("simultaneous_bias", True)])
def test_ten_thousand_steps(mazur, order, train_biases, backend):
    case, x, y = mazur
    net = mazur_network(case, backend)
    trainer = Trainer(net, "sgd", case["eta"], batch_size=1, train_biases=train_biases)
    sequential = case["results_after_iterations"][order.replace("simultaneous", "sequential")]
    done = 0
    for iterations, expected in case["results_after_iterations"][order].items():
        steps(trainer, int(iterations) - done, x, y)
        done = int(iterations)
        close(eight_weights(net), expected["weights"], rtol=1e-9)
        close(of_model(net.biases), [np.array(expected["b1"]), np.array(expected["b2"])], rtol=1e-9)
        a = net.forward(x).a
        close(a[1][0, 0], expected["hidden"], rtol=1e-9)
        close(a[2][0, 0], expected["out"], rtol=1e-9)
        close(net.cost_of(x, y)[0], expected["error"], rtol=1e-9)
        assert np.abs(eight_weights(net) - sequential[iterations]["weights"]).max() > 1e-5
    assert done == trainer.step_count == 10_000


def test_the_printed_final_error_is_that_of_9999_simultaneous_steps(mazur, backend):
    case, x, y = mazur
    net = mazur_network(case, backend)
    steps(Trainer(net, "sgd", case["eta"], batch_size=1, train_biases=False), 9_999, x, y)
    assert same_digits(net.cost_of(x, y)[0], case["published"]["error_after_10000"], 10)


@pytest.fixture
def agh(fixture_file):
    case = fixture_file("e_agh_rule")
    return case, np.array([case["x"]]), np.array([[case["target"]]])


@pytest.mark.parametrize("i", [0, 1])
def test_ours_is_the_gradient(agh, i, backend):
    case, x, y = agh
    expected = case["cases"][i]
    net = network(case["W"], None, backend, activation=expected["activation"])
    close([a[0, 0] for a in net.forward(x).a], [np.array(o) for o in expected["outputs"]])
    gradients = net.backpropagate(x, y)
    close([d[0, 0] for d in gradients.delta], [np.array(d) for d in expected["true_delta"]])
    close(of_model(gradients.dW), [np.array(g) for g in expected["true_gradient"]])


def test_the_article_s_rule_is_minus_the_gradient_for_linear_units(agh, backend):
    case, x, y = agh
    expected = case["cases"][1]
    assert expected["activation"] == "linear"
    dW = of_model(network(case["W"], None, backend, activation="linear").backpropagate(x, y).dW)
    close(dW, [-np.array(change) for change in expected["agh_weight_change_per_eta"]])


def test_the_article_s_rule_is_not_the_gradient_for_sigmoids_but_in_the_last_layer(agh, backend):
    case, x, y = agh
    expected = case["cases"][0]
    assert expected["activation"] == "sigmoid"
    dW = of_model(network(case["W"], None, backend).backpropagate(x, y).dW)
    changes = [-np.array(change) for change in expected["agh_weight_change_per_eta"]]
    close(dW[-1], changes[-1])
    apart = [np.abs(g - c).max() for g, c in zip(dW[:-1], changes[:-1], strict=True)]
    assert min(apart) > 1e-3
    close(max(apart), case["max_abs_difference_sigmoid"], rtol=1e-9)
