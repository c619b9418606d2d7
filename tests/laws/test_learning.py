"""Laws that hold whatever is learned."""

import numpy as np
import pytest
from comparing import is_same_model, theta
from learning import data, kept, network, padding

import gpumlp
from gpumlp.formulas.update_rules import RULES
from gpumlp.randomness import feistel, seeds, streams
from gpumlp.training import schedules


@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_the_sum_with_a_rate_is_the_mean_with_n_times_the_rate(rule, l2, backend):
    X, Y = data()
    nets = [network(n_models=3, backend=backend) for _ in range(2)]
    for net, reduction, rate in zip(nets, ("sum", "mean"), (0.001, 0.001 * len(X)), strict=True):
        gpumlp.Trainer(net, rule, learning_rate=rate, batch_size="full", reduction=reduction, l2=l2).fit(X, Y, 10)
    assert np.allclose(theta(nets[0]), theta(nets[1]), rtol=1e-10, atol=1e-13)


def test_the_sum_over_short_batches_is_the_mean_with_their_rows_times_the_rate(backend):
    """One epoch of a batch of 5 and one of 3: the penalties count by rows, too."""
    X, Y = data(n=8)
    order = np.arange(8)[None]
    one = network(backend=backend)
    gpumlp.Trainer(one, "sgd", learning_rate=0.01, batch_size=5, reduction="sum", l2=0.3, l1=0.1).fit(
        X, Y, 1, order=order
    )
    other = network(backend=backend)
    for part in (slice(0, 5), slice(5, 8)):
        n = part.stop - part.start
        trainer = gpumlp.Trainer(other, "sgd", learning_rate=0.01 * n, batch_size="full", l2=0.3, l1=0.1, shuffle=False)
        trainer.fit(X[part], Y[part], 1)
    assert np.allclose(theta(one), theta(other), rtol=1e-12)


@pytest.mark.parametrize("rule", list(RULES))
def test_the_padding_of_theta_stays_zero(rule, backend):
    X, Y = data()
    net = network(n_models=3, backend=backend, dropout=0.2, dtype="float32")
    trainer = gpumlp.Trainer(net, rule, learning_rate=0.01, batch_size=5, l2=0.1, l1=0.01, clip_norm=1.0)
    trainer.fit(X, Y, 3)
    gaps = padding(net)
    assert gaps.any()
    assert not theta(net)[:, gaps].any()
    for buffer in kept(trainer).values():
        assert not buffer[:, gaps].any()


@pytest.mark.parametrize("rule", ["adam", "adagrad", "rmsprop", "nadam", "adamw"])
def test_a_weight_without_gradient_stays_where_it_is_even_without_epsilon(rule, backend):
    """Padding has no gradient either: 0 / 0 there would end every training."""
    X, Y = data()
    X[:, 0] = 0
    net = network(backend=backend, sizes=(4, 2))
    before = net.weights[0].copy()
    try:
        trainer = gpumlp.Trainer(net, f"{rule}(epsilon=0)", batch_size="full")
    except gpumlp.errors.ConfigurationError:
        return  # to refuse it is as good
    trainer.fit(X, Y, 2)
    assert np.allclose(net.weights[0][:, :, 0], before[:, :, 0], rtol=1e-4)


SCHEDULES = [
    "constant",
    schedules.step(every=2, factor=0.5),
    "exponential",
    "inverse_scaling",
    schedules.cosine(warmup=1.5, epochs=5),
    schedules.one_cycle(epochs=5),
    schedules.ReduceOnPlateau(patience=0, threshold=0.01, factor=0.5),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: getattr(s, "name", s))
@pytest.mark.parametrize("rule", ["adam", "nesterov"])
def test_two_fits_one_after_the_other_are_one(rule, schedule, backend):
    X, Y = data()
    options = {"learning_rate": 0.01, "batch_size": 5, "schedule": schedule, "l2": 0.01, "clip_norm": 1.0}
    found = []
    for parts in ([5], [2, 3], [1, 0, 1, 3]):
        net = network(n_models=3, dropout=0.3, backend=backend)
        trainer = gpumlp.Trainer(net, rule, **options)
        histories = [trainer.fit(X, Y, n) for n in parts]
        assert (trainer.epoch_count, trainer.step_count) == (5, 25)
        epochs = np.concatenate([h.epochs for h in histories])
        costs = np.concatenate([h["cost"] for h in histories if len(h)])
        rates = np.concatenate([h["learning_rate"] for h in histories if len(h)])
        found.append((theta(net), epochs, costs, rates, *kept(trainer).values()))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("rule", list(RULES))
def test_a_reset_trainer_learns_the_same_again(rule, backend):
    X, Y = data()
    net = network(n_models=3, dropout=0.3, backend=backend)
    trainer = gpumlp.Trainer(net, rule, batch_size=5, schedule=schedules.ReduceOnPlateau(patience=0, threshold=1.0))
    first = (trainer.fit(X, Y, 3), theta(net))[1]
    trainer.reset()
    assert (trainer.epoch_count, trainer.step_count) == (0, 0)
    trainer.fit(X, Y, 3)
    assert np.array_equal(theta(net), first)


# ---------------------------------------------------------------- the order of the rows


def feistel_order(key, epochs, n):
    return np.array([feistel.rows_at(np.arange(n), streams.shuffle_keys(key, e), n) for e in range(epochs)])


@pytest.mark.parametrize("n", [23, 5, 1, 300])
def test_each_model_sees_the_rows_in_the_order_of_its_own_key(n, backend):
    X, Y = data(n=n)
    stack = network(n_models=3, seed=8, backend=backend)
    gpumlp.Trainer(stack, learning_rate=0.01, batch_size=5).fit(X, Y, 3)
    for m in range(3):
        order = feistel_order(seeds.model_keys([8], [m])[0], 3, n)
        alone = network(model_ids=[m], seed=8, backend=backend)
        gpumlp.Trainer(alone, learning_rate=0.01, batch_size=5).fit(X, Y, 3, order=order)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)


def test_a_shared_order_is_that_of_the_seed(backend):
    X, Y = data()
    order = feistel_order(seeds.shared_key(8), 3, len(X))
    nets = [network(n_models=3, seed=8, backend=backend) for _ in range(2)]
    gpumlp.Trainer(nets[0], learning_rate=0.01, batch_size=5, shuffle="shared").fit(X, Y, 3)
    gpumlp.Trainer(nets[1], learning_rate=0.01, batch_size=5).fit(X, Y, 3, order=order)
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_without_shuffling_the_rows_come_as_they_stand(backend):
    X, Y = data()
    nets = [network(n_models=3, backend=backend) for _ in range(2)]
    gpumlp.Trainer(nets[0], batch_size=5, shuffle=False).fit(X, Y, 2)
    gpumlp.Trainer(nets[1], batch_size=5).fit(X, Y, 2, order=np.array([np.arange(23)] * 2))
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_an_order_is_followed_row_for_row(backend):
    """Stochastic descent of a linear unit, written out; rows may come twice or not at all."""
    X, Y = data(n=7, n_out=1)
    order = np.array([[3, 3, 0, 6, 1, 2, 5], [6, 5, 4, 3, 2, 1, 0], [1, 1, 1, 1, 1, 1, 1]])
    net = network((4, 1), (), backend=backend)
    w, b = net.weights[0][0, 0].copy(), net.biases[0][0, 0]
    gpumlp.Trainer(net, "sgd", learning_rate=0.05, batch_size=1).fit(X, Y, 3, order=order)
    for row in order.ravel():
        error = X[row] @ w + b - Y[row, 0]
        w, b = w - 0.05 * error * X[row], b - 0.05 * error
    assert np.allclose(net.weights[0][0, 0], w, rtol=1e-12)
    assert np.allclose(net.biases[0][0, 0], b, rtol=1e-12)


def test_a_long_order_is_followed_beyond_one_window_of_rows(backend):
    X, Y = data(n=20000, n_out=1)
    order = np.random.default_rng(0).permutation(20000)[None]
    nets = [network((4, 1), (), backend=backend) for _ in range(2)]
    gpumlp.Trainer(nets[0], "sgd", learning_rate=0.01, batch_size=3000).fit(X, Y, 1, order=order)
    gpumlp.Trainer(nets[1], "sgd", learning_rate=0.01, batch_size=3000, shuffle=False).fit(X[order[0]], Y[order[0]], 1)
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_dtype_and_layout_of_the_data_change_nothing(backend):
    rng = np.random.default_rng(0)
    X, Y = rng.integers(0, 200, (23, 4)), rng.integers(0, 2, 23)
    found = []
    for convert in (np.uint8, np.int64, np.float32, np.float64, np.float16):
        for layout in (np.ascontiguousarray, np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2]):
            net = network(
                (4, 6, 2), output="softmax", cost="categorical_cross_entropy", dtype="float32", backend=backend
            )
            gpumlp.Trainer(net, batch_size=5).fit(layout(X.astype(convert)), layout(Y), 2)
            found.append(theta(net))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_fitting_leaves_the_data_as_they_are(backend):
    X, Y = data()
    X_before, Y_before = X.copy(), Y.copy()
    for array in (X, Y):
        array.flags.writeable = False
    weights = np.ones(len(X))
    gpumlp.Trainer(network(n_models=2, backend=backend), batch_size=5).fit(X, Y, 2, (X, Y), weights)
    assert np.array_equal(X, X_before)
    assert np.array_equal(Y, Y_before)
    assert (weights == 1).all()
