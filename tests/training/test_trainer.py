import numpy as np
import pytest
from comparing import is_same_model, set_theta, theta
from small import classifier, data, labelled, network

import gpumlp
from gpumlp import rules
from gpumlp.errors import ConfigurationError, DataError, ShapeError, UnknownName
from gpumlp.formulas.update_rules import RULES
from gpumlp.formulas.vocabulary import sqrt


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_learns(rule, dtype, backend):
    X, y = labelled()
    net = classifier(n_models=2, dtype=dtype, backend=backend)
    rate = {"sgd": 0.3, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1}.get(rule, 0.01)
    history = gpumlp.Trainer(net, rule, learning_rate=rate, batch_size=8).fit(X, y, 20)
    assert (history["cost"][-1] < 0.5 * history["cost"][0]).all()
    assert (history["accuracy"][-1] > 0.9).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adamm"}, UnknownName, "did you mean"),
        ({"steps_per_launch": 0}, ConfigurationError, "steps_per_launch=0"),
        ({"batch_size": 0}, ConfigurationError, "batch_size=0: expected a number of rows of at least 1"),
        ({"batch_size": 2.5}, ConfigurationError, "batch_size=2.5"),
        ({"batch_size": "half"}, ConfigurationError, 'batch_size=\'half\'.*"full" or "tune"'),
        ({"batch_size": "auto"}, ConfigurationError, "batch_size='auto'"),
        ({"reduction": "median"}, ConfigurationError, "reduction='median': expected one of 'mean', 'sum'"),
        ({"shuffle": "yes"}, ConfigurationError, "shuffle='yes'"),
        ({"on_divergence": "ignore"}, ConfigurationError, "on_divergence='ignore'"),
        ({"learning_rate": -1}, ConfigurationError, "learning_rate=-1: expected a number of at least 0"),
        ({"learning_rate": float("nan")}, ConfigurationError, "learning_rate=nan"),
        ({"learning_rate": "fast"}, ConfigurationError, "learning_rate='fast'"),
        (
            {"learning_rate": [1, 2]},
            ConfigurationError,
            r"learning_rate has shape \(2,\); expected a number, or one for each of 3 models",
        ),
        ({"l2": -1}, ConfigurationError, "l2=-1"),
        ({"l1": [0, 0, -2]}, ConfigurationError, "l1=-2"),
        ({"clip_norm": 0}, ConfigurationError, "clip_norm=0: expected a number above 0"),
        ({"optimizer": "adam(beta1=1)"}, ConfigurationError, "beta1=1: expected a number of at least 0 and below 1"),
        ({"optimizer": "momentum(1.5)"}, ConfigurationError, "momentum=1.5"),
        ({"momentum_on_biases": False}, ConfigurationError, "adam.*has no momentum"),
        ({"state": {"q": 0}}, ConfigurationError, r"state holds \['q'\], update rule adam keeps \['m', 'v'\]"),
        ({"state": {"m": np.zeros((3, 7))}}, ShapeError, r"state\['m'\] has shape \(3, 7\), expected \(3, 128\)"),
        ({"state": {"m": [(np.zeros((6, 4)), np.zeros(6))]}}, ShapeError, r"state\['m'\] has 1 layers, 4-6-2 has 2"),
        ({"schedule": "cosin"}, UnknownName, "did you mean 'cosine'"),
    ],
)
def test_an_impossible_argument_raises_and_says_what_is_expected(options, error, message):
    with pytest.raises(error, match=message):
        gpumlp.Trainer(network(n_models=3), **options)


def test_a_shared_order_needs_one_seed():
    with pytest.raises(ConfigurationError, match='shuffle="shared" needs one seed'):
        gpumlp.Trainer(network(n_models=2, seed=[1, 2]), shuffle="shared")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": -1}, ConfigurationError, "epochs=-1"),
        ({"epochs": 1.5}, ConfigurationError, "epochs=1.5"),
        ({"X": np.ones((23, 3))}, ShapeError, r"X has shape \(23, 3\), expected \(n_samples, 4\)"),
        ({"X": np.ones((22, 4))}, ShapeError, "Y has 23 rows, X has 22"),
        ({"Y": np.ones((23, 3))}, ShapeError, r"Y has shape \(23, 3\), expected \(n_samples, 2\)"),
        ({"Y": np.full((23, 2), np.inf)}, DataError, "Y holds 46 values that are not finite"),
        ({"validation": (np.ones((3, 5)), np.ones((3, 2)))}, ShapeError, r"validation X has shape \(3, 5\)"),
        ({"validation": (np.ones((3, 4)), np.ones((2, 2)))}, ShapeError, "validation Y has 2 rows"),
        ({"validation": np.ones((3, 4))}, ConfigurationError, r"validation: expected a pair \(X, Y\)"),
        ({"sample_weight": np.ones(22)}, ShapeError, r"sample_weight has shape \(22,\), expected \(23,\) or \(3, 23\)"),
        ({"monitors": gpumlp.KeepBest("cost")}, ConfigurationError, "monitors=.*: expected a list of monitors"),
        ({"monitors": [gpumlp.KeepBest]}, ConfigurationError, "monitors=.*: expected a list of monitors"),
        ({"checkpoints": "here"}, ConfigurationError, r"checkpoints='here': expected gpumlp.Checkpoints\(folder\)"),
        ({"order": np.arange(23)}, ShapeError, r"order has shape \(23,\), expected \(2, 23\)"),
        ({"order": np.zeros((3, 23), int)}, ShapeError, "order has shape"),
        ({"order": np.zeros((2, 23))}, DataError, "order has dtype float64, expected whole row numbers"),
        ({"order": np.full((2, 23), 23)}, DataError, "order names rows 23 to 23, the data have rows 0 to 22"),
        ({"order": np.full((2, 23), -1)}, DataError, "order names rows -1"),
    ],
)
def test_data_that_do_not_fit_raise_and_nothing_is_trained(options, error, message):
    X, Y = data()
    net = network(n_models=3)
    trainer, before = gpumlp.Trainer(net), theta(net)
    with pytest.raises(error, match=message):
        trainer.fit(**{"X": X, "Y": Y, "epochs": 2, **options})
    assert np.array_equal(theta(net), before)
    assert trainer.step_count == 0


def test_no_epoch_changes_nothing(backend):
    net = network(backend=backend)
    before = theta(net)
    history = gpumlp.Trainer(net).fit(*data(), 0)
    assert len(history) == 0
    assert np.array_equal(theta(net), before)


def test_a_batch_is_never_larger_than_the_data(backend):
    X, Y = data()
    found = []
    for size in (23, 1000, "full", np.int64(23)):
        net = network(backend=backend)
        gpumlp.Trainer(net, batch_size=size).fit(X, Y, 2)
        found.append(theta(net))
    assert all(np.array_equal(found[0], other) for other in found[1:])


# ---------------------------------------------------------------- what the numbers of a training do


def one_step(backend, X, Y, optimizer="sgd", **options):
    """Return the network before, its gradients, and what one full batch with rate 1 takes off the parameters."""
    net = network(n_models=3, backend=backend)
    gradients = net.backpropagate(X, Y)
    W, b = [w.copy() for w in net.weights], [x.copy() for x in net.biases]
    gpumlp.Trainer(net, optimizer, **{"learning_rate": 1.0, "batch_size": "full", **options}).fit(X, Y, 1)
    return (
        W,
        b,
        gradients,
        [w - n for w, n in zip(W, net.weights, strict=True)],
        [x - n for x, n in zip(b, net.biases, strict=True)],
    )


def test_a_step_of_descent_is_the_mean_gradient(backend):
    _, _, g, dW, db = one_step(backend, *data())
    for l in range(2):
        assert np.allclose(dW[l], g.dW[l], rtol=1e-10, atol=1e-14)
        assert np.allclose(db[l], g.db[l], rtol=1e-10, atol=1e-14)


def test_penalties_act_on_weights_only_each_model_with_its_own(backend):
    l2, l1 = np.array([0.1, 0.0, 0.3]), np.array([0.0, 0.2, 0.05])
    W, _, g, dW, db = one_step(backend, *data(), l2=l2, l1=l1)
    for l in range(2):
        wanted = g.dW[l] + l2[:, None, None] * W[l] + l1[:, None, None] * np.sign(W[l])
        assert np.allclose(dW[l], wanted, rtol=1e-10, atol=1e-14)
        assert np.allclose(db[l], g.db[l], rtol=1e-10, atol=1e-14)


def test_a_gradient_is_clipped_to_its_norm_before_penalties_each_model_with_its_own(backend):
    clip = np.array([1e-3, 0.05, 1e6])
    W, _, g, dW, db = one_step(backend, *data(), l2=0.1, clip_norm=clip)
    norm = np.sqrt(sum((x**2).sum(axis=tuple(range(1, x.ndim))) for x in (*g.dW, *g.db)))
    factor = np.minimum(1, clip / norm)
    assert factor[0] < 1
    assert factor[2] == 1
    for l in range(2):
        assert np.allclose(dW[l], factor[:, None, None] * g.dW[l] + 0.1 * W[l], rtol=1e-9, atol=1e-14)
        assert np.allclose(db[l], factor[:, None] * g.db[l], rtol=1e-9, atol=1e-14)


def test_a_large_finite_gradient_is_clipped_and_not_lost(backend):
    """In float32 the square of 1e20 is infinite; its norm is not."""
    net = network((1, 1), (), dtype="float32", initialiser="zeros", backend=backend)
    options = {"learning_rate": 1.0, "clip_norm": 1.0, "batch_size": "full"}
    gpumlp.Trainer(net, "sgd", **options).fit(np.array([[1e10]]), np.array([[1e10]]), 1)
    assert np.isclose(net.weights[0].item(), 1.0, rtol=1e-5)


def test_biases_that_are_not_trained_stay(backend):
    X, Y = data()
    net = network(n_models=2, initialiser="nielsen", backend=backend)
    before = [b.copy() for b in net.biases]
    weights = [w.copy() for w in net.weights]
    gpumlp.Trainer(net, "adamw", train_biases=False, l2=0.1, clip_norm=1.0).fit(X, Y, 3)
    assert all(np.array_equal(b, n) for b, n in zip(before, net.biases, strict=True))
    assert not any(np.array_equal(w, n) for w, n in zip(weights, net.weights, strict=True))


def test_without_momentum_on_biases_they_descend_plainly(backend):
    """Epoch by epoch the biases take a step of descent, the weights one of momentum."""
    X, Y = data()
    net = network(backend=backend)
    trainer = gpumlp.Trainer(net, "momentum", 0.1, "full", momentum_on_biases=False)
    velocity = [np.zeros_like(w) for w in net.weights]
    for _ in range(3):
        W, b, g = [w.copy() for w in net.weights], [x.copy() for x in net.biases], net.backpropagate(X, Y)
        trainer.fit(X, Y, 1)
        for l in range(2):
            velocity[l] = 0.9 * velocity[l] - 0.1 * g.dW[l]
            assert np.allclose(net.weights[l], W[l] + velocity[l], rtol=1e-10)
            assert np.allclose(net.biases[l], b[l] - 0.1 * g.db[l], rtol=1e-10, atol=1e-13)


def test_decay_of_a_rule_acts_on_weights_only(backend):
    """Where there is no gradient, weights shrink by the decay and biases stay."""
    net = network((4, 2), (), initialiser="nielsen", backend=backend, cost=gpumlp.Cost("nothing", lambda a, y: 0 * a))
    W, b = net.weights[0].copy(), net.biases[0].copy()
    gpumlp.Trainer(net, rules.adamw(weight_decay=0.5), 0.1, "full").fit(*data(), 3)
    assert np.allclose(net.weights[0], W * (1 - 0.05) ** 3, rtol=1e-12)
    assert np.array_equal(net.biases[0], b)


def test_a_rules_numbers_may_differ_between_models(backend):
    X, Y = data()
    stack = network(n_models=3, backend=backend)
    gpumlp.Trainer(stack, rules.adam(beta1=[0.9, 0.5, 0.0], epsilon=[1e-8, 1e-3, 1.0]), 0.01).fit(X, Y, 3)
    for m, (beta1, epsilon) in enumerate([(0.9, 1e-8), (0.5, 1e-3), (0.0, 1.0)]):
        alone = network(model_ids=[m], backend=backend)
        gpumlp.Trainer(alone, rules.adam(beta1=beta1, epsilon=epsilon), 0.01).fit(X, Y, 3)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)


def test_a_state_can_be_given_by_layer_or_as_a_whole(backend):
    X, Y = data()
    first = network(n_models=2, backend=backend)
    trainer = gpumlp.Trainer(first, "momentum", 0.01)
    trainer.fit(X, Y, 2)
    velocity = np.array(first.backend.to_host(trainer.state["v"]))
    views = first.parameters.views(velocity)
    layers = list(zip(views[:2], views[2:], strict=True))
    found = []
    for state in (velocity, layers):
        net = network(n_models=2, backend=backend)
        set_theta(net, theta(first))
        gpumlp.Trainer(net, "momentum", 0.01, state={"v": state}, shuffle=False).fit(X, Y, 1)
        found.append(theta(net))
    without = network(n_models=2, backend=backend)
    set_theta(without, theta(first))
    gpumlp.Trainer(without, "momentum", 0.01, shuffle=False).fit(X, Y, 1)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], theta(without))


# ---------------------------------------------------------------- sample weights


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_weight_of_two_is_the_row_twice_and_of_zero_none(reduction, rule, backend):
    X, Y = data(n=9)
    weights = np.array([1, 2, 0, 1, 3, 1, 0, 1, 1])
    repeated = np.repeat(np.arange(9), weights)
    nets = [network(n_models=2, backend=backend) for _ in range(2)]
    options = {"learning_rate": 0.01, "batch_size": "full", "reduction": reduction}
    one = gpumlp.Trainer(nets[0], rule, **options).fit(X, Y, 5, sample_weight=weights)
    other = gpumlp.Trainer(nets[1], rule, **options).fit(X[repeated], Y[repeated], 5)
    assert np.allclose(theta(nets[0]), theta(nets[1]), rtol=1e-8, atol=1e-12)
    assert np.allclose(one["cost"], other["cost"], rtol=1e-10)


def test_weights_that_are_all_equal_change_nothing(backend):
    X, Y = data()
    found = []
    for weights in (None, np.ones(23), np.full(23, 4.0), np.ones((2, 23))):
        net = network(n_models=2, backend=backend)
        gpumlp.Trainer(net, learning_rate=0.01, batch_size=5).fit(X, Y, 3, sample_weight=weights)
        found.append(theta(net))
    assert all(np.allclose(found[0], other, rtol=1e-9, atol=1e-12) for other in found[1:])


def test_a_batch_without_weight_moves_nothing(backend):
    X, Y = data(n=10)
    weights = np.repeat([1.0, 0.0], 5)
    nets = [network(backend=backend) for _ in range(2)]
    history = gpumlp.Trainer(nets[0], "sgd", 0.1, 5, shuffle=False).fit(X, Y, 1, sample_weight=weights)
    gpumlp.Trainer(nets[1], "sgd", 0.1, 5, shuffle=False).fit(X[:5], Y[:5], 1)
    assert np.allclose(theta(nets[0]), theta(nets[1]), rtol=1e-12)
    assert np.isfinite(history["cost"]).all()


def test_a_short_last_batch_counts_by_its_own_size(backend):
    X, Y = data(n=7)
    net, by_hand = network(backend=backend), network(backend=backend)
    history = gpumlp.Trainer(net, "sgd", 0.1, 5, shuffle=False).fit(X, Y, 1)
    costs = []
    for part in (slice(0, 5), slice(5, 7)):
        costs.append(by_hand.cost_of(X[part], Y[part])[0] * (part.stop - part.start))
        gpumlp.Trainer(by_hand, "sgd", 0.1, "full", shuffle=False).fit(X[part], Y[part], 1)
    assert np.allclose(theta(net), theta(by_hand), rtol=1e-12)
    assert np.isclose(history["cost"][0, 0], sum(costs) / 7, rtol=1e-12)


# ---------------------------------------------------------------- several steps at once


@pytest.mark.parametrize("n", [2, 3, 4, 100])
def test_steps_that_are_launched_together_are_the_same_steps(n, backend):
    X, Y = data(n=53)
    nets, told = [], []
    for together in (1, n):

        class Count(gpumlp.Monitor):
            def step_ended(self, step, told=told, together=together):
                if together > 1:
                    told.append(step)

        net = network(n_models=2, dropout=0.3, backend=backend)
        trainer = gpumlp.Trainer(net, "adam", 0.01, 5, clip_norm=1.0, steps_per_launch=together)
        trainer.fit(X, Y, 3, monitors=[Count()])
        assert trainer.step_count == 33
        nets.append(net)
    assert theta(nets[0]).tobytes() == theta(nets[1]).tobytes()
    whole = list(range(n, 12, n))
    assert told == 3 * (whole + list(range((whole or [0])[-1] + 1, 12)))


# ---------------------------------------------------------------- dropout


def kept_units(rate, backend, epochs=30, n_models=2):
    """Return which hidden units were active in every step: outputs sum ones that dropout scales."""
    net = network((1, 400, 1), "identity", "identity", "quadratic", n_models=n_models, dropout=rate, backend=backend)
    for l, w in enumerate(net.weights):
        net.set_weights(l, np.ones(w.shape))
    history = gpumlp.Trainer(net, "sgd", 0.0, batch_size=1).fit(np.ones((1, 1)), np.zeros((1, 1)), epochs)
    return np.sqrt(2 * history["cost"]) * (1 - rate) / 400


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_its_share_and_scales_the_rest(rate, backend):
    """400 units of value 1 sum to 400 on average, whatever the rate."""
    share = kept_units(rate, backend)
    assert np.isclose(share.mean(), 1 - rate, atol=0.02)
    assert 0.5 < share.std() / np.sqrt(rate * (1 - rate) / 400) < 1.5
    assert len(np.unique(share[:, 0])) > 5
    assert not np.array_equal(share[:, 0], share[:, 1])


def test_predictions_and_evaluations_drop_nothing(backend):
    X, Y = data()
    with_dropout, without = (network(dropout=rate, backend=backend) for rate in (0.5, 0.0))
    assert np.array_equal(with_dropout.predict(X), without.predict(X))
    assert np.array_equal(with_dropout.cost_of(X, Y), without.cost_of(X, Y))
    assert np.array_equal(with_dropout.backpropagate(X, Y).dW[0], without.backpropagate(X, Y).dW[0])
    history = gpumlp.Trainer(with_dropout, "sgd", 0.0).fit(X, Y, 1, validation=(X, Y))
    assert np.isclose(history["validation_cost"][0, 0], without.cost_of(X, Y)[0], rtol=1e-12)
    assert not np.isclose(history["cost"][0, 0], without.cost_of(X, Y)[0], rtol=1e-3)


def test_a_rate_of_zero_is_no_dropout(backend):
    X, Y = data()
    nets = [network((4, 6, 5, 2), dropout=rate, backend=backend) for rate in (0, [0.0, 0.0])]
    for net in nets:
        gpumlp.Trainer(net, batch_size=5).fit(X, Y, 2)
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_the_mask_of_a_row_does_not_depend_on_the_size_of_the_batch(backend):
    """The row of a batch and the step decide: more rows behind it change nothing."""
    X, Y = data(n=1)
    found = []
    for n in (1, 4):
        net = network(dropout=0.5, backend=backend)
        weights = np.eye(n)[0]
        rows = np.repeat(X, n, axis=0), np.repeat(Y, n, axis=0)
        gpumlp.Trainer(net, "sgd", 0.1, "full", shuffle=False).fit(*rows, 3, sample_weight=weights)
        found.append(theta(net))
    assert np.allclose(found[0], found[1], rtol=1e-12, atol=1e-15)


# ---------------------------------------------------------------- counting


def test_epochs_and_steps_are_counted_on(backend):
    trainer = gpumlp.Trainer(network(backend=backend), batch_size=10)
    for done in range(1, 4):
        trainer.fit(*data(), 2)
        assert (trainer.epoch_count, trainer.step_count) == (2 * done, 6 * done)


def test_training_is_the_same_whatever_backend_is_chosen_around_it(backend):
    X, Y = data()
    with gpumlp.use_backend(backend):
        nets = [network(), network(backend=backend)]
    for net in nets:
        gpumlp.Trainer(net).fit(X, Y, 2)
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_biases_that_are_not_trained_do_not_count_in_the_norm(backend):
    X, Y = data()
    net = network(backend=backend)
    dW = net.backpropagate(X, Y).dW
    norm = np.sqrt(sum((x**2).sum() for x in dW))
    before = [w.copy() for w in net.weights]
    options = {"learning_rate": 1.0, "batch_size": "full", "train_biases": False, "clip_norm": 1.01 * norm}
    gpumlp.Trainer(net, "sgd", **options).fit(X, Y, 1)
    for old, new, gradient in zip(before, net.weights, dW, strict=True):
        assert np.allclose(old - new, gradient, rtol=1e-9, atol=1e-13)


def test_dropout_works_where_the_derivative_divides_by_the_value(backend):
    root = gpumlp.Activation("root", lambda z: sqrt(1 + z * z))
    net = network(activation=root, dropout=0.5, backend=backend)
    assert np.isfinite(gpumlp.Trainer(net).fit(*data(), 3)["cost"]).all()


def test_a_trainer_comes_back_to_the_state_that_it_was_given_whatever_becomes_of_that(backend):
    net = network(backend=backend)
    first = gpumlp.Trainer(net, "momentum")
    first.fit(*data(), 1)
    given = first.state
    before = np.array(net.backend.to_host(given["v"]))
    second = gpumlp.Trainer(network(backend=backend), "momentum", state=given)
    first.fit(*data(), 1)
    second.reset()
    assert np.array_equal(second.net.backend.to_host(second.state["v"]), before)


@pytest.mark.parametrize("given", [3, [1, 2], [(1, 2, 3)] * 2, {"v": 1}], ids=str)
def test_a_state_that_is_none_is_told(given):
    with pytest.raises(ConfigurationError, match=r"state\['v'\] is .*, expected an array of shape \(1, \d+\)"):
        gpumlp.Trainer(network(), "momentum", state={"v": given})


def test_a_schedule_that_looks_at_results_belongs_to_one_trainer(backend):
    plateau = gpumlp.schedules.ReduceOnPlateau(patience=1)
    for n_models in (1, 3):
        trainer = gpumlp.Trainer(network(n_models=n_models, backend=backend), schedule=plateau)
        assert len(trainer.fit(*data(), 3)) == 3


@pytest.mark.parametrize("rule", list(RULES))
def test_another_trainer_goes_on_from_state_and_counts_as_if_there_were_no_break(rule, backend):
    X, y = labelled()
    whole, first, second = (classifier(n_models=2, dropout=0.2, backend=backend) for _ in range(3))
    gpumlp.Trainer(whole, rule, batch_size=16).fit(X, y, 5)
    before = gpumlp.Trainer(first, rule, batch_size=16)
    before.fit(X, y, 2)
    state = {name: np.array(first.backend.to_host(kept)) for name, kept in before.state.items()}
    set_theta(second, theta(first))
    after = gpumlp.Trainer(second, rule, batch_size=16, state=state)
    after.go_on_from(before.step_count, before.epoch_count)
    assert after.fit(X, y, 3).epochs.tolist() == [3, 4, 5]
    assert (theta(second) == theta(whole)).all()
