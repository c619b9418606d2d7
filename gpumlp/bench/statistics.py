"""Samples of times in few numbers: median and quartiles, of times, of ratios, and of shares of a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpumlp.bench.results import Case
from gpumlp.errors import DataError


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and their quartiles."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """Return the spread of the numbers times a factor above 0."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles; between two samples they are interpolated."""
    low, median, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    return Spread(float(median), float(low), float(high))


def ratio(case: Case, other: Case) -> Spread:
    """Return how often the time of `other` goes into that of `case`, round by round, of the rounds that both have.

    Raises   DataError if the two did different work
    """
    if (case.suite, case.case, case.unit) != (other.suite, other.case, other.unit):
        raise DataError(
            f"{case.case} ({case.unit}) and {other.case} ({other.unit}) are not the same work, so their times have no "
            "ratio; take two contenders of one case"
        )
    return spread(_quotients(case.seconds, other.seconds))


def of_products(case: Case) -> Spread | None:
    """Return the time in times of the matrix products alone, sample by sample; None where they were not measured."""
    return None if case.reference is None else spread(_quotients(case.seconds, case.reference))


def share_of_products(case: Case) -> Spread | None:
    """Return which share of the time the matrix products alone take; None where they were not measured."""
    return None if case.reference is None else spread(_quotients(case.reference, case.seconds))


def share_of_limit(case: Case) -> float | None:
    """Return the lower limit of the time by its median, 1 at best; None where the limit is not known."""
    return None if case.limit_seconds is None else case.limit_seconds / spread(case.seconds).median


def throughput(case: Case) -> Spread:
    """Return how many examples are worked on in a second."""
    return spread([case.examples / s for s in case.seconds])


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=False)]
