"""Two runs: what became slower or faster beyond the noise.

What is judged is q = seconds / reference, gpumlp's time in times of the matrix products alone, which were measured
beside each sample: what slows both leaves q alone. Its logarithm is estimated in two ways:

- by the middle of all samples, Tukey's biweight, which passes over the few of any run that are far off;
- by the lowest third of the times and the lowest third of the references: what disturbs a sample can only lengthen it.
  On a shared machine that is a third or more, of half the samples in one run and a tenth of them in the next: a middle
  goes to and fro between the two, the lowest ones stay (Chen and Revels, Robust benchmarking in noisy environments,
  2016, take the least).

The lowest judge; the middle does where it is the surer and the lowest have changed in the same direction, by half as
much at least. Where half of the samples are disturbed the middle does not know how unsure it is.

Three things make the answer uncertain:

- the noise within each run: the biweight's own standard error, or that of the bootstrap, which draws whole rounds;
- the noise between runs: two processes that do the same differ by more than the samples of one, by the places of their
  arrays and by what else the machine does (BETWEEN_RUNS, measured on a shared machine);
- a change of the reference itself: where the matrix products alone take longer or less than in the other run by more
  than STEADY, the machine was another one, or a busy one, and from twice of that on all of it may be in q.

Samples during which the process waited for a processor are left out, if enough are left: another program had it, and a
step and its products need not have as many threads. If too few are left, nothing is the same, slower or faster.

The first two are a standard error of the difference. Student's t with the degrees of freedom of Welch and Satterthwaite
says which difference it could hide, at a level that is divided by the number of cases: of 20 comparisons of equal runs
at most one finds anything. A rank test would not do: it finds that two samples differ, and those of two processes
always do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.bench.quiet import DISTURBED
from gpumlp.bench.results import Case, Run, named
from gpumlp.bench.tables import flat
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.shapes import HostArray

SLOWER, FASTER, SAME, UNCLEAR, NOT_JUDGED = OUTCOMES = ("slower", "faster", "same", "unclear", "not judged")
THRESHOLD = 0.05  # a smaller change is none
LEVEL = 0.05  # how often two equal runs may be told apart
LOWEST = 1 / 3  # share of the samples of which an estimate is made
RESAMPLES = 100  # of the bootstrap
AGREE = 0.5  # share of what the middle has changed
BETWEEN_RUNS = 0.015  # standard deviation of log q between processes that do the same
STEADY = 0.07  # a change of log reference that says nothing
ENOUGH = 5  # samples, below which nobody knows their noise
UNKNOWN = 1.0  # a variance that hides everything
BUSY = "another program had the processor during most samples; measure again when the machine is idle"
# what differs between any two runs, or is what the comparison is about
OWN_FACTS = ("date", "commit", "versions gpumlp", "gpumlp")


@dataclass(frozen=True)
class Verdict:
    """What became of one case of gpumlp.

    outcome   "slower", "faster", "same"; "unclear" if a change of twice the threshold could hide in the noise;
              "not judged" if there is nothing to judge by
    change    of the time in times of the matrix products alone: 0.1 is 10 % slower; None if not judged
    visible   the smallest change that would have been told; None if not judged
    note      why it is unclear or not judged, else ""
    """

    suite: str
    case: str
    contender: str
    outcome: str
    change: float | None = None
    visible: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """What became of all cases of gpumlp, regressions first.

    verdicts              of the cases that both runs have
    only_old, only_new    the others, by name
    warnings              why the runs may not be comparable at all
    """

    threshold: float
    verdicts: tuple[Verdict, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing became slower."""
        return self.count(SLOWER) == 0

    def count(self, outcome: str) -> int:
        """Return how many cases have this outcome."""
        return sum(verdict.outcome == outcome for verdict in self.verdicts)

    def summary(self) -> str:
        """Return the closing line."""
        counts = [f"{self.count(outcome)} {outcome}" for outcome in OUTCOMES if self.count(outcome)]
        word = "no regression" if self.passed else "REGRESSION"
        allowed = f"changes below {100 * self.threshold:.3g} % or within the noise count as none"
        return f"{word}: {', '.join(counts)} ({allowed})"


def compare(old: Run, new: Run, threshold: float = THRESHOLD, seconds: bool = False) -> Comparison:
    """Return what became slower or faster from one run to the other.

    threshold   the relative change from which on a case is not the same
    seconds     judge the seconds themselves where the matrix products alone were not measured: only for two runs on the
                same idle machine
    Raises      ConfigurationError for a threshold that is none, DataError if the runs have no case of gpumlp in common
    """
    if not 0 < threshold < 1:
        raise ConfigurationError(f"threshold is {threshold}, expected a share between 0 and 1 such as 0.05")
    before, after = _own(old), _own(new)
    both = [key for key in before if key in after]
    if not both:
        raise DataError("the two runs have no case of gpumlp in common; run the same suites in both")
    pairs = [_pair(before[key], after[key], seconds) for key in both]
    level = LEVEL / max(1, sum(not pair.note for pair in pairs))
    verdicts = [_verdict(pair, threshold, level) for pair in pairs]
    verdicts.sort(key=lambda v: (OUTCOMES.index(v.outcome), -abs(v.change or 0)))
    only_old, only_new = (
        tuple(named(case) for key, case in one.items() if key not in other)
        for one, other in ((before, after), (after, before))
    )
    return Comparison(threshold, tuple(verdicts), only_old, only_new, tuple(differences(old, new)))


def differences(old: Run, new: Run) -> list[str]:
    """Return a sentence for each fact of the environment that differs; numbers with a point are measurements."""
    before, after = _facts(old), _facts(new)
    return [
        f"{name} differs: {before.get(name, 'unknown')} before, {after.get(name, 'unknown')} now"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def as_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON object."""
    found: dict[str, Any] = {"passed": comparison.passed, **vars(comparison)}
    found["verdicts"] = [vars(verdict) for verdict in comparison.verdicts]
    return json.dumps(found, allow_nan=False)


# ---------------------------------------------------------------- statistics


@dataclass(frozen=True)
class Estimate:
    """log q of a run, the variance of that with its degrees of freedom, and the logarithm of the reference."""

    value: float
    variance: float
    freedom: float
    beside: float


@dataclass(frozen=True)
class _Pair:
    """One case in both runs: what log q is in either, by each estimate, and why it is not judged.

    disturbed   whether another program had the processor during so many samples that none could be left out
    """

    case: Case
    old: tuple[Estimate, ...] = ()
    new: tuple[Estimate, ...] = ()
    disturbed: bool = False
    note: str = ""


def _pair(old: Case, new: Case, seconds: bool) -> _Pair:
    if (old.unit, old.examples, old.flops) != (new.unit, new.examples, new.flops):
        return _not_judged(old, "the work is not the same in both runs")
    (kept_old, quiet_old), (kept_new, quiet_new) = _quiet(old), _quiet(new)
    disturbed = not (quiet_old and quiet_new)
    has_reference = old.reference is not None and new.reference is not None
    if not has_reference and not seconds:
        return _not_judged(old, "the matrix products alone were not measured")
    before, after = (_estimates(case, kept, has_reference) for case, kept in ((old, kept_old), (new, kept_new)))
    return _Pair(old, before, after, disturbed)


def _estimates(case: Case, kept: HostArray, has_reference: bool) -> tuple[Estimate, ...]:
    times = np.log(case.seconds)[kept]
    beside = np.log(case.reference)[kept] if has_reference and case.reference else np.zeros_like(times)
    return by_the_middle(times, beside), by_the_lowest(times, beside)


def _quiet(case: Case) -> tuple[HostArray, bool]:
    """Return which samples count, those without disturbance or all if they are too few, and whether they are enough."""
    calm = np.asarray(case.waited or np.zeros(len(case.seconds))) <= DISTURBED
    enough = bool(calm.all()) or int(calm.sum()) >= ENOUGH
    return (calm if enough else np.ones_like(calm)), enough


def _not_judged(case: Case, why: str) -> _Pair:
    return _Pair(case, note=why)


def _verdict(pair: _Pair, threshold: float, level: float) -> Verdict:
    if pair.note:
        return Verdict(*pair.case.key, NOT_JUDGED, note=pair.note)
    least = math.log1p(threshold)
    change, noise, shift = _judging(pair, level)
    visible = max(least, noise)
    if pair.disturbed:
        outcome, note = UNCLEAR, BUSY
    elif abs(change) > visible:
        outcome, note = SLOWER if change > 0 else FASTER, ""
    elif visible <= 2 * least:
        outcome, note = SAME, ""
    else:
        outcome, note = UNCLEAR, _why_unclear(shift)
    return Verdict(*pair.case.key, outcome, _share(change), _share(visible), note)


def _judging(pair: _Pair, level: float) -> tuple[float, float, float]:
    """Return the change of log q, what chance may make of it, and the change of the reference, by what judges."""
    of_middle, of_lowest = (
        (new.value - old.value, hidden(old, new, level), new.beside - old.beside)
        for old, new in zip(pair.old, pair.new, strict=True)
    )
    is_surer, agree = of_middle[1] < of_lowest[1], AGREE * abs(of_middle[0]) <= abs(of_lowest[0])
    return of_middle if is_surer and agree and of_middle[0] * of_lowest[0] >= 0 else of_lowest


def hidden(old: Estimate, new: Estimate, level: float) -> float:
    """Return how large a difference chance may make but for one time in 1 / level."""
    from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]

    total = 2 * BETWEEN_RUNS**2 + old.variance + new.variance
    # Welch and Satterthwaite; what is assumed and not estimated has no end of degrees
    estimated = old.variance**2 / old.freedom + new.variance**2 / new.freedom
    freedom = total**2 / max(estimated, 1e-6 * total**2)
    return float(stdtrit(freedom, 1 - level / 2) * math.sqrt(total)) + _distrust(new.beside - old.beside)


def _distrust(shift: float) -> float:
    """Return how much of a change of the reference may be in q: nothing up to STEADY, all from twice of that on."""
    return max(0.0, min(abs(shift), 2 * (abs(shift) - STEADY)))


def by_the_middle(times: HostArray, beside: HostArray) -> Estimate:
    """Return the biweight of log q round by round, of which any fewer than half may be far off.

    times, beside   logarithms of gpumlp's time and of the reference, a round each
    Source   Mosteller and Tukey, Data Analysis and Regression (1977), ch. 10 and 14; 0.7 (n - 1) degrees of freedom
    """
    values, of_reference = times - beside, float(np.median(beside))
    n, median = len(values), float(np.median(values))
    if n < ENOUGH:
        return Estimate(median, UNKNOWN, 1.0, of_reference)
    freedom = max(1.0, 0.7 * (n - 1))
    deviation = float(np.median(np.abs(values - median)))
    if deviation == 0:
        return Estimate(median, 0.0, freedom, of_reference)
    u = (values - median) / (6 * deviation)
    near = np.abs(u) < 1
    distance, v = values[near] - median, 1 - u[near] ** 2
    steepness = float((v * (5 * v - 4)).sum())  # of the sum of psi
    variance = float((distance**2 * v**4).sum()) / (steepness * max(1.0, steepness - 1))
    return Estimate(median + float((v**2 * distance).sum() / (v**2).sum()), variance, freedom, of_reference)


def by_the_lowest(times: HostArray, beside: HostArray) -> Estimate:
    """Return log q by the lowest times and the lowest references; arguments as of `by_the_middle`."""
    n = len(times)
    of_times, of_reference = lowest(times), lowest(beside)
    value = float(of_times - of_reference)
    if n < ENOUGH:
        return Estimate(value, UNKNOWN, 1.0, float(of_reference))
    rounds = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    variance = float(np.var(lowest(times[rounds]) - lowest(beside[rounds])))
    return Estimate(value, variance, n - 1.0, float(of_reference))


def lowest(values: HostArray) -> HostArray:
    """Return the mean of the lowest values, of at least two where there are so many; they lie on the last axis."""
    kept = max(2, round(values.shape[-1] * LOWEST))
    mean: HostArray = np.sort(values, axis=-1)[..., :kept].mean(axis=-1)
    return mean


# ---------------------------------------------------------------- words


def _why_unclear(shift: float) -> str:
    if abs(shift) <= STEADY:
        return "the samples are too far apart; measure more rounds, or when the machine is idle"
    word = "longer" if shift > 0 else "less"
    share = abs(_share(shift))
    return f"the matrix products alone took {share:.0%} {word}: the machine was not the same, or busy; measure again"


def _share(logarithm: float) -> float:
    return math.expm1(min(logarithm, 100.0))


def _own(run: Run) -> dict[tuple[str, str, str], Case]:
    return {case.key: case for case in run.cases if case.kind == "gpumlp"}


def _facts(run: Run) -> dict[str, str]:
    dtype = {"dtype": run.options["dtype"]} if "dtype" in run.options else {}
    return {k: v for k, v in flat(_without_measurements({**run.environment, **dtype})).items() if k not in OWN_FACTS}


def _without_measurements(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out numbers with a point, at any depth."""
    return {
        name: _without_measurements(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if not _has_point(value)
    }


def _has_point(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, Iterable) and any(isinstance(v, float) for v in value))
