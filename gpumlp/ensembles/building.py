"""What a stack of jobs is trained with: one network, one trainer, and the rows and weights of each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from gpumlp.ensembles.job import Job
from gpumlp.ensembles.kinds import combined_rule
from gpumlp.formulas.update_rules import RULES
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.folds import Folds
from gpumlp.training.monitors import Monitor
from gpumlp.training.schedules import ReduceOnPlateau, Schedule, get_schedule
from gpumlp.training.trainer import Trainer

MOST_AT_ONCE = 10  # steps


def build_network(jobs: Sequence[Job], dtype: Any, backend: str, device: str | None) -> Network:
    """Return the stack of the jobs' members, with the weights that they begin with."""
    net = Network.mixed([job.member for job in jobs], dtype=dtype, backend=backend, device=device)
    for place, job in enumerate(jobs):
        if job.weights is not None:
            begins = net if len(jobs) == 1 else net.alone(place)
            for l, (W, b) in enumerate(job.weights):
                begins.set_weights(l, W, b)
            for i, E in enumerate(job.tables):
                begins.set_embedding(i, E)
            if begins is not net:
                net.put(place, begins)
    return net


def build_trainer(net: Network, jobs: Sequence[Job], n_rows: int) -> Trainer:
    """Return the trainer of a stack, with each job's numbers, and what all of its jobs have in common.

    n_rows   of the first job, whose number of batches all have
    """
    first = jobs[0]
    return Trainer(
        net,
        combined_rule([RULES.get(job.optimizer) for job in jobs]),
        [job.learning_rate for job in jobs],
        first.batch_size,
        first.reduction,
        [job.l2 for job in jobs],
        [job.l1 for job in jobs],
        limits_of([job.clip_norm for job in jobs]),
        schedules_of(jobs),
        first.shuffle,
        first.train_biases,
        first.momentum_on_biases,
        on_divergence="stop",
        steps_per_launch=steps_at_once(jobs, n_rows),
        penalty=first.penalty,
    )


def steps_at_once(jobs: Sequence[Job], n_rows: int) -> int:
    """Return how many steps of a stack are performed at once: a part of its full batches, if nobody is told of each."""
    told = any(type(m).step_ended is not Monitor.step_ended for job in jobs for m in job.monitors)
    if len(jobs) == 1 or told:
        return 1
    batch = jobs[0].batch_size
    full = 1 if batch == "full" else n_rows // min(int(batch), n_rows)
    most = min(MOST_AT_ONCE, full)
    even = max(n for n in range(1, most + 1) if full % n == 0)
    return even if 2 * even > most else most


def limits_of(clip_norms: Sequence[float | None]) -> list[float] | None:
    """Return the limit of each model's gradient, infinite where there is none; None if there is none for any."""
    if all(limit is None for limit in clip_norms):
        return None
    return [inf if limit is None else limit for limit in clip_norms]


def schedules_of(jobs: Sequence[Job]) -> list[Schedule | ReduceOnPlateau]:
    """Return each job's schedule; those that are alike are one, which is computed once."""
    found: dict[tuple[Any, int], Schedule | ReduceOnPlateau] = {}
    for job in jobs:
        found.setdefault((job.schedule, job.epochs), schedule_of(job))
    return [found[job.schedule, job.epochs] for job in jobs]


def schedule_of(job: Job) -> Schedule | ReduceOnPlateau:
    """Return a job's schedule, whose plan is as long as the job's training, not as its stack's."""
    schedule = get_schedule(job.schedule)
    if isinstance(schedule, Schedule) and schedule.epochs is None:
        return replace(schedule, epochs=job.epochs)
    return schedule


def folds_of(rows: Sequence[HostArray | None], n_rows: int) -> Folds | None:
    """Return which rows each model has, equal ones once; None where all have all, or none has any."""
    if all(of_model is None for of_model in rows):
        return None
    found: dict[bytes, int] = {}
    arrays = {id(x): np.arange(n_rows) if x is None else np.asarray(x, np.int64) for x in rows}
    numbers = {key: found.setdefault(array.tobytes(), len(found)) for key, array in arrays.items()}
    different = {numbers[key]: array for key, array in arrays.items()}
    return Folds(tuple(different[i] for i in range(len(found))), tuple(numbers[id(x)] for x in rows))


def weights_of(sample_weights: Sequence[HostArray | None]) -> HostArray | None:
    """Return the weights of all rows, (n_rows,) if the models share them, else (n_models, n_rows)."""
    first, *others = sample_weights
    if first is None or all(weights is first for weights in others):
        return first
    return np.stack([np.asarray(weights, np.float64) for weights in sample_weights])
