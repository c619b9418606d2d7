"""HyperTable: the numbers of a training that differ between models, and between weights and biases."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.parameters import ParameterLayout

# what each number may be: (lowest, whether it may be the lowest itself, below; None: up to infinity itself)
LIMITS: dict[str, tuple[float, bool, float | None]] = {
    "learning_rate": (0.0, True, np.inf),
    "l1": (0.0, True, np.inf),
    "l2": (0.0, True, np.inf),
    "clip_norm": (0.0, False, None),  # infinity, which limits nothing, may stand beside models with a limit
    "momentum": (0.0, True, 1.0 + 1e-12),
    "beta1": (0.0, True, 1.0),
    "beta2": (0.0, True, 1.0),
    "rho": (0.0, True, 1.0),
    "epsilon": (0.0, False, np.inf),  # at 0 a weight without gradient would become 0 / 0
    "weight_decay": (0.0, True, np.inf),
}


class HyperTable:
    """The hyperparameters of a stack.

    values   name -> (n_groups, n_models) float64: eta, l2, l1 and the rule's own. Group 0 are the weights, group 1 the
             biases with gamma and beta; there is one group where both have the same numbers
    bounds   where the groups begin and end in a row of theta; what lies outside is not updated
    extras   which of "l2", "l1" and "clip" act
    """

    def __init__(
        self,
        rule: UpdateRule,
        layout: ParameterLayout,
        n_models: int,
        learning_rate: Any,
        l2: Any,
        l1: Any,
        clip_norm: Any,
        train_biases: bool,
        momentum_on_biases: bool,
    ) -> None:
        given = {"eta": per_model("learning_rate", learning_rate, n_models)}
        given |= {name: per_model(name, value, n_models) for name, value in rule.defaults.items()}
        given |= {"l2": per_model("l2", l2, n_models), "l1": per_model("l1", l1, n_models)}
        self.clip_norm = None if clip_norm is None else per_model("clip_norm", clip_norm, n_models)
        self.extras = frozenset(
            [name for name in ("l2", "l1") if given[name].any()] + (["clip"] if clip_norm is not None else [])
        )
        spared = [name for name in ("l2", "l1", rule.decay) if name and given[name].any()]
        if not momentum_on_biases:
            if not rule.momentum:
                raise ConfigurationError(
                    f'momentum_on_biases=False with update rule "{rule.name}", which has no momentum; leave it away'
                )
            spared.append(rule.momentum)
        if not train_biases:
            self.bounds: tuple[int, ...] = (0, layout.n_weights)
        elif spared:
            self.bounds = (0, layout.n_weights, layout.n_learned)
        else:
            self.bounds = (0, layout.n_learned)
        n_groups = len(self.bounds) - 1
        self.values = {name: np.repeat(value[None], n_groups, axis=0) for name, value in given.items()}
        for name in spared if n_groups == 2 else ():
            self.values[name][1] = 0
        self.base_rate = self.values["eta"].copy()

    def take(self, models: Any) -> HyperTable:
        """Return the table of some models, by their places."""
        part = copy(self)
        part.values = {name: value[:, models].copy() for name, value in self.values.items()}
        part.base_rate = self.base_rate[:, models]
        part.clip_norm = None if self.clip_norm is None else self.clip_norm[models]
        return part

    def scale_rate(self, factor: Any) -> None:
        """Set the learning rate to its first value times `factor` (n_models,)."""
        self.values["eta"][:] = self.base_rate * factor


def per_model(name: str, value: Any, n_models: int) -> Any:
    """Return a number for each model, (n_models,) float64; raise ConfigurationError for one that means nothing."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}={value!r}: expected a number, or one for each model") from error
    if array.shape not in ((), (1,), (n_models,)):
        raise ConfigurationError(
            f"{name} has shape {array.shape}; expected a number, or one for each of {n_models} models"
        )
    low, closed, high = LIMITS.get(name, (-np.inf, False, np.inf))
    fits = (array >= low) if closed else (array > low)
    wrong = ~fits if high is None else ~(fits & (array < high))
    if wrong.any():
        bad = array[wrong].flat[0]
        raise ConfigurationError(
            f"{name}={bad:g}: expected a number {'of at least' if closed else 'above'} {low:g}"
            + (f" and below {high:g}" if high is not None and np.isfinite(high) else "")
        )
    return np.ascontiguousarray(np.broadcast_to(array, (n_models,)))
