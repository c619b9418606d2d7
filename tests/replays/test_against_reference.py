"""The package follows the slow truth over several epochs: a stack of odd nets, each model with its own numbers."""

from itertools import pairwise

import numpy as np
import pytest
import reference
from replaying import close, network, of_model

from gpumlp import Trainer, rules

N_MODELS, N_ROWS = 3, 11
NETS = [
    pytest.param((5, 3), (), "sigmoid", "quadratic", id="5-3-sigmoid-quadratic"),
    pytest.param((4, 6, 2), ("tanh",), "sigmoid", "cross_entropy", id="4-6-2-tanh-sigmoid"),
    pytest.param((3, 5, 4, 2), ("relu", "sigmoid"), "identity", "quadratic", id="3-5-4-2-relu-sigmoid-identity"),
    pytest.param((2, 7, 3, 5, 3), ("sigmoid", "tanh", "relu"), "softmax", "categorical_cross_entropy", id="2-7-3-5-3"),
    pytest.param((4, 4, 4, 4), ("tanh", "identity"), "tanh", "quadratic", id="4-4-4-4-tanh"),
]


def draw(sizes, output, seed):
    """Weights of a stack, data, and three epochs' orders, some of which name a row twice and leave others out."""
    rng = np.random.default_rng(seed)
    W = [rng.normal(0, 0.8, (N_MODELS, o, i)) for i, o in pairwise(sizes)]
    b = [rng.normal(0, 0.5, (N_MODELS, o)) for o in sizes[1:]]
    X = rng.normal(0, 1, (N_ROWS, sizes[0]))
    Y = rng.uniform(0.05, 0.95, (N_ROWS, sizes[-1]))
    if output == "softmax":
        Y /= Y.sum(axis=1, keepdims=True)
    order = np.array([rng.permutation(N_ROWS), rng.integers(0, N_ROWS, N_ROWS), np.arange(N_ROWS)])
    return W, b, X, Y, order


def compare(net, W, b, functions, cost, X, Y, **settings):
    """Assert that each model has the parameters that the reference reaches from its own start."""
    per_model = {name: settings.pop(name) for name in ("eta", "l2", "momentum", "sample_weight") if name in settings}
    for m in range(N_MODELS):
        own = {name: values[m] for name, values in per_model.items()}
        W_end, b_end = reference.train(of_model(W, m), of_model(b, m), functions, cost, X, Y, **settings, **own)
        close(of_model(net.weights, m), W_end, rtol=1e-12, atol=1e-13)
        close(of_model(net.biases, m), b_end, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("sizes", "hidden", "output", "cost"), NETS)
def test_deltas_and_gradients(sizes, hidden, output, cost, backend):
    W, b, X, Y, _ = draw(sizes, output, 1)
    net = network(W, b, backend, hidden, output, cost)
    mean, each = net.backpropagate(X, Y), net.backpropagate(X, Y, per_sample=True)
    functions, costs = [*hidden, output], net.cost_of(X, Y)
    for m in range(N_MODELS):
        Wm, bm = of_model(W, m), of_model(b, m)
        dW, db = reference.batch_gradient(Wm, bm, functions, cost, X, Y, np.ones(N_ROWS), "mean")
        close([g[m] for g in mean.dW], dW, atol=1e-14)
        close([g[m] for g in mean.db], db, atol=1e-14)
        close(costs[m], reference.mean_cost(Wm, bm, functions, cost, X, Y))
        for i in range(N_ROWS):
            delta, dW, db = reference.backward(Wm, bm, functions, cost, X[i], Y[i])
            for found in (mean, each):
                close([d[m, i] for d in found.delta], delta, atol=1e-14)
            close([g[m, i] for g in each.dW], dW, atol=1e-14)
            close([g[m, i] for g in each.db], db, atol=1e-14)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", ["sgd", "momentum"])
@pytest.mark.parametrize(("sizes", "hidden", "output", "cost"), NETS)
def test_three_epochs(sizes, hidden, output, cost, rule, reduction, batch_size, backend):
    """Every model has its own rate, decay and momentum; 11 rows in batches of 4 leave a last one of 3."""
    W, b, X, Y, order = draw(sizes, output, 2)
    eta, l2, mu = [0.05, 0.02, 0.08], [0.0, 0.03, 0.1], [0.9, 0.5, 0.0]
    net = network(W, b, backend, hidden, output, cost)
    optimizer = rules.momentum(momentum=mu) if rule == "momentum" else rule
    trainer = Trainer(net, optimizer, eta, batch_size, reduction=reduction, l2=l2)
    trainer.fit(X, Y, len(order), order=order)
    compare(
        net,
        W,
        b,
        [*hidden, output],
        cost,
        X,
        Y,
        order=order,
        batch_size=batch_size,
        eta=eta,
        l2=l2,
        reduction=reduction,
        momentum=mu if rule == "momentum" else [0.0] * N_MODELS,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(("penalty", "l2"), [("example", 0.0), ("batch", 0.7)])
def test_rows_with_weights_of_their_own(penalty, l2, batch_size, reduction, backend):
    """A mean divides by the sum of the weights; a batch without weight moves nothing, so zeros leave rows out."""
    sizes, hidden, output, cost = (4, 6, 2), ("tanh",), "sigmoid", "quadratic"
    W, b, X, Y, order = draw(sizes, output, 3)
    weights = np.random.default_rng(4).integers(0, 4, (N_MODELS, N_ROWS)).astype(float)
    assert (weights == 0).any()
    net = network(W, b, backend, hidden, output, cost)
    trainer = Trainer(net, "sgd", 0.1, batch_size, reduction=reduction, l2=l2, penalty=penalty)
    trainer.fit(X, Y, len(order), order=order, sample_weight=weights)
    settings = {"order": order, "batch_size": batch_size, "reduction": reduction, "penalty": penalty}
    rates = {"eta": [0.1] * N_MODELS, "l2": [l2] * N_MODELS}
    compare(net, W, b, [*hidden, output], cost, X, Y, **settings, **rates, sample_weight=weights)


def test_a_model_that_leaves_rows_out_by_weight_learns_as_if_they_were_not_there(backend):
    sizes, hidden, output, cost = (4, 6, 2), ("tanh",), "sigmoid", "quadratic"
    W, b, X, Y, _ = draw(sizes, output, 5)
    weights = np.array([[i % N_MODELS != m for i in range(N_ROWS)] for m in range(N_MODELS)], float)
    stack = network(W, b, backend, hidden, output, cost)
    Trainer(stack, "sgd", 0.3, batch_size=1, shuffle=False).fit(X, Y, 4, sample_weight=weights)
    for m in range(N_MODELS):
        rows = np.flatnonzero(weights[m])
        alone = network([w[m] for w in W], [v[m] for v in b], backend, hidden, output, cost)
        Trainer(alone, "sgd", 0.3, batch_size=1, shuffle=False).fit(X[rows], Y[rows], 4)
        close(of_model(stack.weights, m), of_model(alone.weights), rtol=1e-13, atol=1e-14)
        close(of_model(stack.biases, m), of_model(alone.biases), rtol=1e-13, atol=1e-14)


def test_the_order_of_rows_counts(backend):
    """So that a replay with an explicit order cannot pass by accident."""
    W, b, X, Y, order = draw((4, 6, 2), "sigmoid", 2)
    ends = []
    for rows in (order, order[:, ::-1]):
        net = network(W, b, backend, "tanh", "sigmoid")
        Trainer(net, "sgd", 0.5, batch_size=4).fit(X, Y, len(rows), order=rows)
        ends.append(net.weights[0].copy())
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


@pytest.mark.parametrize("train_biases", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_momentum_of_a_widely_copied_xor_script(batch_size, train_biases, backend):
    """MATLAB XOR, 2-4-1: the weights before the first step are taken as 0, so it adds momentum times w(0); biases have
    none. As a velocity: v = w(0) at the start.
    """
    rng = np.random.default_rng(7)
    W, b = [rng.normal(0, 1, (4, 2)), rng.normal(0, 1, (1, 4))], [rng.normal(0, 1, 4), rng.normal(0, 1, 1)]
    X, Y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    zeros = [np.zeros(4), np.zeros(1)]
    epochs, numbers = 5, {"batch_size": batch_size, "train_biases": train_biases}

    def trained(momentum_on_biases):
        net = network(W, b, backend)
        trainer = Trainer(
            net,
            rules.momentum(momentum=0.6),
            0.7,
            shuffle=False,
            state={"v": list(zip(W, zeros, strict=True))},
            momentum_on_biases=momentum_on_biases,
            **numbers,
        )
        trainer.fit(X, Y, epochs)
        return net

    net = trained(momentum_on_biases=False)
    W_end, b_end = reference.train(
        W,
        b,
        ["sigmoid"] * 2,
        "quadratic",
        X,
        Y,
        order=np.tile(np.arange(4), (epochs, 1)),
        eta=0.7,
        momentum=0.6,
        before=([np.zeros_like(w) for w in W], b),
        momentum_on_biases=False,
        **numbers,
    )
    close(of_model(net.weights), W_end)
    close(of_model(net.biases), b_end)
    if train_biases:
        with_momentum = of_model(trained(momentum_on_biases=True).biases)
        assert np.abs(with_momentum[0] - b_end[0]).max() > 1e-3
