"""Training of an ensemble: stack after stack, each job as it would be trained alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from gpumlp.ensembles.building import build_network, build_trainer, folds_of, weights_of
from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.plan import Plan, plan
from gpumlp.ensembles.watching import StackWatch, watch_stack
from gpumlp.errors import ConfigurationError, DivergenceError
from gpumlp.training.trainer import Trainer


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
    watching = watch_stack(jobs, n_rows)
    with suppress(DivergenceError):  # of the last model that was left; each one's own is kept
        fit(trainer, jobs, X, Y, watching)
    seconds = perf_counter() - began
    n_epochs = sum(len(watch.history) for watch in watching.watches)
    states = {name: net.backend.to_host(kept) for name, kept in trainer.state.items()}
    return [
        Outcome(
            net if len(jobs) == 1 else net.alone(place),
            watch.finished(trainer.divergences.get(place)),
            trainer.divergences.get(place),
            seconds * len(watch.history) / n_epochs if n_epochs else seconds / len(jobs),
            {name: net.line_of(place, kept) for name, kept in states.items()},
        )
        for place, watch in enumerate(watching.watches)
    ]


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
