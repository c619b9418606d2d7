"""One call that makes a user's own definition known by name everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.errors import ConfigurationError, FormulaError
from gpumlp.formulas.activations import ACTIVATIONS, Activation, prime_recording
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.registry import Registry
from gpumlp.formulas.term import record
from gpumlp.formulas.update_rules import RULES, UpdateRule, check_rule

REGISTRIES: dict[type, Registry[Any]] = {Activation: ACTIVATIONS, Cost: COSTS, UpdateRule: RULES}


def register(definition: Any | Callable[..., Any], *aliases: str, replace: bool = False) -> None:
    """Let an Activation, a Cost or an UpdateRule be used by its name, in this process, from now on.

    definition   the definition, or a function of parameters with defaults that returns one
    aliases      further names
    replace      whether it may take the place of an own definition of that name, as in a notebook's cell run again
    Raises       ConfigurationError if it is no definition or a name is taken; FormulaError if it cannot be recorded
    """
    try:
        example = definition() if callable(definition) else definition
    except TypeError:
        example = None
    registry = REGISTRIES.get(type(example))
    if registry is None:
        raise ConfigurationError(
            f"cannot register {definition!r}; expected a gpumlp.Activation, Cost or UpdateRule, or a function that "
            "returns one"
        )
    check_definition(example)
    registry.register(definition, *aliases, replace=replace)


def check_definition(definition: Any) -> None:
    """Raise FormulaError, naming the definition, unless its formulas can be recorded."""
    try:
        if isinstance(definition, UpdateRule):
            check_rule(definition)
        elif isinstance(definition, Cost):
            record(definition.term, "a", "y")
            if definition.gradient is not None:
                record(definition.gradient, "a", "y", "c")
        elif not definition.row_wise:
            record(definition.value, "z")
            prime_recording(definition)
    except FormulaError:
        raise
    except Exception as error:
        raise FormulaError(
            f"{definition.name!r} cannot be recorded ({type(error).__name__}: {error}); use its arguments, numbers and "
            "the words of gpumlp.formulas.vocabulary"
        ) from error
