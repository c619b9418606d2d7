"""Suites "steps" and "growth": whole training steps and epochs, gpumlp's beside other libraries', and what they cost.

A step gathers its rows from memory in a shuffled order, goes forward and back, and updates every parameter. An epoch is
a call of `Trainer.fit`, with all that it checks and reports, beside as many steps of the others.

"growth" varies one size at a time from a centre: 256-256-256-10, batch 128, one model, 16,384 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gpumlp.bench import limits
from gpumlp.bench.contest import HOST, Contest, Entrant, Own, device_of, meter
from gpumlp.bench.peers import CHECKED_STEPS, Initial, Kind, check_agreement, enter, initial_weights
from gpumlp.bench.timing import Runner
from gpumlp.bench.workloads import (
    ON_CPU,
    ON_CUDA,
    SEVERAL,
    ReadyStep,
    Workload,
    new_network,
    new_trainer,
    whole_batches,
)
from gpumlp.shapes import HostArray

QUICK_ROWS = 8_192
TOO_LARGE = 2 * 10**11  # operations of a step that a CPU is spared beside a device
TOO_SLOW = 25 * 10**8  # and of one that --quick leaves out
IN_GROWTH = ("PyTorch eager", "PyTorch stacked baddbmm")
IN_QUICK = ("PyTorch eager", "PyTorch stacked baddbmm", "JAX jit", "scikit-learn")
CENTRE = Workload("", (256, 256, 256, 10), 128, 1, 16_384)
CENTRE_NAME = f"{'-'.join(map(str, CENTRE.sizes))}, batch {CENTRE.batch}, {CENTRE.n_rows} rows, adam"


def contests(quick: bool, own: Sequence[Own], kinds: Sequence[Kind]) -> list[Contest]:
    """Return a contest for a step of each workload, and one for an epoch of the first unless it must be quick."""
    every: tuple[Workload, ...] = ON_CPU if device_of(own) == "cpu" else ON_CUDA
    if not quick:
        return [*(contest(w, own, kinds) for w in every), contest(every[0], own, kinds, unit="epoch")]
    chosen = [kind for kind in kinds if kind.name in IN_QUICK]
    fewer = [replace(w, n_rows=whole_batches(QUICK_ROWS, w.batch)) for w in every if w.flops < TOO_SLOW]
    return [contest(w, own, chosen) for w in fewer]


def growth(quick: bool, own: Sequence[Own], kinds: Sequence[Kind]) -> list[Contest]:
    """Return a contest for the centre, which belongs to every size that is varied, and one for each other size."""
    chosen = [] if quick else [kind for kind in kinds if kind.name in IN_GROWTH]
    found = [contest(replace(CENTRE, name=CENTRE_NAME), own, chosen, "growth")]
    for vary, workload in growing(quick):
        unit = "epoch" if vary == "rows" else "step"
        found.append(contest(workload, own, chosen, "growth", unit, {"vary": vary}))
    return found


def growing(quick: bool) -> list[tuple[str, Workload]]:
    """Return what is varied, and the workload; a step of the centre is not among them."""
    d, classes = CENTRE.sizes[0], CENTRE.sizes[-1]
    values: Mapping[str, tuple[Sequence[int], Callable[[int], Workload]]] = {
        "batch": ((16,) if quick else (4, 16, 64, 256, 1024, 4096), lambda n: replace(CENTRE, batch=n)),
        "width": ((64,) if quick else (16, 64, 1024), lambda n: replace(CENTRE, sizes=(d, n, n, classes))),
        "depth": ((8,) if quick else (2, 8, 16), lambda n: replace(CENTRE, sizes=(*[d] * n, classes))),
        "n_models": ((8,) if quick else (4, 16, 64), lambda n: replace(CENTRE, n_models=n)),
        "rows": (() if quick else (1024, 4096, 16_384, 65_536), lambda n: replace(CENTRE, n_rows=n)),
    }
    return [(vary, named(vary, n, make(n))) for vary, (numbers, make) in values.items() for n in numbers]


def named(vary: str, n: int, workload: Workload) -> Workload:
    """Return the workload with a name that says what is varied."""
    return replace(workload, name=f"{vary.replace('n_models', 'models')} {n}, from {CENTRE_NAME}")


def contest(
    workload: Workload,
    own: Sequence[Own],
    kinds: Sequence[Kind],
    suite: str = "steps",
    unit: str = "step",
    more: Mapping[str, Any] | None = None,
) -> Contest:
    """Return gpumlp's backends and the peers that there are for a workload."""
    device = device_of(own)
    steps = workload.n_steps if unit == "epoch" else 1
    right = Right(workload)
    spared = workload.flops > TOO_LARGE and device != "cpu"
    entrants = [_own_entrant(workload, o, unit, right) for o in own if not (spared and o.place == HOST)]
    entrants += _peer_entrants(workload, kinds, own, steps, right)
    return Contest(
        suite,
        workload.name if unit == "step" or suite == "growth" else f"{workload.name}, {workload.n_rows} rows",
        {**workload.parameters, **(more or {})},
        unit,
        workload.batch * workload.n_models * steps,
        workload.flops * steps,
        entrants,
        partial(_products, workload, device, steps),
        partial(limits.limit, limits.step_bytes(workload) * steps, device),
    )


class Right:
    """Where a few steps in a fixed order lead, by NumPy: what everyone's are compared with. Computed once."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._found: tuple[Initial, list[HostArray]] | None = None

    def __call__(self) -> tuple[Initial, list[HostArray]]:
        """Return the initial weights and biases, and the weights after the steps."""
        if self._found is None:
            ready = ReadyStep(self.workload, "numpy", shuffle=False)
            initial = initial_weights(ready)
            ready.run(CHECKED_STEPS)
            self._found = initial, [W.copy() for W in ready.net.weights]
        return self._found


def _own_entrant(workload: Workload, own: Own, unit: str, right: Right) -> Entrant:
    build = own_epochs if unit == "epoch" else own_steps
    return Entrant(own.name, "gpumlp", partial(build, workload, own, right), own.place)


def own_steps(workload: Workload, own: Own, right: Right) -> Runner:
    """Return training steps on one of gpumlp's backends, checked."""
    per_launch = SEVERAL if own.place != HOST and workload.n_steps >= SEVERAL else 1
    told = _checked(workload, own, right)
    ready = ReadyStep(workload, own.backend, own.device, own.precision, per_launch=per_launch)

    def work(steps: int) -> None:
        ready.run(steps)
        ready.backend.synchronize()

    return Runner(work, per_launch, events=_events(own), checked=told)


def own_epochs(workload: Workload, own: Own, right: Right) -> Runner:
    """Return epochs by `Trainer.fit` on one of gpumlp's backends, checked."""
    told = _checked(workload, own, right)
    net = new_network(workload, own.backend, own.device, own.precision)
    trainer, data = new_trainer(net, workload, shuffle=True), workload.data()
    return Runner(lambda epochs: _fit(trainer, data, epochs), events=_events(own), checked=told)


def _fit(trainer: Any, data: tuple[HostArray, HostArray], epochs: int) -> None:
    trainer.fit(*data, epochs)


def _checked(workload: Workload, own: Own, right: Right) -> str:
    """Return how far the backend's steps in a fixed order lead from NumPy's, in words."""
    initial, expected = right()
    if own.backend == "numpy":
        return "what the others are compared with"
    ready = ReadyStep(workload, own.backend, own.device, own.precision, shuffle=False)
    ready.run(CHECKED_STEPS)
    return check_agreement(initial, expected, ready.net.weights).replace("gpumlp's", "NumPy's")


def _events(own: Own) -> Any:
    return meter(own.device).timed if own.place != HOST else None


def _peer_entrants(
    workload: Workload, kinds: Sequence[Kind], own: Sequence[Own], steps: int, right: Right
) -> list[Entrant]:
    device = device_of(own)
    places = list(dict.fromkeys(o.place for o in own if (o.place == HOST) == (device == "cpu")))
    found = []
    for place in places or [HOST]:
        mode = place.rpartition(" ")[2] if place != HOST else "float32"
        for kind in kinds:
            if not kind.why_not(workload, device):
                name = f"{kind.name} tf32" if mode == "tf32" else kind.name
                build = partial(peer_runner, workload, kind, mode, device, steps, right)
                found.append(Entrant(name, "peer", build, place, stays=True))
    return found


def peer_runner(workload: Workload, kind: Kind, mode: str, device: str, steps: int, right: Right) -> Runner:
    """Return a peer's training, checked against gpumlp's; a unit is so many steps."""
    peer, told = enter(kind, workload, mode, device, *right())
    remark = peer.tune()
    events = getattr(peer, "events", None) if device != "cpu" else None
    least = 1 if steps > 1 else peer.launch
    told = f"{told}; {remark}" if remark else told
    return Runner(lambda n: peer.run(n * steps), least, events=events, checked=told)


def _products(workload: Workload, device: str, steps: int, place: str) -> tuple[Runner, str]:
    runner, how = limits.products_alone(workload, device, place)
    return replace(runner, scale=float(steps)), how
