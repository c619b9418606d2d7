"""Each rule over some steps against its published algorithm, written out for a single number."""

from math import copysign, sqrt
from types import SimpleNamespace

import numpy as np
import points
import pytest

from gpumlp.formulas.update_rules import RULES

ETA = 0.1
GRADIENTS = [0.5, -1.25, 0.003, 2.0, -0.7, 0.0, 1e-4]


def sgd(w, gradients):
    for g in gradients:
        w -= ETA * g
        yield w


def momentum(w, gradients, mu=0.9):
    v = 0.0
    for g in gradients:
        v = mu * v - ETA * g
        w += v
        yield w


def nesterov(w, gradients, mu=0.9):
    """In the shifted form: the weight that is kept is the one looked ahead to."""
    v, base = 0.0, w
    for g in gradients:
        v = mu * v - ETA * g
        base += v
        yield base + mu * v


def adagrad(w, gradients, epsilon=1e-10):
    n = 0.0
    for g in gradients:
        n += g * g
        w -= ETA * g / (sqrt(n) + epsilon)
        yield w


def rmsprop(w, gradients, rho=0.9, epsilon=1e-8):
    n = 0.0
    for g in gradients:
        n = rho * n + (1 - rho) * g * g
        w -= ETA * g / (sqrt(n) + epsilon)
        yield w


def adam(w, gradients, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0, look_ahead=False):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        mean, square = m / (1 - beta1**t), v / (1 - beta2**t)
        if look_ahead:
            mean = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        w = w - ETA * decay * w - ETA * mean / (sqrt(square) + epsilon)
        yield w


def adamw(w, gradients):
    return adam(w, gradients, decay=0.01)


def nadam(w, gradients):
    return adam(w, gradients, look_ahead=True)


def lion(w, gradients, beta1=0.9, beta2=0.99):
    m = 0.0
    for g in gradients:
        c = beta1 * m + (1 - beta1) * g
        w -= ETA * (copysign(1, c) if c else 0)
        m = beta2 * m + (1 - beta2) * g
        yield w


PUBLISHED = {f.__name__: f for f in (sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, nadam, lion)}


@pytest.mark.parametrize("rule", points.ALL_RULES, ids=points.by_name)
def test_a_rule_follows_its_published_algorithm(rule):
    h = {"eta": np.float64(ETA), **{name: np.float64(value) for name, value in rule.defaults.items()}}
    w, state = np.float64(0.8), dict.fromkeys(rule.state, np.float64(0))
    found = []
    for t, g in enumerate(GRADIENTS, start=1):
        numbers = SimpleNamespace(**{**h, **rule.per_step(float(t), SimpleNamespace(**h))})
        w, *new = rule.per_weight(w, np.float64(g), SimpleNamespace(**state), numbers)
        state = dict(zip(rule.state, new, strict=True))
        found.append(float(w))
    assert np.allclose(found, list(PUBLISHED[rule.name](0.8, GRADIENTS)), rtol=1e-12)


def test_every_rule_is_tested_against_its_published_algorithm():
    assert set(PUBLISHED) == set(RULES)
