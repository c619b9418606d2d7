"""Every definition on the CUDA device against NumPy: gradients, costs, and the weights after a few training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpumlp.doctor.report import Case, Check, compared, in_a_line, relative_difference
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.output_delta import fits
from gpumlp.formulas.registry import Interval
from gpumlp.formulas.update_rules import RULES, UpdateRule
from gpumlp.network.architecture import build_architecture
from gpumlp.network.embedding import Embedding
from gpumlp.network.members import Member
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.trainer import Trainer

SIZES = (5, 7, 12, 3)  # with and without a whole number of 16-byte vectors
ROWS, BATCH = 21, 8  # three steps, the last one short; the first runs, the second is recorded, the third replayed
# largest relative differences; in float32 NumPy and a device differ by some units in the last place an operation
TOLERANCES = {
    "float32": {"gradients": 2e-5, "costs": 2e-5, "training": 2e-5},
    "float64": {"gradients": 1e-12, "costs": 1e-12, "training": 1e-12},
    "tf32": {"gradients": 1e-2, "costs": 1e-2, "training": 1e-2},  # factors of products keep 10 bits
}


@dataclass(frozen=True)
class Problem:
    """A network and how it is trained."""

    name: str
    activation: str | Activation = "tanh"
    output: str | Activation = "softmax"
    cost: str | Cost = "categorical_cross_entropy"
    rule: str | UpdateRule = "sgd"
    rate: float = 0.02
    dropout: float = 0.0
    embeddings: Sequence[Embedding] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    members: Sequence[Member] = ()  # of a mixed stack, in place of the network above


def activations(dtype: str, device: str, chosen: Sequence[Activation] | None = None) -> Check:
    """Return whether hidden layers of every activation are those of NumPy."""
    known = [a for a in chosen or ACTIVATIONS.definitions() if not a.row_wise]
    problems = [Problem(a.name, a, "identity", "quadratic") for a in known]
    return compared(f"activations, {dtype}", [compare(p, dtype, device) for p in problems])


def pairs(dtype: str, device: str, chosen: Sequence[tuple[Cost, Activation]] | None = None) -> Check:
    """Return whether every cost with every output activation that fits it is that of NumPy."""
    every = [(c, a) for c in COSTS.definitions() for a in ACTIVATIONS.definitions() if fits(c, a)]
    problems = [Problem(f"{c.name} with {a.name}", "tanh", a, c, rate=2e-4) for c, a in chosen or every]
    return compared(f"costs with outputs, {dtype}", [compare(p, dtype, device) for p in problems])


def rules(dtype: str, device: str, chosen: Sequence[UpdateRule] | None = None) -> Check:
    """Return whether training by every update rule is that of NumPy."""
    problems = [Problem(r.name, rule=r) for r in chosen or RULES.definitions()]
    return compared(f"update rules, {dtype}", [compare(p, dtype, device) for p in problems])


def options(dtype: str, device: str) -> Check:
    """Return whether what acts besides the rule is that of NumPy."""
    problems = [
        Problem("clipping and penalties", rule="adam", options={"clip_norm": [0.5, 2.0], "l2": 1e-2, "l1": 1e-3}),
        Problem("dropout", dropout=0.3),
        Problem("one order for all models", options={"shuffle": "shared"}),
        Problem("rows as they stand, summed gradients", options={"shuffle": False, "reduction": "sum"}),
        Problem("momentum on weights alone", rule="momentum", options={"momentum_on_biases": False}),
        Problem("columns of codes", embeddings=[Embedding(1, 4, 3), Embedding(4, 9, 2)]),
    ]
    return compared(f"training options, {dtype}", [compare(p, dtype, device) for p in problems])


def mixtures(dtype: str, device: str) -> Check:
    """Return whether stacks of models that differ are those of NumPy."""
    kinds = [a for a in ACTIVATIONS.definitions() if not a.row_wise]
    problems = [
        Problem("every activation, of several widths", members=[member(i, f) for i, f in enumerate(kinds)]),
        Problem("each with a dropout of its own", members=[member(i, "tanh", 0.2 * i) for i in range(3)]),
    ]
    return compared(f"models that differ, {dtype}", [compare(p, dtype, device) for p in problems])


def member(number: int, activation: str | Activation, dropout: float = 0.0) -> Member:
    """Return a model of a mixed stack, whose widths depend on its number."""
    n_in, n_first, n_second, n_out = SIZES
    sizes = (n_in, n_first - number % 3, n_second - number % 5, n_out)
    net = build_architecture(sizes, [activation, "tanh"], "softmax", "categorical_cross_entropy")
    return Member(net, (dropout, dropout), model_id=number, initialiser=small)


def tf32(device: str) -> Check:
    """Return whether products with shortened factors are near those of NumPy."""
    return compared("products in tf32", [compare(Problem("softmax of two tanh layers"), "tf32", device)])


def compare(problem: Problem, mode: str, device: str) -> Case:
    """Return how far the device is from NumPy; `mode` is a dtype or "tf32"."""
    case = Case(problem.name, tolerances=TOLERANCES[mode])
    dtype = "float32" if mode == "tf32" else mode
    try:
        expected = results(problem, dtype, "numpy")
        found = results(problem, dtype, "cuda", device, "tf32" if mode == "tf32" else None)
        case.differences = {what: relative_difference(found[what], expected[what]) for what in expected}
    except Exception as error:  # the other cases are still worth to know
        case.error = in_a_line(error)
    return case


def results(
    problem: Problem, dtype: str, backend: str, device: str | None = None, precision: str | None = None
) -> dict[str, list[HostArray]]:
    """Return what a backend computes: deltas and gradients, costs, and parameters after an epoch of three steps."""
    net = network(problem, dtype=dtype, backend=backend, device=device, precision=precision)
    X, Y = examples(net)
    found: dict[str, list[HostArray]] = {}
    if not net.is_mixed:
        gradients = net.backpropagate(X, Y)
        found["gradients"] = [*gradients.delta, *gradients.dW, *gradients.dE, *gradients.db]
    costs = [net.cost_of(X, Y)]
    trainer = Trainer(net, problem.rule, problem.rate, BATCH, **problem.options)
    history = trainer.fit(X, Y, 1)
    alike = [net.alone(m) for m in range(net.n_models)] if net.is_mixed else [net]
    learned = [x for one in alike for x in (*one.weights, *one.embeddings, *one.biases)]
    return {**found, "costs": [*costs, history["cost"]], "training": learned}


def network(problem: Problem, **placed: Any) -> Network:
    """Return a problem's network, `placed` on a backend."""
    if problem.members:
        return Network.mixed(problem.members, **placed)
    return Network(
        SIZES,
        problem.activation,
        problem.output,
        problem.cost,
        n_models=2,
        initialiser=small,
        dropout=problem.dropout,
        embeddings=problem.embeddings,
        **placed,
    )


def small(generator: np.random.Generator, n_out: int, n_in: int) -> tuple[HostArray, HostArray]:
    """Return weights and biases with which no definition overflows and no unit is saturated."""
    return 0.5 * generator.standard_normal((n_out, n_in)) / np.sqrt(n_in), 0.2 * generator.standard_normal(n_out)


def examples(net: Network) -> tuple[HostArray, HostArray]:
    """Return inputs, and targets for which the network's cost is defined."""
    random = np.random.default_rng(0)
    X = random.standard_normal((ROWS, net.sizes[0])).astype(net.dtype)
    for embedding in net.architecture.embeddings:
        X[:, embedding.column] = random.integers(-1, embedding.n_categories, ROWS)
    output, cost = net.architecture.activations[-1], net.architecture.cost
    if output.row_wise:
        return X, random.integers(0, net.sizes[-1], ROWS)
    if cost.labels != (1.0, 0.0):
        return X, random.choice(cost.labels, (ROWS, net.sizes[-1]))
    return X, inside(cost.targets, random, (ROWS, net.sizes[-1]))


def inside(interval: Interval, random: np.random.Generator, shape: tuple[int, int]) -> HostArray:
    """Return numbers within an interval, away from its ends."""
    if np.isfinite(interval.low) and np.isfinite(interval.high):
        return random.uniform(interval.low + 0.1, interval.high - 0.1, shape)
    if np.isfinite(interval.low):
        return interval.low + random.uniform(0.3, 2.0, shape)
    return 0.5 * random.standard_normal(shape)
