"""A training that is broken off and goes on from a checkpoint is the one that was never broken off."""

import errno
import os
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import small
from comparing import theta
from small import labelled, network

import gpumlp
from gpumlp import Checkpoints, CsvLog, EarlyStopping, JsonLinesLog, KeepBest, Monitor, ProgressBar
from gpumlp.errors import CheckpointError, ConfigurationError, OutOfMemory
from gpumlp.training import active
from gpumlp.training.checkpoint_file import DamagedCheckpoint, read_checkpoint, write_checkpoint

WEIGHTS = np.random.default_rng(2).uniform(0.5, 2, (3, 23))
ACTIVATIONS = ("tanh", "relu")
EPOCHS, STEPS = 4, 6  # of the trainings here: 23 rows, 4 a batch


class BreakOff(Monitor):
    """Ends a training as a killed process would, after so many steps of all epochs."""

    def __init__(self, steps):
        self.left = steps

    def step_ended(self, step):
        self.left -= 1
        if self.left < 0:
            raise Broken


class Broken(Exception):
    pass


def data():
    return labelled(23)


def validation():
    return labelled(7, seed=1)


OPTIONS = {
    "plain": {},
    "several models, each with its numbers": {"n_models": 3, "learning_rate": [0.02, 0.3, 0.001], "seed": [3, 1, 2]},
    "dropout": {"dropout": 0.4},
    "one order for all": {"n_models": 2, "shuffle": "shared", "seed": 5},
    "no order": {"shuffle": False},
    "clip and penalties": {"clip_norm": 0.5, "l2": 0.01, "l1": 0.001, "optimizer": "momentum"},
    "a warm-up and a cosine": {"schedule": gpumlp.schedules.cosine(warmup=1.5)},
    "steps of a schedule": {"schedule": "inverse_scaling", "optimizer": "sgd"},
    "a plateau": {"schedule": gpumlp.schedules.ReduceOnPlateau(patience=0, threshold=9), "n_models": 2},
    "normalised by layer": {"normalisation": "layer"},
    "normalised by batch": {"normalisation": "batch", "n_models": 2},
    "several steps at once": {"steps_per_launch": 4},
    "float32": {"dtype": "float32", "n_models": 2, "dropout": 0.2},
    "a schedule of each model": {"n_models": 3, "schedule": ["cosine", gpumlp.schedules.ReduceOnPlateau(), None]},
    "folds": {
        "n_models": 3,
        "fit": {"folds": gpumlp.Folds((np.arange(2, 22), np.arange(20) + 3), (0, 1, 0))},
    },
    "weighted rows": {"fit": {"sample_weight": np.linspace(0.1, 2, 23)}},
    "an order of one's own": {
        "fit": {"order": np.array([np.random.default_rng(e).permutation(23) for e in range(EPOCHS)])}
    },
}


def trained(backend, monitors=(), checkpoints=None, resume=False, epochs=EPOCHS, **options):
    """Train by these options, of the network, the trainer and of fit, and return trainer and history."""
    options = dict(options)
    of_fit = options.pop("fit", {})
    names = ("n_models", "dropout", "dtype", "seed", "normalisation", "model_ids")
    of_net = {name: options.pop(name) for name in names if name in options}
    net = network((4, 6, 3), output="softmax", cost="categorical_cross_entropy", backend=backend, **of_net)
    trainer = gpumlp.Trainer(net, **{"batch_size": 4, "learning_rate": 0.02} | options)
    history = trainer.fit(
        *data(), epochs, validation(), monitors=monitors, checkpoints=checkpoints, resume=resume, **of_fit
    )
    return trainer, history


def broken_off(backend, folder, steps, monitors=(), every="1steps", **options):
    with pytest.raises(Broken):
        trained(backend, [*monitors, BreakOff(steps)], Checkpoints(folder, every), **options)


def expect_same_training(one, other):
    """Compare two (trainer, history), bit for bit but for the seconds."""
    (trainer, history), (trainer2, history2) = one, other
    assert theta(trainer.net).tobytes() == theta(trainer2.net).tobytes()
    for name, buffer in trainer.state.items():
        host = trainer.net.backend.to_host
        assert host(buffer).tobytes() == host(trainer2.state[name]).tobytes()
    assert trainer.step_count == trainer2.step_count
    assert trainer.diverged == trainer2.diverged
    assert trainer.has_diverged.tolist() == trainer2.has_diverged.tolist()
    plain, plain2 = history.to_dict(), history2.to_dict()
    for timed in ("seconds", "samples_per_second"):
        assert len(plain.pop(timed)) == len(plain2.pop(timed))
    assert repr(plain) == repr(plain2)  # in which NaN is NaN


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_training_that_goes_on_within_an_epoch_is_the_one_that_was_not_broken_off(options, backend, tmp_path):
    whole = trained(backend, [KeepBest(), EarlyStopping(patience=2)], **options)
    broken_off(backend, tmp_path, STEPS + 3, [KeepBest(), EarlyStopping(patience=2)], every="2steps", **options)
    again = trained(
        backend, [KeepBest(), EarlyStopping(patience=2)], Checkpoints(tmp_path, "2steps"), resume=True, **options
    )
    expect_same_training(whole, again)


@pytest.mark.parametrize("steps", range(1, EPOCHS * STEPS))
def test_it_may_be_broken_off_after_any_step(steps, tmp_path):
    options = {"n_models": 2, "dropout": 0.3, "normalisation": "batch", "schedule": "cosine"}
    whole = trained("numpy", [KeepBest()], **options)
    broken_off("numpy", tmp_path, steps, [KeepBest()], **options)
    again = trained("numpy", [KeepBest()], Checkpoints(tmp_path), resume=True, **options)
    expect_same_training(whole, again)


def test_a_plateau_goes_on_with_the_rates_that_it_has_reached(backend, tmp_path):
    options = {"schedule": gpumlp.schedules.ReduceOnPlateau(patience=0, threshold=9), "n_models": 2}
    whole = trained(backend, **options)
    broken_off(backend, tmp_path, 2 * STEPS + 3, **options)
    again = trained(backend, checkpoints=Checkpoints(tmp_path), resume=True, **options)
    assert again[1]["learning_rate"][:, 0].round(12).tolist() == [0.02, 0.02, 0.002, 0.0002]
    expect_same_training(whole, again)


def test_early_stopping_goes_on_with_the_epochs_that_it_has_waited(backend, tmp_path):
    def watcher():
        return EarlyStopping("learning_rate", patience=3, mode="max")

    whole = trained(backend, [watcher()], epochs=8)
    assert len(whole[1]) == 4
    broken_off(backend, tmp_path, 2 * STEPS + 3, [watcher()], epochs=8)
    again = trained(backend, [watcher()], Checkpoints(tmp_path), resume=True, epochs=8)
    expect_same_training(whole, again)


def test_a_stack_that_was_rebuilt_without_stopped_models_goes_on(backend, tmp_path):
    options = {"n_models": 3, "learning_rate": [0.02, 0, 0.03], "dropout": 0.2, "fit": {"sample_weight": WEIGHTS}}
    whole = trained(backend, [EarlyStopping(patience=1)], **options)
    assert len(whole[1].stopped) == 1
    broken_off(backend, tmp_path, 2 * STEPS + 3, [EarlyStopping(patience=1)], **options)
    assert read_checkpoint(sorted(tmp_path.iterdir())[-1])["active"].tolist() == [0, 2]
    again = trained(backend, [EarlyStopping(patience=1)], Checkpoints(tmp_path, "1steps"), resume=True, **options)
    expect_same_training(whole, again)


class StopsSome(Monitor):
    """Stops two of eight models after the first epoch, which are worth rebuilding the stack, and one after the next."""

    def epoch_ended(self, report):
        stopped = {1: [1, 4], 2: [0]}.get(report.epoch, [])
        return gpumlp.Stop("enough", np.isin(np.arange(8), stopped))


def test_a_stack_goes_on_with_the_models_that_it_had_been_rebuilt_for(backend, tmp_path):
    whole = trained(backend, [StopsSome()], n_models=8)
    broken_off(backend, tmp_path, 2 * STEPS + 3, [StopsSome()], n_models=8)
    assert read_checkpoint(sorted(tmp_path.iterdir())[-1])["active"].tolist() == [0, 2, 3, 5, 6, 7]
    again = trained(backend, [StopsSome()], Checkpoints(tmp_path), resume=True, n_models=8)
    expect_same_training(whole, again)


def test_a_stack_that_had_no_room_to_be_rebuilt_goes_on_where_there_is_room(backend, tmp_path, monkeypatch):
    def full(*arguments):
        raise OutOfMemory("no room")

    wanted = trained(backend, [StopsSome()], n_models=8)
    with monkeypatch.context() as without_room:
        without_room.setattr(active, "part_of", full)
        broken_off(backend, tmp_path, 15, [StopsSome()], n_models=8)
    found = trained(backend, [StopsSome()], Checkpoints(tmp_path), resume=True, n_models=8)
    expect_same_training(found, wanted)


def test_a_stack_of_different_networks_goes_on(backend, tmp_path):
    def fit(monitors=(), checkpoints=None, resume=False, sizes=((4, 6, 3), (4, 5, 3))):
        nets = [network(s, a, "softmax", "categorical_cross_entropy") for s, a in zip(sizes, ACTIVATIONS, strict=True)]
        members = [replace(net.members[0], model_id=m, dropout=(0.1 * m,)) for m, net in enumerate(nets)]
        trainer = gpumlp.Trainer(gpumlp.Network.mixed(members, dtype="float64", backend=backend), batch_size=4)
        return trainer, trainer.fit(*data(), 3, monitors=monitors, checkpoints=checkpoints, resume=resume)

    with pytest.raises(Broken):
        fit([BreakOff(STEPS + 3)], Checkpoints(tmp_path, "1steps"))
    with pytest.raises(CheckpointError, match=r"the network differs: sizes is .*4, 5, 3.* and .*4, 6, 3"):
        fit((), Checkpoints(tmp_path), resume=True, sizes=((4, 6, 3), (4, 6, 3)))
    expect_same_training(fit(), fit((), Checkpoints(tmp_path), resume=True))


def different(backend):
    """A trainer of networks that differ in size."""
    nets = [network((4, n, 3), "tanh", "softmax", "categorical_cross_entropy") for n in (6, 2, 5)]
    members = [replace(net.members[0], model_id=m) for m, net in enumerate(nets)]
    return gpumlp.Trainer(gpumlp.Network.mixed(members, dtype="float64", backend=backend), batch_size=4)


@pytest.mark.parametrize("back", [False, True])
def test_another_backend_goes_on_with_different_networks(back, backend, tmp_path):
    first, second = (backend, "numpy") if back else ("numpy", backend)
    whole, begun, again = different("numpy"), different(first), different(second)
    whole.fit(*data(), 3, validation(), monitors=[KeepBest()])
    monitors, checkpoints = [KeepBest(), BreakOff(2 * STEPS + 3)], Checkpoints(tmp_path, "1steps")
    with pytest.raises(Broken):
        begun.fit(*data(), 3, validation(), monitors=monitors, checkpoints=checkpoints)
    again.fit(*data(), 3, validation(), monitors=[KeepBest()], checkpoints=Checkpoints(tmp_path), resume=True)
    for m in range(3):
        found, wanted = (theta(trainer.net.alone(m)) for trainer in (again, whole))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_a_checkpoint_of_different_networks_of_an_earlier_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.training.checkpoint_file.VERSION", 1)
    different("numpy").fit(*data(), 1, checkpoints=Checkpoints(tmp_path))
    trained("numpy", checkpoints=Checkpoints(tmp_path / "alike"))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"of an earlier gpumlp.*start anew in another folder"):
        different("numpy").fit(*data(), 2, checkpoints=Checkpoints(tmp_path), resume=True)
    trained("numpy", checkpoints=Checkpoints(tmp_path / "alike"), resume=True)


def test_models_that_diverge_come_back_from_their_last_finite_epoch(backend, tmp_path):
    def fit(monitors=(), checkpoints=None, resume=False):
        net = network(activation="identity", n_models=3, backend=backend)
        trainer = gpumlp.Trainer(net, "sgd", learning_rate=[0.01, 5, 2], batch_size=4)
        return trainer, trainer.fit(*small.data(), 4, monitors=monitors, checkpoints=checkpoints, resume=resume)

    whole = fit()
    assert whole[0].diverged == {1: "diverged in epoch 1, step 6", 2: "diverged in epoch 2, step 7"}
    for steps in (STEPS + 1, STEPS + 3, 2 * STEPS + 2):
        with pytest.raises(Broken):
            fit([BreakOff(steps)], Checkpoints(tmp_path / str(steps), "1steps"))
        expect_same_training(whole, fit((), Checkpoints(tmp_path / str(steps)), resume=True))


def test_it_may_be_broken_off_again_and_again(backend, tmp_path):
    options = {"n_models": 2, "dropout": 0.3, "schedule": gpumlp.schedules.ReduceOnPlateau(patience=0)}
    whole = trained(backend, [EarlyStopping(patience=3)], **options)
    for steps in (1, 4, 7, 2):
        watchers = [EarlyStopping(patience=3), BreakOff(steps)]
        with pytest.raises(Broken):
            trained(backend, watchers, Checkpoints(tmp_path, "1steps"), resume=True, **options)
    again = trained(backend, [EarlyStopping(patience=3)], Checkpoints(tmp_path), resume=True, **options)
    expect_same_training(whole, again)


def test_it_goes_on_between_two_epochs(backend, tmp_path):
    whole = trained(backend, [KeepBest()])
    broken_off(backend, tmp_path, 2 * STEPS + 1, [KeepBest()], every="1epoch")
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-000000000006.safetensors",
        "step-000000000012.safetensors",
    ]
    expect_same_training(whole, trained(backend, [KeepBest()], Checkpoints(tmp_path), resume=True))


def test_a_second_fit_goes_on_too(backend, tmp_path):
    def twice(resume, monitors=()):
        net = network((4, 6, 3), output="softmax", cost="categorical_cross_entropy", backend=backend)
        trainer = gpumlp.Trainer(net, batch_size=4)
        if not resume:
            trainer.fit(*data(), 2)
        history = trainer.fit(*data(), 2, monitors=monitors, checkpoints=Checkpoints(tmp_path, "1steps"), resume=resume)
        return trainer, history

    whole = twice(False)
    shutil.rmtree(tmp_path)
    with pytest.raises(Broken):
        twice(False, [BreakOff(STEPS + 2)])
    again = twice(True)
    assert again[1].epochs.tolist() == [3, 4]
    expect_same_training(whole, again)


def test_another_backend_goes_on_within_rounding(tmp_path, backend):
    whole = trained("numpy")
    broken_off(backend, tmp_path, STEPS + 3)
    trainer, history = trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True)
    assert np.allclose(theta(trainer.net), theta(whole[0].net), rtol=0, atol=1e-12)
    assert np.allclose(history["cost"], whole[1]["cost"], rtol=1e-12)


def test_checkpoints_change_nothing_of_a_training(backend, tmp_path):
    expect_same_training(trained(backend), trained(backend, checkpoints=Checkpoints(tmp_path, "1steps")))


def test_a_training_that_has_ended_is_given_back_at_once(backend, tmp_path):
    whole = trained(backend, [KeepBest()], Checkpoints(tmp_path))
    expect_same_training(whole, trained(backend, [KeepBest()], Checkpoints(tmp_path), resume=True))


def test_a_training_that_has_ended_goes_on_for_more_epochs(backend, tmp_path):
    trained(backend, checkpoints=Checkpoints(tmp_path), epochs=2)
    again = trained(backend, checkpoints=Checkpoints(tmp_path), resume=True)
    expect_same_training(trained(backend), again)


def test_without_a_checkpoint_it_begins(tmp_path):
    expect_same_training(trained("numpy"), trained("numpy", checkpoints=Checkpoints(tmp_path / "new"), resume=True))


def test_the_batch_size_that_was_tuned_stays(tmp_path):
    options = {"batch_size": "tune", "shuffle": False}
    with pytest.raises(Broken):
        trained("numpy", [BreakOff(1)], Checkpoints(tmp_path, "1epoch"), **options)
    first = trained("numpy", [], Checkpoints(tmp_path, "1epoch"), epochs=1, resume=True, **options)
    trainer, _ = trained("numpy", [], Checkpoints(tmp_path), resume=True, **options)
    assert trainer.batch_size == first[0].batch_size
    assert trainer.choice.measurements == ()  # nothing was measured again


# ---------------------------------------------------------------- monitors


def logs(folder):
    return [CsvLog(folder / "log.csv"), JsonLinesLog(folder / "log.jsonl")]


def without_seconds(folder):
    csv = [line.split(",")[:-2] for line in (folder / "log.csv").read_text().splitlines()]
    json = [line.partition(', "seconds"')[0] for line in (folder / "log.jsonl").read_text().splitlines()]
    return csv, json


@pytest.mark.parametrize("steps", [2, STEPS + 3, 3 * STEPS])
def test_logs_have_each_epoch_once(steps, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    trained("numpy", logs(one), n_models=2)
    broken_off("numpy", tmp_path / "c", steps, logs(other), every="1epoch" if steps > STEPS else "1steps", n_models=2)
    with (other / "log.csv").open("a") as csv, (other / "log.jsonl").open("a") as json:
        csv.write("4,24,0,1.0,1.0,1.0,1.0,1.0\r\n4,2")  # what was written after the checkpoint, and half a line
        json.write('{"epoch": 4, "step": 24}\n{"epo')
    trained("numpy", logs(other), Checkpoints(tmp_path / "c"), resume=True, n_models=2)
    assert without_seconds(one) == without_seconds(other)


def test_a_progress_bar_goes_on_where_it_was(tmp_path):
    from io import StringIO

    from rich.console import Console

    broken_off("numpy", tmp_path, 2 * STEPS + 3, [ProgressBar(Console(file=StringIO()))])
    told = StringIO()
    trained("numpy", [ProgressBar(Console(file=told, width=120))], Checkpoints(tmp_path), resume=True)
    assert "epoch 4/4" in told.getvalue()


class Counts(Monitor):
    """A user's own monitor, with a state."""

    def __init__(self):
        self.epochs, self.sums = 0, np.zeros(2)

    def epoch_began(self, epoch):
        self.epochs += 1

    def epoch_ended(self, report):
        self.sums = self.sums + report.values["cost"]

    def state(self):
        return {"epochs": self.epochs, "sums": self.sums, "nested": [{"a": self.sums}, None, "text"]}

    def restore(self, state):
        assert state["nested"][1:] == [None, "text"]
        self.epochs, self.sums = state["epochs"], state["nested"][0]["a"]


@pytest.mark.parametrize("steps", [STEPS - 2, STEPS, STEPS + 2])
def test_a_monitor_of_ones_own_goes_on(steps, tmp_path):
    whole, broken, again = Counts(), Counts(), Counts()
    trained("numpy", [whole], n_models=2)
    broken_off("numpy", tmp_path, steps, [broken], n_models=2)
    trained("numpy", [again], Checkpoints(tmp_path), resume=True, n_models=2)
    assert again.epochs == whole.epochs == EPOCHS
    assert again.sums.tobytes() == whole.sums.tobytes()


def test_a_monitor_goes_on_with_an_option_that_is_a_number_of_numpy(tmp_path):
    delta = np.float32(0.1)
    broken_off("numpy", tmp_path, STEPS, [EarlyStopping(min_delta=delta)])
    trained("numpy", [EarlyStopping(min_delta=delta)], Checkpoints(tmp_path), resume=True)


WATCHERS = {
    "another kind": ([KeepBest()], [EarlyStopping()], "EarlyStopping"),
    "one more": ([], [KeepBest()], "KeepBest"),
    "one less": ([KeepBest()], [], "KeepBest"),
    "another metric": ([KeepBest()], [KeepBest("cost")], "metric is validation_cost in the checkpoint and cost here"),
    "another patience": ([EarlyStopping(patience=5)], [EarlyStopping(patience=6)], "patience is 5 .* and 6 here"),
}


@pytest.mark.parametrize(("before", "after", "message"), WATCHERS.values(), ids=list(WATCHERS))
def test_other_monitors_that_remember_are_refused(before, after, message, tmp_path):
    broken_off("numpy", tmp_path, STEPS, before)
    with pytest.raises(CheckpointError, match=message):
        trained("numpy", after, Checkpoints(tmp_path), resume=True)


# ---------------------------------------------------------------- what belongs to it

OTHER = {
    "learning_rate": ({"learning_rate": 0.03}, "an option differs: learning_rate is 0.02 in the checkpoint and 0.03"),
    "optimizer": ({"optimizer": "sgd"}, "optimizer is adam in the checkpoint and sgd here"),
    "batch_size": ({"batch_size": 5}, "batch_size is 4 in the checkpoint and 5 here"),
    "l2": ({"l2": 0.1}, "l2 is 0.0 in the checkpoint and 0.1 here"),
    "clip_norm": ({"clip_norm": 1.0}, "clip_norm is None in the checkpoint and 1.0 here"),
    "shuffle": ({"shuffle": False}, "shuffle is True in the checkpoint and False here"),
    "reduction": ({"reduction": "sum"}, "reduction is mean in the checkpoint and sum here"),
    "biases": ({"train_biases": False}, "train_biases is True"),
    "a schedule": ({"schedule": "step"}, "schedule name is constant in the checkpoint and step here"),
    "seed": ({"seed": 1}, "the network differs: seed is 0 in the checkpoint and 1 here"),
    "models": ({"n_models": 2}, "model id"),
    "dropout": ({"dropout": 0.1}, "dropout"),
    "normalisation": ({"normalisation": "layer"}, "normalisation"),
    "dtype": ({"dtype": "float32"}, "dtype is float64 in the checkpoint and float32 here"),
    "weights of rows": ({"fit": {"sample_weight": np.ones(23)}}, "the data differs: sample_weight is None"),
    "fewer epochs": ({"epochs": 1}, "the checkpoint is in epoch 2, this training would end with epoch 1"),
}


@pytest.mark.parametrize(("options", "message"), OTHER.values(), ids=list(OTHER))
def test_a_checkpoint_of_another_training_is_refused_by_what_differs(options, message, tmp_path):
    broken_off("numpy", tmp_path, STEPS + 2)
    with pytest.raises(CheckpointError, match=message):
        trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True, **options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("step(every=2)", "step(every=3)"),
        ("cosine", "cosine(warmup=1)"),
        ("reduce_on_plateau", "reduce_on_plateau(patience=3)"),
        ("exponential(rate=0.9)", "exponential"),
    ],
)
def test_the_same_kind_of_schedule_with_other_numbers_is_another_one(one, other, tmp_path):
    broken_off("numpy", tmp_path, STEPS + 2, schedule=one)
    with pytest.raises(CheckpointError, match="an option differs: schedule"):
        trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True, schedule=other)


def test_more_epochs_are_refused_where_the_schedules_plan_depends_on_them(tmp_path):
    broken_off("numpy", tmp_path, STEPS + 2, schedule="cosine")
    with pytest.raises(CheckpointError, match="schedule epochs is 4 in the checkpoint and 5 here"):
        trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True, schedule="cosine", epochs=5)


@pytest.mark.parametrize("part", ["X", "Y", "validation X", "validation Y"])
def test_other_data_are_refused(part, tmp_path):
    broken_off("numpy", tmp_path, STEPS + 2)
    arrays = dict(zip(("X", "Y", "validation X", "validation Y"), (*data(), *validation()), strict=True))
    arrays[part][3] = arrays[part][4]
    arrays[part][4:6] = arrays[part][0:2]
    net = network((4, 6, 3), output="softmax", cost="categorical_cross_entropy", backend="numpy")
    trainer = gpumlp.Trainer(net, batch_size=4, learning_rate=0.02)
    with pytest.raises(CheckpointError, match=f"the data differs: {part} values"):
        trainer.fit(
            arrays["X"],
            arrays["Y"],
            EPOCHS,
            (arrays["validation X"], arrays["validation Y"]),
            checkpoints=Checkpoints(tmp_path),
            resume=True,
        )
    assert trainer.step_count == 0


def test_a_folder_with_checkpoints_is_not_begun_anew(tmp_path):
    trained("numpy", checkpoints=Checkpoints(tmp_path), epochs=1)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="holds checkpoints already"):
        trained("numpy", checkpoints=Checkpoints(tmp_path))
    assert sorted(tmp_path.iterdir()) == before


def test_a_trainer_that_diverged_goes_on_from_before(tmp_path):
    net = network(backend="numpy")
    trainer = gpumlp.Trainer(net, "sgd", learning_rate=1e200, batch_size=5)
    X = np.ones((10, 4))
    with pytest.raises(gpumlp.errors.DivergenceError):
        trainer.fit(X, X[:, :2], 2, checkpoints=Checkpoints(tmp_path, "1steps"))
    again = gpumlp.Trainer(network(backend="numpy"), "sgd", learning_rate=1e200, batch_size=5)
    for one in (trainer, again):
        with pytest.raises(gpumlp.errors.DivergenceError, match="from step"):
            one.fit(X, X[:, :2], 2, checkpoints=Checkpoints(tmp_path), resume=True)


# ---------------------------------------------------------------- files


def test_the_last_few_are_kept(tmp_path):
    trained("numpy", checkpoints=Checkpoints(tmp_path, "5steps", keep=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{n:012d}.safetensors" for n in (20, 24)]


DAMAGE = {
    "cut off": lambda content, random: content[: random.randrange(len(content))],
    "a byte flipped": lambda content, random: flipped(content, random.randrange(len(content)), random.randrange(8)),
}


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(damage, tmp_path, caplog):
    whole = trained("numpy", [KeepBest()])
    broken_off("numpy", tmp_path / "c", STEPS + 3, [KeepBest()])
    newest = sorted((tmp_path / "c").iterdir())[-1]
    for seed in range(20):
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "c", folder)
        (folder / newest.name).write_bytes(damage(newest.read_bytes(), random.Random(seed)))
        caplog.clear()
        checkpoints = Checkpoints(folder, "1h", keep=1)
        expect_same_training(whole, trained("numpy", [KeepBest()], checkpoints, resume=True))
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert warnings[0].startswith(f"checkpoint {newest.name} is damaged, the one before it is taken")
        assert "\n" not in warnings[0]
        assert checkpoints.newest.name == f"step-{EPOCHS * STEPS:012d}.safetensors"


def test_a_damaged_checkpoint_does_not_count_as_one_to_keep(tmp_path):
    broken_off("numpy", tmp_path, STEPS + 3)
    damaged = sorted(tmp_path.iterdir())[-2:]
    for path in damaged:
        path.write_bytes(b"")
    with pytest.raises(Broken):
        trained("numpy", [BreakOff(1)], Checkpoints(tmp_path, "1steps", keep=1), resume=True)
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == [damaged[0].name, *(f"{path.name}.damaged" for path in damaged)]


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, {"a": np.arange(3.0), "b": np.array([True]), "c": 5, "d": np.zeros((0, 4))})
    content = path.read_bytes()
    assert read_checkpoint(path)["a"].tolist() == [0, 1, 2]
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, place % 8))
        with pytest.raises(DamagedCheckpoint):
            read_checkpoint(path)


def test_what_is_the_same_is_written_once(tmp_path):
    x, other = np.full((2, 500), np.nan), np.full((2, 500), np.nan)
    other[1, 499] = 0
    write_checkpoint(tmp_path / "c", {"x": x, "again": [x.copy()], "other": other})
    assert (tmp_path / "c").stat().st_size < 3 * x.nbytes
    found = read_checkpoint(tmp_path / "c")
    for one, two in ((found["x"], x), (found["again"][0], x), (found["other"], other)):
        assert one.tobytes() == two.tobytes()


def test_a_checkpoint_that_is_gone_leaves_the_one_before(tmp_path):
    whole = trained("numpy")
    broken_off("numpy", tmp_path, STEPS + 3)
    sorted(tmp_path.iterdir())[-1].unlink()
    expect_same_training(whole, trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True))


def test_no_sound_checkpoint_is_an_error(tmp_path):
    broken_off("numpy", tmp_path, STEPS + 3)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is sound"):
        trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True)


def test_a_newer_version_is_named_and_its_files_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.training.checkpoint_file.VERSION", 9)
    broken_off("numpy", tmp_path, STEPS)
    monkeypatch.undo()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="format version 9"):
        trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_told_and_training_goes_on(tmp_path, monkeypatch, caplog):
    tries, sync = [], os.fsync

    def full(descriptor):
        tries.append(descriptor)
        if 5 <= len(tries) <= 8:  # each good one syncs file and folder: the third and some more fail
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    seen = []

    class Looks(Monitor):
        def step_ended(self, step):
            seen.append(sorted(path.name for path in tmp_path.iterdir()))

    whole = trained("numpy")
    expect_same_training(whole, trained("numpy", [Looks()], Checkpoints(tmp_path, "1steps")))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 4
    assert all("No space left on device" in text and "training goes on" in text for text in warnings)
    two = ["step-000000000001.safetensors", "step-000000000002.safetensors"]
    assert seen[3:7] == [two] * 4  # while the disk was full what was there stayed, and nothing else came
    assert [path.name for path in sorted(tmp_path.iterdir())][-1] == "step-000000000024.safetensors"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    broken_off("numpy", tmp_path, STEPS)
    (tmp_path / ".step-000000000007.safetensors.abc123").write_bytes(b"half")
    trained("numpy", checkpoints=Checkpoints(tmp_path), resume=True)
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot keep checkpoints in"):
        trained("numpy", checkpoints=Checkpoints(tmp_path / "file"))


@pytest.mark.parametrize("every", ["", "5", "steps", "0steps", "-1s", "5 parsecs", "1e3steps", None, 5])
def test_a_distance_that_means_nothing_is_refused(every):
    with pytest.raises(ConfigurationError, match="expected a number and its unit"):
        Checkpoints("x", every)


@pytest.mark.parametrize("keep", [0, -1, 1.5, "3"])
def test_a_number_to_keep_that_means_nothing_is_refused(keep):
    with pytest.raises(ConfigurationError, match="keep="):
        Checkpoints("x", keep=keep)


def test_resume_needs_checkpoints():
    with pytest.raises(ConfigurationError, match="resume=True needs checkpoints"):
        trained("numpy", resume=True)


def test_a_wish_to_stop_writes_one_at_the_next_step_and_ends_the_fit(backend, tmp_path):
    checkpoints = Checkpoints(tmp_path, "1h")

    class Stops(Monitor):
        def step_ended(self, step):
            if step == 2:
                checkpoints.stop()

    with pytest.raises(KeyboardInterrupt):
        trained(backend, [Stops()], checkpoints)
    assert checkpoints.newest.name == "step-000000000002.safetensors"
    expect_same_training(trained(backend), trained(backend, checkpoints=Checkpoints(tmp_path), resume=True))


@pytest.mark.parametrize("dtype", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8"])
def test_numbers_of_every_kind_come_back(dtype, tmp_path):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    write_checkpoint(tmp_path / "c", {"array": array})
    found = read_checkpoint(tmp_path / "c")["array"]
    assert found.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(found, array)


def test_a_checkpoint_is_read_by_the_library_of_the_format(tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    trainer, _ = trained("numpy", checkpoints=Checkpoints(tmp_path), dtype="float32")
    with safetensors.safe_open(next(tmp_path.iterdir()), "numpy") as file:
        assert np.array_equal(file.get_tensor("/theta"), theta(trainer.net))
        assert file.get_tensor("/clock").tolist() == [24, 4, 24]
