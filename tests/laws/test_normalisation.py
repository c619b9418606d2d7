"""Networks with normalised layers, on every backend."""

import numpy as np
import pytest
import reference
from comparing import is_same_model, set_theta, theta
from learning import StopTheSecond, data, kept, network, padding

import gpumlp
from gpumlp.errors import ConfigurationError, ShapeError, UnknownName
from gpumlp.formulas.activations import ACTIVATIONS

KINDS = ["layer", "batch"]
MIXED = ["layer", "batch", None]
SIZES = (4, 6, 5, 3, 2)
SMOOTH = ["tanh", "sigmoid", "gelu", "silu", "softplus", "identity", "mish"]  # without places where f' jumps
STEP = 1e-6


def stir(net, seed=0):
    """Give gamma, beta and the running statistics values that are not those of the beginning."""
    rng = np.random.default_rng(seed)
    for l, of_layer in enumerate(net.normalising):
        given = {name: rng.uniform(0.5, 1.5, x.shape[1]) for name, x in of_layer.items()}
        if "beta" in given:
            net.set_normalisation(l, **(given | {"beta": given["beta"] - 1}))
    return net


def step_of(net, X, Y, **options):
    """Take one step of rate 1 with all rows, and return the cost and what was subtracted from theta."""
    before, given = theta(net), {"learning_rate": 1.0, "batch_size": "full", "shuffle": False}
    history = gpumlp.Trainer(net, "sgd", **given).fit(X, Y, 1, **options)
    return history["cost"][0], before - theta(net)


def moved(values):
    return np.concatenate([values + STEP * np.eye(len(values)), values - STEP * np.eye(len(values))])


def is_learned(net):
    """Return which values of a row of theta are trained."""
    return ~padding(net) & (np.arange(net.parameters.layout.n_params) < net.parameters.layout.n_learned)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
@pytest.mark.parametrize("activation", SMOOTH)
def test_the_gradient_of_everything_that_is_learned_equals_central_differences(activation, kind, rate, backend):
    """All models of the stack have one number and so one mask; a step with rate 1 shows the gradient."""
    X, Y = data(n=7)
    weights = np.array([1.0, 0.5, 0.0, 2.0, 1.0, 0.0, 3.0])
    options = {"normalisation": kind, "dropout": rate, "seed": 3}
    net = stir(network(SIZES, activation, backend=backend, **options))
    own = theta(net)[0]
    stack = network(SIZES, activation, backend="numpy", model_ids=[0] * (2 * len(own)), **options)
    set_theta(stack, moved(own))
    costs, _ = step_of(stack, X, Y, sample_weight=weights)
    numeric = (costs[: len(own)] - costs[len(own) :]) / (2 * STEP)
    _, exact = step_of(net, X, Y, sample_weight=weights)
    learned = is_learned(net)
    assert np.abs(exact[0][learned]).max() > 0.01
    assert np.abs(numeric - exact[0])[learned].max() <= 1e-6 * np.abs(exact[0][learned]).max()
    assert not numeric[~learned].any()  # the running statistics and the padding have no say in a training


@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
def test_backpropagate_gives_what_a_step_moves_by_and_changes_nothing(kind, backend):
    X, Y = data(n=7)
    net = stir(network(SIZES, "gelu", backend=backend, normalisation=kind, n_models=3))
    before = theta(net)
    found = net.backpropagate(X, Y)
    assert np.array_equal(theta(net), before)
    _, step = step_of(net, X, Y)
    views = net.parameters.views(step)
    wanted = [*found.dW, *found.db, *(x for of in (found.dgamma, found.dbeta) for x in of if x is not None)]
    for view, gradient in zip(views, wanted, strict=False):
        assert np.allclose(view, gradient, rtol=1e-10, atol=1e-13)
    assert [x is None for x in found.dgamma] == [k is None for k in net.architecture.normalisation]


@pytest.mark.parametrize("kind", KINDS)
def test_training_follows_the_slow_truth(kind, backend):
    """Short last batch, sample weights with zeros, one batch without weight, running statistics."""
    X, Y = data(n=18)
    weights = np.random.default_rng(1).uniform(0.5, 2, 18)
    weights[[1, 6, 10, 11, 12, 13, 14]] = 0  # rows 10 to 14 are a batch
    kinds = [kind, kind, None]
    net = stir(network((4, 6, 5, 2), ["tanh", "sigmoid"], normalisation=kind, backend=backend))
    names = ("gamma", "beta")
    start = {"W": [w[0] for w in net.weights], "b": [b[0] for b in net.biases]}
    start |= {name: [*(of[name][0] for of in net.normalising), None] for name in names}
    for l in range(2):
        if kind == "batch":
            net.set_normalisation(
                l, running_mean=np.zeros(net.sizes[l + 1]), running_variance=np.ones(net.sizes[l + 1])
            )
    trainer = gpumlp.Trainer(net, "sgd", learning_rate=0.3, batch_size=5, shuffle=False)
    order = [np.arange(18)] * 3
    wanted, running = reference.train_normalised(
        start, kinds, ["tanh", "sigmoid", "identity"], "quadratic", X, Y, order=order, batch_size=5, eta=0.3,
        sample_weight=weights,
    )  # fmt: skip
    trainer.fit(X, Y, 3, sample_weight=weights)
    for l in range(3):
        assert np.allclose(net.weights[l][0], wanted["W"][l], rtol=1e-10, atol=1e-12)
        assert np.allclose(net.biases[l][0], wanted["b"][l], rtol=1e-10, atol=1e-12)
    for l, of_layer in enumerate(net.normalising):
        for name in names:
            assert np.allclose(of_layer[name][0], wanted[name][l], rtol=1e-10, atol=1e-12)
        if kind == "batch":
            for name, value in zip(("running_mean", "running_variance"), running[l], strict=True):
                assert np.allclose(of_layer[name][0], value, rtol=1e-11, atol=1e-13)


def test_gradients_of_each_example_of_rows_that_are_normalised_sum_up_to_the_whole(backend):
    X, Y = data(n=7)
    net = stir(network(SIZES, "gelu", backend=backend, normalisation=["layer", None, "layer"], n_models=3))
    whole, each = net.backpropagate(X, Y), net.backpropagate(X, Y, per_sample=True)
    for name in ("dW", "db", "dgamma", "dbeta"):
        for summed, parts in zip(getattr(whole, name), getattr(each, name), strict=True):
            assert (summed is None) == (parts is None)
            assert summed is None or np.allclose(parts.mean(axis=1), summed, rtol=1e-11, atol=1e-14)
    one = net.backpropagate(X[2:3], Y[2:3])
    assert np.allclose(each.dgamma[2][:, 2], one.dgamma[2], rtol=1e-11)


def test_an_example_of_a_normalised_batch_has_no_gradient_of_its_own(backend):
    net = network(normalisation="batch", backend=backend)
    with pytest.raises(ConfigurationError, match="no gradient of its own"):
        net.backpropagate(*data(), per_sample=True)


def test_the_bias_of_a_layer_that_is_normalised_over_a_batch_stays_where_it_is(backend):
    net = network(normalisation="batch", backend=backend, dtype="float32", n_models=3)
    start = [b.copy() for b in net.biases]
    gpumlp.Trainer(net, "adam", batch_size=5).fit(*data(), 3)
    assert np.array_equal(net.biases[0], start[0])
    assert not np.array_equal(net.biases[1], start[1])


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_normalised_layer_has_mean_0_and_variance_1(offset, dtype, backend):
    X, _ = data(n=67)
    net = network((4, 33, 2), "identity", normalisation="layer", n_models=2, dtype=dtype, backend=backend)
    net.set_weights(0, net.weights[0], net.biases[0] + offset)
    a = net.forward(X).a[1].astype(np.float64)
    assert np.allclose(a.mean(axis=2), 0, atol=1e-6 if dtype == "float64" else 1e-3)
    assert np.allclose(a.var(axis=2), 1, rtol=1e-3)


def test_statistics_of_a_far_offset_keep_their_digits(backend):
    """Variances are means of squared differences, not differences of means of squares."""
    X, Y = data(n=67)
    net = network((4, 6, 2), normalisation="batch", dtype="float32", backend=backend)
    net.set_weights(0, net.weights[0], net.biases[0] + 100)
    z = net.forward(X).z[0][0].astype(np.float64)
    gpumlp.Trainer(net, "sgd", learning_rate=0.0, batch_size="full").fit(X, Y, 1)
    found = net.normalising[0]
    assert np.allclose(found["running_mean"][0], 0.1 * z.mean(axis=0), rtol=1e-5)
    assert np.allclose(found["running_variance"][0], 0.9 + 0.1 * z.var(axis=0, ddof=1), rtol=1e-4)


def test_evaluation_and_prediction_use_the_running_statistics_and_leave_them(backend):
    X, Y = data()
    net = stir(network(normalisation="batch", n_models=3, backend=backend))
    before, of_layer = theta(net), net.normalising[0]
    one_by_one = np.concatenate([net.predict(X[i : i + 1]) for i in range(len(X))], axis=1)
    assert np.allclose(net.predict(X), one_by_one, rtol=1e-12)
    z = net.forward(X).z[0]
    zhat = (z - of_layer["running_mean"][:, None]) / np.sqrt(of_layer["running_variance"][:, None] + 1e-5)
    a = np.tanh(of_layer["gamma"][:, None] * zhat + of_layer["beta"][:, None])
    assert np.allclose(net.forward(X).a[1], a, rtol=1e-11)
    outputs = net.predict(X)
    assert np.allclose(net.cost_of(X, Y), 0.5 * ((outputs - Y) ** 2).sum(axis=2).mean(axis=1), rtol=1e-11)
    assert np.array_equal(theta(net), before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_of_one_row_is_all_beta_and_moves_the_running_mean_alone(dtype, backend):
    X, Y = data(n=3)
    net = stir(network((4, 6, 2), normalisation="batch", backend=backend, dtype=dtype))
    start = {name: x.copy() for name, x in net.normalising[0].items()}
    W = net.weights[0].copy()
    history = gpumlp.Trainer(net, "sgd", learning_rate=0.1, batch_size=1).fit(X, Y, 2)
    assert np.isfinite(history["cost"]).all()
    assert np.isfinite(theta(net)).all()
    now = net.normalising[0]
    assert np.array_equal(now["running_variance"], start["running_variance"])
    assert not np.array_equal(now["running_mean"], start["running_mean"])
    assert np.array_equal(net.weights[0], W)  # zhat is 0, whatever z is
    assert np.array_equal(now["gamma"], start["gamma"])
    assert not np.array_equal(now["beta"], start["beta"])


def test_a_model_without_rows_of_weight_keeps_its_statistics(backend):
    X, Y = data(n=10)
    weights = np.ones((2, 10))
    weights[1, :5] = 0
    stack = network(normalisation="batch", n_models=2, backend=backend)
    gpumlp.Trainer(stack, "sgd", learning_rate=0.1, batch_size=5, shuffle=False).fit(X, Y, 1, sample_weight=weights)
    alone = network(normalisation="batch", model_ids=[1], backend=backend)
    gpumlp.Trainer(alone, "sgd", learning_rate=0.1, batch_size=5, shuffle=False).fit(X[5:], Y[5:], 1)
    assert is_same_model(theta(alone)[0], theta(stack)[1], backend)


def test_a_batch_without_weight_is_left_as_it_is_and_costs_nothing(backend):
    """Divided by the deviation of no rows, z would be three hundred times as large, and exp of it infinite."""
    X, Y = data(n=5)
    net = network((4, 6, 2), "exp", normalisation="batch", n_models=2, backend=backend)
    net.set_weights(0, 0 * net.weights[0], 5 + 0 * net.biases[0])
    weights = np.ones((2, 5))
    weights[1] = 0
    weights = np.concatenate([weights, np.ones((2, 1))], axis=1)
    X, Y = np.concatenate([X, X[:1]]), np.concatenate([Y, Y[:1]])
    history = gpumlp.Trainer(net, "sgd", batch_size=5, shuffle=False).fit(X, Y, 1, sample_weight=weights)
    assert np.isfinite(history["cost"]).all()


# ---------------------------------------------------------------- stacks, stopping, keeping


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_in_a_stack_learns_as_if_alone(weighted, kind, dtype, backend):
    X, Y = data()
    weights = np.random.default_rng(0).integers(0, 3, (3, 23)).astype(float) if weighted else None
    options = {"normalisation": kind, "dropout": 0.2, "dtype": dtype, "activation": ["tanh", "gelu", "relu"]}
    training = {"learning_rate": 0.01, "batch_size": 5, "clip_norm": 1.0, "l2": 0.01}
    ids = [7, 0, 3]
    stack = network(SIZES, model_ids=ids, backend=backend, **options)
    trainer = gpumlp.Trainer(stack, **training)
    history = trainer.fit(X, Y, 2, (X[::2], Y[::2]), sample_weight=weights)
    for m, number in enumerate(ids):
        alone = network(SIZES, model_ids=[number], backend=backend, **options)
        own = gpumlp.Trainer(alone, **training)
        own_history = own.fit(X, Y, 2, (X[::2], Y[::2]), sample_weight=None if weights is None else weights[m])
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)
        for name, buffer in kept(own).items():
            assert is_same_model(buffer[0], kept(trainer)[name][m], backend)
        for name in history.names:
            if name not in ("seconds", "samples_per_second"):
                assert is_same_model(own_history[name][:, 0], history[name][:, m], backend, dtype)


LARGE = [
    pytest.param((60, 90, 10), 64, 5, id="divided by models"),
    pytest.param((40, 300, 300, 5), 100, 2, id="elementwise work divided"),
    pytest.param((3, 2000, 2), 70, 2, id="long rows"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sizes", "batch", "n_models"), LARGE)
def test_a_model_in_a_stack_learns_as_if_alone_where_work_is_divided(
    sizes, batch, n_models, kind, backend, monkeypatch
):
    if backend == "cuda":
        pytest.skip("a device has no threads of the host")
    X, Y = data(n=batch + batch // 2, n_in=sizes[0], n_out=sizes[-1])
    found = {}
    for threads in (1, 2):
        monkeypatch.setenv("GPUMLP_NUM_THREADS", str(threads))
        for ids in (list(range(n_models)), [1]):
            net = network(sizes, model_ids=ids, normalisation=kind, dtype="float32", dropout=0.1, backend=backend)
            gpumlp.Trainer(net, batch_size=batch, clip_norm=1.0).fit(X, Y, 1)
            found[threads, len(ids)] = theta(net)
    assert np.array_equal(found[1, n_models][1], found[1, 1][0])
    assert np.array_equal(found[2, n_models][1], found[2, 1][0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_model_stays_as_it_is_with_its_statistics(kind, backend):
    X, Y = data()
    stack = network(n_models=3, normalisation=kind, backend=backend)
    gpumlp.Trainer(stack, batch_size=5, learning_rate=0.01).fit(X, Y, 5, monitors=[StopTheSecond()])
    for m, epochs in enumerate([5, 2, 5]):
        alone = network(model_ids=[m], normalisation=kind, backend=backend)
        gpumlp.Trainer(alone, batch_size=5, learning_rate=0.01).fit(X, Y, epochs)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)


def test_early_stopping_gives_the_best_weights_back_with_their_statistics(backend):
    X, Y = data()
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    kept_at = []

    def score_error(targets, outputs):
        kept_at.append(theta(net)[0])
        return next(scores)

    net = network(normalisation="batch", backend=backend)
    stopping = gpumlp.EarlyStopping(score_error, patience=3)
    gpumlp.Trainer(net, batch_size=5).fit(X, Y, 10, (X, Y), monitors=[stopping])
    assert len(kept_at) == 5
    assert np.array_equal(theta(net)[0], kept_at[1])
    assert not np.array_equal(kept_at[1], kept_at[4])


def test_a_diverged_model_has_the_statistics_of_its_last_finite_epoch(backend):
    X, Y = data()
    net = network((4, 6, 2), "relu", normalisation="batch", n_models=2, backend=backend, dtype="float32")
    trainer = gpumlp.Trainer(net, "sgd", learning_rate=[0.01, 1e30], batch_size=5)
    start = theta(net)
    trainer.fit(X, Y, 3)
    assert list(trainer.diverged) == [1]
    assert np.array_equal(theta(net)[1], start[1])


def test_reset_begins_anew(backend):
    X, Y = data()
    net = network(normalisation="batch", n_models=2, backend=backend)
    start = theta(net)
    assert (net.normalising[0]["gamma"] == 1).all()
    assert (net.normalising[0]["running_variance"] == 1).all()
    trainer = gpumlp.Trainer(net, batch_size=5)
    trainer.fit(X, Y, 2)
    once = theta(net)
    trainer.reset()
    assert np.array_equal(theta(net), start)
    trainer.fit(X, Y, 2)
    assert np.array_equal(theta(net), once)


def test_a_network_moves_with_its_statistics(backend):
    X, Y = data()
    net = network(normalisation=["batch"], backend="numpy")
    gpumlp.Trainer(net, batch_size=5).fit(X, Y, 2)
    before, outputs = theta(net), net.predict(X)
    net.move_to(backend)
    assert np.array_equal(theta(net), before)
    assert np.allclose(net.predict(X), outputs, rtol=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, MIXED], ids=str)
@pytest.mark.parametrize("rule", ["adamw", "momentum"])
def test_the_padding_stays_zero_and_gamma_and_beta_do_not_decay(rule, kind, backend):
    X, Y = data()
    net = stir(network(SIZES, n_models=3, normalisation=kind, backend=backend))
    start = [{name: x.copy() for name, x in of.items()} for of in net.normalising]
    trainer = gpumlp.Trainer(net, rule, batch_size=5, l2=0.1, momentum_on_biases=rule == "adamw")
    trainer.fit(X, Y, 2)
    for row in (theta(net), *kept(trainer).values()):
        assert not row[:, padding(net)].any()
    still = stir(network(SIZES, n_models=3, normalisation=kind, backend=backend))
    gpumlp.Trainer(still, rule, learning_rate=0.1, batch_size=5, l2=0.1).fit(X * 0, Y * 0, 0)
    gpumlp.Trainer(still, rule, train_biases=False, batch_size=5, l2=0.1).fit(X, Y, 2)
    for of, was in zip(still.normalising, start, strict=True):
        for name in set(of) & {"gamma", "beta"}:
            assert np.array_equal(of[name], was[name])


def test_momentum_on_biases_false_means_gamma_and_beta_too(backend):
    X, Y = data()
    nets = [network(normalisation="layer", backend=backend) for _ in range(2)]
    gpumlp.Trainer(nets[0], "momentum", learning_rate=0.1, batch_size="full", momentum_on_biases=False).fit(X, Y, 2)
    # the same by hand: weights with momentum, all else without, by one epoch of each gradient
    trainer = gpumlp.Trainer(nets[1], "momentum", learning_rate=0.1, batch_size="full")
    trainer.fit(X, Y, 1)
    layout = nets[1].parameters.layout
    state = kept(trainer)["v"]
    state[:, layout.n_weights :] = 0
    nets[1].backend.copy(nets[1].backend.asarray(state), trainer.state["v"])
    trainer.fit(X, Y, 1)
    assert np.allclose(theta(nets[0]), theta(nets[1]), rtol=1e-13)


# ---------------------------------------------------------------- wrong use


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(UnknownName, match="batch"):
        network(normalisation="bacth")
    with pytest.raises(UnknownName):
        network((4, 2), normalisation="instance")
    with pytest.raises(UnknownName):
        network(normalisation=5)
    with pytest.raises(ConfigurationError, match="2 layers, there are 1"):
        network(normalisation=["batch", None])


def test_what_is_not_there_cannot_be_set():
    net = network(SIZES, normalisation=MIXED)
    for layer, name in ((0, "running_mean"), (2, "gamma"), (3, "gamma"), (-1, "gamma")):
        with pytest.raises(ConfigurationError, match=f"has no {name}"):
            net.set_normalisation(layer, **{name: np.ones(3)})
    with pytest.raises(ShapeError, match=r"gamma\[1\]"):
        net.set_normalisation(1, gamma=np.ones(4))


def test_without_hidden_layers_there_is_nothing_to_normalise():
    for given in ("batch", [], ()):
        net = network((4, 2), normalisation=given)
        assert net.normalising == []
        assert np.array_equal(theta(net), theta(network((4, 2))))


def test_every_smooth_activation_is_one_that_there_is():
    assert set(SMOOTH) <= set(ACTIVATIONS)
