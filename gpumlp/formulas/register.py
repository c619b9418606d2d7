"""One call that makes a user's own definition known by name everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.errors import ConfigurationError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.registry import Registry
from gpumlp.formulas.update_rules import RULES, UpdateRule, check_rule

REGISTRIES: dict[type, Registry[Any]] = {Activation: ACTIVATIONS, Cost: COSTS, UpdateRule: RULES}


def register(definition: Any | Callable[..., Any], *aliases: str) -> None:
    """Let an Activation, a Cost or an UpdateRule be used by its name, in this process, from now on.

    definition   the definition, or a function of parameters with defaults that returns one
    aliases      further names
    Raises       ConfigurationError if it is no definition or a name is taken
    """
    example = definition() if callable(definition) else definition
    registry = REGISTRIES.get(type(example))
    if registry is None:
        raise ConfigurationError(
            f"cannot register {definition!r}; expected a gpumlp.Activation, Cost or UpdateRule, or a function that "
            "returns one"
        )
    if isinstance(example, UpdateRule):
        check_rule(example)
    registry.register(definition, *aliases)
