"""Steps recorded as graphs: what the graphs hold, and whether replays do what the step did."""

from __future__ import annotations

from collections import Counter

import numpy as np

from gpumlp.backends.cuda.measure import Meter, Node, graph_nodes
from gpumlp.backends.select import get_backend
from gpumlp.bench.workloads import ReadyStep, Workload
from gpumlp.doctor.report import Check, relative_difference

OWN_KERNELS = ("gather_batch", "bias_activation", "output_delta", "hidden_delta", "gradient_norm", "update")
SUM_TOLERANCE = 1e-5  # of a product in float32, against NumPy


def nodes(n_layers: int, clipping: bool, device: str) -> Check:
    """Return whether a recorded step of so many layers holds 5 nodes a layer (+ 1 with clipping), none of memory.

    cuBLAS may make two nodes of a product (split-K); these are counted as products and do not fail the check.
    """
    sizes = (6, 9, 12, 5, 7, 3)[-n_layers - 1 :]
    ready = ReadyStep(Workload("", sizes, 8, 2, 24), "cuda", device, clip_norm=1.0 if clipping else None)
    ready.run(3)
    found = graph_nodes(ready.captured)
    expected = expected_kernels(n_layers, clipping)
    own = Counter(node.name for node in found if node.name in OWN_KERNELS)
    products, memory = len(found) - own.total(), sum(node.is_memory for node in found)
    formula = 5 * n_layers + clipping
    passed = own == Counter(expected) and products >= 3 * n_layers - 1 and not memory
    summary = f"{len(found)} nodes, {formula} expected; {memory} of memory"
    if passed and len(found) > formula:
        summary += f"; cuBLAS made {len(found) - formula} more of its products"
    facts = {"nodes": len(found), "formula": formula, "memory_nodes": memory, "kinds": _kinds(found)}
    return Check(f"graph of a step, {_layers(n_layers)}{', clipping' if clipping else ''}", passed, summary, facts)


def expected_kernels(n_layers: int, clipping: bool) -> dict[str, int]:
    """Return how often each own kernel stands in a step; the 3 n_layers - 1 products come on top."""
    hidden = n_layers - 1
    counts = {"gather_batch": 1, "bias_activation": hidden, "output_delta": 1, "hidden_delta": hidden, "update": 1}
    return {name: n for name, n in (counts | {"gradient_norm": int(clipping)}).items() if n}


def cupy_product(meter: Meter) -> Check:
    """Return whether CuPy's own matmul raises in a capture, which is why gpumlp calls cuBLAS itself."""
    refusal = meter.why_cupy_product_is_refused()
    summary = refusal or "it was recorded: CuPy can do now what it could not, and gpumlp's own handle may not be needed"
    return Check("CuPy's own product in a capture raises", bool(refusal), summary)


def own_product(meter: Meter, replays: int, device: str) -> Check:
    """Return whether one product and one kernel, replayed as a graph, sum up to what they must.

    The product has a batch that two models share (stride 0), and weights whose rows lie apart (a stride into theta).
    """
    backend = get_backend("cuda", device)
    random = np.random.default_rng(0)
    a, theta = (random.standard_normal(shape).astype(np.float32) for shape in ((1, 24, 33), (2, 40, 33)))
    a_in, W = backend.asarray(a), backend.asarray(theta)[:, :20]
    z, total = backend.empty((2, 24, 20)), backend.empty((2, 24, 20), np.float64)
    backend.fill(total, 0)

    def step() -> None:
        backend.linear(a_in, W, z)
        meter.add_to(z, total)

    repeat = backend.capture(step)
    with backend.session():
        for _ in range(replays):
            repeat()
    expected = replays * (a.astype(np.float64) @ theta[:, :20].transpose(0, 2, 1).astype(np.float64))
    difference = relative_difference([backend.to_host(total)], [expected])
    passed = difference <= SUM_TOLERANCE and len(graph_nodes(repeat)) >= 2
    summary = f"{replays} replays, largest difference {difference:.2g}, tolerance {SUM_TOLERANCE:g}"
    facts = {"replays": replays, "difference": difference, "tolerance": SUM_TOLERANCE}
    return Check("own product and a kernel in a graph", passed, summary, facts)


def repeatable(workload: Workload, replays: int, device: str) -> Check:
    """Return whether a recorded step, replayed from the same state, gives the same bits each time."""
    ready = ReadyStep(workload, "cuda", device)
    ready.run(2)
    backend, theta = ready.backend, ready.net.parameters.theta
    kept = [(x, backend.asarray(backend.to_host(x).copy())) for x in (theta, *ready.state, ready.clock)]
    outcomes: Counter[tuple[bytes, ...]] = Counter()
    for _ in range(replays):
        for x, saved in kept:
            backend.copy(saved, x)
        with backend.session():
            ready.step(1)
        outcomes[tuple(backend.to_host(x).tobytes() for x in (theta, *ready.state))] += 1
    moved = backend.to_host(theta).tobytes() != backend.to_host(kept[0][1]).tobytes()
    summary = f"{replays} replays left {len(outcomes)} distinct outcome{'s' * (len(outcomes) != 1)}"
    summary += "" if moved else ", and none moved a weight"
    facts = {"replays": replays, "different": len(outcomes)}
    return Check(f"replays are bit-identical, {workload.name}", len(outcomes) == 1 and moved, summary, facts)


def _kinds(found: list[Node]) -> dict[str, int]:
    return dict(Counter(node.name if node.name in OWN_KERNELS else node.kind.lower() for node in found))


def _layers(n: int) -> str:
    return f"{n} layer{'s' * (n > 1)}"
