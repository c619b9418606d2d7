"""`gpumlp doctor`: whether a CUDA device computes what NumPy does, and how fast, as files for a bug report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gpumlp.backends.select import check_device, device_number, why_unavailable
from gpumlp.cli.errors import tell
from gpumlp.cli.options import AsJson
from gpumlp.cli.places import check_place
from gpumlp.doctor.report import EMULATED, Report, free_places, save

Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where doctor.json and doctor.md go.")]
CudaDevice = Annotated[str, typer.Option("--device", "-d", metavar="NAME", help="cuda:0, cuda:1, ...")]


def doctor(out: Out = Path(), device: CudaDevice = "cuda:0", as_json: AsJson = False) -> None:
    """Examine a CUDA device: correctness of every kernel, graphs, times, and PyTorch and JAX if they are installed.

    Writes doctor.json and doctor.md, which belong into a bug report; existing ones are kept and the new ones numbered.
    The exit status is 0 if all checks of correctness pass, otherwise 1. It takes some minutes.
    """
    check_device("cuda", device)
    number = device_number(device)
    device, missing = f"cuda:{number}", why_unavailable("cuda", number)
    if missing:
        sentence = f'backend "cuda" {missing}'
        print(json.dumps({"passed": False, "unavailable": sentence}) if as_json else sentence)
        raise typer.Exit(1)
    check_place(out / "doctor.json", "--out")
    from gpumlp.doctor.examine import compare_with_peers, examine  # only where CuPy is

    report = examine(device, tell)
    places = free_places(out)
    save(report, places)  # whatever happens to the libraries that come next
    if not report.emulated:
        compare_with_peers(report, device, tell)
        save(report, places)
    print(report.as_json() if as_json else "\n".join(summary(report)))
    tell(f"written: {places[0]} and {places[1]}")
    if not report.passed:
        raise typer.Exit(1)


def summary(report: Report) -> list[str]:
    """Return a line for each check and, on a real device, one for each training step."""
    lines = [f"{'ok' if c.passed else 'FAILED':<8}{c.name}: {c.error or c.summary}" for c in report.checks]
    for table in report.measurements:
        if table.error:
            lines.append(f"{'not done':<8} {table.name}: {table.error}")
        elif table.name == "Training steps":
            lines += [time_of_step(*row[:5]) for row in table.rows if row[4] is not None]
    failed = sum(not c.passed for c in report.checks)
    verdict = f"{failed} of {len(report.checks)} checks FAIL" if failed else f"all {len(report.checks)} checks pass"
    return [*lines, f"{report.device}: {verdict}", *([EMULATED] if report.emulated else [])]


def time_of_step(workload: str, mode: str, per_launch: int, n_nodes: int, microseconds: float) -> str:
    """Return a line for a row of the training steps."""
    return f"{'time':<8}{workload}, {mode}, {per_launch} in a graph: {microseconds:.4g} us a step of {n_nodes} nodes"
