"""What a job's monitors may look at while a stack is trained, and what is left to go on from."""

from dataclasses import replace

import numpy as np
import pytest
from comparing import theta
from fleet import data, job, solo

import gpumlp
from gpumlp.ensembles import train

HIDDEN = ((6,), (4,), (5,))


class Look(gpumlp.Monitor):
    """Keeps the weights at each end of an epoch, and stops after some."""

    def __init__(self, last):
        self.last, self.seen = last, []

    def training_began(self, run):
        self.network = run.network

    def epoch_ended(self, report):
        self.seen.append(theta(self.network()))
        return gpumlp.Stop("seen enough") if report.epoch == self.last else None


def test_a_monitor_sees_the_weights_of_its_own_model_as_they_are():
    X, Y = data()
    jobs = [job(epochs=6, hidden=hidden, seed=s, learning_rate=0.05) for s, hidden in enumerate(HIDDEN)]
    looks = [Look(last) for last in (2, 6, 4)]  # so that the stack is rebuilt without those that have stopped
    train(
        [replace(one, monitors=[look]) for one, look in zip(jobs, looks, strict=True)],
        X,
        Y,
        dtype="float64",
        backend="numpy",
    )
    for one, look in zip(jobs, looks, strict=True):
        alone = Look(look.last)
        solo(replace(one, monitors=[alone]), X, Y)
        assert len(look.seen) == look.last
        assert all(map(np.array_equal, look.seen, alone.seen))


class LookAtSteps(gpumlp.Monitor):
    """Keeps the weights after each step."""

    def training_began(self, run):
        self.network, self.seen = run.network, []

    def step_ended(self, step):
        self.seen.append(theta(self.network()).copy())


class StepBack(gpumlp.Monitor):
    """Gives back in the middle of the fourth epoch the weights of the first step of the third."""

    def training_began(self, run):
        self.keeper = run.keeper()

    def epoch_began(self, epoch):
        self.epoch = epoch

    def step_ended(self, step):
        if (self.epoch, step) == (3, 1):
            self.keeper.save(np.ones(1, bool))
        if (self.epoch, step) == (4, 2):
            self.keeper.restore(np.ones(1, bool))


@pytest.mark.parametrize(
    "monitors", [[(), (LookAtSteps,), (StepBack, LookAtSteps)], [(), (StepBack,), ()]], ids=["looking", "going back"]
)
def test_within_an_epoch_models_are_as_alone_when_others_have_stopped_before(monitors):
    X, Y = data()
    jobs = [job(epochs=epochs, seed=seed) for seed, epochs in enumerate((1, 5, 5))]
    watched = [replace(one, monitors=[m() for m in some]) for one, some in zip(jobs, monitors, strict=True)]
    outcomes = train(watched, X, Y, dtype="float64", backend="numpy")
    for one, some, outcome in zip(watched, monitors, outcomes, strict=True):
        alone = replace(one, monitors=[m() for m in some])
        assert np.array_equal(theta(outcome.network), theta(solo(alone, X, Y)[0]))
        if LookAtSteps in some:
            looks = one.monitors[-1], alone.monitors[-1]
            assert all(map(np.array_equal, *(look.seen for look in looks)))
            assert len(looks[0].seen) == len(looks[1].seen) == 5 * 4


class LookInTheEnd(gpumlp.Monitor):
    """Keeps the weights that it finds in the end, when the monitors after it have given theirs back."""

    def training_began(self, run):
        self.network = run.network

    def training_ended(self):
        self.seen = theta(self.network()).copy()


def test_a_monitor_sees_in_the_end_what_another_one_has_given_back():
    X, Y = data()
    rows = np.arange(61)
    jobs = [
        job(epochs=6, seed=s, rows=rows[:40], validation_rows=rows[40:], learning_rate=rate)
        for s, rate in enumerate((0.5, 1e-3, 0.5))
    ]
    looks = [LookInTheEnd() for _ in jobs]
    watched = [replace(one, monitors=[look, gpumlp.KeepBest()]) for one, look in zip(jobs, looks, strict=True)]
    outcomes = train(watched, X, Y, dtype="float64", backend="numpy")
    assert any(outcome.history["validation_cost"][:, 0].argmin() < 5 for outcome in outcomes)
    for look, outcome in zip(looks, outcomes, strict=True):
        assert np.array_equal(look.seen, theta(outcome.network))


@pytest.mark.parametrize("normalisation", [None, "layer"])
def test_a_trainer_goes_on_from_where_a_job_has_ended(normalisation):
    X, Y = data()
    hidden = [(5,)] * 3 if normalisation else HIDDEN
    jobs = [job(epochs=3, hidden=h, normalisation=normalisation, seed=s) for s, h in enumerate(hidden)]
    for one, outcome in zip(jobs, train(jobs, X, Y, dtype="float64", backend="numpy"), strict=True):
        trainer = gpumlp.Trainer(outcome.network, batch_size=16, state=outcome.state)
        trainer.go_on_from(3 * 4, 3)
        trainer.fit(X, Y, epochs=2)
        assert np.array_equal(theta(outcome.network), theta(solo(replace(one, epochs=5), X, Y)[0]))
