import logging

import devices
import numpy as np
import pytest
from comparing import theta
from small import classifier, data, labelled, network

import gpumlp
from gpumlp.backends.select import why_unavailable
from gpumlp.errors import BackendUnavailable, ConfigurationError, DataError, OutOfMemory, ShapeError, UnknownName
from gpumlp.training import tuning
from gpumlp.training.choice import Choice, Measurement, choose
from gpumlp.training.trials import LOOKS, SAMPLES, measure, middle_first

QUICK = {"seconds": 0.02, "backends": "numpy"}

# ---------------------------------------------------------------- what is chosen


def measured(backend, batch_size, rate):
    return Measurement(backend, batch_size, rate, 0.9 * rate, 1.1 * rate, 10)


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({("numpy", 16): 100, ("numpy", 64): 300, ("numpy", 256): 200}, ("numpy", 64)),
        ({("numpy", 16): 91, ("numpy", 64): 95, ("numpy", 256): 100}, ("numpy", 16)),
        ({("numpy", 16): 89, ("numpy", 64): 91, ("numpy", 256): 100}, ("numpy", 64)),
        ({("numpy", 16): 100, ("numpy", 64): 100}, ("numpy", 16)),
        ({("numpy", 64): 100, ("numba", 64): 120, ("cuda", 64): 80}, ("numba", 64)),
        ({("numpy", 64): 95, ("numba", 64): 100, ("cuda", 64): 10}, ("numba", 64)),
        ({("numpy", 64): 100, ("numba", 64): 95, ("cuda", 64): 98}, ("numpy", 64)),
        ({("cuda", 64): 10, ("cuda", 8192): 1000, ("numba", 64): 100}, ("cuda", 8192)),
        ({("cuda", 8192): 100, ("numba", 64): 92}, ("numba", 64)),
    ],
)
def test_the_smallest_batch_within_a_tenth_of_the_fastest_is_chosen(rates, chosen):
    choice = choose([measured(*candidate, rate) for candidate, rate in rates.items()])
    assert (choice.backend, choice.batch_size) == chosen


def test_a_candidate_without_a_measurement_is_not_chosen():
    absent = Measurement("numpy", 16, np.nan, np.nan, np.nan, 0, "left out: no room")
    assert choose([absent, measured("numpy", 64, 100)]).batch_size == 64
    with pytest.raises(OutOfMemory, match=r"no batch size could be tried \(numpy with 16: left out: no room"):
        choose([absent])


def test_what_was_dropped_is_not_chosen_whatever_it_once_reached():
    dropped = Measurement("numpy", 16, 900.0, 900.0, 900.0, 3, "dropped after 3 samples: clearly slower", True)
    choice = choose([dropped, measured("numba", 64, 100.0)])
    assert (choice.backend, choice.batch_size) == ("numba", 64)
    assert str(choice) == "batch size 64 on numba: 100 examples/s; 2 measured"


def test_the_table_has_a_line_for_each_candidate_and_marks_the_choice():
    absent = Measurement("cuda", 32, np.nan, np.nan, np.nan, 0, "left out: no room")
    choice = choose([measured("numpy", 64, 1234567.0), absent], ["numba left out: it is not there"])
    head, first, second, note = choice.table()
    assert head.split() == ["backend", "batch", "examples/s", "quartiles", "steps"]
    assert first.split() == ["numpy", "64", "1,234,567", "1,111,110", "to", "1,358,024", "10", "chosen"]
    assert second.split()[:5] == ["cuda", "32", "-", "-", "-"]
    assert second.endswith("left out: no room")
    assert note == "numba left out: it is not there"


def test_one_line_says_what_was_chosen_and_what_was_faster():
    line = str(choose([measured("numpy", 16, 95.0), measured("numba", 64, 100.0)]))
    assert line == "batch size 16 on numpy: 95 examples/s; 2 measured, the fastest of them 64 on numba: 100"
    assert str(choose([measured("numpy", 16, 95.0)])) == "batch size 16 on numpy: 95 examples/s; 1 measured"
    assert str(Choice("numpy", 32)) == "batch size 32 on numpy"


# ---------------------------------------------------------------- how it is measured, on a clock of the tests


class Machine:
    """A clock that only steps move on; `busy(now)` says how many times as long they take."""

    def __init__(self, busy=lambda now: 1.0):
        self.now, self.busy, self.log = 0.0, busy, []

    def clock(self):
        return self.now


class Made:
    """A trial whose steps take a given time, and whose first one compiles."""

    def __init__(self, machine, batch_size, seconds, backend="numpy", compiling=0.0, room=True, launch=1):
        self.machine, self.seconds, self.compiling, self.room = machine, seconds, compiling, room
        self.backend, self.batch_size, self.launch = backend, batch_size, launch
        self.examples_per_step = float(batch_size)
        self.is_open, self.opened, self.runs = False, 0, []

    def open(self):
        self.opened += 1
        if not self.room:
            raise OutOfMemory("no room for z of layer 0")
        self.is_open = True

    def run(self, n_steps):
        assert self.is_open
        self.machine.log.append(self)
        self.runs.append(n_steps)
        self.machine.now += n_steps * self.seconds * self.machine.busy(self.machine.now) + self.compiling
        self.compiling = 0.0

    def close(self):
        self.is_open = False


def test_throughput_is_examples_by_the_time_of_their_steps_without_compiling():
    machine = Machine()
    trials = [Made(machine, 64, 1e-3, compiling=100.0), Made(machine, 32, 1e-3, "numba", compiling=7.0)]
    found = measure(trials, 1.0, machine.clock)
    assert [(m.backend, m.batch_size) for m in found] == [("numpy", 64), ("numba", 32)]
    assert [m.examples_per_second for m in found] == pytest.approx([64e3, 32e3])
    assert [m.low for m in found] == pytest.approx([64e3, 32e3])
    assert machine.now - 107 < 1.0
    assert not any(trial.is_open for trial in trials)


def test_what_is_hopeless_at_first_look_is_closed_and_not_measured_again():
    machine = Machine()
    slow, fast, near = Made(machine, 16, 1e-3), Made(machine, 32, 0.2e-3), Made(machine, 64, 0.5e-3)
    found = measure([slow, fast, near], 1.0, machine.clock)
    assert found[0].note == f"dropped after {LOOKS + 1} samples: clearly slower"
    assert len(slow.runs) == 3 + LOOKS + 1
    assert found[1].note == found[2].note == ""
    assert len(fast.runs) == len(near.runs) > 3 + SAMPLES
    assert choose(found).batch_size == 32


def test_what_is_clearly_slower_is_dropped_after_some_rounds():
    machine = Machine()
    slower, fast = Made(machine, 16, 1.6e-4), Made(machine, 16, 1e-4, "numba")
    found = measure([slower, fast], 1.0, machine.clock)
    assert found[0].note == f"dropped after {LOOKS + 3} samples: clearly slower"
    assert len(slower.runs) == 3 + LOOKS + 3
    assert len(fast.runs) > len(slower.runs)


@pytest.mark.parametrize("begins", np.linspace(0, 0.95, 20))
def test_a_busy_moment_does_not_decide(begins):
    """For an eighth of the time everything takes five times as long, wherever that eighth lies."""
    machine = Machine(lambda now: 5.0 if begins <= now < begins + 0.125 else 1.0)
    trials = [Made(machine, 32, 1e-3), Made(machine, 32, 0.8e-3, "numba"), Made(machine, 64, 1.55e-3, "numba")]
    choice = choose(measure(trials, 1.0, machine.clock))
    assert (choice.backend, choice.batch_size) == ("numba", 32)


@pytest.mark.parametrize("begins", np.linspace(0.0, 0.6, 25))
def test_a_machine_that_becomes_busy_for_good_leaves_some_to_be_compared(begins):
    """What is dropped was slower than what ran beside it; nobody is dropped for what a dropped one once reached."""
    machine = Machine(lambda now: 6.0 if now >= begins else 1.0)
    seconds = [2.5e-4, 1e-4, 2.4e-4, 1.6e-4]
    found = measure([Made(machine, 16, s, name) for s, name in zip(seconds, "abcd", strict=True)], 1.0, machine.clock)
    kept = [m.backend for m in found if not m.dropped]
    assert choose(found).backend in kept


def test_once_there_are_rounds_the_first_look_no_longer_counts():
    machine = Machine()
    machine.busy = lambda now: 1.5 if len(machine.log) <= 5 * (3 + LOOKS) else 1.0
    trials = [Made(machine, 16, 0.013, name) for name in "abcde"]
    found = measure(trials, 1.0, machine.clock)
    assert 3 + LOOKS + 3 <= len(trials[0].runs) < 3 + LOOKS + 9  # so few that those of the first look would be seen
    assert [m.low for m in found] == pytest.approx([16 / 0.013] * 5)


def test_the_fast_ones_take_turns_in_both_directions():
    machine = Machine()
    a, b = Made(machine, 16, 1e-4), Made(machine, 16, 1e-4, "numba")
    measure([a, b], 1.0, machine.clock)
    rounds = ["ab"[trial is b] for trial in machine.log][2 * (3 + LOOKS) :]
    assert "".join(rounds).startswith("abbaabba")


def test_slow_steps_keep_to_the_time_and_each_backend_is_measured():
    machine = Machine()
    sizes = [2**i for i in range(4, 14)]
    trials = [
        Made(machine, size, (0.05 + size / 5000) * slowness, name)
        for name, slowness in (("cuda", 1), ("numpy", 2))
        for size in sizes
    ]
    found = measure(trials, 3.0, machine.clock)
    assert machine.now < 4.5
    assert {m.backend for m in found if m.steps} == {"cuda", "numpy"}
    left_out = [m for m in found if not m.steps]
    assert left_out
    assert all("s, too long to be measured, too, within 3 s" in m.note for m in left_out)
    assert all(trial.opened == 0 for trial, m in zip(trials, found, strict=True) if not m.steps)


def test_a_step_that_takes_longer_than_all_the_time_still_gives_a_choice():
    machine = Machine()
    found = measure([Made(machine, size, float(size)) for size in (16, 32, 64)], 1.0, machine.clock)
    assert [m.steps > 0 for m in found] == [False, True, False]


def test_what_has_no_room_is_left_out_and_larger_ones_are_not_tried():
    machine = Machine()
    trials = [Made(machine, size, 1e-3 * size, room=size < 128) for size in (16, 32, 64, 128, 256, 512)]
    other = Made(machine, 256, 1e-3 * 256, "numba")
    found = measure([*trials, other], 3.0, machine.clock)
    assert [m.steps > 0 for m in found] == [True, True, True, False, False, False, True]
    assert "left out: no room for z of layer 0" in [m.note for m in found[3:6]]
    assert found[5].note == "left out: no room for 128 already" or trials[5].opened == 1
    assert trials[4].opened + trials[5].opened <= 1
    assert not any(trial.is_open for trial in trials)


def test_several_steps_of_a_launch_are_timed_together():
    machine = Machine()
    trial = Made(machine, 16, 1e-4, launch=8)
    assert measure([trial], 0.1, machine.clock)[0].examples_per_second == pytest.approx(16e4)
    assert all(n % 8 == 0 for n in trial.runs)


def test_ctrl_c_closes_every_trial():
    machine = Machine()
    trials = [Made(machine, 16, 1e-3), Made(machine, 32, 1e-3)]

    def clock():
        if len(machine.log) > 8:
            raise KeyboardInterrupt
        return machine.now

    with pytest.raises(KeyboardInterrupt):
        measure(trials, 1.0, clock)
    assert not any(trial.is_open for trial in trials)


def test_the_first_sizes_looked_at_stand_far_apart():
    assert middle_first([1, 2, 3, 4, 5, 6, 7]) == [4, 2, 6, 1, 3, 5, 7]
    assert middle_first([1]) == [1]
    assert sorted(middle_first(range(10))) == list(range(10))


# ---------------------------------------------------------------- tune, on real steps


def sizes_of(choice):
    return [m.batch_size for m in choice.measurements]


def assert_measured(choice):
    """One at least is measured; how many, is a matter of time."""
    found = [m for m in choice.measurements if m.steps]
    assert (choice.backend, choice.batch_size) in [(m.backend, m.batch_size) for m in found]
    assert all(0 < m.low <= m.examples_per_second <= m.high for m in found)
    assert all("too long" in m.note for m in choice.measurements if not m.steps)


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(1, [1]), (7, [7]), (16, [16]), (31, [16]), (100, [16, 32, 64]), (9000, [2**i for i in range(4, 14)])],
)
def test_the_sizes_are_powers_of_two_that_the_data_have_rows_for(rows, sizes):
    choice = gpumlp.tune(network(), *data(rows), **QUICK)
    assert sizes_of(choice) == sizes
    assert choice.batch_size in sizes


@pytest.mark.parametrize("case", ["labels", "numbers", "bytes", "stack", "weights", "of each model", "dropout"])
def test_it_measures_whatever_can_be_trained_on(case, backend):
    if why_not_timed(backend):
        pytest.skip(why_not_timed(backend))
    X, Y = data(40)
    net, options = network(backend=backend, n_models=3 if case in ("stack", "of each model") else 1), {}
    if case == "labels":
        X, Y = labelled(40)
        net = classifier(backend=backend)
    elif case == "bytes":
        X = (X * 10).astype(np.int8)
    elif case in ("weights", "of each model"):
        options["sample_weight"] = np.random.default_rng(0).uniform(size=(40,) if case == "weights" else (3, 40))
    elif case == "dropout":
        net = network(dropout=0.5, backend=backend)
    choice = gpumlp.tune(net, X, Y, 0.02, backends=backend, **options)
    assert [(m.backend, m.batch_size) for m in choice.measurements] == [(backend, 16), (backend, 32)]
    assert_measured(choice)


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": "momentum", "momentum_on_biases": False},
        {"optimizer": gpumlp.rules.adamw(weight_decay=0.1), "clip_norm": 1.0},
        {"optimizer": "sgd", "l1": 0.1, "l2": [0.1, 0.2], "reduction": "sum"},
        {"shuffle": "shared", "steps_per_launch": 4},
        {"shuffle": False, "train_biases": False, "steps_per_launch": 100, "learning_rate": 1e30},
    ],
)
def test_the_steps_are_those_that_the_training_will_take(training):
    choice = gpumlp.tune(network(n_models=2), *data(200), batch_sizes=[5, 8], **QUICK, **training)
    assert sizes_of(choice) == [5, 8]
    assert_measured(choice)


def why_not_timed(backend):
    emulated = backend == "cuda" and devices.in_use().kind == "emulated"
    return "the emulated device is not timed" if emulated else ""


def test_the_network_its_weights_and_all_that_is_random_stay_as_they_are():
    drawn = []

    def initialiser(random, n_out, n_in):
        drawn.append(n_in)
        return np.random.standard_normal((n_out, n_in))  # noqa: NPY002

    X, Y = data(40)
    net = network(initialiser=initialiser, dropout=0.3, seed=5, n_models=2)
    trainer = gpumlp.Trainer(net, batch_size=8)
    trainer.fit(X, Y, 2)
    before = (theta(net), vars(net).copy(), {n: s.copy() for n, s in trainer.state.items()}, trainer.step_count)
    arrays, random, count = (X.copy(), Y.copy()), np.random.get_state(), len(drawn)  # noqa: NPY002
    gpumlp.tune(net, X, Y, learning_rate=10.0, **QUICK)
    assert np.array_equal(theta(net), before[0])
    assert all(vars(net)[name] is value for name, value in before[1].items())
    assert all(np.array_equal(trainer.state[name], value) for name, value in before[2].items())
    assert trainer.step_count == before[3]
    assert np.array_equal(X, arrays[0])
    assert np.array_equal(Y, arrays[1])
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(random, after, strict=True))
    assert len(drawn) == count


def test_the_choice_is_logged_in_one_line(caplog):
    caplog.set_level(logging.INFO, logger="gpumlp")
    choice = gpumlp.tune(network(), *data(40), **QUICK)
    assert [record.getMessage() for record in caplog.records] == [str(choice)]
    assert str(choice).startswith(f"batch size {choice.batch_size} on numpy: ")


def test_all_backends_that_work_here_are_compared_and_the_others_named():
    choice = gpumlp.tune(network(), *data(20), 0.1)
    expected = [n for n in ("cuda", "numba", "numpy") if not why_unavailable(n) and not why_not_timed(n)]
    assert [m.backend for m in choice.measurements] == expected
    assert [note.split()[0] for note in choice.notes] == [n for n in ("cuda", "numba", "numpy") if n not in expected]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seconds": 0}, ConfigurationError, "seconds=0: expected a number above 0"),
        ({"seconds": float("nan")}, ConfigurationError, "seconds=nan"),
        ({"seconds": "long"}, ConfigurationError, "seconds='long'"),
        ({"batch_sizes": []}, ConfigurationError, r"batch_sizes=\[\]: expected numbers from 1 to 23, the rows of X"),
        ({"batch_sizes": [0]}, ConfigurationError, r"batch_sizes=\[0\]"),
        ({"batch_sizes": [24]}, ConfigurationError, r"batch_sizes=\[24\]: expected numbers from 1 to 23"),
        ({"batch_sizes": [8.0]}, ConfigurationError, r"batch_sizes=\[8.0\]"),
        ({"batch_sizes": 8}, ConfigurationError, "batch_sizes=8"),
        ({"batch_sizes": "full"}, ConfigurationError, "batch_sizes='full'"),
        ({"backends": []}, ConfigurationError, r"backends=\[\]: expected some of numpy, numba, cuda"),
        ({"backends": ["nmpy"]}, UnknownName, "unknown backend 'nmpy'; did you mean 'numpy'"),
        ({"backends": "auto"}, UnknownName, "unknown backend 'auto'"),
        ({"batch_size": 8}, ConfigurationError, "batch_size is what tune looks for"),
        ({"optimizer": "adamm"}, UnknownName, "did you mean"),
        ({"X": np.ones((23, 3))}, ShapeError, r"X has shape \(23, 3\), expected \(n_samples, 4\)"),
        ({"X": np.ones((0, 4))}, DataError, "X has no rows"),
        ({"X": np.full((23, 4), np.nan)}, DataError, "X holds 92 values that are not finite"),
        ({"Y": np.ones((22, 2))}, ShapeError, "Y has 22 rows, X has 23"),
        ({"sample_weight": np.ones(22)}, ShapeError, "sample_weight has shape"),
    ],
)
def test_an_impossible_argument_raises_and_says_what_is_expected(options, error, message):
    X, Y = data()
    with pytest.raises(error, match=message):
        gpumlp.tune(network(), **{"X": X, "Y": Y, **options})


def test_a_backend_that_is_asked_for_and_cannot_be_timed_raises():
    reason = why_unavailable("cuda") or why_not_timed("cuda")
    if not reason:
        pytest.skip("cuda can be timed here")
    with pytest.raises(BackendUnavailable, match=r'backend "cuda" .*leave it away'):
        gpumlp.tune(network(), *data(), backends=["numpy", "cuda"])


def test_an_emulated_device_is_not_timed():
    cupy = devices.cupy_on("emulated")
    X, Y = data()
    choice = gpumlp.tune(network(backend="cuda"), X, Y, 0.02)
    assert "cuda" not in [m.backend for m in choice.measurements]
    assert choice.notes[0] == "cuda left out: it computes on an emulated device, whose times mean nothing"
    with pytest.raises(BackendUnavailable, match="whose times mean nothing"):
        gpumlp.tune(network(backend="cuda"), X, Y, backends="cuda")
    with pytest.raises(BackendUnavailable, match=r"no backend can be timed.*numpy left out: it does not read arrays"):
        gpumlp.tune(network(backend="cuda"), cupy.asarray(X), Y)
    trainer = gpumlp.Trainer(network(backend="cuda"), batch_size="tune")
    with pytest.raises(BackendUnavailable, match="whose times mean nothing"):
        trainer.fit(X, Y, 1)


# ---------------------------------------------------------------- Trainer(batch_size="tune")


def trained(net, batch_size, epochs=(2, 1), rows=40, **options):
    X, Y = data(rows)
    trainer = gpumlp.Trainer(net, batch_size=batch_size, learning_rate=0.01)
    histories = [trainer.fit(X, Y, n, **options) for n in epochs]
    return trainer, np.concatenate([history["cost"] for history in histories])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("given", ["nothing", "validation", "order", "weights"])
def test_training_is_that_with_the_batch_size_found_bit_for_bit(backend, given):
    if why_unavailable(backend):
        pytest.skip(why_unavailable(backend))
    options = {
        "nothing": {},
        "validation": {"validation": data(9, seed=1)},
        "order": {"order": np.array([np.arange(40)[::-1]] * 2), "epochs": (2,)},
        "weights": {"sample_weight": np.random.default_rng(0).uniform(size=40)},
    }[given]
    net = network(n_models=2, dropout=0.2, backend=backend)
    tuned, costs = trained(net, "tune", **options)
    assert tuned.batch_size == tuned.choice.batch_size
    assert {m.backend for m in tuned.choice.measurements} == {backend} == {net.backend.name}
    other = network(n_models=2, dropout=0.2, backend=backend)
    same, other_costs = trained(other, tuned.batch_size, **options)
    assert np.array_equal(theta(net), theta(other))
    assert np.array_equal(costs, other_costs)
    assert all(np.array_equal(tuned.state[name], same.state[name]) for name in same.state)


def test_it_measures_once_and_reset_keeps_the_choice():
    net = network()
    trainer, _ = trained(net, "tune", epochs=(2, 2))
    first, after = trainer.choice, theta(net)
    trainer.reset()
    trainer.fit(*data(40), 4)
    assert trainer.choice is first
    assert np.array_equal(theta(net), after)


def test_without_tuning_there_is_no_choice():
    assert trained(network(), 8)[0].choice is None


@pytest.mark.parametrize("wrong", [{"X": np.ones((40, 3))}, {"epochs": -1}, {"validation": 3}, {"order": np.ones(3)}])
def test_what_cannot_be_trained_on_is_told_before_anything_is_measured(wrong, caplog):
    caplog.set_level(logging.INFO, logger="gpumlp")
    X, Y = data(40)
    trainer = gpumlp.Trainer(network(), batch_size="tune")
    with pytest.raises((ShapeError, ConfigurationError)):
        trainer.fit(**{"X": X, "Y": Y, "epochs": 1, **wrong})
    assert (trainer.choice, trainer.batch_size, caplog.records) == (None, "tune", [])


def test_a_network_on_auto_may_move_and_goes_where_the_choice_says(monkeypatch):
    monkeypatch.delenv("GPUMLP_BACKEND")
    net = network(device="cpu", n_models=2)
    tuned, _ = trained(net, "tune")
    cpu = {n for n in ("numba", "numpy") if not why_unavailable(n)}
    assert {m.backend for m in tuned.choice.measurements} == cpu
    assert net.backend.name == tuned.choice.backend
    assert net.alternatives == ("numpy", "numba")
    same = network(backend=tuned.choice.backend, n_models=2)
    trained(same, tuned.batch_size)
    assert np.array_equal(theta(net), theta(same))


def test_where_another_backend_is_faster_the_network_moves_and_stays_free(monkeypatch):
    if why_unavailable("numba"):
        pytest.skip(why_unavailable("numba"))
    monkeypatch.delenv("GPUMLP_BACKEND")
    monkeypatch.setattr(tuning, "tune", lambda *arguments, **options: Choice("numpy", 16))
    net, same = network(device="cpu"), network(backend="numpy")
    tuned, costs = trained(net, "tune", validation=data(9, seed=1))
    assert (net.backend.name, tuned.batch_size) == ("numpy", 16)
    assert net.alternatives == ("numpy", "numba")
    assert np.array_equal(costs, trained(same, 16)[1])
    assert np.array_equal(theta(net), theta(same))


def test_a_trainer_chooses_among_the_backends_that_are_open_and_work(monkeypatch):
    monkeypatch.delenv("GPUMLP_BACKEND")
    monkeypatch.setattr(tuning, "why_unavailable", lambda name: "" if name == "numpy" else "is not there")
    net = network(device="cpu")
    assert tuning.backends_for(net, stays=False) == ("numpy",)
    assert tuning.backends_for(net, stays=True) == (net.backend.name,)
    net.alternatives = ("numba", "numpy", "cuda")
    assert tuning.backends_for(net, stays=False) is None
    assert tuning.backends_for(network(backend="numpy"), stays=False) == ("numpy",)


@pytest.mark.parametrize("kind", ["argument", "use_backend", "environment", "moved"])
def test_a_backend_asked_for_by_name_is_kept(kind, monkeypatch):
    monkeypatch.delenv("GPUMLP_BACKEND")
    if kind == "argument":
        net = network(backend="numpy")
    elif kind == "use_backend":
        with gpumlp.use_backend("numpy"):
            net = network()
    elif kind == "environment":
        monkeypatch.setenv("GPUMLP_BACKEND", "numpy")
        net = network()
    else:
        net = network(device="cpu")
        net.move_to("numpy")
    tuned, _ = trained(net, "tune", rows=20)
    assert {m.backend for m in tuned.choice.measurements} == {"numpy"} == {net.backend.name}


def test_a_choice_can_be_used_by_hand_and_moves_the_network(backend):
    reference, tried = network(n_models=2), network(n_models=2, backend=backend)
    trained(reference, 16)
    trainer = gpumlp.Trainer(tried, batch_size=5, learning_rate=0.01)
    trainer.use(Choice("numpy", 16))
    assert (tried.backend.name, trainer.batch_size, trainer.choice.batch_size) == ("numpy", 16, 16)
    for epochs in (2, 1):
        trainer.fit(*data(40), epochs)
    assert np.array_equal(theta(tried), theta(reference))
