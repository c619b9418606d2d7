"""Back-propagation gives the derivative of the cost, for everything that the registries hold.

All perturbed networks stand in one stack, so that one call gives the costs of all differences.
"""

import itertools

import numpy as np
import pytest
from comparing import set_theta, theta

import gpumlp
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import fits

HIDDEN = [a.name for a in ACTIVATIONS.definitions() if not a.row_wise]
PAIRS = [(c.name, a.name) for c in COSTS.definitions() for a in ACTIVATIONS.definitions() if fits(c, a)]
BATCH, STEP = 5, 1e-6
KINK = 2e-4  # how far values stay away from the places where a derivative jumps


def targets_for(cost, output, rng, n, n_out):
    if ACTIVATIONS.get(output).row_wise:
        y = rng.uniform(0.1, 1, (n, n_out))
        return y / y.sum(axis=1, keepdims=True)
    definition = COSTS.get(cost)
    if definition.labels == (1.0, -1.0):
        return rng.choice([-1.0, 1.0], (n, n_out))
    if definition.targets.high == 1:
        return rng.uniform(0.05, 0.95, (n, n_out))
    if definition.targets.low == 0:
        return rng.uniform(0.2, 2, (n, n_out))
    return rng.standard_normal((n, n_out))


# how far a cost is from where its derivative jumps; those that are not named have no such place
GAPS = {
    "mean_absolute": lambda a, y: np.abs(a - y),
    "huber": lambda a, y: np.abs(np.abs(a - y) - 1),
    "hinge": lambda a, y: np.abs(y * a - 1),
}


def is_smooth(net, X, Y):
    """Tell whether nothing is near a place where a derivative may jump: 0 and 1 for z, and the cost's own."""
    passed = net.forward(X)
    gaps = [gap for z in passed.z for gap in (np.abs(z), np.abs(np.abs(z) - 1))]
    own = GAPS.get(net.architecture.cost.name.partition("(")[0])
    gaps += [] if own is None else [own(passed.a[-1], Y)]
    return min(gap.min() for gap in gaps) > KINK


def find_case(sizes, hidden, output, cost, n_models, backend):
    """Return a network and data away from all kinks."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        net = gpumlp.Network(
            sizes,
            hidden,
            output,
            cost,
            n_models=n_models,
            initialiser="nielsen",
            dtype="float64",
            backend=backend,
            seed=seed,
        )
        for l, (weights, biases) in enumerate(zip(net.weights, net.biases, strict=True)):
            net.set_weights(l, weights * 0.7 ** (1 + seed // 10), biases * 0.3)
        X, Y = rng.standard_normal((BATCH, sizes[0])), targets_for(cost, output, rng, BATCH, sizes[-1])
        if is_smooth(net, X, Y):
            return net, X, Y
    raise AssertionError("no point without a kink nearby")


def differences(net, m, X, Y):
    """Return dC/dtheta of model m by central differences, in the layout of theta."""
    architecture, own = net.architecture, theta(net)[m]
    n = len(own)
    stack = gpumlp.Network(
        architecture.sizes,
        architecture.activations[:-1],
        architecture.activations[-1],
        architecture.cost,
        n_models=2 * n,
        initialiser="zeros",
        dtype="float64",
        backend="numpy",
    )
    set_theta(stack, moved(own))
    costs = stack.cost_of(X, Y)
    return (costs[:n] - costs[n:]) / (2 * STEP)


def moved(values):
    """Return a line for each value moved up by STEP, and one for each moved down."""
    return np.concatenate([values + STEP * np.eye(len(values)), values - STEP * np.eye(len(values))])


def check(net, X, Y):
    gradients = net.backpropagate(X, Y)
    for m in range(net.n_models):
        numeric = differences(net, m, X, Y)
        exact = np.zeros_like(numeric)
        n_layers = net.architecture.n_layers
        views = net.parameters.views(exact[None])
        for view, dW, db in zip(range(n_layers), gradients.dW, gradients.db, strict=True):
            views[view][0], views[n_layers + view][0] = dW[m], db[m]
        size = max(np.abs(exact).max(), 1e-3)
        assert np.abs(numeric - exact).max() <= 1e-6 * size


@pytest.mark.parametrize(("cost", "output"), PAIRS)
def test_gradients_equal_central_differences_for_every_activation_cost_and_output(cost, output, backend):
    for hidden in HIDDEN:
        check(*find_case((3, 4, 2), hidden, output, cost, 1, backend))


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("depth", range(5))
def test_gradients_equal_central_differences_at_every_depth_in_every_stack(depth, n_models, backend):
    activations = itertools.cycle(HIDDEN)
    for cost, output in PAIRS[depth::5]:
        hidden = [next(activations) for _ in range(depth)]
        hidden = ["tanh" if name == "exp" else name for name in hidden]  # several exp in a row grow without bound
        check(*find_case((*(4, 6, 3, 5, 2)[: depth + 1], 2), hidden, output, cost, n_models, backend))


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_gradients_under_dropout_are_those_of_the_network_that_is_left(hidden, rate, backend):
    """All models of the stack have one number and so one mask; a step with rate 1 shows the gradient."""
    if hidden == "exp":
        pytest.skip("its values are too large for differences behind dropout")
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((BATCH, 3)), rng.standard_normal((BATCH, 2))
    sizes = (3, 12, 2)
    first = gpumlp.Network(
        sizes, hidden, "identity", "quadratic", dtype="float64", dropout=rate, backend=backend, seed=3
    )
    first.set_weights(0, 1.5 * first.weights[0])  # so that some units are saturated
    own = theta(first)[0]
    n = len(own)
    stack = gpumlp.Network(
        sizes,
        hidden,
        "identity",
        "quadratic",
        dtype="float64",
        dropout=rate,
        seed=3,
        model_ids=[0] * (2 * n),
        backend="numpy",
    )
    set_theta(stack, moved(own))
    options = {"learning_rate": 1.0, "batch_size": "full", "shuffle": False}
    costs = gpumlp.Trainer(stack, "sgd", **options).fit(X, Y, 1)["cost"][0]
    numeric = (costs[:n] - costs[n:]) / (2 * STEP)
    gpumlp.Trainer(first, "sgd", **options).fit(X, Y, 1)
    exact = own - theta(first)[0]
    assert np.abs(exact).max() > 0.01
    assert np.abs(numeric - exact).max() <= 1e-6 * np.abs(exact).max()


def test_the_gradients_of_a_sum_are_the_sums_of_the_gradients(backend):
    net, X, Y = find_case((4, 6, 2), "tanh", "sigmoid", "quadratic", 3, backend)
    whole, each = net.backpropagate(X, Y), net.backpropagate(X, Y, per_sample=True)
    for l in range(2):
        assert np.allclose(each.dW[l].mean(axis=1), whole.dW[l], rtol=1e-12)
        assert np.allclose(each.db[l].mean(axis=1), whole.db[l], rtol=1e-12)


def test_every_definition_stands_in_a_pair():
    assert {cost.partition("(")[0] for cost, _ in PAIRS} == set(COSTS)
    assert {output.partition("(")[0] for _, output in PAIRS} == set(ACTIVATIONS)
