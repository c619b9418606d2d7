"""The order of an examination: what is here, whether it computes rightly, and, on a real device, how fast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gpumlp import __version__
from gpumlp.backends.cuda.measure import Meter
from gpumlp.backends.select import device_number
from gpumlp.bench.environment import CUDA_PACKAGES, driver, system, variables, versions
from gpumlp.bench.workloads import SMALL, WORKLOADS
from gpumlp.doctor import agreement, comparison, replays, speed
from gpumlp.doctor.report import Report, caught, caught_table
from gpumlp.doctor.speed import Effort

PACKAGES = ("numpy", *CUDA_PACKAGES, "torch", "jax", "jaxlib")
SWITCHES = ("GPUMLP_CUDA_GRAPHS", "GPUMLP_BACKEND", "CUDA_VISIBLE_DEVICES", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE")
REPLAYS = {"sums": 1000, "bits": 100}

Tell = Callable[[str], None]
Named = list[tuple[str, Callable[[], Any]]]


def examine(device: str, tell: Tell, effort: Effort | None = None) -> Report:
    """Return what is found on a usable device; nothing is timed on an emulated one.

    device   "cuda:0"
    tell     is given the name of each part before it begins
    """
    meter = Meter(device_number(device))
    report = Report(meter.name, meter.emulated, environment(meter))
    for name, check in checks(meter, device):
        tell(name)
        report.checks.append(caught(name, check))
    if not meter.emulated:
        for name, table in measurements(meter, device, effort or Effort()):
            tell(name)
            report.measurements.append(caught_table(name, table))
    return report


def compare_with_peers(report: Report, device: str, tell: Tell, effort: Effort | None = None) -> None:
    """Add the times of PyTorch and JAX, where they are installed and see the device."""
    present, absent = comparison.contenders(device)
    report.environment |= {name: f"{reason}: not compared" for name, reason in absent.items()}
    if present:
        tell("the same steps in " + ", ".join(kind.name for kind in present))
        report.measurements.append(
            caught_table("Against PyTorch and JAX", lambda: comparison.comparison(effort or Effort(), device, present))
        )


def checks(meter: Meter, device: str) -> Named:
    """Return the checks of correctness by name, each ready to be called."""
    found: Named = []
    for dtype in ("float32", "float64"):
        for kind in (agreement.activations, agreement.pairs, agreement.rules, agreement.options, agreement.mixtures):
            found.append((f"{kind.__name__}, {dtype}", partial(kind, dtype, device)))
    found.append(("products in tf32", partial(agreement.tf32, device)))
    for n_layers, clipping in ((1, False), (2, False), (2, True), (4, False), (4, True)):
        name = f"graph of a step, {n_layers} layers{', clipping' * clipping}"
        found.append((name, partial(replays.nodes, n_layers, clipping, device)))
    found.append(("CuPy's own product in a capture", partial(replays.cupy_product, meter)))
    found.append(("own product in a graph", partial(replays.own_product, meter, REPLAYS["sums"], device)))
    for workload in (SMALL,) if meter.emulated else (SMALL, *WORKLOADS[:2]):
        name = f"replays are bit-identical, {workload.name}"
        found.append((name, partial(replays.repeatable, workload, REPLAYS["bits"], device)))
    return found


def measurements(meter: Meter, device: str, effort: Effort) -> Named:
    """Return the measurements by name, each ready to be called."""
    return [
        ("time of a node", partial(speed.node_times, meter, effort, device)),
        ("bandwidth", partial(speed.bandwidth, meter, effort, device)),
        ("products", partial(speed.product_rates, meter, effort, device)),
        ("cuBLASLt epilogues", partial(speed.epilogues, meter, effort.workloads)),
        ("training steps", partial(speed.step_times, meter, effort, device)),
    ]


def environment(meter: Meter) -> dict[str, Any]:
    """Return the versions of everything that matters, and what the device is."""
    software = {"gpumlp": __version__, **system(), **versions(PACKAGES), **driver()}
    return {**software, **meter.facts(), **variables(SWITCHES)}
