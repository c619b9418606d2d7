"""Suite "recursion": delta[l] = (W[l+1]^T delta[l+1]) * f'(z[l]) alone, through each backend's own `hidden_delta`.

From a centre (width 256, 4 layers, tanh, batch 128) one thing is varied at a time: the depth, the activation, and the
batch size, this at three widths. The whole product of these axes would be hundreds of cases and say no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpumlp.backends.select import get_backend
from gpumlp.bench import baselines, limits
from gpumlp.bench.baselines import Problem
from gpumlp.bench.contest import Contest, Entrant, Own, device_of, meter
from gpumlp.bench.timing import Runner, repeating
from gpumlp.errors import GpumlpError
from gpumlp.formulas.activations import ACTIVATIONS, reads_z
from gpumlp.network.parameters import ParameterLayout, Parameters
from gpumlp.shapes import HostArray

FAR = {None: 1e-4, "tf32": 2e-2}  # the largest relative difference from NumPy in float64
SAMPLE_FLOPS = 2**31  # of the products up to which one example after the other is measured
FORWARD_WEIGHTS = 256  # that are differentiated; the time is that of all, by proportion


@dataclass(frozen=True)
class Size:
    """What is varied."""

    vary: str
    batch: int = 128
    width: int = 256
    n_layers: int = 4
    activation: str = "tanh"

    @property
    def name(self) -> str:
        """How it is printed."""
        return f"{self.width} x {self.n_layers}, {self.activation}, batch {self.batch}"

    @property
    def flops(self) -> int:
        """Of the products."""
        return 2 * self.batch * self.width**2 * (self.n_layers - 1)

    @property
    def problem(self) -> Problem:
        """What the recursion starts from."""
        return baselines.new_problem(self.batch, self.width, self.n_layers, self.activation)


def sizes(quick: bool) -> list[Size]:
    """Return what is measured, each once."""
    sweeps = {64: (16,), 256: (1, 128, 1024)} if quick else {
        64: (1, 4, 16, 64, 128, 256, 1024, 4096, 8192),
        256: tuple(2**i for i in range(14)),
        1024: (1, 4, 16, 64, 128, 256, 1024, 4096, 8192),
    }  # fmt: skip
    found = [Size("batch", batch, width) for width, batches in sweeps.items() for batch in batches]
    found += [Size("depth", n_layers=n) for n in ((8,) if quick else (2, 8))]
    return found + [Size("activation", activation=name) for name in (() if quick else ("relu", "silu"))]


def contests(quick: bool, own: Sequence[Own]) -> list[Contest]:
    """Return a contest for each size."""
    return [contest(size, own, slow=not quick or size.width == 64) for size in sizes(quick)]


def contest(size: Size, own: Sequence[Own], slow: bool = True) -> Contest:
    """Return gpumlp's backends beside the baselines that are not too slow.

    slow   whether there are baselines at all
    """
    entrants = [Entrant(o.name, "gpumlp", partial(own_runner, size, o), o.place) for o in own]
    hidden = size.n_layers - 1
    return Contest(
        "recursion",
        size.name,
        {
            "sizes": [size.width] * (size.n_layers + 1),
            "batch": size.batch,
            "n_models": 1,
            "activation": size.activation,
            "vary": size.vary,
        },
        "recursion",
        size.batch,
        size.flops,
        entrants + (slow_entrants(size) if slow else []),
        partial(_products, size, device_of(own)),
        partial(limits.limit, limits.VALUE * size.batch * size.width * hidden, device_of(own)),
    )


def own_runner(size: Size, own: Own) -> Runner:
    """Return a backend's recursion, captured as a training step is, and checked."""
    backend = get_backend(own.backend, own.device if own.backend == "cuda" else None, None, own.precision)
    problem, f = size.problem, ACTIVATIONS.get(size.activation)
    layout = ParameterLayout((size.width,) * (size.n_layers + 1))
    p, grad = Parameters(backend, layout, 1), Parameters(backend, layout, 1)
    for W, out in zip(problem.W, p.W, strict=True):
        backend.copy(backend.asarray(W[None]), out)
    z = [backend.asarray(x[None]) for x in problem.z]
    a = [backend.asarray(baselines.FORMULAS[size.activation][0](x)[None]) for x in problem.z]
    kept = z if reads_z(f) else a  # as a training step keeps them
    delta = [backend.empty(tuple(x.shape)) for x in z] + [backend.asarray(problem.delta[None].copy())]

    def step() -> None:
        for l in range(size.n_layers - 1, 0, -1):
            backend.hidden_delta(f, delta[l], p.W[l], kept[l - 1], a[l - 1], delta[l - 1], grad.b[l - 1])

    work = repeating(backend, step)
    work(1)
    found = [backend.to_host(d)[0] for d in delta[:-1]]
    checked = check(found, baselines.in_float64(problem), FAR[own.precision])
    events = meter(own.device).timed if own.backend == "cuda" else None
    return Runner(work, events=events, checked=checked)


def slow_entrants(size: Size) -> list[Entrant]:
    """Return the baselines that are not too slow for a size."""
    found: list[tuple[str, Callable[[Size], Runner]]] = []
    if size.flops <= SAMPLE_FLOPS:
        found.append(("per-sample loops", partial(loop_runner, baselines.per_sample)))
    if size.width <= 64 and size.batch <= 16:
        found.append(("per-neuron loops in Python", partial(loop_runner, baselines.per_neuron)))
    if size.width <= 64 and size.batch <= 1024:
        found.append(("forward mode, weight by weight", forward_runner))
    return [Entrant(name, "baseline", partial(build, size)) for name, build in found]


def loop_runner(work: Callable[[Problem], list[HostArray]], size: Size) -> Runner:
    """Return one of the loops, checked."""
    problem = size.problem
    checked = check(work(problem), baselines.in_float64(problem), FAR[None])
    return Runner(lambda n: _repeat(lambda: work(problem), n), checked=checked)


def forward_runner(size: Size) -> Runner:
    """Return the differentiation of some weights, whose time is scaled to that of all, checked."""
    problem = size.problem
    weights = baselines.some_weights(problem, FORWARD_WEIGHTS)
    expected = baselines.gradients(problem, baselines.in_float64(problem), weights)
    checked = check([baselines.forward_mode(problem, weights)], [expected], FAR[None])
    total = (size.n_layers - 1) * size.width**2
    told = f"{checked}; {len(weights)} of {total} weights are timed, and the time is scaled to all"
    scale = total / len(weights)
    return Runner(lambda n: _repeat(lambda: baselines.forward_mode(problem, weights), n), scale=scale, checked=told)


def check(found: Sequence[HostArray], expected: Sequence[HostArray], far: float) -> str:
    """Return the largest difference relative to an array's largest value, in words; raise GpumlpError if it is far."""
    largest = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))
    if not largest <= far:
        raise GpumlpError(f"its result is {largest:.2g} away from NumPy's, {far:g} at most expected; not timed")
    return f"largest relative difference {largest:.1g} from NumPy in float64"


def _repeat(work: Callable[[], object], n: int) -> None:
    for _ in range(n):
        work()


def _products(size: Size, device: str, place: str) -> tuple[Runner, str]:
    return limits.runner_at(limits.delta_products(size.n_layers, size.width, size.batch), device, place)
