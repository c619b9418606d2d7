"""One case of the benchmark: who takes part, beside which products, and the times of all visits to it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np

from gpumlp.backends.select import BACKENDS, check_device, device_number, why_unavailable
from gpumlp.bench.peers import in_a_line
from gpumlp.bench.results import Case
from gpumlp.bench.timing import Runner, Samples, Turns, refuse_emulated
from gpumlp.errors import BackendUnavailable, unknown_name

log = logging.getLogger("gpumlp")

PRODUCTS = "matrix products alone"
HOST, CUDA = "host", "cuda"  # places where products are computed; that of a device is followed by the precision


@dataclass(frozen=True)
class Own:
    """gpumlp on one backend, as a contender."""

    name: str
    backend: str
    device: str = "cpu"
    precision: str | None = None

    @property
    def place(self) -> str:
        """Where its products are computed, and how: "host", "cuda float32" or "cuda tf32"."""
        return HOST if self.backend != "cuda" else f"{CUDA} {self.precision or 'float32'}"


def owns(backends: Sequence[str] | None, device: str | None) -> list[Own]:
    """Return gpumlp's contenders.

    backends   by name; None: all that work here, and cuda only on a real device
    device     "cpu" leaves cuda out; "cuda:1" says where it computes
    Raises     UnknownName, ConfigurationError; BackendUnavailable for one that is asked for and cannot be timed
    """
    _check(backends, device)
    number, found = device_number(device), []
    for name in backends or BACKENDS:
        reason = "is left out on the CPU" if name == "cuda" and device == "cpu" else why_unavailable(name, number)
        if reason and backends:
            raise BackendUnavailable(f'backend "{name}" {reason}; leave it away')
        if reason or (name == "cuda" and not backends and device is None and meter(f"cuda:{number}").emulated):
            continue
        found += _own(name, number)
    return found


def _check(backends: Sequence[str] | None, device: str | None) -> None:
    for name in backends or ("auto",):
        if name not in (*BACKENDS, "auto"):
            raise unknown_name("backend", name, BACKENDS)
        # a CPU's backend may be timed beside that of a device
        beside = name != "cuda" and "cuda" in (backends or ())
        check_device(name, None if beside else device)


def _own(name: str, number: int) -> list[Own]:
    if name != "cuda":
        return [Own(f"gpumlp {name}", name)]
    device = f"cuda:{number}"
    refuse_emulated(device, meter(device).emulated)
    return [Own("gpumlp cuda", name, device), Own("gpumlp cuda tf32", name, device, "tf32")]


def device_of(own: Sequence[Own]) -> str:
    """Return the device of those who compute on one, "cpu" if none does."""
    return next((o.device for o in own if o.backend == "cuda"), "cpu")


@cache
def meter(device: str) -> Any:
    """Return what measures a CUDA device."""
    from gpumlp.backends.cuda.measure import Meter

    return Meter(device_number(device))


@dataclass(frozen=True)
class Entrant:
    """Who wants to take part.

    kind    "gpumlp", "baseline" or "peer"
    build   makes it, checks what it computes, and returns what is timed; raises if it cannot take part
    place   where the products that it is measured beside are computed
    stays   whether it is kept from one visit to the next, because it takes long to make
    """

    name: str
    kind: str
    build: Callable[[], Runner]
    place: str = HOST
    stays: bool = False


@dataclass
class Contest:
    """One case.

    references   place -> makes the products alone and says how they are done
    limit        (seconds of the products, place) -> the lower limit; None: there is none. Asked with the shortest time
    """

    suite: str
    case: str
    parameters: Mapping[str, Any]
    unit: str
    examples: int
    flops: int
    entrants: Sequence[Entrant]
    references: Callable[[str], tuple[Runner, str]]
    limit: Callable[[float, str], float] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    _samples: dict[str, Samples] = field(default_factory=dict)
    _checked: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, Runner] = field(default_factory=dict)
    _how: dict[str, str] = field(default_factory=dict)
    _rounds: int = 0  # so far
    _of_visit: int = 0

    def visit(self, seconds: float, budget: float, least: int, most: int) -> None:
        """Add some rounds: as many at each visit as fit into the budget of the first, within bounds.

        seconds   that a sample is meant to last
        """
        runners = self._runners()
        if not runners:
            return
        places = {e.name: e.place for e in self.entrants if e.name in runners}
        made = {place: self.references(place) for place in set(places.values())}
        self._how.update({place: how for place, (_, how) in made.items()})
        turns = Turns(runners, {name: made[place][0] for name, place in places.items()}, seconds)
        began, done = perf_counter(), 0
        while done < (self._of_visit or least):
            turns.round(self._rounds + done, self._samples)
            done += 1
            if not self._of_visit:
                self._of_visit = max(least, min(most, int(budget / (perf_counter() - began))))
        self._rounds += done
        gc.collect()

    def close(self) -> None:
        """Give back what was kept."""
        self._kept.clear()
        gc.collect()

    def cases(self) -> list[Case]:
        """Return what was measured: the contenders in their order, then the products alone."""
        named = [(e, self._samples[e.name]) for e in self.entrants if e.name in self._samples]
        found = [self._case(e, s) for e, s in named]
        for place, how in self._how.items():
            beside = [s.reference for e, s in named if e.place == place]
            if beside:
                name = PRODUCTS if place == HOST else f"{PRODUCTS}, {place}"
                rounds = min(map(len, beside))  # an interrupted one is not there for all
                means = np.mean([seconds[:rounds] for seconds in beside], axis=0).tolist()
                found.append(self._build(name, "limit", means, checked=how))
        return found

    def _case(self, entrant: Entrant, samples: Samples) -> Case:
        limit = None
        if self.limit is not None and entrant.kind != "baseline":
            limit = self.limit(min(samples.reference), entrant.place)
        known = [share for share in samples.waited if share is not None]
        return self._build(
            entrant.name,
            entrant.kind,
            samples.seconds,
            reference=tuple(samples.reference),
            host_seconds=tuple(samples.host) if entrant.place != HOST else None,
            limit_seconds=limit,
            checked=self._checked[entrant.name],
            waited=tuple(known) if len(known) == len(samples.waited) else None,
        )

    def _build(self, contender: str, kind: str, seconds: list[float], **more: Any) -> Case:
        work = (self.unit, self.examples, self.flops)
        return Case(self.suite, self.case, self.parameters, contender, kind, *work, tuple(seconds), **more)

    def _runners(self) -> dict[str, Runner]:
        """Return all who can take part, made anew where they are not kept."""
        found = {}
        for entrant in self.entrants:
            runner = self._kept.get(entrant.name) or self._enter(entrant)
            if runner is not None:
                found[entrant.name] = runner
        return found

    def _enter(self, entrant: Entrant) -> Runner | None:
        if entrant.name in self.left_out:
            return None
        try:
            runner = entrant.build()
        except Exception as error:  # no room, an installation that does not work, another result
            self.left_out[entrant.name] = in_a_line(error)
            self._samples.pop(entrant.name, None)  # the rounds of all must be the same
            log.info("%s, %s left out: %s", self.case, entrant.name, in_a_line(error))
            return None
        if entrant.stays:
            self._kept[entrant.name] = runner
        self._checked.setdefault(entrant.name, runner.checked)
        return runner
