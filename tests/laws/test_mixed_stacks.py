"""A model of a mixed stack is what it would be alone, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
from stopping import StopAt

from gpumlp import Folds, Network, SavedModel, Trainer, costs, schedules
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.backends.protocol import StepNumbers
from gpumlp.convert import one_of, save_safetensors
from gpumlp.errors import ConfigurationError, GpumlpError
from gpumlp.formulas.update_rules import RULES, finished_names
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member
from gpumlp.network.parameters import layout_of, within
from gpumlp.training import active

ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "softplus", "leaky_relu(slope=0.2)")


def members_of(n, n_layers=2, seed=0, n_in=5, n_out=3, smoothing=False, one_seed=False):
    """Return members that differ in all that may differ, some of them alike and side by side."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(n):
        if i % 3 != 2:
            widths = [int(w) for w in draw.integers(1, 20, n_layers)]
            activations = [str(a) for a in draw.choice(ACTIVATIONS, n_layers)]
            dropout = tuple(float(r) for r in draw.choice([0.0, 0.25, 0.5], n_layers))
        cost = costs.categorical_cross_entropy(0.1 * (i % 4) if smoothing else 0.0)
        net = build_architecture((n_in, *widths, n_out), activations, "softmax", cost)
        seed, initialiser = 0 if one_seed else i // 2, ("he", "glorot", "nielsen")[i % 3]
        found.append(Member(net, dropout, seed, model_id=i, initialiser=initialiser))
    return found


def data(n_rows=37, n_in=5, n_out=3):
    draw = np.random.default_rng(1)
    return draw.standard_normal((n_rows, n_in)), draw.integers(0, n_out, n_rows)


def train(members, rates, backend, dtype, epochs=3, **options):
    net = Network.mixed(members, dtype=dtype, backend=backend)
    trainer = Trainer(net, learning_rate=rates, batch_size=8, **options)
    history = trainer.fit(*data(), epochs, validation=data(21))
    return net, trainer, history


def difference(x, y):
    return float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30))


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_model_of_a_mixed_stack_is_trained_as_alone(backend, dtype, n_layers):
    members, rates = members_of(8, n_layers), 10.0 ** np.linspace(-3, -1, 8)
    options = {"optimizer": "adam", "l2": np.linspace(0, 1e-2, 8), "clip_norm": np.linspace(0.1, 2, 8)}
    net, _, history = train(members, rates, backend, dtype, **options)
    for m, member in enumerate(members):
        of_one = options | {"l2": options["l2"][m], "clip_norm": options["clip_norm"][m]}
        solo, _, its_history = train([member], rates[m], backend, dtype, **of_one)
        near = 0 if backend == "numpy" else 1e-10 if dtype == "float64" else 1e-4
        alone = net.alone(m)
        assert alone.sizes == solo.sizes == member.architecture.sizes
        for found, expected in zip(alone.weights + alone.biases, solo.weights + solo.biases, strict=True):
            assert difference(found, expected) <= near
        assert difference(net.predict(data()[0])[m], solo.predict(data()[0])[0]) <= near
        for name in ("cost", "validation_cost"):
            assert difference(history[name][:, m], its_history[name][:, 0]) <= near


def test_the_room_behind_a_models_numbers_has_no_part_in_its_norm():
    """Or a sum would have the bits of its length, which depends on who else is in the stack."""
    backend, rule = NumpyBackend("float32"), RULES.get("sgd")
    names = (*finished_names(rule), "clip")
    table = np.ones((len(names), 1, 2), np.float32)
    numbers = StepNumbers(rule, frozenset({"clip"}), {}, names, table, np.ones((1, 1)), np.zeros(2, np.bool_))
    layout = layout_of(build_architecture((5, 9, 3), "tanh", "softmax", costs.categorical_cross_entropy(0.0)))
    own = [within(layout, sizes).own(0, layout.n_params) for sizes in ((5, 9, 3), (5, 2, 3))]
    grad = np.full((2, layout.n_params), np.nan, np.float32)
    for line, tensors in zip(grad, own, strict=True):
        for tensor in tensors:
            line[tensor] = 2
    backend.gradient_norm(grad, np.array([1.0, 1.0]), numbers, own)
    n_params = [5 * n + n + 3 * n + 3 for n in (9, 2)]
    assert table[names.index("clip"), 0] == pytest.approx([1 / (2 * n**0.5) for n in n_params])


SCHEDULES = (
    "cosine",
    "constant",
    schedules.exponential(0.8),
    schedules.ReduceOnPlateau("cost", 0.5, 0, threshold=10.0),
)
TOGETHER = [{"steps_per_launch": 3}, {"micro_batch": 3}, {"steps_per_launch": 2, "micro_batch": 4}]


@pytest.mark.parametrize("together", TOGETHER, ids=str)
@pytest.mark.parametrize("shuffle", [True, "shared"])
def test_all_that_models_may_have_of_their_own_goes_together(shuffle, together, backend, monkeypatch):
    n, epochs, draw = 6, 6, np.random.default_rng(2)
    members = members_of(n, smoothing=True, one_seed=shuffle == "shared")
    (X, y), weights = data(), draw.uniform(0, 2, (n, 37))
    trained, seen = (tuple(draw.permutation(37)[:k] for k in sizes) for sizes in ((29, 31, 26), (9, 13, 11)))
    of_model, ends = (2, 0, 1, 1, 0, 2), np.array([2, 6, 1, 4, 6, 4])
    rates, rebuilt, build = 10.0 ** np.linspace(-3, -1, n), [], active.part_of
    monkeypatch.setattr(active, "part_of", lambda whole, models: rebuilt.append(len(models)) or build(whole, models))

    def fit(some, monitor, folds, validation, **options):
        net = Network.mixed([members[m] for m in some], dtype="float64", backend=backend)
        own = {"learning_rate": rates[some], "schedule": [SCHEDULES[m % 4] for m in some]}
        own |= {"l2": 0.01 * np.array(some), "clip_norm": 0.1 + 0.1 * np.array(some)}
        trainer = Trainer(net, "momentum", batch_size=8, shuffle=shuffle, **own, **options)
        history = trainer.fit(
            X, y, epochs, validation, sample_weight=weights[some], folds=folds, monitors=[StopAt(monitor)]
        )
        return net, history

    net, history = fit(list(range(n)), ends, Folds(trained, of_model), Folds(seen, of_model), **together)
    assert rebuilt == [4, 2]
    for m in range(n):
        of_one = (Folds((rows[of_model[m]],), (0,)) for rows in (trained, seen))
        solo, its_history = fit([m], ends[[m]], *of_one)
        alone = net.alone(m)
        for found, expected in zip(alone.weights + alone.biases, solo.weights + solo.biases, strict=True):
            assert difference(found, expected) <= 1e-10
        for name in ("cost", "validation_cost", "validation_accuracy", "learning_rate"):
            assert difference(history[name][: ends[m], m], its_history[name][:, 0]) <= 1e-10
            assert len(its_history[name]) == ends[m]


@pytest.mark.parametrize("rule", list(RULES))
def test_the_padding_of_a_mixed_stack_stays_zero(backend, rule):
    members = members_of(4)
    penalties = {"l2": 0.1, "l1": 0.01, "clip_norm": 1.0}
    net, trainer, _ = train(members, 1e-2, backend, "float64", epochs=1, optimizer=rule, **penalties)
    for buffer in (net.parameters.theta, *trainer.state.values()):
        values = np.array(net.backend.to_host(buffer))
        for m in range(len(members)):
            for tensor in net._tensors_in(values, m):
                tensor[...] = 0
        assert not values.any()


def test_moving_a_mixed_stack_to_another_backend_keeps_every_model(backend):
    net = Network.mixed(members_of(5), dtype="float64", backend="numpy")
    before = [[w.copy() for w in net.alone(m).weights] for m in range(5)]
    X = data()[0]
    outputs = net.predict(X)
    net.move_to(backend)
    for m in range(5):
        assert all(np.array_equal(x, y) for x, y in zip(net.alone(m).weights, before[m], strict=True))
    assert difference(net.predict(X), outputs) < 1e-12


def test_models_that_are_taken_out_of_a_stack_keep_weights_seeds_and_numbers(backend):
    members = members_of(7)
    net = Network.mixed(members, backend=backend)
    some = net.take([5, 0, 3])
    assert some.members == tuple(net.members[m] for m in (5, 0, 3))
    assert np.array_equal(some.predict(data()[0]), net.predict(data()[0])[[5, 0, 3]])


def test_initial_weights_of_a_mixed_stack_are_those_of_each_model_alone(backend):
    members = members_of(6)
    net = Network.mixed(members, backend=backend)
    for m, member in enumerate(members):
        solo = Network.mixed([member], backend="numpy")
        assert all(np.array_equal(x, y) for x, y in zip(net.alone(m).weights, solo.weights, strict=True))


def build(sizes=(5, 4, 3), activation="relu", output="softmax", cost="categorical_cross_entropy", normalisation=None):
    net = build_architecture(sizes, activation, output, cost, normalisation)
    return Member(net, (0.0,) * (len(sizes) - 2))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (build((5, 4, 4, 3)), "number of layers 3, member 0 has 2"),
        (build((6, 4, 3)), "input size 6"),
        (build((5, 4, 2)), "output size 2"),
        (build(output="sigmoid", cost="cross_entropy"), "output activation sigmoid"),
        (build(cost="quadratic", output="sigmoid"), "output activation sigmoid"),
        (build(normalisation="layer"), "normalisation"),
    ],
)
def test_members_that_do_not_go_together_are_refused_by_name(other, text):
    with pytest.raises(ConfigurationError, match=text):
        Network.mixed([build(), other], backend="numpy")


def test_normalised_members_have_to_be_alike():
    with pytest.raises(ConfigurationError, match="normalised layers have to be alike"):
        Network.mixed([build(normalisation="layer"), build((5, 3, 3), normalisation="layer")], backend="numpy")


def test_weights_of_a_mixed_stack_have_zeros_beyond_a_models_own(backend):
    members = members_of(6)
    net = Network.mixed(members, backend=backend)
    for m, member in enumerate(members):
        own = net.alone(m)
        for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            n_out, n_in = member.architecture.sizes[l + 1], member.architecture.sizes[l]
            assert np.array_equal(W[m, :n_out, :n_in], own.weights[l][0])
            assert np.array_equal(b[m, :n_out], own.biases[l][0])
            assert not W[m, n_out:].any()
            assert not W[m, :, n_in:].any()
            assert not b[m, n_out:].any()


def test_an_empty_stack_is_refused():
    with pytest.raises(ConfigurationError, match="at least one member"):
        Network.mixed([], backend="numpy")


def test_what_works_on_models_that_are_alike_says_so():
    net = Network.mixed([build(), build((5, 3, 3))], backend="numpy")
    X, Y = data()
    calls = (lambda: net.forward(X), lambda: net.backpropagate(X, Y), lambda: net.set_weights(0, np.ones((4, 5))))
    for call in (*calls, lambda: net.dropout):
        with pytest.raises(ConfigurationError, match=r"take one out of it: net\.alone\(0\)"):
            call()


@pytest.mark.parametrize(
    "save", [lambda m, p: m.save(p / "m.npz"), lambda m, p: save_safetensors(m, p / "m.safetensors")]
)
def test_a_mixed_stack_is_not_saved_as_if_its_models_were_alike(save, tmp_path):
    net = Network.mixed([build(), build((5, 3, 3))], backend="numpy")
    with pytest.raises(GpumlpError, match=r"stack of 2 kinds.*one_of\(model, 0\)"):
        save(SavedModel(net, "classification", np.arange(3)), tmp_path)
    assert not list(tmp_path.iterdir())
    save(one_of(SavedModel(net, "classification", np.arange(3)), 1), tmp_path)
