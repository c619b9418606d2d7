"""Configurations: the parameters of a training by name, as plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gpumlp.ensembles.job import Job
from gpumlp.errors import ConfigurationError, GpumlpError, unknown_name
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.update_rules import RULES, UpdateRule
from gpumlp.network.architecture import build_architecture
from gpumlp.network.initialisers import get_initialiser
from gpumlp.training.hyper_table import per_model
from gpumlp.training.schedules import get_schedule

Configuration = dict[str, Any]
Reader = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter that a space may hold.

    default   its value where a space does not name it
    read      read(name, given) -> the value as JSON would give it back; raises GpumlpError
    """

    name: str
    default: Any
    read: Reader


# ---------------------------------------------------------------- readers


def _plain(value: Any) -> Any:
    """Return NumPy's scalars and arrays as Python's numbers and lists, and tuples as lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _wrong(name: str, value: Any, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r}: expected {expected}")


def _whole(low: int) -> Reader:
    def read(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise _wrong(name, value, f"a whole number of at least {low}")
        return value

    return read


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "a number")
    return float(per_model(name, value, 1)[0])


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise _wrong(name, value, "a share of at least 0 and below 1")
    return float(value)


def _named(get: Callable[[str], Any]) -> Reader:
    def read(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong(name, value, "a name; register a definition of your own, and give its name")
        get(value)
        return value

    return read


def _optional(read: Reader) -> Reader:
    return lambda name, value: None if value is None or value == "none" else read(name, value)


def _by_layer(read: Reader) -> Reader:
    """Read one value for all hidden layers, or a sequence with one for each."""
    return lambda name, value: [read(name, v) for v in value] if isinstance(value, list) else read(name, value)


def _hidden(name: str, value: Any) -> list[int]:
    widths = value if isinstance(value, list) else [value]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in widths):
        raise _wrong(name, value, "whole numbers of at least 1, one for each hidden layer, such as [64, 32]")
    return list(widths)


def _batch_size(name: str, value: Any) -> int | str:
    if value == "full":
        return "full"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, value, 'a number of rows of at least 1, or "full"')
    return value


# ---------------------------------------------------------------- the parameters

# what the update rules have besides the learning rate; None: the rule's own default
RULE_NUMBERS = tuple(dict.fromkeys(name for rule in RULES.definitions() for name in rule.defaults))
OF_JOB = {f.name: f.default for f in fields(Job)}

PARAMETERS = (
    Parameter("hidden", [100], _hidden),
    Parameter("activation", "relu", _by_layer(_named(ACTIVATIONS.get))),
    Parameter("dropout", 0.0, _by_layer(_share)),
    Parameter("normalisation", None, _by_layer(_optional(_named(lambda kind: kind)))),
    Parameter("initialiser", "he", _named(get_initialiser)),
    Parameter("optimizer", OF_JOB["optimizer"], _named(RULES.get)),
    *(Parameter(name, None, _optional(_number)) for name in RULE_NUMBERS),
    Parameter("learning_rate", OF_JOB["learning_rate"], _number),
    Parameter("batch_size", OF_JOB["batch_size"], _batch_size),
    Parameter("l1", OF_JOB["l1"], _number),
    Parameter("l2", OF_JOB["l2"], _number),
    Parameter("clip_norm", OF_JOB["clip_norm"], _optional(_number)),
    Parameter("schedule", OF_JOB["schedule"], _optional(_named(get_schedule))),
    Parameter("label_smoothing", 0.0, _share),
    Parameter("epochs", 100, _whole(1)),
    Parameter("seed", 0, _whole(0)),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def check_names(names: Sequence[str]) -> None:
    """Raise UnknownName, with what is known, for a name that is no parameter."""
    for name in names:
        if name not in BY_NAME:
            raise unknown_name("parameter of a space", name, BY_NAME)


def read_value(name: str, given: Any) -> Any:
    """Return a value of a parameter as JSON would give it back; raise GpumlpError for one that means nothing."""
    return BY_NAME[name].read(name, _plain(given))


def read_configuration(given: Mapping[str, Any]) -> Configuration:
    """Return all parameters, the given ones and the others' defaults, in one order; what cannot matter is left out.

    Raises   GpumlpError, with the configuration where two parameters contradict each other
    """
    check_names(list(given))
    found = {p.name: read_value(p.name, given.get(p.name, p.default)) for p in PARAMETERS}
    rule = RULES.get(found["optimizer"])
    for name in RULE_NUMBERS:
        if name not in rule.defaults:
            found[name] = None
    if not found["hidden"]:  # nothing is activated, dropped or normalised
        found |= {name: BY_NAME[name].default for name in ("activation", "dropout", "normalisation")}
    _expect_one_story(found)
    return found


def _expect_one_story(c: Configuration) -> None:
    """Raise ConfigurationError unless what is given by layer fits the layers."""
    n_hidden = len(c["hidden"])
    try:
        build_architecture((1, *c["hidden"], 1), c["activation"], "identity", "quadratic", c["normalisation"])
    except GpumlpError as error:
        raise ConfigurationError(f"hidden={c['hidden']}: {error}") from error
    if isinstance(c["dropout"], list) and len(c["dropout"]) != n_hidden:
        raise ConfigurationError(
            f"hidden={c['hidden']}, dropout={c['dropout']}: expected one share, or one for each hidden layer"
        )


def dropout_rates(c: Configuration) -> tuple[float, ...]:
    """Return the share that is dropped of each hidden layer."""
    several = c["dropout"] if isinstance(c["dropout"], list) else [c["dropout"]] * len(c["hidden"])
    return tuple(several)


def update_rule(c: Configuration) -> UpdateRule:
    """Return the update rule with the configuration's numbers."""
    rule = RULES.get(c["optimizer"])
    own = {name: c[name] for name in RULE_NUMBERS if c[name] is not None}
    return replace(rule, defaults={**rule.defaults, **own}) if own else rule


def smoothed(cost: str, c: Configuration) -> str:
    """Return the name of the cost with the configuration's label smoothing; raise ConfigurationError if it has none."""
    share = c["label_smoothing"]
    if not share:
        return cost
    if COSTS.read(cost)[0] != "categorical_cross_entropy":
        raise ConfigurationError(f"label_smoothing={share} goes with categorical_cross_entropy, the cost is {cost}")
    return f"categorical_cross_entropy(label_smoothing={share!r})"


def told(value: Any) -> str:
    """Return a value in few characters: 64-32, relu, 0.00123."""
    if isinstance(value, list):
        return "-".join(told(v) for v in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
