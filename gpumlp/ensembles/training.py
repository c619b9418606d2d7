"""Training of an ensemble: stack after stack, each job as it would be trained alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Any

import numpy as np

from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.kinds import combined_rule
from gpumlp.ensembles.plan import Plan, plan
from gpumlp.ensembles.watching import JobWatch, StackWatch, watch_stack
from gpumlp.errors import ConfigurationError, DivergenceError
from gpumlp.formulas.update_rules import RULES
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.folds import Folds
from gpumlp.training.monitors import Monitor
from gpumlp.training.schedules import ReduceOnPlateau, Schedule, get_schedule
from gpumlp.training.trainer import Trainer

MOST_AT_ONCE = 10  # steps


def train(
    jobs: Sequence[Job],
    X: Any,
    Y: Any,
    *,
    dtype: Any = "float32",
    backend: str | None = "auto",
    device: str | None = None,
    memory: int | None = None,
    done: Callable[[int, Outcome], None] | None = None,
    stacks: Plan | None = None,
) -> list[Outcome]:
    """Train every job on rows of X and Y and return what became of each, in the order of the jobs.

    X        (n_rows, in_features), one copy for all
    Y        (n_rows, out) targets, or (n_rows,) labels; numbers of one output
    memory   as of `plan`
    done     done(i, outcome) is called for each job as soon as its stack has finished
    stacks   a plan made before; None: it is made now
    Raises   what `plan` and Trainer.fit raise; a job that diverges has its error in its Outcome instead
    """
    if stacks is None:
        stacks = plan(jobs, X, Y, dtype=dtype, backend=backend, device=device, memory=memory)
    outcomes: dict[int, Outcome] = {}
    for i, outcome in outcomes_of(jobs, X, Y, stacks, dtype, device):
        outcomes[i] = outcome
        if done is not None:
            done(i, outcome)
    return [outcomes[i] for i in range(len(jobs))]


def outcomes_of(
    jobs: Sequence[Job], X: Any, Y: Any, stacks: Plan, dtype: Any, device: str | None
) -> Iterator[tuple[int, Outcome]]:
    """Train stack after stack; yield the number of each job, and what became of it, once its stack has finished."""
    check_monitors(jobs)
    for stack in stacks.stacks:
        found = train_stack([jobs[i] for i in stack.jobs], X, Y, dtype, stacks.backend, device)
        yield from zip(stack.jobs, found, strict=True)


def check_monitors(jobs: Sequence[Job]) -> None:
    """Raise ConfigurationError where two jobs have the same monitor: it could not tell one's run from the other's."""
    uses = Counter(id(monitor) for job in jobs for monitor in job.monitors)
    for number, job in enumerate(jobs):
        for monitor in job.monitors:
            if uses[id(monitor)] > 1:
                raise ConfigurationError(
                    f"jobs[{number}] has a {type(monitor).__name__} that stands in the monitors of a job already; give "
                    "each job one of its own"
                )


def train_stack(jobs: Sequence[Job], X: Any, Y: Any, dtype: Any, backend: str, device: str | None) -> list[Outcome]:
    """Train the jobs of one stack at once and return what became of each."""
    began = perf_counter()
    net = build_network(jobs, dtype, backend, device)
    n_rows = [len(X if job.rows is None else job.rows) for job in jobs]
    trainer = build_trainer(net, jobs, n_rows[0])
    watches = [JobWatch(job, place, n) for place, (job, n) in enumerate(zip(jobs, n_rows, strict=True))]
    with suppress(DivergenceError):  # of the last model that was left; each one's own is kept
        fit(trainer, jobs, X, Y, watch_stack(watches))
    seconds = perf_counter() - began
    n_epochs = sum(len(watch.history) for watch in watches)
    states = {name: net.backend.to_host(kept) for name, kept in trainer.state.items()}
    return [
        Outcome(
            net if len(jobs) == 1 else net.alone(place),
            watch.finished(trainer.divergences.get(place)),
            trainer.divergences.get(place),
            seconds * len(watch.history) / n_epochs if n_epochs else seconds / len(jobs),
            {name: net.line_of(place, kept) for name, kept in states.items()},
        )
        for place, watch in enumerate(watches)
    ]


def build_network(jobs: Sequence[Job], dtype: Any, backend: str, device: str | None) -> Network:
    """Return the stack of the jobs' members, with the weights that they begin with."""
    net = Network.mixed([job.member for job in jobs], dtype=dtype, backend=backend, device=device)
    for place, job in enumerate(jobs):
        if job.weights is not None:
            begins = net if len(jobs) == 1 else net.alone(place)
            for l, (W, b) in enumerate(job.weights):
                begins.set_weights(l, W, b)
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


def fit(trainer: Trainer, jobs: Sequence[Job], X: Any, Y: Any, watch: StackWatch) -> None:
    """Train a stack for as long as the longest of its jobs."""
    trainer.fit(
        X,
        Y,
        max(job.epochs for job in jobs),
        validation=folds_of([job.validation_rows for job in jobs], len(X)),
        sample_weight=weights_of([job.sample_weight for job in jobs]),
        monitors=[watch],
        folds=folds_of([job.rows for job in jobs], len(X)),
    )


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
