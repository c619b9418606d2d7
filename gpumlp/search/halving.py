"""Successive halving: rounds of ever fewer candidates, which are given ever more rows or epochs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import resample
from sklearn.utils.validation import _num_samples

from gpumlp.errors import ConfigurationError
from gpumlp.shapes import HostArray

ROWS = "n_samples"


@dataclass(frozen=True)
class Halving:
    """What the candidates of each round are given.

    smallest, largest   of the resource: what the first round has, and what no round has more of
    required            rounds after which fewer than `factor` candidates are left
    possible            rounds in which the resource can grow by `factor`
    n_rounds            how many there are
    """

    factor: float
    smallest: int
    largest: int
    required: int
    possible: int
    n_rounds: int

    def resource(self, number: int) -> int:
        """Return what the candidates of a round have, numbered from 0; it grows in the last rounds if not in all."""
        steps = number if self.n_rounds <= self.possible else max(0, number - self.required + self.possible)
        return min(int(self.factor**steps * self.smallest), self.largest)

    def n_kept(self, n_candidates: int) -> int:
        """Return how many candidates of a round go on to the next."""
        return ceil(n_candidates / self.factor)


def plan_rounds(n_candidates: int, factor: float, smallest: int, largest: int, exhaust: bool, all_of: bool) -> Halving:
    """Return the rounds of a search.

    exhaust   whether the first round has as much as lets the last one have most
    all_of    whether there are as many rounds as are required, the first ones with equally much
    """
    required = 1 + floor(log(n_candidates, factor))
    if exhaust:
        smallest = max(smallest, int(largest // factor ** (required - 1)))
    possible = 1 + floor(log(largest // smallest, factor))
    return Halving(factor, smallest, largest, required, possible, required if all_of else min(possible, required))


def bounds_of(search: Any, X: Any, y: Any) -> tuple[int, int]:
    """Return the smallest and the largest resource of a search; raise ConfigurationError where they mean nothing."""
    rows = search.resource == ROWS
    if not rows and search.resource not in search.estimator.get_params():
        raise ConfigurationError(
            f"resource={search.resource!r} is no parameter of {type(search.estimator).__name__}; name one that counts "
            f'something, such as "max_iter", or "{ROWS}"'
        )
    largest = search.max_resources
    if largest == "auto":
        if not rows:
            raise ConfigurationError(
                f'max_resources="auto" is for resource="{ROWS}" only; say how large {search.resource} may become'
            )
        largest = _num_samples(X)
    smallest = search.min_resources
    if smallest in ("smallest", "exhaust"):
        smallest = _fewest_rows(search, y) if rows else 1
    if not 0 < smallest <= largest:
        raise ConfigurationError(f"min_resources={smallest}: expected at least 1 and at most max_resources={largest}")
    return smallest, largest


def _fewest_rows(search: Any, y: Any) -> int:
    """Return how many rows it takes that each split may have two of each class."""
    n_classes = len(np.unique(np.asarray(y))) if is_classifier(search.estimator) else 1
    return 2 * int(search.n_splits_) * n_classes


def part_of(splits: Iterable[tuple[Any, Any]], share: float, random_state: Any) -> list[tuple[HostArray, HostArray]]:
    """Return splits with this share of the rows of each, drawn without replacement.

    Raises   ConfigurationError where that is no row, or more than there are
    """

    def drawn(rows: Any) -> Any:
        n_samples = int(share * len(rows))
        if not 1 <= n_samples <= len(rows):
            raise ConfigurationError(
                f"a round would have {n_samples} of the {len(rows)} rows in a part of a split, expected at least 1 and "
                "at most all; give larger min_resources, or max_resources of at most the rows of X"
            )
        return resample(rows, replace=False, random_state=random_state, n_samples=n_samples)

    return [(drawn(train), drawn(test)) for train, test in splits]


def best_of(results: dict[str, Any], metric: str, n_kept: int, number: int) -> list[dict[str, Any]]:
    """Return the best candidates of a round, the best one last; a score that is NaN is worse than any other."""
    of_round = np.flatnonzero(np.asarray(results["iter"]) == number)
    scores = np.asarray(results[f"mean_test_{metric}"])[of_round]
    worst_first = np.roll(np.argsort(scores), np.count_nonzero(np.isnan(scores)))
    return [results["params"][i] for i in of_round[worst_first[-n_kept:]]]


def best_index(results: dict[str, Any], metric: str) -> int:
    """Return the number of the best candidate of the last round."""
    rounds = np.asarray(results["iter"])
    last = np.flatnonzero(rounds == rounds.max())
    scores = np.asarray(results[f"mean_test_{metric}"])[last]
    return int(last[0] if np.isnan(scores).all() else last[np.nanargmax(scores)])
