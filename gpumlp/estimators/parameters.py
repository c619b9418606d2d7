"""What each parameter of the estimators may be, checked when a fit begins and said in scikit-learn's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer_names

from gpumlp.backends.select import BACKENDS
from gpumlp.errors import ConfigurationError, GpumlpError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.normalisation import KINDS
from gpumlp.formulas.registry import Registry
from gpumlp.formulas.update_rules import RULES
from gpumlp.training.monitors import Monitor
from gpumlp.training.schedules import SCHEDULES


class InvalidParameterError(ConfigurationError, TypeError):
    """A parameter of an estimator has a type or value that means nothing."""


@dataclass(frozen=True)
class Allowed:
    """One kind of value that a parameter may have.

    text   how it is named in the message
    holds  holds(value) -> whether the value is of this kind
    """

    text: str
    holds: Callable[[Any], bool]


def instance_of(cls: type) -> Allowed:
    """Allow every instance of a class."""
    module = "" if cls.__module__ == "builtins" else cls.__module__ + "."
    return Allowed(f"an instance of '{module}{cls.__qualname__}'", lambda value: isinstance(value, cls))


def one_of(*names: str) -> Allowed:
    """Allow these strings."""
    return Allowed(
        f"a str among {{{', '.join(repr(n) for n in names)}}}", lambda value: isinstance(value, str) and value in names
    )


def whole(low: int, high: int | None = None) -> Allowed:
    """Allow whole numbers from `low` to `high`, both included."""
    return Allowed(
        f"an int in the range [{low}, {'inf)' if high is None else f'{high}]'}",
        lambda value: isinstance(value, Integral) and low <= int(value) and (high is None or int(value) <= high),
    )


def real(low: float, high: float = np.inf, closed: str = "left") -> Allowed:
    """Allow numbers between two bounds; closed: "left", "right", "both" or "neither"."""
    left, right = closed in ("left", "both"), closed in ("right", "both")

    def holds(value: Any) -> bool:
        if not isinstance(value, Real):
            return False
        number = float(value)
        return (low <= number if left else low < number) and (number <= high if right else number < high)

    return Allowed(
        f"a float in the range {'[' if left else '('}{float(low)}, {float(high)}{']' if right else ')'}", holds
    )


def from_registry(registry: Registry[Any], usable: Callable[[Any], bool] = lambda definition: True) -> Allowed:
    """Allow the names of a registry, with parameters in brackets if need be, and its definitions."""

    def holds(value: Any) -> bool:
        try:
            return usable(registry.get(value))
        except GpumlpError:
            return False

    names = [name for name in registry.names() if usable(registry.get(name))]
    return Allowed(f"a str among {{{', '.join(repr(n) for n in names)}}}", holds)


def is_hidden(activation: Activation) -> bool:
    """Tell whether an activation can stand in a hidden layer."""
    return not activation.row_wise


def listing_of(kind: Allowed) -> Allowed:
    """Allow lists and tuples of one kind of value."""
    return Allowed(
        f"a list or tuple of {kind.text}",
        lambda value: isinstance(value, list | tuple) and all(kind.holds(each) for each in value),
    )


def units_by_column() -> Allowed:
    """Allow dicts from columns, by number or name, to how many units each becomes."""

    def counts(value: Any, low: int) -> bool:
        return whole(low).holds(value) and not isinstance(value, bool)

    def holds(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            (isinstance(column, str) or counts(column, 0)) and counts(units, 1) for column, units in value.items()
        )

    return Allowed("a dict from columns, by number or name, to numbers of units of at least 1", holds)


HIDDEN = from_registry(ACTIVATIONS, is_hidden)
CALLABLE = Allowed("a callable", callable)
NOTHING = Allowed("None", lambda value: value is None)
NORMALISED = Allowed(f"{one_of(*KINDS).text} or None", lambda value: value is None or value in KINDS)
ENDLESS = Allowed("a float among {inf}", lambda value: isinstance(value, Real) and value == np.inf)
ARRAY_LIKE = Allowed(
    "an array-like",
    lambda value: not isinstance(value, str | bytes | Mapping) and hasattr(value, "__len__") and np.ndim(value) > 0,
)
BOOLEAN = [instance_of(bool), instance_of(np.bool_)]
RANDOM_STATE = [whole(0, 2**32 - 1), instance_of(np.random.RandomState), NOTHING]

Table = Mapping[str, Iterable[Allowed]]


def core_table() -> dict[str, list[Allowed]]:
    """Return what the parameters may be that both estimators have."""
    return {
        "hidden_layer_sizes": [ARRAY_LIKE, whole(1)],
        "activation": [HIDDEN, listing_of(HIDDEN)],
        "solver": [one_of("adam", "lbfgs", "sgd")],
        "alpha": [real(0)],
        "batch_size": [one_of("auto"), whole(1)],
        "learning_rate": [one_of("adaptive", "constant", "invscaling")],
        "learning_rate_init": [real(0, closed="neither")],
        "power_t": [real(0)],
        "max_iter": [whole(1)],
        "shuffle": BOOLEAN,
        "random_state": RANDOM_STATE,
        "tol": [real(0)],
        "verbose": [whole(0), *BOOLEAN],
        "warm_start": BOOLEAN,
        "momentum": [real(0, 1, closed="both")],
        "nesterovs_momentum": BOOLEAN,
        "early_stopping": BOOLEAN,
        "validation_fraction": [real(0, 1)],
        "beta_1": [real(0, 1)],
        "beta_2": [real(0, 1)],
        "epsilon": [real(0, closed="neither")],
        "n_iter_no_change": [whole(1), ENDLESS],
        "max_fun": [whole(1)],
        "device": [instance_of(str)],
        "backend": [one_of("auto", *BACKENDS)],
        "dtype": [one_of("float32", "float64"), NOTHING],
        "dropout": [real(0, 1), listing_of(real(0, 1))],
        "normalisation": [one_of(*KINDS), listing_of(NORMALISED), NOTHING],
        "cost": [from_registry(COSTS), NOTHING],
        "optimizer": [from_registry(RULES), NOTHING],
        "schedule": [from_registry(SCHEDULES), NOTHING],
        "clip_norm": [real(0, closed="neither"), NOTHING],
        "scoring": [CALLABLE, one_of(*get_scorer_names()), NOTHING],
        "monitors": [listing_of(instance_of(Monitor))],
        "n_models": [whole(1)],
        "missing": [one_of("error", "indicator")],
        "embeddings": [units_by_column(), NOTHING],
    }


def check_parameters(estimator: Any, table: Table) -> None:
    """Raise InvalidParameterError for the first parameter that is nothing of what the table allows."""
    for name, value in estimator.get_params(deep=False).items():
        kinds = list(table.get(name, ()))
        if kinds and not any(kind.holds(value) for kind in kinds):
            *others, last = [kind.text for kind in kinds]
            allowed = f"{', '.join(others)} or {last}" if others else last
            raise InvalidParameterError(
                f"The {name!r} parameter of {type(estimator).__name__} must be {allowed}. Got {value!r} instead."
            )
