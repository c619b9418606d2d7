"""Update rules: how a weight moves, given its gradient g and the state s that the rule keeps for it.

w is the weight, g the gradient of the batch with its penalties, eta the learning rate, t the number of the step from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from gpumlp.errors import FormulaError
from gpumlp.formulas.registry import Registry
from gpumlp.formulas.term import Recording, record
from gpumlp.formulas.vocabulary import power, sign, sqrt


@dataclass(frozen=True)
class UpdateRule:
    """A definition of one step.

    state       the names of what is kept for each weight
    defaults    the rule's numbers besides eta: scalars, or one per model
    per_weight  per_weight(w, g, s, h) -> (new w, new state...): s has the state's names, h eta, the rule's numbers and
                what per_step returns
    per_step    per_step(t, h) -> numbers that are the same for all weights of a step, computed in double
    momentum    the number that momentum_on_biases=False sets to 0 for biases; "" if the rule has none
    decay       the number that decays weights by itself, for weights only; "" if the rule has none
    """

    name: str
    per_weight: Callable[[Any, Any, Any, Any], tuple[Any, ...]]
    state: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    per_step: Callable[[Any, Any], Mapping[str, Any]] = lambda t, h: {}
    momentum: str = ""
    decay: str = ""
    formula: str = ""
    source: str = ""


def rule_recording(rule: UpdateRule, numbers: tuple[str, ...], extras: frozenset[str]) -> Recording:
    """Return a whole step of one weight as a Recording: (w, g, state..., numbers...) -> (w, state...).

    numbers   the names of all numbers of a step, in the order of the result's inputs
    extras    which of these act: "clip" multiplies the gradient, then "l2" adds l2 w and "l1" adds l1 sign(w)
    """

    def step(w: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
        s = SimpleNamespace(**dict(zip(rule.state, rest[: len(rule.state)], strict=True)))
        h = SimpleNamespace(**dict(zip(numbers, rest[len(rule.state) :], strict=True)))
        if "clip" in extras:
            g = g * h.clip
        if "l2" in extras:
            g = g + h.l2 * w
        if "l1" in extras:
            g = g + h.l1 * sign(w)
        return rule.per_weight(w, g, s, h)

    return record(step, "w", "g", *rule.state, *numbers)


NOT_FOR_RULES = frozenset(("w", "g", "t", "eta", "l2", "l1", "clip"))  # what a step has besides a rule's own names


def check_rule(rule: UpdateRule) -> None:
    """Raise FormulaError, naming the rule, unless one step of it can be recorded."""

    def wrong(what: str) -> FormulaError:
        return FormulaError(f"update rule {rule.name!r}: {what}")

    own = (*rule.state, *rule.defaults)
    for name in own:
        if not name.isidentifier() or name in NOT_FOR_RULES or own.count(name) > 1:
            raise wrong(
                f"{name!r} cannot name a state or number; take different identifiers other than "
                f"{', '.join(sorted(NOT_FOR_RULES))}"
            )
    computed = per_step_names(rule)
    for name in computed:
        if not name.isidentifier() or name in NOT_FOR_RULES or name in own:
            raise wrong(f"per_step returns {name!r}, which is taken or no identifier; choose another name")
    numbers = ("eta", *rule.defaults, *computed)
    try:
        results = len(rule_recording(rule, numbers, frozenset()).outputs)
    except AttributeError as error:
        raise wrong(f"per_weight uses a state or number that the rule does not have ({error})") from error
    if results != 1 + len(rule.state):
        raise wrong(f"per_weight returns {results} results, expected the new weight and {len(rule.state)} states")


def per_step_names(rule: UpdateRule) -> tuple[str, ...]:
    """Return the names of the numbers that a rule computes once a step."""
    h = SimpleNamespace(eta=0.5, **dict.fromkeys(rule.defaults, 0.5))
    return tuple(rule.per_step(1.0, h))


def given_names(rule: UpdateRule) -> tuple[str, ...]:
    """Return the names of the numbers that are given for a step, in one order."""
    return ("eta", *rule.defaults, "l2", "l1")


def finished_names(rule: UpdateRule) -> tuple[str, ...]:
    """Return the names of the numbers that a step of one weight may read, in one order."""
    return ("eta", *rule.defaults, *per_step_names(rule), "l2", "l1", "clip")


def per_step_recording(rule: UpdateRule) -> Recording:
    """Return the finished numbers of a step as a Recording of (t, given numbers...); "clip" is 1 before clipping."""

    def formula(t: Any, *values: Any) -> tuple[Any, ...]:
        given = dict(zip(given_names(rule), values, strict=True))
        finished = {**given, "clip": 1, **rule.per_step(t, SimpleNamespace(**given))}
        return tuple(finished[name] for name in finished_names(rule))

    return record(formula, "t", *given_names(rule))


RULES: Registry[UpdateRule] = Registry("update rule", UpdateRule)


def sgd() -> UpdateRule:
    """Return plain gradient descent."""
    return UpdateRule(
        "sgd",
        lambda w, g, s, h: (w - h.eta * g,),
        formula="w <- w - eta g",
        source="Robbins and Monro 1951",
    )


def momentum(momentum: Any = 0.9) -> UpdateRule:
    """Return gradient descent with a velocity v."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        v = h.momentum * s.v - h.eta * g
        return w + v, v

    return UpdateRule(
        "momentum",
        per_weight,
        state=("v",),
        defaults={"momentum": momentum},
        momentum="momentum",
        formula="v <- mu v - eta g; w <- w + v",
        source="Rumelhart, Hinton and Williams 1986",
    )


def nesterov(momentum: Any = 0.9) -> UpdateRule:
    """Return Nesterov's momentum: the velocity is applied once ahead."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        step = h.eta * g
        v = h.momentum * s.v - step
        return w + h.momentum * v - step, v

    return UpdateRule(
        "nesterov",
        per_weight,
        state=("v",),
        defaults={"momentum": momentum},
        momentum="momentum",
        formula="v <- mu v - eta g; w <- w + mu v - eta g",
        source="Nesterov 1983; Sutskever et al. 2013",
    )


def adagrad(epsilon: Any = 1e-10) -> UpdateRule:
    """Return the rule whose rate falls with the sum of squared gradients."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        n = s.n + g * g
        return w - h.eta * g / (sqrt(n) + h.epsilon), n

    return UpdateRule(
        "adagrad",
        per_weight,
        state=("n",),
        defaults={"epsilon": epsilon},
        formula="n <- n + g^2; w <- w - eta g / (sqrt(n) + eps)",
        source="Duchi, Hazan and Singer 2011",
    )


def rmsprop(rho: Any = 0.9, epsilon: Any = 1e-8) -> UpdateRule:
    """Return the rule that divides by a running root mean square of the gradient."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        n = h.rho * s.n + h.rho_rest * (g * g)
        return w - h.eta * g / (sqrt(n) + h.epsilon), n

    return UpdateRule(
        "rmsprop",
        per_weight,
        state=("n",),
        defaults={"rho": rho, "epsilon": epsilon},
        per_step=lambda t, h: {"rho_rest": 1 - h.rho},
        formula="n <- rho n + (1 - rho) g^2; w <- w - eta g / (sqrt(n) + eps)",
        source="Tieleman and Hinton 2012",
    )


def _adam_numbers(t: Any, h: Any) -> dict[str, Any]:
    """Fold both bias corrections into the rate and epsilon; in double, since 1 - beta2**t is small at first."""
    root = sqrt(1 - power(h.beta2, t))
    return {
        "beta1_rest": 1 - h.beta1,
        "beta2_rest": 1 - h.beta2,
        "rate": h.eta * root / (1 - power(h.beta1, t)),
        "floor": h.epsilon * root,
    }


def _adam_moments(g: Any, s: Any, h: Any) -> tuple[Any, Any]:
    """Return the new running means of the gradient and of its square."""
    return h.beta1 * s.m + h.beta1_rest * g, h.beta2 * s.v + h.beta2_rest * (g * g)


def adam(beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8) -> UpdateRule:
    """Return Adam: a step of the mean gradient over the root mean square, both corrected for their start at 0."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        m, v = _adam_moments(g, s, h)
        return w - h.rate * m / (sqrt(v) + h.floor), m, v

    return UpdateRule(
        "adam",
        per_weight,
        state=("m", "v"),
        defaults={"beta1": beta1, "beta2": beta2, "epsilon": epsilon},
        per_step=_adam_numbers,
        formula="m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - eta m^ / (sqrt(v^) + eps)",
        source="Kingma and Ba 2015, algorithm 1",
    )


def adamw(beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8, weight_decay: Any = 0.01) -> UpdateRule:
    """Return Adam with weights that decay by themselves, outside the gradient; biases do not."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        m, v = _adam_moments(g, s, h)
        return w * h.keep - h.rate * m / (sqrt(v) + h.floor), m, v

    return UpdateRule(
        "adamw",
        per_weight,
        state=("m", "v"),
        defaults={"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": weight_decay},
        per_step=lambda t, h: {**_adam_numbers(t, h), "keep": 1 - h.eta * h.weight_decay},
        decay="weight_decay",
        formula="as adam, with w <- (1 - eta decay) w first",
        source="Loshchilov and Hutter 2019",
    )


def nadam(beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8) -> UpdateRule:
    """Return Adam with Nesterov's look ahead, for a constant beta1."""

    def per_step(t: Any, h: Any) -> dict[str, Any]:
        root = sqrt(1 - power(h.beta2, t))
        return {
            "beta1_rest": 1 - h.beta1,
            "beta2_rest": 1 - h.beta2,
            "mean_rate": h.eta * h.beta1 * root / (1 - power(h.beta1, t + 1)),
            "gradient_rate": h.eta * (1 - h.beta1) * root / (1 - power(h.beta1, t)),
            "floor": h.epsilon * root,
        }

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        m, v = _adam_moments(g, s, h)
        return w - (h.mean_rate * m + h.gradient_rate * g) / (sqrt(v) + h.floor), m, v

    return UpdateRule(
        "nadam",
        per_weight,
        state=("m", "v"),
        defaults={"beta1": beta1, "beta2": beta2, "epsilon": epsilon},
        per_step=per_step,
        formula="as adam, with m^ <- b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)",
        source="Dozat 2016",
    )


def lion(beta1: Any = 0.9, beta2: Any = 0.99, weight_decay: Any = 0.0) -> UpdateRule:
    """Return the rule that moves every weight by the same amount, in the direction of a mean of gradients."""

    def per_weight(w: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
        direction = sign(h.beta1 * s.m + h.beta1_rest * g)
        return w * h.keep - h.eta * direction, h.beta2 * s.m + h.beta2_rest * g

    return UpdateRule(
        "lion",
        per_weight,
        state=("m",),
        defaults={"beta1": beta1, "beta2": beta2, "weight_decay": weight_decay},
        per_step=lambda t, h: {
            "beta1_rest": 1 - h.beta1,
            "beta2_rest": 1 - h.beta2,
            "keep": 1 - h.eta * h.weight_decay,
        },
        decay="weight_decay",
        formula="w <- (1 - eta decay) w - eta sign(b1 m + (1 - b1) g); m <- b2 m + (1 - b2) g",
        source="Chen et al. 2023",
    )


for _rule in (sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, nadam, lion):
    RULES.register(_rule)
RULES.seal()
