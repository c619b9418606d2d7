"""Space: the configurations of a sweep, as a grid or as random draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

import numpy as np

from gpumlp.ensembles.configurations import RULE_NUMBERS, Configuration, check_names, read_configuration, read_value
from gpumlp.ensembles.distributions import Distribution, read_distribution
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.update_rules import RULES

LARGEST_GRID = 100_000  # configurations; a grid beyond it is a mistake, or wants to be drawn from
TRIES = 20  # draws for each configuration that is wanted, as some draws come twice


class Space:
    """The parameters that are tried.

    given      name -> a value, a list of values, or a distribution, in Python's spelling or in that of a file; a tuple
               is one value, such as the widths (64, 32)
    size       configurations of the grid; None where a parameter has a range
    Raises     UnknownName, ConfigurationError
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        if not isinstance(given, Mapping) or not given:
            raise ConfigurationError(f"space={given!r}: expected at least one parameter, such as learning_rate=[0.01]")
        check_names(list(given))
        self.distributions: dict[str, Distribution] = {
            name: read_distribution(name, value) for name, value in given.items()
        }
        for name, distribution in self.distributions.items():
            for value in distribution.options or ():
                read_value(name, value)
        options = [d.options for d in self.distributions.values()]
        self.size = None if None in options else prod(len(values or ()) for values in options)
        self._expect_rule_numbers()

    def configurations(self, n: int | None = None, seed: int = 0) -> list[Configuration]:
        """Return the grid, or `n` different random draws from the space, fewer if it has no more.

        The first draws are the same whatever n is.
        """
        if n is None:
            return self._grid()
        if not isinstance(n, int | np.integer) or n < 1:
            raise ConfigurationError(f"n={n!r}: expected a whole number of at least 1")
        found: dict[str, Configuration] = {}
        most = n if self.size is None else min(n, self.size)
        for i in range(TRIES * n):
            generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
            drawn = {name: d.draw(generator) for name, d in self.distributions.items()}
            _keep(found, drawn)
            if len(found) == most:
                break
        return list(found.values())

    def _grid(self) -> list[Configuration]:
        ranges = [name for name, d in self.distributions.items() if d.options is None]
        if ranges or self.size is None:
            raise ConfigurationError(
                f"the space has ranges ({', '.join(ranges)}), so it has no grid; say how many are to be drawn: n=200"
            )
        if self.size > LARGEST_GRID:
            raise ConfigurationError(f"the grid has {self.size:,} configurations; draw from it: n=200")
        found: dict[str, Configuration] = {}
        for values in product(*(d.options or () for d in self.distributions.values())):
            _keep(found, dict(zip(self.distributions, values, strict=True)))
        return list(found.values())

    def _expect_rule_numbers(self) -> None:
        """Raise ConfigurationError for a number that no update rule of the space has."""
        optimizer = self.distributions.get("optimizer")
        if optimizer is not None and optimizer.options is None:
            raise ConfigurationError(f"optimizer: {optimizer.name} draws numbers, expected names of update rules")
        names = (optimizer.options if optimizer else None) or (read_configuration({})["optimizer"],)
        known = {number for name in names for number in RULES.get(name).defaults}
        for name in self.distributions:
            if name in RULE_NUMBERS and name not in known:
                rules = ", ".join(str(n) for n in names)
                raise ConfigurationError(f"{name} is a number of no update rule here ({rules}); leave it away")


def _keep(found: dict[str, Configuration], given: Mapping[str, Any]) -> None:
    """Add a configuration unless it is there."""
    configuration = read_configuration(given)
    found.setdefault(json.dumps(configuration), configuration)
