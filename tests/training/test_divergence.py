import pickle

import numpy as np
import pytest
from comparing import is_same_model, theta
from small import data, network

import gpumlp
from gpumlp.errors import DivergenceError


def poisoned(dtype, row=7):
    """Return data of which one row has a cost that is not finite, though every number is."""
    X, Y = data()
    X, Y = X.astype(dtype), Y.astype(dtype)
    X[row] = np.finfo(dtype).max / 8
    return X, Y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", [0, 7, 22])
def test_the_error_names_model_epoch_and_first_bad_step(row, dtype, backend):
    X, Y = poisoned(dtype, row)
    net = network((4, 2), (), dtype=dtype, model_ids=[6], backend=backend)
    before = theta(net)
    order = np.arange(23)[None]
    with pytest.raises(DivergenceError) as error:
        gpumlp.Trainer(net, "sgd", batch_size=5, learning_rate=1e-3).fit(X, Y, 1, order=order)
    assert (error.value.model, error.value.epoch, error.value.step) == (6, 1, row // 5 + 1)
    assert f"model 6 diverged in epoch 1: its cost or weights are not finite from step {row // 5 + 1} on" in str(
        error.value
    )
    assert np.array_equal(theta(net), before)


def test_steps_and_epochs_are_counted_from_the_last_reset(backend):
    X, Y = data()
    bad, _ = poisoned("float64", row=12)
    net = network((4, 2), (), backend=backend)
    trainer = gpumlp.Trainer(net, "sgd", batch_size=5, learning_rate=1e-3)
    trainer.fit(X, Y, 3)
    last = theta(net)
    with pytest.raises(DivergenceError) as error:
        trainer.fit(bad, Y, 2, order=np.array([np.arange(23)] * 2))
    assert (error.value.epoch, error.value.step) == (4, 15 + 3)
    assert np.array_equal(theta(net), last)
    trainer.reset()
    assert len(trainer.fit(X, Y, 1)) == 1


def test_weights_that_are_not_finite_are_found_though_the_cost_is(backend):
    """The last step of an epoch overflows the weights: its cost was computed before."""
    X, Y = data()
    net = network((4, 2), (), dtype="float32", backend=backend)
    before = theta(net)
    with pytest.raises(DivergenceError) as error:
        gpumlp.Trainer(net, "sgd", batch_size="full", learning_rate=3e38).fit(X * 100, Y * 100, 3)
    assert (error.value.epoch, error.value.step) == (1, 1)
    assert np.array_equal(theta(net), before)


def test_a_model_that_diverges_stops_and_the_others_go_on_as_if_alone(backend):
    X, Y = data()
    rates = [0.01, 30.0, 0.02]
    stack = network(n_models=3, activation="identity", backend=backend)
    history = gpumlp.Trainer(stack, "sgd", learning_rate=rates, batch_size=5).fit(X, Y, 60)
    assert set(history.stopped) == {1}
    costs = history["cost"][:, 1]
    bad = int(np.flatnonzero(~np.isfinite(costs))[0]) + 1
    assert 1 < bad < 60
    assert history.stopped[1].startswith(f"diverged in epoch {bad}, step ")
    assert 5 * (bad - 1) < int(history.stopped[1].rpartition(" ")[2]) <= 5 * bad
    for m in (0, 2):
        alone = network(model_ids=[m], activation="identity", backend=backend)
        gpumlp.Trainer(alone, "sgd", learning_rate=rates[m], batch_size=5).fit(X, Y, 60)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)
    until = network(model_ids=[1], activation="identity", backend=backend)
    gpumlp.Trainer(until, "sgd", learning_rate=30.0, batch_size=5).fit(X, Y, bad - 1)
    assert is_same_model(theta(until)[0], theta(stack)[1], backend)
    assert np.isfinite(theta(stack)).all()


def test_a_stack_may_be_asked_to_raise(backend):
    net = network(n_models=3, backend=backend)
    with pytest.raises(DivergenceError) as error:
        gpumlp.Trainer(net, "sgd", [0.01, 1e200, 0.01], on_divergence="raise").fit(*data(), 5)
    assert error.value.model == 1
    assert np.isfinite(theta(net)).all()


def test_it_raises_when_no_model_remains(backend):
    net = network(n_models=2, backend=backend)
    with pytest.raises(DivergenceError):
        gpumlp.Trainer(net, "sgd", [1e200, 1e200]).fit(*data(), 5)
    single = network(backend=backend)
    with pytest.raises(DivergenceError):
        gpumlp.Trainer(single, "sgd", 1e200, on_divergence="stop").fit(*data(), 5)


def test_a_reset_lets_a_diverged_model_run_again(backend):
    net = network(n_models=2, backend=backend)
    trainer = gpumlp.Trainer(net, "momentum", [0.01, 1e200])
    trainer.fit(*data(), 2)
    trainer.reset()
    assert np.isfinite(theta(net)).all()
    assert all(np.isfinite(net.backend.to_host(buffer)).all() for buffer in trainer.state.values())
    assert len(trainer.fit(*data(), 1)) == 1


def test_a_rate_that_is_too_large_for_the_dtype_is_found(backend):
    net = network(dtype="float32", backend=backend)
    with pytest.raises(DivergenceError):
        gpumlp.Trainer(net, "sgd", 1e200).fit(*data(), 2)


def test_the_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(DivergenceError("model 3 diverged", 3, 2, 9)))
    assert (str(error), error.model, error.epoch, error.step) == ("model 3 diverged", 3, 2, 9)


def test_a_model_that_diverged_stays_stopped_and_says_why_until_a_reset(backend):
    net = network(n_models=2, backend=backend)
    trainer = gpumlp.Trainer(net, "sgd", [0.01, 1e200], batch_size=5)
    trainer.fit(*data(), 2)
    kept = theta(net)[1]
    history = trainer.fit(*data(), 2)
    assert history.stopped[1].startswith("diverged in epoch 1")
    assert np.isnan(history["cost"][:, 1]).all()
    assert np.array_equal(theta(net)[1], kept)


def test_going_on_with_nothing_but_diverged_models_is_refused(backend):
    trainer = gpumlp.Trainer(network(backend=backend), "sgd", 1e200, batch_size=5)
    with pytest.raises(DivergenceError):
        trainer.fit(*data(), 2)
    assert trainer.history is not None
    assert len(trainer.history) == 1
    with pytest.raises(gpumlp.errors.ConfigurationError, match="reset"):
        trainer.fit(*data(), 2)


def test_a_model_shows_no_validation_cost_for_the_epoch_in_which_it_diverged(backend):
    trainer = gpumlp.Trainer(network(n_models=2, backend=backend), "sgd", [0.01, 1e200], batch_size=5)
    history = trainer.fit(*data(), 1, validation=data(n=5))
    assert 1 in history.stopped
    assert np.isfinite(history["validation_cost"][0]).tolist() == [True, False]
