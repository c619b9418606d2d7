"""A model in a stack learns as if alone, on every size that the work is divided at; see is_same_model."""

import numpy as np
import pytest
from comparing import is_same_model, theta
from learning import StopTheSecond, data, kept, network

import gpumlp
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.update_rules import RULES

ACTIVATION_NAMES = [name for name in ACTIVATIONS if not ACTIVATIONS.get(name).row_wise]


def of_model(value, m):
    """Return what a model of its own is given where the stack is given one for each."""
    return value[m] if isinstance(value, list) else value


def check(sizes, X, Y, backend, n_models=3, epochs=2, net_options=None, train_options=None, weights=None):
    """Train a stack, then each model by itself, and compare parameters, state and history."""
    net_options, train_options = net_options or {}, {"batch_size": 5, **(train_options or {})}
    ids = [7, 0, 3, 12, 5, 9, 1, 2, 11, 4][:n_models]
    stack = network(sizes, model_ids=ids, seed=4, backend=backend, **net_options)
    start = theta(stack)
    trainer = gpumlp.Trainer(stack, **train_options)
    history = trainer.fit(X, Y, epochs, sample_weight=weights)
    state, learned = kept(trainer), theta(stack)
    assert (learned != start).any()
    for m, number in enumerate(ids):
        alone = network(sizes, model_ids=[number], seed=4, backend=backend, **net_options)
        assert np.array_equal(theta(alone)[0], start[m])
        own = gpumlp.Trainer(alone, **{k: of_model(v, m) for k, v in train_options.items()})
        own_weights = weights if weights is None or np.ndim(weights) == 1 else weights[m]
        own_history = own.fit(X, Y, epochs, sample_weight=own_weights)
        assert is_same_model(theta(alone)[0], learned[m], backend)
        for name, buffer in kept(own).items():
            assert is_same_model(buffer[0], state[name][m], backend)
        for name in history.names:
            assert is_same_model(own_history[name][:, 0], history[name][:, m], backend, stack.dtype)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "1")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", list(RULES))
def test_a_model_in_a_stack_learns_as_if_alone_under_every_rule(rule, dtype, backend):
    options = {
        "optimizer": rule,
        "learning_rate": [0.01, 0.03, 0.002],
        "l2": [0.0, 0.1, 0.01],
        "l1": [0.001, 0.0, 0.01],
    }
    check((4, 6, 2), *data(), backend, net_options={"dtype": dtype}, train_options=options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_a_model_in_a_stack_learns_as_if_alone_with_every_activation(activation, dtype, backend):
    net_options = {"dtype": dtype, "activation": [activation, "tanh"], "dropout": 0.3}
    options = {"optimizer": "sgd", "learning_rate": 0.01, "clip_norm": 1.0}
    check((4, 7, 3, 2), *data(), backend, net_options=net_options, train_options=options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shuffle", [True, False, "shared"])
@pytest.mark.parametrize(("per_model", "penalty"), [(False, "example"), (True, "example"), (True, "batch")])
def test_a_model_in_a_stack_learns_as_if_alone_with_all_there_is(reduction, shuffle, per_model, penalty, backend):
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 2, (3, 23)) if per_model else rng.uniform(0, 2, 23)
    options = {
        "optimizer": "adam",
        "learning_rate": [0.01, 0.02, 0.03],
        "clip_norm": [0.5, 1e-3, 100.0],
        "l2": [0.1, 0.0, 0.2],
        "reduction": reduction,
        "penalty": penalty,
        "shuffle": shuffle,
        "schedule": "exponential",
        "momentum_on_biases": True,
    }
    net_options = {"dropout": [0.2, 0.5], "dtype": "float32"}
    check((4, 6, 5, 2), *data(), backend, net_options=net_options, train_options=options, weights=weights)


@pytest.mark.parametrize(
    "sizes", [(4, 2), (1, 1), (4, 1, 3), (1, 5, 1), (3, 1, 1, 2), (33, 32, 31, 2), (2, 64, 1)], ids=str
)
@pytest.mark.parametrize("batch", [1, 5, "full"])
def test_a_model_in_a_stack_learns_as_if_alone_at_odd_sizes(sizes, batch, backend):
    X, Y = data(n_in=sizes[0], n_out=sizes[-1])
    check(sizes, X, Y, backend, net_options={"dtype": "float32"}, train_options={"batch_size": batch})


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_classifier_in_a_stack_learns_as_if_alone(output, backend):
    X, Y = data(n=51, n_in=6, n_out=11, labels=True)
    cost = {"softmax": "categorical_cross_entropy", "sigmoid": "cross_entropy"}[output]
    net_options = {"output": output, "cost": cost, "dtype": "float32", "activation": "relu"}
    check((6, 9, 11), X, Y, backend, net_options=net_options, train_options={"batch_size": 16})


LARGE = [
    pytest.param((100, 128, 10), 128, 3, id="products divided by their columns"),
    pytest.param((60, 90, 10), 64, 5, id="products dealt out by model"),
    pytest.param((40, 300, 300, 5), 100, 2, id="elementwise work and updates divided"),
    pytest.param((20, 40, 3), 32, 10, id="blocks of several models"),
    pytest.param((8, 70000, 2), 7, 2, id="rows longer than a block"),
]


@pytest.mark.parametrize("threads", ["one_thread", "two_threads"])
@pytest.mark.parametrize(("sizes", "batch", "n_models"), LARGE)
def test_a_model_in_a_stack_learns_as_if_alone_where_work_is_divided(sizes, batch, n_models, threads, backend, request):
    request.getfixturevalue(threads)
    X, Y = data(n=batch + batch // 2, n_in=sizes[0], n_out=sizes[-1])
    net_options = {"dtype": "float32", "dropout": 0.1}
    options = {"batch_size": batch, "clip_norm": 1.0, "l2": 0.01}
    check(sizes, X, Y, backend, n_models, epochs=1, net_options=net_options, train_options=options)


def test_a_model_predicts_in_a_stack_as_alone(backend):
    X, _ = data(n=1500)
    stack = network(n_models=3, backend=backend, dtype="float32")
    for m in range(3):
        alone = network(model_ids=[m], backend=backend, dtype="float32")
        assert is_same_model(alone.predict(X)[0], stack.predict(X)[m], backend)


def test_the_place_in_the_stack_does_not_matter(backend):
    X, Y = data()
    orders = [[2, 0, 1], [0, 1, 2]]
    found = []
    for ids in orders:
        net = network(model_ids=ids, dropout=0.4, backend=backend)
        gpumlp.Trainer(net, learning_rate=0.01, batch_size=5).fit(X, Y, 3)
        found.append(dict(zip(ids, theta(net), strict=True)))
    assert all(np.array_equal(found[0][m], found[1][m]) for m in range(3))


def test_a_stopped_model_stays_as_it_is_and_the_others_go_on_as_alone(backend):
    X, Y = data()
    stack = network(n_models=3, backend=backend)
    history = gpumlp.Trainer(stack, batch_size=5, learning_rate=0.01).fit(X, Y, 5, monitors=[StopTheSecond()])
    assert history.stopped == {1: "enough"}
    assert np.isnan(history["cost"][2:, 1]).all()
    for m, epochs in enumerate([5, 2, 5]):
        alone = network(model_ids=[m], backend=backend)
        gpumlp.Trainer(alone, batch_size=5, learning_rate=0.01).fit(X, Y, epochs)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)
