"""The plan of an ensemble: which jobs are trained together as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpumlp.ensembles.job import Job


@dataclass(frozen=True)
class Stack:
    """Jobs that are trained at once.

    jobs       their numbers, in the order in which they stand in the stack
    waste      share of the stack's parameters that only pads smaller models
    bytes      estimate of the memory that training it takes, data included
    launches   kernels that a device launches in a step; 0 on a processor
    """

    jobs: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    waste: float
    bytes: int
    launches: int


@dataclass(frozen=True)
class Plan:
    """The stacks of an ensemble, in the order in which they are trained."""

    stacks: tuple[Stack, ...]
    backend: str


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

    memory   bytes that a stack may take; None: what is free now on the backend's device
    Raises   OutOfMemory for a job that does not fit alone; ConfigurationError
    """
    raise NotImplementedError
