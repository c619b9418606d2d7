"""Several steps as one program do, bit for bit, what they do one by one."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import numba_joined
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

N_ROWS, N = 83, 6  # ten full batches of 8, and a short one


@pytest.fixture
def launched(monkeypatch):
    """Count how many launches were one program."""
    done, call = [], numba_joined.JoinedSteps.__call__
    monkeypatch.setattr(numba_joined.JoinedSteps, "__call__", lambda self: done.append(call(self)) or done[-1])
    return done


def data(dtype=np.float64, n_out=3):
    draw = np.random.default_rng(1)
    return draw.standard_normal((N_ROWS, 7)).astype(dtype), draw.integers(0, n_out, N_ROWS)


def train(at_once, widths=(5,) * N, rates=0.0, X=None, Y=None, fit=None, normalisation=None, embeddings=(), **options):
    kinds = "softmax", "categorical_cross_entropy", normalisation
    nets = [build_architecture((7, w, w, 3), ["relu", "tanh"], *kinds, embeddings) for w in widths]
    members = [Member(net, (rates, 0.0), seed=3, model_id=m) for m, net in enumerate(nets)]
    net = gpumlp.Network.mixed(members, dtype="float64", backend="numba")
    trainer = gpumlp.Trainer(net, batch_size=8, steps_per_launch=at_once, **options)
    given = data()
    history = trainer.fit(given[0] if X is None else X, given[1] if Y is None else Y, 3, **(fit or {}))
    return net, trainer, history


def assert_equal(found, expected):
    assert np.array_equal(found[0].parameters.theta, expected[0].parameters.theta)
    for name in found[1].state:
        assert np.array_equal(found[1].state[name], expected[1].state[name])
    assert np.array_equal(found[1].clock, expected[1].clock)
    for name in found[2]:
        assert np.array_equal(found[2][name], expected[2][name]), name


EMBEDDINGS = (gpumlp.Embedding(2, 4, 3), gpumlp.Embedding(6, 9, 5))
CODES = data()[0].copy()
CODES[:, [2, 6]] = np.random.default_rng(2).integers(-1, 4, (N_ROWS, 2))
FOLDS = gpumlp.Folds(tuple(np.arange(f, N_ROWS, 2) for f in range(2)), tuple(m % 2 for m in range(N)))
JOINED = [
    {},
    {"widths": (2, 2, 9, 4, 4, 4)},
    {"rates": 0.4},
    {"widths": (2, 2, 9, 4, 4, 4), "rates": 0.4, "clip_norm": np.linspace(0.1, 2, N), "l2": 0.01},
    {"optimizer": "momentum", "learning_rate": np.linspace(0.01, 0.1, N), "schedule": "cosine"},
    {"fit": {"folds": FOLDS}},
    {"normalisation": "layer"},
    {"normalisation": "batch", "reduction": "sum", "learning_rate": 1e-3},
    {"embeddings": EMBEDDINGS, "X": CODES},
    {"embeddings": EMBEDDINGS, "X": CODES, "widths": (2, 2, 9, 4, 4, 4), "rates": 0.4},
    {"X": data()[0].astype(np.float32)},
    {"Y": np.eye(3)[data()[1]]},
    {"schedule": [gpumlp.schedules.exponential(1 - m / 20) for m in range(N)]},
]


@pytest.mark.parametrize("which", range(len(JOINED)))
@pytest.mark.parametrize(("at_once", "most_rows"), [(2, numba_joined.MOST_ROWS), (5, numba_joined.MOST_ROWS), (5, 0)])
def test_steps_at_once_leave_the_bits_of_single_steps(launched, at_once, most_rows, which, monkeypatch):
    """Whether there is room for the rows of all steps, or not."""
    rooms, orders = [], numba_joined.Orders
    monkeypatch.setattr(numba_joined, "MOST_ROWS", most_rows)
    monkeypatch.setattr(numba_joined, "Orders", lambda *given: rooms.append(given[1].shape[1]) or orders(*given))
    one_by_one = train(1, **JOINED[which])
    assert not launched
    assert_equal(train(at_once, **JOINED[which]), one_by_one)
    assert launched.count(True) >= 3
    assert set(rooms) == {8 * (at_once if most_rows else 1)}


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"shuffle": "shared"},
        {"fit": {"sample_weight": np.random.default_rng(2).random(N_ROWS)}},
        {"widths": (5,)},
        {"X": data()[0].astype(np.float16)},
    ],
)
def test_what_has_to_wait_between_steps_is_done_step_by_step(launched, options):
    assert_equal(train(5, **options), train(1, **options))
    assert not launched


def test_a_launch_that_meets_the_short_batch_is_done_step_by_step(launched):
    assert_equal(train(11), train(1))
    assert launched == [False] * 3
