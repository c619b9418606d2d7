"""Which jobs become a stack, and what a plan says."""

import sys

import numpy as np
import pytest
from fleet import data, job

import gpumlp
from gpumlp.ensembles import plan
from gpumlp.ensembles.footprint import bytes_of
from gpumlp.ensembles.plan import shape_of
from gpumlp.errors import ConfigurationError, DataError, OutOfMemory

X, Y = data()
ROWS = np.arange(61)


class OnDevice:
    """Stands in for a device that nothing is computed on: a plan asks for no more."""

    name, device, dtype = "cuda", "cuda:0", np.dtype("float32")
    keeps_masks, pads_models = False, True

    def free_bytes(self):
        return 2**30


@pytest.fixture
def for_a_device(monkeypatch):
    monkeypatch.setattr(sys.modules[plan.__module__], "get_backend", lambda *_: OnDevice())


def stacks(jobs, **options):
    """Return the numbers of the jobs of each stack."""
    return [set(stack.jobs) for stack in plan(jobs, X, Y, backend="numpy", **options).stacks]


DIFFERENT = {
    "depth": {"hidden": (6, 6)},
    "rule": {"optimizer": "sgd"},
    "normalisation": {"normalisation": "layer"},
    "embeddings": {"embeddings": [gpumlp.Embedding(2, 3, 1)]},
    "batch": {"batch_size": 8},
    "full batch": {"batch_size": "full"},
    "batches of an epoch": {"rows": ROWS[:40]},
    "shuffle": {"shuffle": False},
    "reduction": {"reduction": "sum"},
    "penalty": {"penalty": "batch"},
    "biases": {"train_biases": False},
    "validation": {"validation_rows": ROWS[:5]},
    "sample weights": {"sample_weight": np.ones(61)},
    "no epochs": {"epochs": 0},
}


@pytest.mark.parametrize("options", DIFFERENT.values(), ids=DIFFERENT)
def test_jobs_that_differ_in_kind_become_stacks_of_their_own(options):
    assert stacks([job(), job(**options)]) == [{0}, {1}]


ALIKE = {
    "widths": {"hidden": (7,)},
    "activation": {"activation": "relu"},
    "dropout": {"dropout": 0.5},
    "label smoothing": {"smoothing": 0.1},
    "initialiser": {"initialiser": "glorot"},
    "seed": {"seed": 1},
    "a rule's numbers": {"optimizer": gpumlp.rules.adam(beta1=0.5)},
    "learning rate": {"learning_rate": 0.1},
    "penalties": {"l1": 0.1, "l2": 0.1},
    "clipping": {"clip_norm": 1.0},
    "schedule": {"schedule": "cosine"},
    "rows": {"rows": ROWS[10:]},
    "epochs": {"epochs": 9},
    "monitors": {"monitors": [gpumlp.KeepBest("cost")]},
}


@pytest.mark.parametrize("options", ALIKE.values(), ids=ALIKE)
def test_jobs_of_one_kind_become_one_stack(options):
    assert stacks([job(), job(**options)]) == [{0, 1}]


def test_jobs_without_momentum_on_biases_become_a_stack_of_their_own():
    assert stacks([job(optimizer="momentum", momentum_on_biases=on) for on in (True, False)]) == [{0}, {1}]


def test_a_rule_of_ones_own_with_the_name_of_another_is_another_kind():
    own = gpumlp.UpdateRule("sgd", lambda w, g, s, h: (w - 2 * h.eta * g,))
    assert stacks([job(optimizer="sgd"), job(optimizer=own)]) == [{0}, {1}]


def test_models_that_are_alike_stand_side_by_side():
    jobs = [job(hidden=(n,), activation=f) for f in ("tanh", "relu") for n in (6, 7, 6)]
    (stack,) = plan(jobs, X, Y, backend="numpy").stacks
    assert stack.jobs == (4, 1, 3, 5, 0, 2) or stack.jobs == (3, 5, 0, 2, 4, 1)


def test_widths_limit_a_stack_on_a_device_alone(for_a_device):
    jobs = [job(hidden=(n,)) for n in (8, 30, 11, 12)]
    assert [set(s.jobs) for s in plan(jobs, X, Y, backend="cuda").stacks] == [{0, 2, 3}, {1}]
    assert plan(jobs, X, Y, backend="cuda").stacks[0].largest == (5, 12, 3)


def test_a_stack_that_does_not_fit_into_memory_is_split():
    jobs = [job(seed=i) for i in range(7)]
    (whole,) = plan(jobs, X, Y, backend="numpy").stacks
    parts = plan(jobs, X, Y, backend="numpy", memory=whole.bytes // 2).stacks
    assert sorted(i for part in parts for i in part.jobs) == list(range(7))
    assert all(part.bytes <= whole.bytes // 2 for part in parts)


def test_a_job_that_does_not_fit_alone_says_what_it_needs():
    jobs = [job(), job(hidden=(4000, 4000))]
    needed = bytes_of(jobs[1:], shape_of(X, Y), OnDevice())
    assert needed > 4 * 4000 * 4000 * 4  # theta, gradients, m, v
    message = r"jobs\[1\], 5-4000-4000-3 with batches of 16 rows, takes .* MiB, 1 MiB may be used; take a smaller"
    with pytest.raises(OutOfMemory, match=message):
        plan(jobs, X, Y, backend="numpy", memory=2**20)


def test_a_plan_is_a_table(for_a_device):
    jobs = [job(hidden=(n,), batch_size=8) for n in (8, 9, 8)] + [job(hidden=(4, 4), clip_norm=1.0)]
    jobs += [job(hidden=(n,), batch_size=8, embeddings=[gpumlp.Embedding(0, 7, 96)]) for n in (8, 9)]
    head, *lines = str(plan(jobs, X, Y, backend="cuda")).splitlines()
    assert head == "6 jobs in 3 stacks on cuda"
    assert [line.split() for line in lines[1:]] == [
        ["0", "3", "5-8..9-3", "7%", *lines[1].split()[4:6], "10"],
        ["1", "1", "5-4-4-3", "0%", *lines[2].split()[4:6], "16"],
        ["2", "2", "5-8..9-3", "6%", *lines[3].split()[4:6], "13"],
    ]
    assert lines[0].split() == ["stack", "models", "sizes", "padding", "memory", "launches", "a", "step"]


WRONG = {
    "tuned batch": (
        {"batch_size": "tune"},
        ConfigurationError,
        'batch_size=.tune.: expected a number of rows .* "full"',
    ),
    "batch": ({"batch_size": 0}, ConfigurationError, "batch_size=0"),
    "epochs": ({"epochs": -1}, ConfigurationError, "epochs=-1: expected a whole number of at least 0"),
    "shuffle": ({"shuffle": "shared"}, ConfigurationError, "shuffle='shared': expected True or False"),
    "no rows": ({"rows": []}, DataError, r"jobs\[1\].rows has shape \(0,\)"),
    "rows that are none": ({"rows": [0, 61]}, DataError, "names rows 0 to 61, X has rows 0 to 60"),
    "validation rows": ({"validation_rows": [-1]}, DataError, r"jobs\[1\].validation_rows names rows -1 to -1"),
}


@pytest.mark.parametrize(("options", "error", "message"), WRONG.values(), ids=WRONG)
def test_a_job_that_nothing_can_be_planned_with_is_named(options, error, message):
    with pytest.raises(error, match=message):
        plan([job(), job(**options)], X, Y, backend="numpy")


def test_what_is_no_job_is_refused():
    with pytest.raises(ConfigurationError, match=r"jobs\[0\] is 'adam'; expected a gpumlp.ensembles.Job"):
        plan(["adam"], X, Y, backend="numpy")
