"""Seven costs, checked at 60 digits, alone and through a net; a list printed in 2015 has four gradients wrong."""

import numpy as np
import pytest
from replaying import close, network, of_model

from gpumlp import costs, errors

NAMES = {
    "quadratic": "quadratic",
    "cross_entropy": "cross_entropy",
    "exponential": "exponential",
    "hellinger": "hellinger",
    "kl": "kullback_leibler",
    "generalized_kl": "generalized_kullback_leibler",
    "itakura_saito": "itakura_saito",
}
WRONG_IN_2015 = {"cross_entropy", "kl", "generalized_kl", "itakura_saito"}


def definition(case):
    if case["cost"] == "exponential":
        return costs.exponential(tau=case["tau"])
    return costs.COSTS.get(NAMES[case["cost"]])


def value_of(cost, a, y):
    total = np.sum(cost.term(a, y))
    return total if cost.outer is None else cost.outer(total)


def outputs_as_given(a, cost, backend):
    """A net without hidden layer that gives these sigmoid outputs: zero weights, and biases that do it alone."""
    n = len(a)
    return network([np.zeros((n, 1))], [np.log(a) - np.log1p(-a)], backend, cost=cost)


@pytest.fixture
def listed(fixture_file):
    case = fixture_file("d_costs")
    points = {p["id"]: (np.array(p["a"]), np.array(p["E"])) for p in case["points"]}
    return case, points


def test_all_seven_are_there(listed):
    case, points = listed
    assert {r["cost"] for r in case["results"]} == set(NAMES)
    assert len(case["results"]) == 9 * len(points)  # the exponential cost has three tau


def test_values_and_gradients_at_every_point(listed):
    case, points = listed
    for result in case["results"]:
        cost = definition(result)
        a, y = points[result["point"]]
        if result["value"] == "inf":
            continue
        value = value_of(cost, a, y)
        close(value, result["value"], atol=1e-15)
        close(np.broadcast_to(cost.gradient(a, y, value), a.shape), result["grad"], atol=1e-15)


def test_deltas_of_sigmoid_outputs_at_every_point(listed, backend):
    case, points = listed
    for result in case["results"]:
        a, y = points[result["point"]]
        net = outputs_as_given(a, definition(result), backend)
        if result["value"] == "inf":
            continue
        delta = net.backpropagate(np.zeros((1, 1)), y[None]).delta[0][0, 0]
        close(delta, result["delta_sigmoid"], atol=1e-15)
        close(net.cost_of(np.zeros((1, 1)), y[None])[0], result["value"], atol=1e-15)


def test_itakura_saito_says_that_it_is_infinite_for_a_target_of_zero(listed, backend):
    case, points = listed
    outside = [r for r in case["results"] if r["value"] == "inf"]
    assert [(r["point"], r["cost"]) for r in outside] == [("one_hot", "itakura_saito")]
    a, y = points["one_hot"]
    net = outputs_as_given(a, "itakura_saito", backend)
    with pytest.raises(errors.DataError, match="itakura_saito"):
        net.cost_of(np.zeros((1, 1)), y[None])
    with pytest.raises(errors.DataError, match="itakura_saito"):
        net.backpropagate(np.zeros((1, 1)), y[None])


def test_the_gradients_printed_in_2015_are_not_ours(listed):
    case, points = listed
    printed = [r for r in case["results"] if "grad_as_printed_2015" in r]
    assert {r["cost"] for r in printed} == WRONG_IN_2015
    for result in printed:
        a, y = points[result["point"]]
        ours = definition(result).gradient(a, y, result["value"])
        assert np.abs(ours - np.array(result["grad_as_printed_2015"])).max() > 0.05, result


def test_the_gradients_are_central_differences_of_the_values(listed):
    case, points = listed
    h = 1e-6
    for result in case["results"]:
        a, y = points[result["point"]]
        if result["value"] == "inf" or result["point"] == "small_a":
            continue
        cost = definition(result)
        differences = [(value_of(cost, a + h * e, y) - value_of(cost, a - h * e, y)) / (2 * h) for e in np.eye(len(a))]
        gradient = np.broadcast_to(cost.gradient(a, y, value_of(cost, a, y)), a.shape)
        close(gradient, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("i", range(7))
def test_through_a_net(listed, i, backend):
    case, _ = listed
    net_case, run = case["net"], case["net"]["cases"][i]
    net = network(net_case["W"], net_case["b"], backend, cost=definition(run))
    x, y = np.array([net_case["x"]]), np.array([net_case["E"]])
    close([a[0, 0] for a in net.forward(x).a], [np.array(a) for a in net_case["activations"]])
    close(net.cost_of(x, y)[0], run["value"])
    gradients = net.backpropagate(x, y)
    close([d[0, 0] for d in gradients.delta], [np.array(d) for d in run["deltas"]])
    close(of_model(gradients.dW), [np.array(g) for g in run["grad_W"]])


def test_the_exponential_cost_of_a_batch_uses_each_example_s_own_cost(listed, backend):
    net_case = listed[0]["net"]
    net = network(net_case["W"], net_case["b"], backend, cost=costs.exponential(tau=0.7))
    rng = np.random.default_rng(0)
    X, Y = rng.normal(0, 1, (5, 3)), rng.uniform(0, 1, (5, 3))
    together = net.backpropagate(X, Y)
    alone = [net.backpropagate(x[None], y[None]) for x, y in zip(X, Y, strict=True)]
    for l in range(2):
        close(together.delta[l][0], np.array([g.delta[l][0, 0] for g in alone]))
        close(together.dW[l][0], np.mean([g.dW[l][0] for g in alone], axis=0))
