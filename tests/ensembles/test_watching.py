"""The monitors of a job see a run of one model."""

from dataclasses import replace

import numpy as np
import pytest
from comparing import theta
from fleet import data, job, solo

import gpumlp
from gpumlp.ensembles import train


class Notes(gpumlp.Monitor):
    """Notes all that it is told."""

    def __init__(self, stops_after=None):
        self.seen, self.stops_after = [], stops_after

    def training_began(self, run):
        self.seen.append(("began", run.n_models, run.model_ids, run.first_epoch, run.epochs, run.n_rows, run.n_steps))
        self.keeper = run.keeper()
        self.keeper.save(np.ones(1, bool))

    def epoch_began(self, epoch):
        self.seen.append(("epoch", epoch))

    def step_ended(self, step):
        self.seen.append(("step", step))

    def epoch_ended(self, report):
        Y, outputs = report.predictions()
        values = {name: value.tolist() for name, value in report.values.items()}
        self.seen.append((report.epoch, report.step, values, report.active.tolist(), Y.tolist(), outputs.tolist()))
        return gpumlp.Stop("enough", np.ones(1, bool)) if report.epoch == self.stops_after else None

    def training_ended(self):
        self.keeper.restore(np.ones(1, bool))
        self.seen.append("ended")


def notes(stops_after, **options):
    rows = np.arange(61)
    return job(rows=rows[:50], validation_rows=rows[50:], monitors=[Notes(stops_after)], **options)


def test_a_jobs_monitors_are_told_what_a_solo_fit_tells_them():
    X, Y = data()
    stops = [None, 2, 1, None]
    options = [{}, {"hidden": (4,), "epochs": 5}, {"activation": "relu", "dropout": 0.3}, {"epochs": 2, "seed": 3}]
    jobs = [notes(s, **o) for s, o in zip(stops, options, strict=True)]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    for one, outcome, s, o in zip(jobs, outcomes, stops, options, strict=True):
        alone = notes(s, **o)
        network, history, _ = solo(alone, X, Y)
        assert one.monitors[0].seen == alone.monitors[0].seen
        assert outcome.history.stopped == history.stopped
        assert np.array_equal(theta(outcome.network), theta(network))


def test_two_jobs_cannot_share_a_monitor():
    shared = gpumlp.EarlyStopping("cost")
    with pytest.raises(gpumlp.errors.ConfigurationError, match=r"jobs\[0\] has a EarlyStopping .* one of its own"):
        train([job(monitors=[shared]), job(monitors=[shared])], *data(), backend="numpy")


class Juggler(gpumlp.Monitor):
    """Saves and gives back weights by two keepers, in an order that matters."""

    def training_began(self, run):
        self.first, self.second = run.keeper(), run.keeper()
        self.first.save(np.ones(1, bool))
        self.second.save(np.zeros(1, bool))

    def epoch_ended(self, report):
        one = np.ones(1, bool)
        if report.epoch == 1:
            self.second.save(one)
            self.first.restore(one)
            self.first.save(one)
        elif report.epoch == 2:
            self.second.restore(one)
            self.first.restore(one)
            self.second.save(one)

    def training_ended(self):
        self.first.restore(np.ones(1, bool))
        self.second.restore(np.ones(1, bool))


def test_what_several_keepers_save_and_give_back_comes_in_the_order_of_the_calls():
    X, Y = data()
    jobs = [job(monitors=[Juggler()]), job(hidden=(4,), monitors=[Juggler(), gpumlp.KeepBest("cost")]), job()]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    for one, outcome in zip(jobs, outcomes, strict=True):
        alone = replace(
            one, monitors=[type(m)("cost") if m is not one.monitors[0] else Juggler() for m in one.monitors]
        )
        assert np.array_equal(theta(outcome.network), theta(solo(alone, X, Y)[0]))


class Empties(gpumlp.Monitor):
    """Keeps zeros in place of the weights that it saved, and gives them back in the end."""

    def training_began(self, run):
        self.keeper = run.keeper()
        self.keeper.save(np.ones(1, bool))
        self.kept = np.array(self.keeper.kept())
        self.keeper.keep(np.zeros_like(self.kept))

    def training_ended(self):
        self.keeper.restore(np.ones(1, bool))


class SavesWithinAnEpoch(gpumlp.Monitor):
    """Gives back the weights as of a step in the last epoch."""

    def training_began(self, run):
        self.keeper = run.keeper()

    def epoch_began(self, epoch):
        self.epoch = epoch

    def step_ended(self, step):
        if (self.epoch, step) == (5, 2):
            self.keeper.save(np.ones(1, bool))

    def training_ended(self):
        self.keeper.restore(np.ones(1, bool))


def test_what_a_jobs_keeper_holds_can_be_read_and_replaced():
    X, Y = data()
    jobs = [job(epochs=2), job(epochs=2, monitors=[Empties()], seed=1), notes(None, epochs=2, seed=2)]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    first = gpumlp.Network(outcomes[1].network.sizes, dtype="float64", backend="numpy", seed=1)
    assert jobs[1].monitors[0].kept.shape[0] == 1
    assert np.isin(first.weights[0], jobs[1].monitors[0].kept).all()
    assert not theta(outcomes[1].network).any()
    assert all(theta(outcome.network).any() for outcome in (outcomes[0], outcomes[2]))


def test_weights_are_kept_within_an_epoch_while_other_models_have_stopped():
    X, Y = data()
    jobs = [job(epochs=1, seed=1), job(epochs=5, monitors=[SavesWithinAnEpoch()])]
    outcomes = train(jobs, X, Y, dtype="float64", backend="numpy")
    alone = replace(jobs[1], monitors=[SavesWithinAnEpoch()])
    assert np.array_equal(theta(outcomes[1].network), theta(solo(alone, X, Y)[0]))
