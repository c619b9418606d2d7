"""Points at which formulas are tried, and the pairs and rules that the registries hold."""

from types import SimpleNamespace

import numpy as np

from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import fits, is_matched
from gpumlp.formulas.registry import Interval
from gpumlp.formulas.update_rules import RULES, per_step_names

ELEMENTWISE = [a for a in ACTIVATIONS.definitions() if not a.row_wise]
ALL_COSTS = COSTS.definitions()
ALL_RULES = RULES.definitions()
PAIRS = [(c, a) for c in ALL_COSTS for a in ACTIVATIONS.definitions() if fits(c, a)]
ALL_EXTRAS = frozenset({"clip", "l2", "l1"})
NOT_FINITE = np.array([np.nan, np.inf, -np.inf])


def by_name(definition):
    """Name a definition, or several, in a test's id."""
    several = definition if isinstance(definition, tuple) else (definition,)
    return "-".join(getattr(d, "name", str(d)) for d in several)


def reals(n=2000, seed=0):
    """Return real numbers of all sizes, the kinks of the definitions among them."""
    rng = np.random.default_rng(seed)
    kinks = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-12, -1e-12, 1e-5, -1e-5, 40.0, -40.0])
    return np.concatenate([kinks, 2 * rng.standard_normal(n // 2), rng.uniform(-60, 60, n - n // 2)])[:n]


def inside(interval: Interval, n=2000, seed=0):
    """Return numbers that lie inside an interval, away from its ends."""
    rng = np.random.default_rng(seed)
    if np.isfinite(interval.low) and np.isfinite(interval.high):
        return interval.low + (interval.high - interval.low) * rng.uniform(0.02, 0.98, n)
    if np.isfinite(interval.low):
        return interval.low + np.exp(rng.uniform(-3, 2, n))
    return 3 * rng.standard_normal(n)


def outputs_and_targets(cost, activation, n=2000, seed=0):
    """Return z, a = f(z) and y for which a pair is defined; for a matched softmax z is log a."""
    y = np.sign(reals(n, seed + 1) + 1e-3) if cost.labels == (1.0, -1.0) else inside(cost.targets, n, seed + 1)
    if activation.row_wise:
        a = np.random.default_rng(seed).uniform(0.02, 0.98, n)
        return np.log(a), a, y
    z = np.clip(reals(n, seed), -5, 5) if activation.range in cost.domain else reals(n, seed)
    return z, activation.value(z), y


def rule_numbers(rule):
    """Return the names of all numbers of a step, as the training loop orders them."""
    return ("eta", *rule.defaults, *per_step_names(rule), "l2", "l1", "clip")


def rule_points(rule, n=2000, seed=0):
    """Return w, g, the state and the numbers of a step: positive where they are averages of squares or rates."""
    rng = np.random.default_rng(seed)
    w, g = rng.standard_normal(n), rng.standard_normal(n) * 10.0 ** rng.integers(-4, 2, n)
    state = {name: np.abs(rng.standard_normal(n)) for name in rule.state}
    h = {"eta": 0.013, **{k: float(v) for k, v in rule.defaults.items()}, "l2": 0.003, "l1": 0.0007, "clip": 0.6}
    numbers = {k: np.float64(v) for k, v in {**h, **rule.per_step(3.0, SimpleNamespace(**h))}.items()}
    return w, g, state, {name: numbers[name] for name in rule_numbers(rule)}


def step_directly(rule, w, g, state, numbers, extras):
    """Return (new w, new state...) computed on arrays, with the penalties written out."""
    h = SimpleNamespace(**numbers)
    if "clip" in extras:
        g = g * h.clip
    if "l2" in extras:
        g = g + h.l2 * w
    if "l1" in extras:
        g = g + h.l1 * np.sign(w)
    return rule.per_weight(w, g, SimpleNamespace(**state), h)


def matched_pairs():
    """Return the pairs whose delta is a - y."""
    return [(c, a) for c, a in PAIRS if is_matched(c, a)]
