"""What has stopped is no longer computed, and nobody can tell: neither the models that go on, nor monitors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from stopping import StopAt

from gpumlp import EarlyStopping, Folds, KeepBest, Network, Trainer, schedules
from gpumlp.errors import OutOfMemory
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member
from gpumlp.training import active
from gpumlp.training.data_set import TrainingSet
from gpumlp.training.monitors import Monitor

N = 6


class LookAndStop(StopAt):
    """Remembers what it has seen, too."""

    def __init__(self, ends):
        super().__init__(ends)
        self.seen = []

    def epoch_ended(self, report):
        self.seen.append({name: value.copy() for name, value in report.values.items()})
        return super().epoch_ended(report)


@pytest.fixture(params=["alike", "mixed"])
def members(request):
    widths = [4] * N if request.param == "alike" else [3, 3, 7, 5, 5, 2]
    rates = (0.25,) if request.param == "alike" else (0.0,)
    nets = [build_architecture((5, w, 3), ["relu"], "softmax", "categorical_cross_entropy") for w in widths]
    return [Member(net, rates, seed=3, model_id=m) for m, net in enumerate(nets)]


def data(n_rows=29):
    draw = np.random.default_rng(4)
    return draw.standard_normal((n_rows, 5)), draw.integers(0, 3, n_rows)


def run(members, backend, monitors, options=None, fit=None, epochs=7):
    net = Network.mixed(members, dtype="float64", backend=backend)
    trainer = Trainer(net, batch_size=8, on_divergence="stop", **{"learning_rate": 0.05, **(options or {})})
    history = trainer.fit(*data(), epochs, validation=data(15), monitors=monitors, **(fit or {}))
    return net, trainer, history


def rebuilt(monkeypatch):
    """Count how often a stack is rebuilt."""
    sizes, build = [], active.part_of
    monkeypatch.setattr(active, "part_of", lambda whole, models: sizes.append(len(models)) or build(whole, models))
    return sizes


def never(monkeypatch):
    monkeypatch.setattr(active, "WORTH_REBUILDING", 2.0)


OPTIONS = [
    ({}, {}),
    ({"optimizer": "momentum", "l2": np.linspace(0, 0.1, N), "clip_norm": np.linspace(0.1, 1, N)}, {}),
    ({"schedule": [schedules.exponential(1 - 0.1 * m) for m in range(N)]}, {}),
    ({"schedule": "reduce_on_plateau(patience=0)"}, {}),
    ({"shuffle": "shared", "steps_per_launch": 3}, {"sample_weight": np.random.default_rng(5).random((N, 29))}),
    ({}, {"folds": Folds(tuple(np.arange(f, 29, 2)[:14] for f in range(2)), tuple(m % 2 for m in range(N)))}),
]


@pytest.mark.parametrize("which", range(len(OPTIONS)))
def test_models_go_on_with_the_same_numbers_when_others_have_stopped(which, members, backend, monkeypatch):
    ends, (options, fit) = [2, 7, 1, 4, 7, 4], OPTIONS[which]
    watching = LookAndStop(ends), KeepBest("cost")
    sizes = rebuilt(monkeypatch)
    net, trainer, history = run(members, backend, watching, options, fit)
    assert sizes == [4, 2]
    never(monkeypatch)
    others = LookAndStop(ends), KeepBest("cost")
    its_net, its_trainer, its_history = run(members, backend, others, options, fit)
    assert sizes == [4, 2]
    equal = partial(np.allclose, rtol=1e-10, atol=1e-12) if backend == "cuda" else np.array_equal
    assert equal(net.backend.to_host(net.parameters.theta), its_net.backend.to_host(its_net.parameters.theta))
    for name in trainer.state:
        mine, its = (t.net.backend.to_host(t.state[name]) for t in (trainer, its_trainer))
        assert equal(mine, its)
    assert history.stopped == its_history.stopped
    for name in history:
        assert equal(history[name], its_history[name], equal_nan=True), name
    assert [sorted(values) for values in watching[0].seen] == [sorted(values) for values in others[0].seen]
    assert trainer.step_count == its_trainer.step_count


def test_a_trainer_goes_on_with_all_models_in_its_next_fit(members, backend, monkeypatch):
    net, trainer, _ = run(members, backend, [StopAt([1, 1, 1, 1, 3, 3])], epochs=3)
    trainer.fit(*data(), 2)
    never(monkeypatch)
    its_net, its_trainer, _ = run(members, backend, [StopAt([1, 1, 1, 1, 3, 3])], epochs=3)
    its_trainer.fit(*data(), 2)
    assert np.allclose(net.predict(data()[0]), its_net.predict(data()[0]), rtol=1e-10, atol=0)


def test_a_model_that_diverges_late_is_given_its_last_finite_weights(members, backend):
    rates = np.full(N, 1e-2)
    net, trainer, _ = run(members, backend, [StopAt([1, 1, 9, 9, 9, 9])], {"learning_rate": rates}, epochs=2)
    assert not trainer.has_diverged.any()
    trainer.hyper.values["eta"][:, 3] = 1e300
    before = [w.copy() for w in net.alone(3).weights]
    history = trainer.fit(*data(), 4, monitors=[StopAt([3, 3, 9, 9, 9, 9])])
    assert trainer.has_diverged.tolist() == [False, False, False, True, False, False]
    assert "diverged" in history.stopped[3]
    assert all(np.array_equal(x, y) for x, y in zip(net.alone(3).weights, before, strict=True))


class Explode(Monitor):
    """Has a model diverge in the epoch that follows one."""

    def __init__(self, model, after):
        self.model, self.after = model, after

    def epoch_ended(self, report):
        if report.epoch == self.after:
            net = self.trainer.net
            self.weights = [w.copy() for w in net.alone(self.model).weights]
            self.trainer.hyper.values["eta"][:, self.model] = 1e300


def test_a_model_that_diverges_in_a_rebuilt_stack_is_given_its_last_finite_weights(members, backend, monkeypatch):
    net = Network.mixed(members, dtype="float64", backend=backend)
    explode, sizes = Explode(3, after=3), rebuilt(monkeypatch)
    explode.trainer = trainer = Trainer(net, batch_size=8, learning_rate=0.05, on_divergence="stop")
    trainer.fit(*data(), 6, monitors=[StopAt([1, 1, 9, 9, 9, 9]), explode])
    assert sizes == [4, 3]
    assert trainer.has_diverged.tolist() == [False, False, False, True, False, False]
    assert all(np.array_equal(x, y) for x, y in zip(net.alone(3).weights, explode.weights, strict=True))


def test_a_model_that_stops_in_a_rebuilt_stack_stays_as_it_is(members, backend, monkeypatch):
    sizes, ends = rebuilt(monkeypatch), [1, 1, 9, 3, 9, 9]
    monkeypatch.setattr(active, "WORTH_REBUILDING", 0.3)
    net, *_ = run(members, backend, [StopAt(ends)], epochs=5)
    assert sizes == [4]
    its_net, *_ = run(members, backend, [StopAt(ends)], epochs=3)
    for x, y in zip(net.alone(3).weights, its_net.alone(3).weights, strict=True):
        assert np.allclose(x, y, rtol=1e-10, atol=1e-12)


def test_early_stopping_gives_every_model_its_best_weights_back(members, backend, monkeypatch):
    stopping = EarlyStopping("validation_cost", patience=1)
    sizes = rebuilt(monkeypatch)
    net, _, history = run(members, backend, [stopping], {"learning_rate": 0.2}, epochs=30)
    assert sizes
    best = np.nanmin(history["validation_cost"], axis=0)
    assert np.allclose(net.evaluate(*data(15))["cost"], best, rtol=1e-9)


class LookAtEachStep(Monitor):
    """Remembers the weights after each step."""

    def __init__(self):
        self.seen = []

    def training_began(self, run):
        self.network = run.network

    def look(self):
        net = self.network()
        return net.backend.to_host(net.parameters.theta)

    def step_ended(self, step):
        self.seen.append(np.array(self.look()))


class KeepEachStep(LookAtEachStep):
    def training_began(self, run):
        self.keeper = run.keeper()

    def look(self):
        self.keeper.save(np.ones(N, bool))
        return self.keeper.kept()


@pytest.mark.parametrize("Look", [LookAtEachStep, KeepEachStep])
def test_a_monitor_sees_the_weights_of_each_step(Look, members, backend, monkeypatch):
    look, other = Look(), Look()
    sizes = rebuilt(monkeypatch)
    run(members, backend, [look, StopAt([1, 1, 4, 4, 4, 4])], epochs=3)
    assert sizes == [4]
    never(monkeypatch)
    run(members, backend, [other, StopAt([1, 1, 4, 4, 4, 4])], epochs=3)
    for mine, its in zip(look.seen, other.seen, strict=True):
        assert np.allclose(mine, its, rtol=1e-10, atol=1e-12)


class Keeps(Monitor):
    """Keeps weights in the place of its first fit, as long as it lives."""

    keeper = None

    def training_began(self, run):
        self.keeper = self.keeper or run.keeper()

    def epoch_ended(self, report):
        self.keeper.save(report.active)


def test_a_keeper_of_an_earlier_fit_changes_nothing_of_a_later_one(members, backend):
    found = []
    for monitors in ([], [Keeps()]):
        net, trainer, _ = run(members, backend, [StopAt([1, 1, 4, 4, 4, 4]), *monitors], epochs=3)
        trainer.fit(*data(), 2, monitors=monitors)
        found.append(net.predict(data()[0]))
    assert np.array_equal(*found)


def full(*arguments):
    raise OutOfMemory("no room")


def test_where_there_is_no_room_to_rebuild_a_stack_its_models_go_on_all_the_same(members, backend, monkeypatch):
    monkeypatch.setattr(active, "part_of", full)
    net, _, history = run(members, backend, [StopAt([2, 7, 1, 4, 7, 4])])
    never(monkeypatch)
    its_net, _, its_history = run(members, backend, [StopAt([2, 7, 1, 4, 7, 4])])
    assert np.array_equal(net.predict(data()[0]), its_net.predict(data()[0]))
    assert np.array_equal(history["cost"], its_history["cost"], equal_nan=True)


def test_what_goes_wrong_while_a_stack_is_rebuilt_is_told(members, backend, monkeypatch):
    source = TrainingSet.source

    def full_then(data, trainer, *arguments):
        return source(data, trainer, *arguments) if trainer.net.n_models == N else full()

    monkeypatch.setattr(TrainingSet, "source", full_then)
    with pytest.raises(OutOfMemory, match="no room"):
        run(members, backend, [StopAt([1, 1, 9, 9, 9, 9])])


def test_neighbours_are_copied_together():
    assert [(a, b) for a, b in active.neighbours(np.array([0, 1, 4, 6, 7]))] == [
        (slice(0, 2), slice(0, 2)),
        (slice(2, 3), slice(4, 5)),
        (slice(3, 5), slice(6, 8)),
    ]
    assert list(active.neighbours(np.array([], int))) == []
