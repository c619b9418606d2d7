"""How long a device takes: nodes of a graph, copies, products, the update, whole steps; and what cuBLASLt offers.

Device times are between two CUDA events around several calls, after a warm-up: medians with quartiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.cuda.measure import FusedProduct, Meter, graph_nodes
from gpumlp.backends.protocol import Backend, StepNumbers
from gpumlp.backends.select import get_backend
from gpumlp.bench.workloads import SEVERAL, WORKLOADS, ReadyStep, Workload
from gpumlp.doctor.report import Table, in_a_line
from gpumlp.formulas.update_rules import RULES, finished_names, given_names

ADAM_BYTES = 28  # a parameter in float32: w, m, v read and written, g read
MODES = ("float32", "tf32")
LONG_ENOUGH = 0.02  # seconds of a sample: far above the resolution of an event
EPILOGUES = ("RELU_AUX_BIAS", "GELU_AUX_BIAS", "DRELU_BGRAD", "DGELU_BGRAD")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
SPREAD = ["median", "lower quartile", "upper quartile"]


@dataclass(frozen=True)
class Effort:
    """How much work the measurements do; the tests take little."""

    nodes: int = 2000
    product: tuple[int, int, int] = (64, 784, 128)  # batch, in, out of the small products
    megabytes: float = 512
    parameters: int = 2**25
    square: int = 4096
    samples: int = 9
    calls: int = 10
    workloads: Sequence[Workload] = WORKLOADS


def spread(seconds: Sequence[float], factor: float = 1.0) -> list[float]:
    """Return median, lower and upper quartile, times a factor."""
    low, middle, high = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)) * factor)
    return [middle, low, high]


def node_times(meter: Meter, effort: Effort, device: str) -> Table:
    """Return what a node of a graph takes: of a trivial kernel, and of a small product."""
    backend = get_backend("cuda", device)
    one, total = backend.empty((1,)), backend.empty((1,), np.float64)
    batch, n_in, n_out = effort.product
    a, W, z = (backend.empty((1, *shape)) for shape in ((batch, n_in), (n_out, n_in), (batch, n_out)))
    for x in (one, total, a, W):
        backend.fill(x, 0.5)

    def kernels() -> None:
        for _ in range(effort.nodes):
            meter.add_to(one, total)

    def products() -> None:
        for _ in range(effort.nodes):
            backend.linear(a, W, z)

    rows: list[list[Any]] = []
    for name, step in ((f"a kernel of 1 value x {effort.nodes}", kernels), (_small_products(effort), products)):
        repeat = backend.capture(step)
        seconds = meter.seconds(repeat, 1, effort.samples)
        rows.append([name, len(graph_nodes(repeat)), *spread(seconds, 1e6 / effort.nodes)])
    note = "One graph, replayed; its time divided by its kernels or products, of which cuBLAS may make two nodes each."
    return Table("Time of a node", note, ["graph", "nodes", *_microseconds()], rows)


def bandwidth(meter: Meter, effort: Effort, device: str) -> Table:
    """Return the rate of a plain copy and that of the update kernel, which moves as many bytes as it must."""
    n_bytes = int(effort.megabytes * 2**20)
    copying = meter.seconds(meter.copying(n_bytes), effort.calls, effort.samples)
    backend = get_backend("cuda", device)
    work = adam_update(backend, effort.parameters)
    updating = meter.seconds(work, effort.calls, effort.samples)
    moved = [2 * n_bytes, ADAM_BYTES * effort.parameters]
    rows: list[list[Any]] = [
        [name, n, *spread([n / s for s in seconds], 1e-9)]
        for name, n, seconds in zip(("copy", "update (adam)"), moved, (copying, updating), strict=True)
    ]
    rows.append(["update / copy", None, rows[1][2] / rows[0][2], None, None])
    columns = ["work", "bytes moved", *(f"{name}, GB/s" for name in SPREAD)]
    return Table("Bandwidth", "Bytes read and written, divided by the device's time.", columns, rows)


def adam_update(backend: Backend, n_params: int) -> Any:
    """Return a function that updates one model of so many parameters by Adam, and nothing else."""
    rule = RULES.get("adam")
    names = finished_names(rule)
    given = {name: np.full((1, 1), 0.5) for name in given_names(rule)}
    table = backend.empty((len(names), 1, 1))
    numbers = StepNumbers(rule, frozenset(), given, names, table, np.ones((1, 1)), np.zeros(1, np.bool_))
    theta, grad = backend.empty((1, n_params)), backend.empty((1, n_params))
    state, clock = backend.empty((len(rule.state), 1, n_params)), backend.empty((3,), np.int64)
    for x, value in ((table, 0.5), (theta, 0.0), (grad, 1.0), (state, 0.0), (clock, 0)):
        backend.fill(x, value)
    backend.bring_numbers(numbers)
    return lambda: backend.update(numbers, theta, grad, state, (0, n_params), clock, 1)


def product_rates(meter: Meter, effort: Effort, device: str) -> Table:
    """Return the rate of large square products in each mode."""
    n, rows = effort.square, []
    random = np.random.default_rng(0)
    for mode in (*MODES, "float64"):
        dtype = "float64" if mode == "float64" else "float32"
        backend = get_backend("cuda", device, dtype, mode)
        a, W = (backend.asarray(random.standard_normal((1, n, n), np.float32).astype(dtype)) for _ in range(2))
        z = backend.empty((1, n, n))

        def multiply(backend: Backend = backend, a: Any = a, W: Any = W, z: Any = z) -> None:
            backend.linear(a, W, z)

        seconds = meter.seconds(multiply, effort.calls, effort.samples)
        rows.append([f"{n} x {n} x {n}", mode, *spread([2 * n**3 / s for s in seconds], 1e-12)])
    columns = ["product", "mode", *(f"{name}, TFLOP/s" for name in SPREAD)]
    return Table("Products", "z = a W^T through gpumlp's own cuBLAS handle, 2 n^3 operations each.", columns, rows)


def step_times(meter: Meter, effort: Effort, device: str) -> Table:
    """Return the time of a whole training step, replayed as a graph, on every workload in each mode."""
    rows = [
        _step_row(meter, effort, device, workload, mode, per_launch)
        for workload in effort.workloads
        for mode in MODES
        for per_launch in ((1, SEVERAL) if workload.n_steps >= SEVERAL else (1,))
    ]
    columns = ["workload", "mode", "steps in a graph", "nodes of a step", *_microseconds()]
    columns += ["TFLOP/s of the products", "predicted for an H100, us"]
    note = (
        "gather, forward, backward and Adam, replayed as one graph. The last column is computed from launches, bytes "
        "and flops for an H100, not measured; compare it on that device only."
    )
    return Table("Training steps", note, columns, rows)


def _step_row(meter: Meter, effort: Effort, device: str, workload: Workload, mode: str, per_launch: int) -> list[Any]:
    """Return one workload's times, or its error in their place: a small device may have no room for a large one."""
    try:
        ready = ReadyStep(workload, "cuda", device, mode, per_launch=per_launch)
        middle, low, high = spread(step_seconds(meter, ready, effort), 1e6)
        n_nodes = len(graph_nodes(ready.captured)) // per_launch
    except Exception as error:  # the other workloads are still worth to know
        return [workload.name, mode, per_launch, None, None, None, None, in_a_line(error), None]
    rate, predicted = workload.flops / middle / 1e6, workload.predicted.get(mode)
    row = [workload.name, mode, per_launch, n_nodes, middle, low, high, rate]
    return [*row, None if predicted is None else predicted * 1e6]


def step_seconds(meter: Meter, ready: ReadyStep, effort: Effort) -> list[float]:
    """Return times of a step; a sample is an epoch, or several if one is too short to be timed well."""
    n = ready.workload.n_steps
    once = meter.seconds(lambda: ready.run(n), 1, 1)[0]
    epochs = max(1, min(effort.calls, round(LONG_ENOUGH / once)))
    return [s / n for s in meter.seconds(lambda: ready.run(n), epochs, effort.samples)]


def epilogues(meter: Meter, workloads: Sequence[Workload] = WORKLOADS) -> Table:
    """Return how many algorithms cuBLASLt offers for a product with activation or its derivative fused into it."""
    products = fused_products(workloads)
    counts = iter(meter.algorithms(products))
    rows = []
    for shape in dict.fromkeys((p.epilogue, p.batch, p.inner, p.features, p.n_models) for p in products):
        epilogue, batch, inner, features, n_models = shape
        rows.append([epilogue, f"{batch} x {inner} x {features}", n_models, *(next(counts) for _ in PRECISIONS)])
    note = "Algorithms that the heuristic offers (16 at most) for batch x inner x features; 0: not supported."
    return Table("cuBLASLt epilogues", note, ["epilogue", "product", "models", *PRECISIONS], rows)


def fused_products(workloads: Sequence[Workload]) -> list[FusedProduct]:
    """Return the hidden layers' products of all workloads, each once, for 1 and 100 models and in every precision."""
    shapes = []
    for w in workloads:
        for l in range(1, len(w.sizes) - 1):
            shapes += [(e, w.batch, w.sizes[l - 1], w.sizes[l]) for e in EPILOGUES if e.endswith("BIAS")]
            shapes += [(e, w.batch, w.sizes[l + 1], w.sizes[l]) for e in EPILOGUES if e.endswith("BGRAD")]
    return [
        FusedProduct(epilogue, precision, batch, inner, features, n_models)
        for epilogue, batch, inner, features in sorted(dict.fromkeys(shapes), key=lambda s: EPILOGUES.index(s[0]))
        for n_models in (1, 100)
        for precision in PRECISIONS
    ]


def _small_products(effort: Effort) -> str:
    batch, n_in, n_out = effort.product
    return f"a product {batch} x {n_out} x {n_in} x {effort.nodes}"


def _microseconds() -> list[str]:
    return [f"{name}, us" for name in SPREAD]
