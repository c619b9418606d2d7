"""Which cases are measured, and in which order: run_suites.

The whole list is visited in several passes, so that the samples of each case are spread over the whole time and a slow
drift of the machine meets every case alike. gpumlp's contenders are made anew for each visit, as the places of their
arrays in memory matter, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpumlp.bench import environment, limits, peers, recursion, steps
from gpumlp.bench.contest import Contest, Own, device_of, meter, owns
from gpumlp.bench.results import SUITES, Run
from gpumlp.errors import BackendUnavailable, ConfigurationError, unknown_name

log = logging.getLogger("gpumlp")

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    passes       visits to each case
    seconds      of a sample
    budget       seconds of a visit, which say how many rounds it has
    least, most  rounds of a visit
    """

    passes: int
    seconds: float
    budget: float
    least: int
    most: int


QUICK = Effort(passes=3, seconds=0.02, budget=1.0, least=2, most=2)  # six samples: `compare` needs five
WHOLE = Effort(passes=3, seconds=0.05, budget=5.0, least=3, most=4)


def run_suites(
    suites: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    device: str | None = None,
    quick: bool = False,
    with_peers: bool = True,
    tell: Tell | None = None,
    seconds: float | None = None,
) -> Run:
    """Measure some suites and return all that was found; what is left out is logged, with the reason.

    suites      "recursion", "steps", "growth"; empty: all
    backends    of gpumlp; None: all that work here, and cuda only on a real device
    device      "cpu", "cuda", "cuda:1"; None: a CUDA device if there is one
    quick       fewer sizes, shorter samples: under two minutes
    with_peers  whether other libraries take part
    tell        is given how many visits are done, of how many, and the name of the next
    seconds     that a sample is meant to last
    Ctrl-C ends the measurement: what has been found until then is returned, and `options["ended"]` says so.
    Raises      UnknownName, ConfigurationError, BackendUnavailable
    """
    chosen = check_suites(suites)
    if seconds is not None and not 0 < seconds <= 60:
        raise ConfigurationError(f"seconds={seconds!r}: expected seconds of a sample above 0, 60 at most")
    effort = QUICK if quick else WHOLE
    own = owns(backends, device)
    if not own:
        raise BackendUnavailable("no backend can be timed here; name one in backends to see why")
    kinds, absent = peers.available(device_of(own)) if with_peers else ([], {})
    for library, reason in absent.items():
        log.info("%s takes no part: it %s", library, reason)
    every, of_machine = contests(chosen, quick, own, kinds), facts(own)
    ended = ""
    try:
        visit(every, effort, seconds or effort.seconds, tell or (lambda done, total, what: None))
    except KeyboardInterrupt:
        ended = "interrupted: some cases were visited less often than others, or not at all"
        log.warning("the measurement was %s", ended)
    finally:
        for contest in every:
            contest.close()
    left_out = {f"{c.case}: {name}": reason for c in every for name, reason in c.left_out.items()}
    options = {
        "suites": list(chosen),
        "quick": quick,
        "dtype": "float32",
        "backends": [o.name for o in own],
        "peers": with_peers,
        "seconds": seconds or effort.seconds,
        "left_out": {**absent, **left_out},
        **({"ended": ended} if ended else {}),
    }
    return Run(of_machine, options, tuple(case for contest in every for case in contest.cases()))


def check_suites(suites: Sequence[str]) -> tuple[str, ...]:
    """Return the suites that are asked for, each once, in the order in which they are shown; all if none is."""
    for name in suites:
        if name not in SUITES:
            raise unknown_name("suite", name, SUITES)
    return tuple(name for name in SUITES if name in suites or not suites)


def contests(suites: Sequence[str], quick: bool, own: Sequence[Own], kinds: Sequence[Any]) -> list[Contest]:
    """Return the contests of some suites."""
    make: dict[str, Callable[[], list[Contest]]] = {
        "recursion": lambda: recursion.contests(quick, own),
        "steps": lambda: steps.contests(quick, own, kinds),
        "growth": lambda: steps.growth(quick, own, kinds),
    }
    return [contest for suite in suites for contest in make[suite]()]


def visit(every: Sequence[Contest], effort: Effort, seconds: float, tell: Tell) -> None:
    """Visit each contest in each pass; in the end nothing is kept."""
    total = effort.passes * len(every)
    for number in range(effort.passes):
        for i, contest in enumerate(every):
            tell(number * len(every) + i, total, f"{contest.suite}: {contest.case}")
            contest.visit(seconds, effort.budget, effort.least, effort.most)
            if number == effort.passes - 1:
                contest.close()
    tell(total, total, "done")


def facts(own: Sequence[Own]) -> dict[str, Any]:
    """Return what the times depend on, with the bandwidth that the limits were computed from, in GB/s."""
    found = environment.describe()
    found["memory_bandwidth"] = round(limits.bandwidth(limits.largest()) / 1e9, 1)
    device = device_of(own)
    if device != "cpu":
        found |= environment.driver() | meter(device).facts()
        found["device_bandwidth"] = round(limits.device_bandwidth(device) / 1e9, 1)
    return found
