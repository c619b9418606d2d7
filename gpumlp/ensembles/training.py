"""Training of an ensemble: stack after stack, each job as it would be trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.plan import Plan


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
    raise NotImplementedError
