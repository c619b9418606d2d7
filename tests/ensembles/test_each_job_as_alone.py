"""Every model of a fleet is what it would be alone."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from comparing import theta
from fleet import data, job, mixed_jobs, solo, with_monitors

import gpumlp
from gpumlp.ensembles import plan, train, training


def same_histories(found, expected):
    assert found.names == expected.names
    assert found.stopped == expected.stopped
    assert np.array_equal(found.epochs, expected.epochs)
    for name in found.names:
        assert np.array_equal(found[name], expected[name], equal_nan=True), name


KINDS = {
    "adam": {},
    "sgd, orders as rows stand, no weights": {"rule": "sgd", "shuffle": False, "sample_weight": None, "n_hidden": 1},
    "momentum of weights alone, sums": {"rule": "momentum", "momentum_on_biases": False, "reduction": "sum"},
    "adamw, full batch, penalties by batch": {"rule": "adamw", "batch_size": "full", "penalty": "batch"},
    "biases stay, no validation": {
        "train_biases": False, "validation_rows": None, "monitors": (), "schedule": "cosine", "n_hidden": 3
    },
    "layers normalised": {"normalisation": "layer", "hidden": (5,), "activation": "tanh", "dropout": 0.25},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_64_jobs_that_differ_in_all_they_may_are_bit_for_bit_as_alone(kind):
    X, Y = data()
    jobs = mixed_jobs(64, len(X), **kind)
    stacks = plan([with_monitors(one) for one in jobs], X, Y, backend="numpy").stacks
    assert len(stacks) < 16
    outcomes = train([with_monitors(one) for one in jobs], X, Y, dtype="float64", backend="numpy")
    for one, outcome in zip(jobs, outcomes, strict=True):
        network, history, error = solo(with_monitors(one), X, Y)
        assert np.array_equal(theta(outcome.network), theta(network))
        assert outcome.network.sizes == network.sizes
        same_histories(outcome.history, history)
        assert str(outcome.error) == str(error)


class Adds(gpumlp.Monitor):
    """Adds a value of its own to each report."""

    def epoch_ended(self, report):
        report.values["twice the cost"] = 2 * report.values["cost"]


def test_a_history_holds_what_its_own_monitors_add_and_nothing_of_the_others():
    X, Y = data()
    jobs = [job(hidden=(4,), seed=n, epochs=2 + n, monitors=(Adds(),) * (n % 2)) for n in range(4)]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    for n, (one, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
        same_histories(outcome.history, solo(replace(one, monitors=(Adds(),) * (n % 2)), X, Y)[1])
        assert len(outcome.history) == 2 + n
        again = pickle.loads(pickle.dumps(outcome.history))
        same_histories(again, outcome.history)
        assert np.array_equal(again.samples_per_second, outcome.history.samples_per_second)
    alone = train([jobs[0]], X, Y, dtype="float64", backend="numpy")[0].history
    assert len(pickle.dumps(outcomes[0].history)) == len(pickle.dumps(alone))


def test_jobs_with_embeddings_are_bit_for_bit_as_alone_beside_others_and_without():
    X, Y = data()
    X[:, 1], X[:, 4] = np.arange(len(X)) % 4 - 1, np.arange(len(X)) // 3 % 5
    embedded = [(gpumlp.Embedding(1, 3, 2), gpumlp.Embedding(4, 5, 3)), (gpumlp.Embedding(1, 3, 2),), ()]
    jobs = [
        job(hidden=(4 + n,), embeddings=embedded[n % 3], seed=n, learning_rate=0.01 * (n + 1), l2=0.1 * (n % 2))
        for n in range(12)
    ]
    assert len(plan(jobs, X, Y, backend="numpy").stacks) >= 3
    for one, outcome in zip(jobs, train(jobs, X, Y, dtype="float64", backend="numpy"), strict=True):
        network, history, _ = solo(one, X, Y)
        assert outcome.network.architecture.embeddings == one.member.architecture.embeddings
        assert np.array_equal(theta(outcome.network), theta(network))
        same_histories(outcome.history, history)


def test_a_model_that_diverges_keeps_its_last_finite_epoch_and_touches_no_other():
    X, Y = data()
    jobs = [job(), job(hidden=(4,), optimizer="sgd", learning_rate=1e300, l2=1e10), job(optimizer="sgd", clip_norm=1.0)]
    jobs += [job(optimizer="sgd", learning_rate=0.1, epochs=5), job(optimizer="sgd", learning_rate=1e200, l1=1e200)]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, True, False]
    for one, outcome in zip(jobs, outcomes, strict=True):
        network, history, error = solo(one, X, Y)
        assert np.array_equal(theta(outcome.network), theta(network))
        same_histories(outcome.history, history)
        assert str(outcome.error) == str(error)


def test_weights_that_a_job_is_given_are_what_it_begins_with():
    X, Y = data()
    draw = np.random.default_rng(3)
    weights = [(draw.standard_normal((4, 5)), draw.standard_normal(4)), (draw.standard_normal((3, 4)), np.zeros(3))]
    jobs = [job(hidden=(7,)), job(hidden=(4,), weights=weights), job(hidden=(4,), epochs=0, weights=weights)]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    for one, outcome in zip(jobs, outcomes, strict=True):
        assert np.array_equal(theta(outcome.network), theta(solo(one, X, Y)[0]))
    assert np.array_equal(outcomes[2].network.weights[0][0], weights[0][0])


def test_what_is_done_with_a_job_is_told_as_soon_as_its_stack_has_finished():
    X, Y = data()
    told = []
    jobs = [job(), job(optimizer="sgd"), job(hidden=(5,))]
    outcomes = train(jobs, X, Y, backend="numpy", done=lambda i, outcome: told.append((i, outcome)))
    assert sorted(i for i, _ in told) == [0, 1, 2]
    assert all(outcomes[i] is outcome for i, outcome in told)


def test_the_time_of_a_stack_is_shared_out_by_epochs(monkeypatch):
    X, Y = data()
    jobs = [job(epochs=1), job(epochs=3), job(epochs=0), job(epochs=0, seed=1)]
    clock = iter((10.0, 18.0, 20.0, 26.0))  # at the beginning and the end of both stacks
    monkeypatch.setattr(training, "perf_counter", lambda: next(clock))
    outcomes = train(jobs, X, Y, backend="numpy")
    assert [outcome.seconds for outcome in outcomes] == [2.0, 6.0, 3.0, 3.0]


def test_numbers_are_trained_on_as_labels_are():
    X, _ = data()
    Y = np.tanh(X[:, :3])
    build = gpumlp.network.architecture.build_architecture
    members = [gpumlp.network.members.Member(build((5, n, 3), "tanh", "identity", "quadratic"), (0.0,)) for n in (3, 4)]
    jobs = [gpumlp.ensembles.Job(member, 2) for member in members]
    for one, outcome in zip(jobs, train(jobs, X, Y, dtype="float64", backend="numpy"), strict=True):
        assert np.array_equal(theta(outcome.network), theta(solo(one, X, Y)[0]))


def of_rounding_alone(one):
    """Return the job without what turns on a comparison, which the last bit of a cost may decide."""
    schedule = "cosine" if str(one.schedule).startswith("reduce") else one.schedule
    return replace(one, monitors=(), schedule=schedule, epochs=30 + one.epochs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_after_100_steps_each_job_is_as_alone_on_every_backend(dtype, backend, affordable_steps):
    X, Y = data()
    n_jobs = 4 if affordable_steps < 10**9 else 12
    jobs = [of_rounding_alone(one) for one in mixed_jobs(n_jobs, len(X), seed=1, widths=(8, 11))]
    assert len(plan(jobs, X, Y, backend=backend).stacks) == 1
    outcomes = train(jobs, X, Y, dtype=dtype, backend=backend)
    near = {"float32": 1e-4, "float64": 1e-10}[dtype]
    for one, outcome in zip(jobs, outcomes, strict=True):
        expected = theta(solo(one, X, Y, dtype, backend)[0])
        assert np.abs(theta(outcome.network) - expected).max() <= near * np.abs(expected).max()
