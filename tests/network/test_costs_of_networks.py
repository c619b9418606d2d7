import numpy as np
import pytest

import gpumlp
from gpumlp.errors import ConfigurationError, DataError, ShapeError


def rows(n=5, features=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features))


def classifier(backend="numpy", n_out=3, **options):
    return gpumlp.Network((4, 6, n_out), "tanh", dtype="float64", n_models=2, backend=backend, **options)


def regression(backend="numpy", cost="quadratic", output="identity", n_out=2):
    return gpumlp.Network((4, 6, n_out), "tanh", output, cost, dtype="float64", n_models=3, backend=backend)


@pytest.mark.parametrize("n", [1, 5, 1024, 2100])
def test_the_cost_is_the_mean_over_the_examples(n, backend):
    net, X, Y = regression(backend), rows(n), rows(n, 2, 1)
    wanted = (0.5 * (net.predict(X) - Y) ** 2).sum(axis=2).mean(axis=1)
    assert np.allclose(net.cost_of(X, Y), wanted, rtol=1e-12)


@pytest.mark.parametrize("per_model", [False, True])
def test_sample_weights_weigh_the_examples(per_model, backend):
    net, X, Y = regression(backend), rows(7), rows(7, 2, 1)
    weights = np.random.default_rng(0).uniform(0, 3, (3, 7) if per_model else 7)
    each = (0.5 * (net.predict(X) - Y) ** 2).sum(axis=2)
    wanted = (each * weights).sum(axis=1) / np.broadcast_to(weights, (3, 7)).sum(axis=1)
    assert np.allclose(net.cost_of(X, Y, weights), wanted, rtol=1e-12)


def test_labels_are_one_hot_targets(backend):
    net, X, labels = classifier(backend), rows(9), np.array([0, 1, 2, 2, 1, 0, 0, 1, 2])
    by_labels, by_targets = net.evaluate(X, labels), net.evaluate(X, np.eye(3)[labels])
    assert np.array_equal(by_labels["cost"], by_targets["cost"])
    assert np.array_equal(by_labels["accuracy"], by_targets["accuracy"])
    assert np.allclose(by_labels["accuracy"], (net.predict(X).argmax(axis=2) == labels).mean(axis=1))
    assert np.allclose(by_labels["cost"], -np.log(net.predict(X)[:, np.arange(9), labels]).mean(axis=1))


def test_labels_may_be_whole_numbers_of_any_kind(backend):
    net, X = classifier(backend), rows(3)
    costs = [net.cost_of(X, np.array([0, 1, 2], t)) for t in (int, np.uint8, np.float32, np.int16)] + [
        net.cost_of(X, [0, 1, 2])
    ]
    assert all(np.array_equal(costs[0], c) for c in costs)


def test_label_smoothing_spreads_a_share_over_all_classes(backend):
    net = classifier(backend, cost="categorical_cross_entropy(label_smoothing=0.3)")
    plain = classifier(backend)
    X, labels = rows(6), np.array([0, 1, 2, 0, 1, 2])
    targets = 0.7 * np.eye(3)[labels] + 0.1
    found = net.evaluate(X, labels)
    assert np.allclose(found["cost"], plain.cost_of(X, targets), rtol=1e-12)
    assert np.allclose(found["cost"], net.cost_of(X, np.eye(3)[labels]), rtol=1e-12)
    assert np.array_equal(found["accuracy"], plain.evaluate(X, labels)["accuracy"])


def test_one_output_counts_a_hit_by_its_half(backend):
    net = regression(backend, "cross_entropy", "sigmoid", 1)
    X, y = rows(20), (rows(20)[:, 0] > 0).astype(int)
    wanted = ((net.predict(X)[:, :, 0] >= 0.5) == y).mean(axis=1)
    for targets in (y, y[:, None], y.astype(bool), y.astype(float)):
        assert np.allclose(net.evaluate(X, targets)["accuracy"], wanted)


def test_targets_that_name_no_classes_have_no_accuracy(backend):
    assert set(regression(backend).evaluate(rows(), rows(5, 2))) == {"cost"}
    assert set(regression(backend, "cross_entropy", "sigmoid", 1).evaluate(rows(), np.full(5, 0.3))) == {"cost"}


@pytest.mark.parametrize("n_out", [1, 3])
def test_the_hinge_cost_takes_labels_as_minus_one_and_one(n_out, backend):
    net = regression(backend, "hinge", "identity", n_out)
    X, labels = rows(6), np.array([0, 1, 1, 0, 1, 0])
    signs = np.where(np.eye(n_out)[labels] == 1, 1.0, -1.0) if n_out > 1 else np.where(labels == 1, 1.0, -1.0)[:, None]
    outputs = net.predict(X)
    wanted = np.maximum(0, 1 - signs * outputs).sum(axis=2).mean(axis=1)
    hits = ((outputs >= 0) == (signs > 0)).all(axis=2) if n_out == 1 else outputs.argmax(axis=2) == labels
    for targets in (labels, signs):
        found = net.evaluate(X, targets)
        assert np.allclose(found["cost"], wanted, rtol=1e-12)
        assert np.allclose(found["accuracy"], hits.mean(axis=1))


def test_the_hinge_cost_does_not_take_zeros_for_another_class(backend):
    """One-hot rows say what labels say, or they are refused."""
    net, X = regression(backend, "hinge", "identity", 3), rows(3)
    try:
        cost = net.cost_of(X, np.eye(3))
    except DataError:
        return
    assert np.allclose(cost, net.cost_of(X, np.arange(3)))


@pytest.mark.parametrize(
    ("Y", "error", "message"),
    [
        (np.ones((5, 4)), ShapeError, r"Y has shape \(5, 4\), expected \(n_samples, 3\); or give one label"),
        (np.ones((5, 1)), ShapeError, r"Y has shape \(5, 1\), expected \(n_samples, 3\)"),
        (np.ones((5, 3, 1)), ShapeError, r"Y has shape \(5, 3, 1\)"),
        (np.zeros(4), ShapeError, "Y has 4 rows, X has 5"),
        (np.zeros(()), ShapeError, "Y has shape"),
        ([0, 1, 2, 3, 0], DataError, "Y holds values from 0 to 3; expected labels 0 to 2"),
        ([0, 1, -1, 0, 0], DataError, "Y holds values from -1 to 1; expected labels 0 to 2"),
        ([0, 1, 1.5, 0, 0], DataError, "expected labels 0 to 2"),
        ([0, 1, np.nan, 0, 0], DataError, r"Y holds 1 values that are not finite, the first at \[2\]"),
        (np.ones((5, 3)), DataError, r"Y\[0\] sums to 3, but the outputs of softmax sum to 1"),
        (
            np.where(np.eye(5, 3), -1, 0),
            DataError,
            r"Y holds values from -1 to 0, cost categorical_cross_entropy is defined for targets in \[0, 1\]",
        ),
        (["a"] * 5, ShapeError, "Y has dtype"),
    ],
)
def test_targets_that_do_not_fit_raise(Y, error, message):
    for call in (classifier().cost_of, classifier().backpropagate):
        with pytest.raises(error, match=message):
            call(rows(), Y)


@pytest.mark.parametrize(
    ("cost", "output", "bad"),
    [
        ("cross_entropy", "sigmoid", 1.5),
        ("poisson", "exp", -1.0),
        ("itakura_saito", "exp", 0.0),
        ("hinge", "identity", 2.0),
    ],
)
def test_targets_outside_what_a_cost_is_defined_for_raise(cost, output, bad):
    net = regression(cost=cost, output=output)
    Y = np.ones((5, 2))
    Y[3, 1] = bad
    with pytest.raises(DataError, match=f"cost {cost} is defined for targets in"):
        net.cost_of(rows(), Y)


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        (np.ones(4), ShapeError),
        (np.ones((2, 5)), ShapeError),
        (np.ones((5, 1)), ShapeError),
        ([1, 1, -1, 1, 1], ConfigurationError),
        ([0] * 5, ConfigurationError),
        ([1, 1, np.nan, 1, 1], ConfigurationError),
    ],
)
def test_sample_weights_that_mean_nothing_raise(weights, error):
    with pytest.raises(error, match="sample_weight"):
        regression().cost_of(rows(), rows(5, 2), weights)


# ---------------------------------------------------------------- back-propagation


def test_delta_and_gradients_have_the_shapes_of_layers_and_weights(backend):
    net = regression(backend)
    g = net.backpropagate(rows(), rows(5, 2))
    assert [d.shape for d in g.delta] == [(3, 5, 6), (3, 5, 2)]
    assert [d.shape for d in g.dW] == [(3, 6, 4), (3, 2, 6)]
    assert [d.shape for d in g.db] == [(3, 6), (3, 2)]
    each = net.backpropagate(rows(), rows(5, 2), per_sample=True)
    assert [d.shape for d in each.dW] == [(3, 5, 6, 4), (3, 5, 2, 6)]
    assert [d.shape for d in each.db] == [(3, 5, 6), (3, 5, 2)]


def test_the_gradients_of_each_example_are_those_of_a_batch_of_one(backend):
    net, X, Y = regression(backend), rows(), rows(5, 2, 1)
    each = net.backpropagate(X, Y, per_sample=True)
    whole = net.backpropagate(X, Y)
    for i in range(5):
        one = net.backpropagate(X[i : i + 1], Y[i : i + 1])
        for l in range(2):
            assert np.allclose(each.dW[l][:, i], one.dW[l], rtol=1e-12)
            assert np.allclose(each.db[l][:, i], one.db[l], rtol=1e-12)
            assert np.allclose(whole.delta[l][:, i], one.delta[l][:, 0], rtol=1e-12)


def test_backpropagation_is_the_four_equations(backend):
    net, X, Y = regression(backend), rows(), rows(5, 2, 1)
    g, passed = net.backpropagate(X, Y), net.forward(X)
    for m in range(3):
        last = passed.a[2][m] - Y
        hidden = last @ net.weights[1][m] * (1 - np.tanh(passed.z[0][m]) ** 2)
        assert np.allclose(g.delta[1][m], last, rtol=1e-12)
        assert np.allclose(g.delta[0][m], hidden, rtol=1e-10)
        assert np.allclose(g.dW[0][m], hidden.T @ X / 5, rtol=1e-10)
        assert np.allclose(g.db[1][m], last.mean(axis=0), rtol=1e-12)


def test_backpropagation_changes_nothing(backend):
    net = classifier(backend)
    before = np.array(net.backend.to_host(net.parameters.theta))
    first = net.backpropagate(rows(), np.zeros(5, int))
    second = net.backpropagate(rows(), np.zeros(5, int))
    assert np.array_equal(net.backend.to_host(net.parameters.theta), before)
    assert all(np.array_equal(x, y) for x, y in zip(first.dW, second.dW, strict=True))
