"""Distributions: what a parameter of a space may be, and how one value of it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, unknown_name

Generator = np.random.Generator


@dataclass(frozen=True)
class Distribution:
    """What is drawn from.

    draw      draw(generator) -> a value
    options   all that may be drawn, where these are given one by one; None for a range
    """

    name: str
    draw: Callable[[Generator], Any]
    options: tuple[Any, ...] | None = None


def choice(options: Sequence[Any]) -> Distribution:
    """Return one of the options, each as likely as the others."""
    if isinstance(options, str) or not isinstance(options, Sequence) or not len(options):
        raise ConfigurationError(f"choice({options!r}): expected a list with at least one value")
    values = tuple(options)
    return Distribution("choice", lambda g: values[int(g.integers(len(values)))], values)


def uniform(low: float, high: float) -> Distribution:
    """Return a number between two bounds."""
    _expect_range("uniform", low, high)
    return Distribution("uniform", lambda g: float(g.uniform(low, high)))


def log_uniform(low: float, high: float) -> Distribution:
    """Return a number above 0 whose logarithm is uniform between those of the bounds."""
    _expect_range("log_uniform", low, high, above=0)
    return Distribution("log_uniform", lambda g: _between(exp(g.uniform(log(low), log(high))), low, high))


def integers(low: int, high: int) -> Distribution:
    """Return a whole number from `low` to `high`, both included."""
    _expect_range("integers", low, high, whole=True)
    return Distribution("integers", lambda g: int(g.integers(low, high + 1)))


def log_integers(low: int, high: int) -> Distribution:
    """Return a whole number from `low` to `high`, both included, small ones as likely as large ones by their ratio."""
    _expect_range("log_integers", low, high, above=0, whole=True)
    return Distribution("log_integers", lambda g: _draw_width(g, low, high))


def layers(low: int, high: int, widths: Sequence[int] = (8, 256)) -> Distribution:
    """Return the widths of `low` to `high` hidden layers, each drawn as by log_integers(*widths)."""
    _expect_range("layers", low, high, above=-1, whole=True)
    if not (isinstance(widths, Sequence) and len(widths) == 2):
        raise ConfigurationError(f"layers: widths={widths!r}: expected the smallest and the largest")
    narrow, wide = widths
    _expect_range("layers: widths", narrow, wide, above=0, whole=True)
    return Distribution(
        "layers", lambda g: [_draw_width(g, narrow, wide) for _ in range(int(g.integers(low, high + 1)))]
    )


MAKERS: dict[str, Callable[..., Distribution]] = {
    maker.__name__: maker for maker in (choice, uniform, log_uniform, integers, log_integers, layers)
}


def read_distribution(name: str, given: Any) -> Distribution:
    """Return the distribution of a parameter.

    given    a distribution; a list of values; {"uniform": [0, 1]} as a file spells it; any other value stands for
             itself
    Raises   ConfigurationError, UnknownName, naming the parameter
    """
    if isinstance(given, Distribution):
        return given
    if isinstance(given, list | np.ndarray):
        return _made(name, "choice", [list(given)], {})
    if not isinstance(given, Mapping):
        return _made(name, "choice", [[given]], {})
    spelled = [key for key in given if key in MAKERS]
    if len(spelled) != 1:
        wrong = next(iter(given), "")
        raise ConfigurationError(f"{name}: {unknown_name('distribution', wrong, MAKERS)}")
    maker, others = spelled[0], {key: value for key, value in given.items() if key not in MAKERS}
    arguments = given[maker]
    several = maker != "choice" and isinstance(arguments, list | tuple)
    return _made(name, maker, arguments if several else [arguments], others)


def _made(name: str, maker: str, arguments: Sequence[Any], others: Mapping[str, Any]) -> Distribution:
    try:
        return MAKERS[maker](*arguments, **others)
    except TypeError as error:
        raise ConfigurationError(f"{name}: {error}; write for example {{ {maker} = [1, 3] }}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _expect_range(kind: str, low: Any, high: Any, above: float | None = None, whole: bool = False) -> None:
    """Raise ConfigurationError unless low <= high are finite numbers of the kind, above `above` if that is given."""
    types = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    numbers = all(isinstance(x, types) and not isinstance(x, bool) and isfinite(x) for x in (low, high))
    if not numbers or low > high or (above is not None and low <= above):
        what = "whole numbers" if whole else "numbers"
        least = "" if above is None else f" above {above:g}"
        raise ConfigurationError(f"{kind}({low!r}, {high!r}): expected two {what}{least}, the smaller one first")


def _between(value: float, low: float, high: float) -> float:
    """Return the value, which rounding may have carried beyond a bound, within them."""
    return min(max(value, low), high)


def _draw_width(generator: Generator, low: int, high: int) -> int:
    exact = exp(generator.uniform(log(low - 0.5), log(high + 0.5)))
    return int(_between(round(exact), low, high))
