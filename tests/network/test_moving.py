import numpy as np
import pytest
from comparing import theta

import gpumlp
from gpumlp.backends.select import why_unavailable
from gpumlp.errors import BackendUnavailable, ConfigurationError, OutOfMemory, UnknownName


def data(n=23):
    random = np.random.default_rng(0)
    return random.standard_normal((n, 4)), random.standard_normal((n, 2))


def network(hidden=6, **options):
    return gpumlp.Network((4, hidden, 2), "tanh", "identity", "quadratic", **{"n_models": 2, **options})


def bits(net):
    return theta(net).tobytes()


def test_a_network_moves_away_from_where_there_is_no_room(backend, monkeypatch):
    def full(*arguments, **options):
        raise OutOfMemory("no room")

    net = network(backend=backend)
    before = bits(net)
    monkeypatch.setattr(net.backend, "empty", full)
    net.move_to("numpy")
    assert bits(net) == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_that_moves_keeps_its_parameters_bit_for_bit(backend, dtype):
    X, _ = data()
    net = network(dtype=dtype, seed=[3, 8], model_ids=[5, 2])
    W = net.weights[0].copy()
    W[0, 0, :3] = [np.nan, -0.0, np.float32(1e-40)]
    net.set_weights(0, W)
    before, others = bits(net), (net.seeds, net.model_ids, net.dtype, net.architecture, net.dropout)
    net.move_to(backend)
    assert (net.backend.name, bits(net)) == (backend, before)
    assert (net.seeds, net.model_ids, net.dtype, net.architecture, net.dropout) == others
    net.reset()
    assert bits(net) == bits(network(dtype=dtype, seed=[3, 8], model_ids=[5, 2]))
    alone = network(dtype=dtype, seed=[3, 8], model_ids=[5, 2], backend=backend)
    assert np.array_equal(net.predict(X), alone.predict(X))
    net.move_to("numpy")
    assert bits(net) == bits(alone)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_trainer_follows_its_network_with_all_that_it_keeps(backend, rule):
    X, Y = data()
    net = network()
    trainer = gpumlp.Trainer(net, rule, batch_size=5)
    trainer.fit(X, Y, 2)
    kept = {name: value.copy() for name, value in trainer.state.items()}
    net.move_to(backend)
    assert (trainer.step_count, trainer.epoch_count) == (10, 2)
    assert all(np.array_equal(net.backend.to_host(trainer.state[name]), value) for name, value in kept.items())
    history = trainer.fit(X, Y, 1)
    assert (trainer.step_count, list(history.epochs)) == (15, [3])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_training_goes_on_after_a_move_as_if_there_had_been_none(backend):
    """There and back between two epochs, and anew on the same backend: not a bit differs."""
    if why_unavailable(backend):
        pytest.skip(why_unavailable(backend))
    X, Y = data()
    nets = [network(backend=backend, dropout=0.3) for _ in range(2)]
    for net in nets:
        trainer = gpumlp.Trainer(net, batch_size=5)
        for _ in range(3):
            trainer.fit(X, Y, 2)
            if net is nets[0]:
                net.move_to("numpy")
                net.move_to(backend)
    assert bits(nets[0]) == bits(nets[1])


@pytest.mark.parametrize("back", [False, True])
def test_models_that_differ_go_on_after_a_move_with_their_own_state(back, backend):
    def trained(moves):
        nets = [network(hidden=n, n_models=1, dtype="float64") for n in (6, 3, 5)]
        net = gpumlp.Network.mixed([one.members[0] for one in nets], dtype="float64", backend="numpy")
        trainer = gpumlp.Trainer(net, learning_rate=0.05, batch_size=5)
        for place in moves:
            net.move_to(place)
            trainer.fit(*data(), 2)
        return np.concatenate([theta(net.alone(m)).ravel() for m in range(3)])

    found = trained([backend, "numpy"] if back else ["numpy", backend])
    np.testing.assert_allclose(found, trained(["numpy", "numpy"]), rtol=0, atol=1e-12)


def test_models_that_diverged_stay_stopped_after_a_move():
    X, Y = data()
    net = network()
    trainer = gpumlp.Trainer(net, "sgd", learning_rate=[1e30, 0.01], batch_size=5)
    trainer.fit(X, Y, 2)
    stopped, before = trainer.has_diverged.copy(), theta(net)
    net.move_to("numpy")
    history = trainer.fit(X, Y, 1)
    assert np.isnan(history["learning_rate"][0]).tolist() == [True, False]
    assert stopped.tolist() == [True, False]
    assert np.array_equal(theta(net)[0], before[0])
    assert not np.array_equal(theta(net)[1], before[1])


def test_reset_after_a_move_starts_anew(backend):
    X, Y = data()
    net = network()
    trainer = gpumlp.Trainer(net, batch_size=5)
    trainer.fit(X, Y, 2)
    net.move_to(backend)
    trainer.reset()
    assert trainer.step_count == 0
    assert bits(net) == bits(network())
    assert not any(net.backend.to_host(value).any() for value in trainer.state.values())


def test_which_backends_are_open_is_what_was_not_asked_for_by_name(monkeypatch):
    assert network().alternatives == ("numpy",)
    monkeypatch.delenv("GPUMLP_BACKEND")
    net = network(device="cpu")
    assert net.alternatives == ("numpy", "numba")
    net.move_to("numpy", pinned=False)
    assert net.alternatives == ("numpy", "numba")
    net.move_to("numpy")
    assert net.alternatives == ("numpy",)
    net.move_to("auto", device="cpu")
    assert net.alternatives == ("numpy", "numba")
    assert network(backend="auto").alternatives == ("numpy", "numba", "cuda")
    with gpumlp.use_backend("numpy"):
        assert network().alternatives == ("numpy",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nmpy",), UnknownName, "did you mean 'numpy'"),
        (("numpy", "cuda"), ConfigurationError, "cannot compute on device 'cuda'"),
        (("cuda", "cuda:99"), BackendUnavailable, 'backend "cuda"'),
        (("numpy", None, "tf32"), ConfigurationError, "not as precision='tf32'"),
    ],
)
def test_a_move_that_cannot_be_raises_and_nothing_has_moved(arguments, error, message):
    net = network()
    before = bits(net), net.backend
    with pytest.raises(error, match=message):
        net.move_to(*arguments)
    assert (bits(net), net.backend) == before


def test_a_precision_that_would_be_lost_has_to_be_given_up_by_name():
    if why_unavailable("cuda"):
        pytest.skip(why_unavailable("cuda"))
    net = network(backend="cuda", precision="tf32")
    with pytest.raises(ConfigurationError, match=r"products as tf32.*move_to\(\"numpy\", precision=\"float32\"\)"):
        net.move_to("numpy")
    net.move_to("cuda")
    assert net.backend.precision == "tf32"
    net.move_to("numpy", precision="float32")
    assert net.backend.precision == "float32"
