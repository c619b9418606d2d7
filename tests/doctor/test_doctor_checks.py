"""The checks find what is wrong, and only that."""

import numpy as np
import pytest

from gpumlp.bench.workloads import SMALL, ReadyStep
from gpumlp.doctor import agreement, replays
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.update_rules import RULES

pytestmark = pytest.mark.usefixtures("meter")
DEVICE = "cuda:0"
TANH, RELU = ACTIVATIONS.get("tanh"), ACTIVATIONS.get("relu")
ADAM = RULES.get("adam")


@pytest.fixture
def cuda():
    from gpumlp.backends.cuda.backend import CudaBackend

    return CudaBackend


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_kernels_pass(dtype):
    pairs = [(COSTS.get("quadratic"), RELU), (COSTS.get("hinge"), TANH), (COSTS.get("poisson"), ACTIVATIONS.get("exp"))]
    for check, n in (
        (agreement.activations(dtype, DEVICE, [TANH, RELU]), 2),
        (agreement.pairs(dtype, DEVICE, pairs), 3),
        (agreement.rules(dtype, DEVICE, [ADAM]), 1),
        (agreement.options(dtype, DEVICE), 6),
        (agreement.mixtures(dtype, DEVICE), 2),
    ):
        assert check.passed, check
        assert len(check.cases) == n


def test_every_definition_is_examined():
    def names(check):
        return [case.name for case in check.cases]

    def nothing(problem, mode, device):
        return agreement.Case(problem.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "compare", nothing)
        assert set(names(agreement.activations("float32", DEVICE))) == {
            a.name for a in ACTIVATIONS.definitions() if not a.row_wise
        }
        assert set(names(agreement.rules("float32", DEVICE))) == {r.name for r in RULES.definitions()}
        pairs = names(agreement.pairs("float32", DEVICE))
    assert {pair.partition(" with ")[0] for pair in pairs} == {c.name for c in COSTS.definitions()}
    assert {pair.partition(" with ")[2] for pair in pairs} == {a.name for a in ACTIVATIONS.definitions()}


@pytest.mark.parametrize("method", ["hidden_delta", "output_delta", "update", "weight_gradient"])
def test_a_kernel_that_is_a_little_wrong_fails(cuda, monkeypatch, method):
    right = getattr(cuda, method)
    spoiled = {"hidden_delta": 5, "output_delta": 7, "update": 1, "weight_gradient": 2}[method]  # what it overwrites

    def wrong(self, *arguments, **more):
        right(self, *arguments, **more)
        arguments[spoiled][...] *= 1.001

    monkeypatch.setattr(cuda, method, wrong)
    check = agreement.activations("float32", DEVICE, [TANH])
    assert not check.passed
    assert check.cases[0].worst > 1


def test_an_error_in_one_case_leaves_the_others_alone(cuda, monkeypatch):
    right = cuda.hidden_delta

    def sometimes(self, activation, *arguments, **more):
        if activation.name == "tanh":
            raise RuntimeError("no tanh today")
        right(self, activation, *arguments, **more)

    monkeypatch.setattr(cuda, "hidden_delta", sometimes)
    check = agreement.activations("float32", DEVICE, [TANH, RELU])
    assert [case.passed for case in check.cases] == [False, True]
    assert "RuntimeError: no tanh today" in check.summary


def test_products_in_tf32_are_near():
    case = agreement.tf32(DEVICE).cases[0]
    assert case.passed
    assert case.differences["gradients"] > agreement.TOLERANCES["float32"]["gradients"]


@pytest.mark.parametrize("n_layers", [1, 2, 5])
@pytest.mark.parametrize("clipping", [False, True])
def test_a_recorded_step_holds_five_nodes_a_layer(n_layers, clipping):
    check = replays.nodes(n_layers, clipping, DEVICE)
    assert check.passed, check
    assert check.facts["nodes"] >= check.facts["formula"] == 5 * n_layers + clipping


def test_a_step_with_a_further_kernel_or_without_a_graph_fails(cuda, monkeypatch):
    right = cuda.update
    with monkeypatch.context() as patch:
        patch.setattr(cuda, "update", lambda self, *a, **k: (right(self, *a, **k), right(self, *a, **k)))
        assert not replays.nodes(2, False, DEVICE).passed
    monkeypatch.setenv("GPUMLP_CUDA_GRAPHS", "off")
    with pytest.raises(RuntimeError, match="GPUMLP_CUDA_GRAPHS"):
        replays.nodes(2, False, DEVICE)


def test_cupys_own_product_is_refused_and_ours_is_not(meter):
    assert "NotImplementedError" in replays.cupy_product(meter).summary
    check = replays.own_product(meter, 50, DEVICE)
    assert check.passed, check
    assert check.facts["replays"] == 50


def test_a_replay_that_is_left_out_is_found(meter, monkeypatch):
    right = type(meter).add_to

    def now_and_then(self, x, total):
        right(self, x, total)
        total *= 0.5

    monkeypatch.setattr(type(meter), "add_to", now_and_then)
    assert not replays.own_product(meter, 10, DEVICE).passed


class UnsteadyStep(ReadyStep):
    """A step that does not do the same each time."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        step, factors = self.step, iter(np.linspace(1, 2, 100))

        def unsteady(left):
            done = step(left)
            self.net.parameters.theta[...] *= next(factors)
            return done

        self.step = unsteady


def test_replays_that_differ_in_a_bit_are_found(monkeypatch):
    assert replays.repeatable(SMALL, 5, DEVICE).passed
    monkeypatch.setattr(replays, "ReadyStep", UnsteadyStep)
    check = replays.repeatable(SMALL, 5, DEVICE)
    assert not check.passed
    assert check.facts["different"] == 5
