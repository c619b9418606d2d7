"""The plan of an ensemble: which jobs are trained together as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.select import get_backend
from gpumlp.ensembles.job import Job
from gpumlp.ensembles.kinds import DataShape, check_job
from gpumlp.errors import readable_bytes


@dataclass(frozen=True)
class Stack:
    """Jobs that are trained at once.

    jobs       their numbers, in the order in which they stand in the stack
    smallest   the smallest width of each layer, from input to output
    largest    the largest, which all have room for
    waste      share of the stack's parameters that only pads smaller models
    bytes      estimate of the memory that training it takes, data included
    launches   what a device launches in a step, however many models there are; 0 on a processor
    """

    jobs: tuple[int, ...]
    smallest: tuple[int, ...]
    largest: tuple[int, ...]
    waste: float
    bytes: int
    launches: int

    @property
    def sizes(self) -> str:
        """The widths of the layers as people write them: 784-24..32-10."""
        pairs = zip(self.smallest, self.largest, strict=True)
        return "-".join(str(low) if low == high else f"{low}..{high}" for low, high in pairs)


@dataclass(frozen=True)
class Plan:
    """The stacks of an ensemble, in the order in which they are trained, and the backend that it is made for."""

    stacks: tuple[Stack, ...]
    backend: str

    def __str__(self) -> str:
        """Return a table with a line for each stack."""
        rows = [("stack", "models", "sizes", "padding", "memory", "launches a step")]
        for i, s in enumerate(self.stacks):
            launches = str(s.launches) if s.launches else "-"
            rows.append((str(i), str(len(s.jobs)), s.sizes, f"{s.waste:.0%}", readable_bytes(s.bytes), launches))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(x.ljust(n) if i == 2 else x.rjust(n) for i, (x, n) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        n_jobs = sum(len(s.jobs) for s in self.stacks)
        return "\n".join([f"{n_jobs} jobs in {len(self.stacks)} stacks on {self.backend}", *lines])


def plan(
    jobs: Sequence[Job],
    X: Any,
    Y: Any,
    *,
    dtype: Any = "float32",
    backend: str | None = "auto",
    device: str | None = None,
    memory: int | None = None,
) -> Plan:
    """Return how the jobs are divided into stacks; str() of it is a table.

    memory   bytes that a stack may take; None: most of what is free now on the backend's device
    Raises   OutOfMemory for a job that does not fit alone; ConfigurationError, DataError
    """
    there = get_backend(None if backend == "auto" else backend, device, dtype)
    data = DataShape(len(X), np.ndim(Y) == 1)
    for number, job in enumerate(jobs):
        check_job(job, number, data)
    sizes = [job.member.architecture.sizes for job in jobs]
    stacks = tuple(Stack((i,), sizes[i], sizes[i], 0.0, 0, 0) for i in range(len(jobs)))
    return Plan(stacks, there.name)
