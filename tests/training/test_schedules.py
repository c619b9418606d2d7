import numpy as np
import pytest

import gpumlp
from gpumlp import schedules
from gpumlp.errors import ConfigurationError, UnknownName


def factors(schedule, epochs=4, steps=2):
    """Return the factor of every step of a plan, one line an epoch."""
    return np.array([schedule.factors(e * steps, e, steps, epochs) for e in range(epochs)])


def test_schedules_have_the_factors_that_are_computed_by_hand():
    assert (factors(schedules.constant()) == 1).all()
    assert np.allclose(factors(schedules.step(every=2, factor=0.1)), [[1, 1], [1, 1], [0.1, 0.1], [0.1, 0.1]])
    assert np.allclose(factors(schedules.exponential(0.5)), [[1, 1], [0.5, 0.5], [0.25, 0.25], [0.125, 0.125]])
    assert np.allclose(factors(schedules.inverse_scaling(1.0)).ravel(), 1 / np.arange(1, 9))
    t = np.arange(8) / 8
    assert np.allclose(factors(schedules.cosine()).ravel(), 0.5 * (1 + np.cos(np.pi * t)))
    assert np.allclose(factors(schedules.cosine(floor=0.2)).ravel(), 0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi * t)))


def test_a_warm_up_rises_by_equal_steps_and_ends_at_one():
    found = factors(schedules.cosine(warmup=2), epochs=4, steps=2).ravel()
    assert np.allclose(found[:4], [0.25, 0.5, 0.75, 1.0])
    assert np.allclose(found[4:], 0.5 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75]))))


@pytest.mark.parametrize("warmup", [0.3, 0.5, 1, 1.5, 2.7])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_schedule_exceeds_one_nor_falls_below_zero(warmup, steps):
    for schedule in (schedules.cosine(warmup=warmup), schedules.one_cycle(), schedules.step(), schedules.exponential()):
        found = factors(schedule, 6, steps)
        assert found.shape == (6, steps)
        assert (found <= 1 + 1e-12).all()
        assert (found >= 0).all()


def test_one_cycle_rises_to_one_and_falls_to_its_end():
    found = factors(schedules.one_cycle(peak_at=0.25, start=0.1, end=0.01), epochs=40, steps=1).ravel()
    assert np.isclose(found[0], 0.1)
    assert np.isclose(found[10], 1)
    assert found.argmax() == 10
    assert (np.diff(found[:11]) > 0).all()
    assert (np.diff(found[10:]) < 0).all()
    assert 0.01 < found[-1] < 0.02


def test_a_plan_that_is_longer_than_the_fit_is_kept_to():
    long = schedules.cosine(epochs=8)
    assert np.allclose(factors(long, epochs=4), factors(schedules.cosine(), epochs=8)[:4])
    beyond = schedules.cosine(epochs=2, floor=0.1)
    assert np.allclose(factors(beyond, epochs=4)[2:], 0.1)


def test_the_rate_that_is_reported_is_that_of_the_last_step(backend):
    X, Y = np.eye(4), np.eye(4)
    net = gpumlp.Network((4, 4), (), "identity", "quadratic", n_models=2, backend=backend)
    trainer = gpumlp.Trainer(net, "sgd", [0.1, 0.2], batch_size=2, schedule=schedules.inverse_scaling(1.0))
    assert np.allclose(trainer.fit(X, Y, 3)["learning_rate"], np.outer(1 / np.array([2, 4, 6]), [0.1, 0.2]))


def test_a_schedule_multiplies_the_rate_of_each_step(backend):
    """A unit with the gradient 1 moves by the sum of the rates."""
    net = gpumlp.Network(
        (1, 1),
        (),
        "identity",
        gpumlp.Cost("linear", lambda a, y: a),
        initialiser="zeros",
        dtype="float64",
        backend=backend,
    )
    trainer = gpumlp.Trainer(net, "sgd", 0.5, batch_size=1, schedule=schedules.cosine(warmup=1, floor=0.1))
    trainer.fit(np.ones((150, 1)), np.zeros((150, 1)), 3)
    wanted = factors(schedules.cosine(warmup=1, floor=0.1), 3, 150).sum()
    assert np.isclose(net.biases[0][0, 0], -0.5 * wanted, rtol=1e-12)


def test_a_schedule_is_found_by_its_name():
    net = gpumlp.Network((2, 2))
    for name in ("constant", "step", "exponential", "inverse_scaling", "cosine", "one_cycle", "reduce_on_plateau"):
        assert gpumlp.Trainer(net, schedule=name).schedule.name.partition("(")[0] == name
    with pytest.raises(UnknownName, match=r"unknown schedule 'cosin'; did you mean 'cosine'"):
        gpumlp.Trainer(net, schedule="cosin")


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.step(every=0),
        lambda: schedules.one_cycle(peak_at=0),
        lambda: schedules.one_cycle(peak_at=1),
        lambda: schedules.ReduceOnPlateau(factor=1.5),
        lambda: schedules.ReduceOnPlateau(factor=0),
        lambda: schedules.ReduceOnPlateau(patience=-1),
        lambda: schedules.ReduceOnPlateau(mode="best"),
        lambda: schedules.ReduceOnPlateau("surprise"),
        lambda: schedules.step(factor=-0.5),
        lambda: schedules.step(every="2"),
        lambda: schedules.exponential(rate=-1),
        lambda: schedules.cosine(warmup=-1),
        lambda: schedules.cosine(epochs=0),
        lambda: schedules.one_cycle(start=np.nan),
    ],
)
def test_a_schedule_that_means_nothing_raises(make):
    with pytest.raises(ConfigurationError):
        make()


def test_a_schedule_of_ones_own_with_too_few_factors_raises():
    schedule = schedules.Schedule("mine", lambda step, epoch, epochs: np.ones(7))
    with pytest.raises(ConfigurationError, match=r"schedule mine gives factors of shape \(7,\); expected .* 3 steps"):
        schedule.factors(0, 0, 3, 1)


class Report:
    def __init__(self, **values):
        self.values = {name: np.array(value, float) for name, value in values.items()}

    def metric(self, name):
        return self.values[name]


def test_a_plateau_is_waited_for_and_then_cut_for_each_model_alone():
    plateau = schedules.ReduceOnPlateau(factor=0.5, patience=1, threshold=0.1)
    costs = [[1.0, 1.0], [0.95, 0.8], [0.95, 0.6], [0.95, 0.4], [0.95, 0.4], [0.3, 0.4]]
    scales = [plateau.after_epoch(Report(cost=c)).tolist() for c in costs]
    assert scales == [[1, 1], [1, 1], [0.5, 1], [0.5, 1], [0.25, 1], [0.25, 0.5]]


def test_a_plateau_stops_at_its_floor_and_forgets_on_reset():
    plateau = schedules.ReduceOnPlateau(factor=0.1, patience=0, floor=0.05)
    scales = [float(plateau.after_epoch(Report(cost=[1.0]))[0]) for _ in range(5)]
    assert np.allclose(scales, [1, 0.1, 0.05, 0.05, 0.05])
    plateau.reset()
    assert plateau.after_epoch(Report(cost=[1.0])) == 1


def test_a_plateau_of_an_accuracy_waits_for_it_to_rise():
    plateau = schedules.ReduceOnPlateau("accuracy", factor=0.5, patience=0, threshold=0.01)
    scales = [float(plateau.after_epoch(Report(accuracy=[a]))[0]) for a in (0.5, 0.6, 0.5, 0.7)]
    assert scales == [1, 1, 0.5, 0.5]


def test_a_plateau_lowers_the_rate_of_the_training(backend):
    net = gpumlp.Network((2, 2), (), "identity", "quadratic", initialiser="zeros", backend=backend)
    plateau = schedules.ReduceOnPlateau(factor=0.5, patience=0)
    history = gpumlp.Trainer(net, "sgd", 0.1, schedule=plateau).fit(np.ones((4, 2)), np.zeros((4, 2)), 4)
    assert np.allclose(history["learning_rate"][:, 0], [0.1, 0.1, 0.05, 0.025])


def test_a_plateau_of_an_unknown_metric_raises(backend):
    net = gpumlp.Network((2, 2), backend=backend)
    trainer = gpumlp.Trainer(net, schedule=schedules.ReduceOnPlateau("validation_cost"))
    with pytest.raises(UnknownName, match="unknown metric 'validation_cost'"):
        trainer.fit(np.ones((4, 2)), np.zeros(4, int), 1)
