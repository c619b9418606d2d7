"""The same training steps in PyTorch and JAX, where these are installed and see the GPU.

Every contender starts from gpumlp's initial weights, takes the same rows in the same order, and trains by the same
rule. Three steps of each are compared with gpumlp's before anything is timed. All are timed alike, by the host's clock
from an idle device to an idle device, in turns, so that a change of clock rates meets everyone.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gpumlp.bench.peers import CHECKED_STEPS, Initial, Kind, available, enter, in_a_line, initial_weights
from gpumlp.bench.timing import Runner, take_turns
from gpumlp.bench.workloads import SEVERAL, ReadyStep, Workload
from gpumlp.doctor.report import Table
from gpumlp.doctor.speed import LONG_ENOUGH, MODES, SPREAD, Effort, spread
from gpumlp.shapes import HostArray

LIBRARIES = ("torch", "jax")
CHOSEN = ("PyTorch eager", "PyTorch stacked baddbmm", "PyTorch whole-step graph", "JAX jit")  # what runs best on a GPU
ROUNDS = 7
OWN, OWN_SEVERAL = "gpumlp", f"gpumlp, {SEVERAL} steps in a graph"
NOTE = (
    "Host time of a step from an idle device to an idle device, in turns: {rounds} rounds. All start from the same "
    "weights and take the same rows of data on the device, one batch after the other."
)


def contenders(device: str) -> tuple[list[Kind], dict[str, str]]:
    """Return the peers that take part on a device, and for each library that cannot, why."""
    kinds, absent = available(device, LIBRARIES)
    return [kind for kind in kinds if kind.name in CHOSEN], absent


def comparison(effort: Effort, device: str, kinds: Sequence[Kind]) -> Table:
    """Return the time of a step of every contender on every workload in each mode."""
    rows: list[list[Any]] = []
    for workload in effort.workloads:
        for mode in MODES:
            try:
                rows += _rows(workload, mode, device, kinds)
            except Exception as error:  # a small device may have no room for a large workload
                rows.append(_left_out(workload, mode, f"{OWN}: {in_a_line(error)}"))
            _free_unused()
    columns = ["workload", "mode", "contender", *(f"{name}, us" for name in SPREAD), "times gpumlp's"]
    return Table("Against PyTorch and JAX", NOTE.format(rounds=ROUNDS), columns, rows)


def _rows(workload: Workload, mode: str, device: str, kinds: Sequence[Kind]) -> list[list[Any]]:
    """Build the contenders, check them against gpumlp, and time in turns those that agree with it."""
    own = ready_step(workload, mode, device)
    initial = initial_weights(own)
    own.run(CHECKED_STEPS)
    expected = [W.copy() for W in own.net.weights]
    runners = {OWN: _runner(own)}
    if workload.n_steps >= SEVERAL:
        runners[OWN_SEVERAL] = _runner(ready_step(workload, mode, device, SEVERAL))
    failed: list[list[Any]] = []
    for kind in kinds:
        if kind.why_not(workload, device):
            continue
        try:
            runners[kind.name] = _peer(kind, workload, mode, device, initial, expected)
        except Exception as error:  # out of memory, an installation that does not work, another result
            failed.append(_left_out(workload, mode, f"{kind.name}: {in_a_line(error)}"))
    samples = take_turns(runners, None, ROUNDS, 2 * LONG_ENOUGH)
    times = {name: spread(found.seconds, 1e6) for name, found in samples.items()}
    rows = [[workload.name, mode, name, *found, found[0] / times[OWN][0]] for name, found in times.items()]
    return [*rows, *failed]


def ready_step(workload: Workload, mode: str, device: str, per_launch: int = 1) -> ReadyStep:
    """Return gpumlp's own step, whose rows come as they stand; where there is no device, by NumPy."""
    backend, precision = ("cuda", mode) if device.startswith("cuda") else ("numpy", None)
    return ReadyStep(workload, backend, device, precision, shuffle=False, per_launch=per_launch)


def _runner(ready: ReadyStep) -> Runner:
    def work(steps: int) -> None:
        ready.run(steps)
        ready.backend.synchronize()

    return Runner(work, ready.per_launch)


def _peer(
    kind: Kind, workload: Workload, mode: str, device: str, initial: Initial, expected: list[HostArray]
) -> Runner:
    peer, _ = enter(kind, workload, mode, device, initial, expected)
    return Runner(peer.run)


def _left_out(workload: Workload, mode: str, reason: str) -> list[Any]:
    return [workload.name, mode, reason, None, None, None, None]


def _free_unused() -> None:
    """Let PyTorch give back what it holds unused, so that the next workload finds room."""
    gc.collect()
    if find_spec("torch") is not None:
        with suppress(Exception):
            import_module("torch").cuda.empty_cache()
