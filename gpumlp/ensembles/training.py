"""Training of an ensemble: stack after stack, each job as it would be trained alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.plan import Plan, plan
from gpumlp.ensembles.watching import JobWatch, StackWatch
from gpumlp.errors import ConfigurationError, DivergenceError
from gpumlp.network.network import Network
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
    check_monitors(jobs)
    if stacks is None:
        stacks = plan(jobs, X, Y, dtype=dtype, backend=backend, device=device, memory=memory)
    outcomes: dict[int, Outcome] = {}
    for stack in stacks.stacks:
        found = train_stack([jobs[i] for i in stack.jobs], X, Y, dtype, stacks.backend, device)
        for i, outcome in zip(stack.jobs, found, strict=True):
            outcomes[i] = outcome
            if done is not None:
                done(i, outcome)
    return [outcomes[i] for i in range(len(jobs))]


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
    (job,) = jobs
    net = Network(
        job.member.architecture.sizes,
        job.member.architecture.activations[:-1],
        job.member.architecture.activations[-1],
        job.member.architecture.cost,
        initialiser=job.member.initialiser,
        dropout=job.member.dropout,
        dtype=dtype,
        backend=backend,
        device=device,
        seed=job.member.seed,
        model_ids=[job.member.model_id],
        normalisation=job.member.architecture.normalisation,
    )
    for l, (W, b) in enumerate(job.weights or ()):
        net.set_weights(l, W, b)
    trainer = Trainer(
        net,
        job.optimizer,
        job.learning_rate,
        job.batch_size,
        job.reduction,
        job.l2,
        job.l1,
        job.clip_norm,
        job.schedule,
        job.shuffle,
        job.train_biases,
        job.momentum_on_biases,
        penalty=job.penalty,
    )
    rows = slice(None) if job.rows is None else job.rows
    watch = JobWatch(job, 0, len(X[rows]))
    validation = None if job.validation_rows is None else (X[job.validation_rows], Y[job.validation_rows])
    sample_weight = None if job.sample_weight is None else job.sample_weight[rows]
    error = None
    try:
        trainer.fit(X[rows], Y[rows], job.epochs, validation, sample_weight, monitors=[StackWatch([watch])])
    except DivergenceError as diverged:
        error = diverged
        watch.history.stopped.update(trainer.diverged)
    return [Outcome(net, watch.history, error, perf_counter() - began)]
