"""The deltas alone: every slow way gives what back-propagation gives, and nothing wrong is timed."""

import numpy as np
import pytest

import gpumlp
from gpumlp.bench import baselines, recursion, timing
from gpumlp.bench.baselines import DERIVATIVES, FORMULAS, Weight
from gpumlp.bench.contest import Own
from gpumlp.bench.recursion import Size
from gpumlp.errors import GpumlpError
from gpumlp.formulas.activations import ACTIVATIONS

SMALL = Size("batch", batch=5, width=6, n_layers=4, activation="silu")


@pytest.fixture(params=FORMULAS)
def problem(request):
    return baselines.new_problem(5, 6, 4, request.param)


def own(backend):
    return Own(f"gpumlp {backend}", backend, "cuda:0" if backend == "cuda" else "cpu")


def test_the_deltas_are_those_of_a_network(problem):
    """An independent way: a network of these layers with outputs whose delta is the problem's."""
    net = gpumlp.Network([6] * 5, problem.activation, "identity", "quadratic", dtype="float64", backend="numpy")
    for l, W in enumerate(problem.W):
        net.set_weights(l, W, np.zeros(6))
    outputs = net.predict(problem.a0)[0]
    gradients = net.backpropagate(problem.a0, outputs - problem.delta)  # delta = a - y
    for found, expected in zip(baselines.in_float64(problem), gradients.delta, strict=False):
        np.testing.assert_allclose(found, expected[0], atol=1e-5)


@pytest.mark.parametrize("slow", [baselines.per_sample, baselines.per_neuron])
def test_the_loops_give_the_same_deltas(problem, slow):
    for found, expected in zip(slow(problem), baselines.in_float64(problem), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_forward_mode_gives_the_gradient_of_every_weight(problem):
    weights = baselines.some_weights(problem, 10**6)
    assert len(set(weights)) == 3 * 6 * 6
    found = baselines.forward_mode(problem, weights)
    expected = baselines.gradients(problem, baselines.in_float64(problem), weights)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_gradient_is_a_difference_quotient():
    problem = baselines.new_problem(3, 4, 3, "tanh")
    weight, h = Weight(0, 2, 1), 1e-3

    def cost(change):
        W = [w.astype(np.float64) for w in problem.W]
        W[weight.l][weight.j, weight.k] += change
        a = problem.a0.astype(np.float64)
        for w in W[:-1]:
            a = np.tanh(a @ w.T)
        return float((problem.delta * (a @ W[-1].T)).sum())

    quotient = (cost(h) - cost(-h)) / (2 * h)
    assert baselines.gradients(problem, baselines.in_float64(problem), [weight])[0] == pytest.approx(quotient, rel=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_formulas_of_the_baselines_are_gpumlps(name):
    z = np.linspace(-3, 3, 13)
    assert FORMULAS[name][0](z) == pytest.approx(ACTIVATIONS.get(name).value(z))
    assert [DERIVATIVES[name](x) for x in z.tolist()] == pytest.approx(FORMULAS[name][1](z))


@pytest.mark.parametrize("activation", FORMULAS)
def test_a_backends_recursion_is_checked_and_can_be_repeated(backend, activation):
    runner = recursion.own_runner(Size("batch", 5, 6, 4, activation), own(backend))
    runner.work(3)
    assert "from NumPy in float64" in runner.checked


def test_a_backend_that_is_wrong_is_not_timed(monkeypatch):
    from gpumlp.backends.numpy_backend import NumpyBackend

    right = NumpyBackend.hidden_delta

    def wrong(self, activation, delta_next, W_next, z, a, delta, db, dropout=None):
        right(self, ACTIVATIONS.get("identity"), delta_next, W_next, z, a, delta, db, dropout)

    monkeypatch.setattr(NumpyBackend, "hidden_delta", wrong)
    with pytest.raises(GpumlpError, match="not timed"):
        recursion.own_runner(SMALL, own("numpy"))


@pytest.mark.parametrize("bad", [np.nan, 1.0])
def test_a_difference_that_is_too_large_or_none_is_refused(bad):
    with pytest.raises(GpumlpError, match="not timed"):
        recursion.check([np.array([1.0, bad])], [np.array([1.0, 2.0])], 1e-4)
    assert "1e-05" in recursion.check([np.array([1.0, 2.00002])], [np.array([1.0, 2.0])], 1e-4)


def test_the_time_of_some_weights_is_scaled_to_all():
    runner = recursion.forward_runner(Size("batch", 5, 16, 3))
    assert runner.scale == 2 * 16 * 16 / recursion.FORWARD_WEIGHTS
    assert "256 of 512 weights are timed" in runner.checked


def test_slow_ways_are_left_out_where_they_would_take_long():
    def names(**size):
        return [entrant.name for entrant in recursion.slow_entrants(Size("batch", **size))]

    assert len(names(batch=16, width=64)) == 3
    assert names(batch=256, width=64) == ["per-sample loops", "forward mode, weight by weight"]
    assert names(batch=128) == ["per-sample loops"]
    assert names(batch=8192, width=1024) == []


@pytest.mark.parametrize("quick", [False, True])
def test_each_size_occurs_once_and_every_axis_is_varied(quick):
    sizes = recursion.sizes(quick)
    assert len({size.name for size in sizes}) == len(sizes)
    assert {size.vary for size in sizes} == {"batch", "depth"} | ({"activation"} if not quick else set())
    batches = [size.batch for size in sizes if size.vary == "batch" and size.width == 256]
    assert (min(batches), max(batches)) == (1, 1024 if quick else 8192)
    if not quick:
        assert {size.width for size in sizes} == {64, 256, 1024}
        assert {size.n_layers for size in sizes} == {2, 4, 8}
        assert {size.activation for size in sizes} == set(FORMULAS)


def test_a_contest_of_the_recursion_is_measured(monkeypatch):
    monkeypatch.setattr(timing, "settle", lambda: None)
    contest = recursion.contest(SMALL, [own("numpy")])
    contest.visit(1e-3, 0.0, 2, 2)
    found = {case.contender: case for case in contest.cases()}
    assert contest.left_out == {}
    assert set(found) == {
        "gpumlp numpy",
        "per-sample loops",
        "per-neuron loops in Python",
        "forward mode, weight by weight",
        "matrix products alone",
    }
    case = found["gpumlp numpy"]
    assert (case.unit, case.examples, case.flops) == ("recursion", 5, 3 * 2 * 5 * 6 * 6)
    assert case.parameters["sizes"] == (6, 6, 6, 6, 6)
    assert case.limit_seconds > min(case.reference)
