"""Turns: who is timed when, beside what, and how often. No test asserts a time: the clocks are made up."""

import gc

import numpy as np
import pytest

from gpumlp.bench import timing
from gpumlp.bench.timing import Runner, Turns, refuse_emulated, take, take_turns, warm_up
from gpumlp.errors import BackendUnavailable


class Clock:
    """A clock that runs only while something works: a unit of `name` takes as many seconds as it is told."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.seconds, self.log = 0.0, seconds, []
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "settle", lambda: self.log.append(("settle", 0)))
        monkeypatch.setattr(timing, "waited", lambda: 0.0)

    def runner(self, name, **more):
        def work(units):
            self.log.append((name, units))
            self.now += units * self.seconds[name]

        return Runner(work, **more)


def test_a_sample_lasts_as_long_as_it_should_and_holds_whole_launches(monkeypatch):
    clock = Clock(monkeypatch, fast=0.001, slow=5.0)
    assert warm_up(clock.runner("fast"), 0.05) == 50
    assert warm_up(clock.runner("fast", least=8), 0.05) == 56
    assert warm_up(clock.runner("slow"), 0.05) == 1
    assert warm_up(clock.runner("slow", least=4), 0.05) == 4
    assert clock.log[0] == ("fast", 1)
    assert sum(name == "slow" for name, _ in clock.log) >= 2 * timing.WARM_UP


def test_the_reference_is_measured_right_before_and_right_after_each_sample(monkeypatch):
    clock = Clock(monkeypatch, a=1.0, b=1.0, products=1.0)
    runners = {name: clock.runner(name) for name in "ab"}
    reference = clock.runner("products")
    turns, samples = Turns(runners, dict.fromkeys(runners, reference), 0.1), {}  # a unit a sample, so no start
    clock.log.clear()
    for number in range(3):
        turns.round(number, samples)
    order = [name for name, _ in clock.log if name != "settle"]
    there, back = ["products", "a", "products", "b", "products"], ["products", "b", "products", "a", "products"]
    assert order == [*there, *back, *there]
    assert [name for name, _ in clock.log][::2] == ["settle"] * len(order)  # before each of them


def test_the_mean_of_both_neighbours_is_a_samples_reference(monkeypatch):
    clock = Clock(monkeypatch, a=0.3, products=0.1)
    runner, reference = clock.runner("a"), clock.runner("products")
    turns, samples = Turns({"a": runner}, {"a": reference}, 0.1), {}
    work = runner.work

    def then_the_machine_is_slower(units):
        work(units)
        clock.seconds["products"] = 0.2

    runner.work = then_the_machine_is_slower
    turns.round(0, samples)
    assert samples["a"].reference == [pytest.approx(0.15)]
    assert samples["a"].seconds == [pytest.approx(0.3)]


def test_contenders_on_a_device_have_a_reference_of_their_own(monkeypatch):
    clock = Clock(monkeypatch, a=0.1, b=0.1, host=0.1, device=0.05)
    runners = {name: clock.runner(name) for name in "ab"}
    turns, samples = Turns(runners, {"a": clock.runner("host"), "b": clock.runner("device")}, 0.1), {}
    turns.round(0, samples)
    assert samples["a"].reference == [pytest.approx(0.1)]
    assert samples["b"].reference == [pytest.approx(0.05)]


def test_take_turns_gives_each_as_many_samples(monkeypatch):
    clock = Clock(monkeypatch, a=0.1, b=0.2)
    samples = take_turns({"a": clock.runner("a"), "b": clock.runner("b")}, None, 5, 0.1)
    assert np.allclose(samples["a"].seconds, 0.1)
    assert np.allclose(samples["b"].seconds, 0.2)
    assert [len(s.seconds) for s in samples.values()] == [5, 5]
    assert samples["a"].reference == []


def test_a_part_of_the_work_is_scaled_and_events_are_the_devices(monkeypatch):
    clock = Clock(monkeypatch, a=0.5)

    def events(work):
        work()
        return 0.25

    sample = take(clock.runner("a", scale=10.0, events=events), 2)
    assert sample.seconds == pytest.approx(0.25 * 10 / 2)
    assert sample.host == pytest.approx(1.0 * 10 / 2)


def test_waiting_is_that_of_the_products_beside(monkeypatch):
    clock = Clock(monkeypatch, a=1.0, products=1.0)
    queue = iter(np.cumsum([0, 0.1, 0, 0.7, 0, 0.3]))  # before and after: products, a, products
    turns, samples = Turns({"a": clock.runner("a")}, {"a": clock.runner("products")}, 1.0), {}
    monkeypatch.setattr(timing, "waited", lambda: next(queue))
    turns.round(0, samples)
    assert samples["a"].waited == [pytest.approx(0.3)]
    monkeypatch.setattr(timing, "waited", lambda: None)
    turns.round(1, samples)
    assert samples["a"].waited[1] is None


def test_the_collector_rests_while_a_sample_runs():
    seen = []
    take(Runner(lambda n: seen.append(gc.isenabled())), 1)
    assert seen == [False]
    assert gc.isenabled()


def test_a_busy_process_is_waited_for(monkeypatch):
    busy = iter([0.0, 0.009, 0.009, 0.018, 0.018, 0.018])  # two looks at a thread that spins, then peace
    looks, now = [], [0.0]
    monkeypatch.setattr(timing, "process_time", lambda: next(busy))
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

    def sleep(seconds):
        looks.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(timing, "sleep", sleep)
    timing.settle()
    assert len(looks) == 3
    spinning = iter(np.arange(0, 10, 0.009))
    monkeypatch.setattr(timing, "process_time", lambda: next(spinning))
    timing.settle()  # ends all the same
    assert now[0] < 2 * timing.PATIENCE


def test_an_emulated_device_is_refused():
    refuse_emulated("cuda:0", emulated=False)
    with pytest.raises(BackendUnavailable, match="cuda:0 is emulated: its times mean nothing"):
        refuse_emulated("cuda:0", emulated=True)


def test_half_a_sample_goes_before_it_and_does_not_count(monkeypatch):
    clock = Clock(monkeypatch, a=0.1)
    assert take(clock.runner("a"), 8).seconds == pytest.approx(0.1)
    take(clock.runner("a", least=3), 9)
    take(clock.runner("a"), 1)
    assert [work for work in clock.log if work[0] == "a"] == [("a", 4), ("a", 8), ("a", 3), ("a", 9), ("a", 1)]
