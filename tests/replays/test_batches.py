"""Online, mini-batch and full batch: the mean of the examples' gradients, L2 on weights alone, with lmbda / n."""

import numpy as np
import pytest
from replaying import close, network, of_model

from gpumlp import Trainer

CASES = ["online", "minibatch4_uneven_last", "full_batch", "ce_l2_minibatch4"]


@pytest.fixture
def minibatch(fixture_file):
    case = fixture_file("c_minibatch")
    return case, np.array(case["X"]), np.array(case["T"])


def find(case, name):
    return next(c for c in case["cases"] if c["name"] == name)


def test_every_case_is_replayed(minibatch):
    assert [c["name"] for c in minibatch[0]["cases"]] == CASES


@pytest.mark.parametrize("cost", ["quadratic", "cross_entropy"])
def test_only_the_output_delta_depends_on_the_cost(minibatch, cost, backend):
    case, X, Y = minibatch
    net = network(case["W0"], case["b0"], backend, cost=cost)
    row = case["sample0"]
    close([a[0, 0] for a in net.forward(X[:1]).a], [np.array(a) for a in row["activations"]])
    gradients = net.backpropagate(X[:1], Y[:1])
    close([d[0, 0] for d in gradients.delta], [np.array(d) for d in row[f"deltas_{cost}"]])
    if cost == "quadratic":
        close(of_model(gradients.dW), [np.array(g) for g in row["grad_W_quadratic"]])


@pytest.mark.parametrize("name", CASES)
def test_three_epochs(minibatch, name, backend):
    case, X, Y = minibatch
    run = find(case, name)
    l2 = run["lmbda"] / len(X)
    settings = {"batch_size": run["batch_size"], "shuffle": False, "l2": l2}

    net = network(case["W0"], case["b0"], backend, cost=run["cost"])
    first = slice(0, run["batch_size"])
    Trainer(net, "sgd", run["eta"], **settings).fit(X[first], Y[first], 1)
    close(of_model(net.weights), [np.array(w) for w in run["after_first_batch"]["W"]])
    close(of_model(net.biases), [np.array(v) for v in run["after_first_batch"]["b"]])

    net = network(case["W0"], case["b0"], backend, cost=run["cost"])
    trainer = Trainer(net, "sgd", run["eta"], **settings)
    costs = []
    for epoch in range(run["epochs"] + 1):
        if epoch:
            trainer.fit(X, Y, 1)
        penalty = 0.5 * l2 * sum(np.sum(w**2) for w in of_model(net.weights))
        costs.append(net.cost_of(X, Y)[0] + penalty)
    close(np.array(costs), run["mean_cost_before_and_after_each_epoch"])
    close(of_model(net.weights), [np.array(w) for w in run["final"]["W"]])
    close(of_model(net.biases), [np.array(v) for v in run["final"]["b"]])


@pytest.mark.parametrize("name", CASES)
def test_three_epochs_in_float32(minibatch, name, backend):
    case, X, Y = minibatch
    run = find(case, name)
    net = network(case["W0"], case["b0"], backend, cost=run["cost"], dtype="float32")
    trainer = Trainer(net, "sgd", run["eta"], run["batch_size"], l2=run["lmbda"] / len(X), shuffle=False)
    trainer.fit(X, Y, run["epochs"])
    assert net.weights[0].dtype == np.float32
    close(of_model(net.weights), [np.array(w) for w in run["final"]["W"]], rtol=1e-6, atol=1e-6)
    close(of_model(net.biases), [np.array(v) for v in run["final"]["b"]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_explicit_order_of_three_epochs_is_the_same(minibatch, name, backend):
    case, X, Y = minibatch
    run = find(case, name)
    mixed = np.random.default_rng(3).permutation(len(X))  # the rows lie mixed, and the order puts them right
    order = np.tile(np.argsort(mixed), (run["epochs"], 1))
    net = network(case["W0"], case["b0"], backend, cost=run["cost"])
    trainer = Trainer(net, "sgd", run["eta"], batch_size=run["batch_size"], l2=run["lmbda"] / len(X))
    trainer.fit(X[mixed], Y[mixed], run["epochs"], order=order)
    close(of_model(net.weights), [np.array(w) for w in run["final"]["W"]])
    close(of_model(net.biases), [np.array(v) for v in run["final"]["b"]])


def test_the_sum_over_a_full_batch_is_the_mean_with_n_times_the_rate(minibatch, backend):
    """Rojas adds the corrections of a batch, Nielsen averages them."""
    case, X, Y = minibatch
    run = find(case, "full_batch")
    net = network(case["W0"], case["b0"], backend)
    trainer = Trainer(net, "sgd", run["eta"] / len(X), batch_size="full", reduction="sum", shuffle=False)
    trainer.fit(X, Y, run["epochs"])
    close(of_model(net.weights), [np.array(w) for w in run["final"]["W"]])
    close(of_model(net.biases), [np.array(v) for v in run["final"]["b"]])


def test_the_four_cases_of_one_start_end_apart(minibatch):
    ends = [np.concatenate([np.ravel(w) for w in c["final"]["W"]]) for c in minibatch[0]["cases"]]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert np.abs(one - other).max() > 0.01
