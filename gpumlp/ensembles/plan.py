"""The plan of an ensemble: which jobs are trained together as one stack."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.backends.select import get_backend
from gpumlp.ensembles.cutting import Limits, cut, waste
from gpumlp.ensembles.footprint import bytes_of
from gpumlp.ensembles.job import Job
from gpumlp.ensembles.kinds import DataShape, check_job, kind_of
from gpumlp.errors import OutOfMemory, readable_bytes
from gpumlp.formulas.normalisation import BATCH, LAYER
from gpumlp.formulas.update_rules import UpdateRule


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


PADDED = Limits(ratio=1.5, waste=0.15)
PACKED = Limits(ratio=inf, waste=0.3)
SHARE = 0.8  # of the free memory: kernels and libraries need scratch, too


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

    Jobs of one kind are put together as far as their widths allow, and as memory does. A device computes models padded
    to the widest of their stack, so that widths of a layer there differ by a half at most, and 15 % of the parameters
    of all stacks of a kind pad. A processor computes them packed; only their rows of parameters, which an update walks
    over, have room for the widest, and for few stacks, which share what a step costs once, 30 % of that may be empty.
    Models that are alike stand side by side.

    memory   bytes that a stack may take; None: most of what is free now on the backend's device
    Raises   OutOfMemory for a job that does not fit alone; ConfigurationError, DataError
    """
    there = get_backend(None if backend == "auto" else backend, device, dtype)
    data = shape_of(X, Y)
    if memory is None and (free := there.free_bytes()) is not None:
        memory = int(SHARE * free)
    kinds: dict[Hashable, list[int]] = {}
    rules: dict[int, tuple[UpdateRule, Hashable]] = {}
    for number, job in enumerate(jobs):
        check_job(job, number, data)
        kinds.setdefault(kind_of(job, data, rules), []).append(number)
    stacks = []
    for numbers in kinds.values():
        sizes = [jobs[i].member.architecture.widths for i in numbers]
        for part in cut(sizes, PADDED if there.pads_models else PACKED):
            alike = sorted((numbers[i] for i in part), key=lambda i: (_looks(jobs[i], there.pads_models), i))
            stacks += [_stack(jobs, some, n, there) for some, n in _fitting(jobs, alike, data, there, memory)]
    return Plan(tuple(sorted(stacks, key=lambda stack: min(stack.jobs))), there.name)


def shape_of(X: Any, Y: Any) -> DataShape:
    """Return what a plan depends on; X and Y may be anything with rows."""
    n_bytes = sum(int(getattr(x, "nbytes", 0)) for x in (X, Y))
    return DataShape(len(X), n_bytes, np.ndim(Y) == 1)


def _looks(job: Job, padded: bool) -> tuple[Any, ...]:
    """Return something to sort by, so that models stand side by side that are computed together.

    In a step those of one architecture and dropout are, but where all are padded; in an evaluation those with equally
    many rows are.
    """
    net, held_out = job.member.architecture, 0 if job.validation_rows is None else len(job.validation_rows)
    run = net.sizes, tuple(f.name for f in net.activations), job.member.dropout
    return (held_out, *run) if padded else (*run, held_out)


def _fitting(
    jobs: Sequence[Job], numbers: list[int], data: DataShape, backend: Backend, memory: int | None
) -> Iterator[tuple[list[int], int]]:
    """Yield stacks that fit into memory, with the bytes that they take: halves, and halves of these, where need be."""
    n_bytes = bytes_of([jobs[i] for i in numbers], data, backend)
    if memory is None or n_bytes <= memory:
        yield numbers, n_bytes
    elif len(numbers) > 1:
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            yield from _fitting(jobs, half, data, backend, memory)
    else:
        job = jobs[numbers[0]]
        raise OutOfMemory(
            f"jobs[{numbers[0]}], {job.member.architecture} with batches of {data.batch_of(job)} rows, takes "
            f"{readable_bytes(n_bytes)}, {readable_bytes(memory)} may be used; take a smaller batch_size or smaller "
            "layers, or allow more memory"
        )


def _stack(jobs: Sequence[Job], numbers: list[int], n_bytes: int, backend: Backend) -> Stack:
    nets = [jobs[i].member.architecture for i in numbers]
    sizes = np.array([net.sizes for net in nets])
    smallest, largest = (tuple(int(n) for n in of(axis=0)) for of in (sizes.min, sizes.max))
    launches = _launches([jobs[i] for i in numbers]) if backend.pads_models else 0
    return Stack(tuple(numbers), smallest, largest, waste(np.array([net.widths for net in nets])), n_bytes, launches)


def _launches(jobs: Sequence[Job]) -> int:
    """Return what a device launches in a step: see the table in kernels/README.md."""
    net = jobs[0].member.architecture
    normalising = sum({LAYER: 1, BATCH: 3}.get(kind, 0) for kind in net.normalisation if kind)
    embedding = 3 if net.embeddings else 0
    return 5 * net.n_layers + normalising + embedding + any(job.clip_norm is not None for job in jobs)
