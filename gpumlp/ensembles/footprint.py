"""Footprint: the memory that training a stack takes, as the classes ask for it that its buffers come from."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Array, Backend
from gpumlp.ensembles.job import Job
from gpumlp.ensembles.kinds import DataShape
from gpumlp.formulas.update_rules import RULES
from gpumlp.network.evaluation import ROWS_AT_A_TIME
from gpumlp.network.members import find_runs, stacked_architecture
from gpumlp.network.parameters import ParameterLayout, Parameters
from gpumlp.network.workspace import Workspace, build_dropout
from gpumlp.randomness.seeds import model_keys
from gpumlp.training.active import WORTH_REBUILDING


class Ruler:
    """Stands in for a backend: what it hands out has a shape and a dtype, but takes no memory; it is counted instead.

    bytes   how much all that was handed out would take
    """

    def __init__(self, backend: Backend) -> None:
        self.name, self.device, self.dtype = backend.name, backend.device, backend.dtype
        self.keeps_masks, self.pads_models = backend.keeps_masks, backend.pads_models
        self.bytes = 0

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        """Return an array without memory of its own."""
        kind = np.dtype(self.dtype if dtype is None else dtype)
        self.bytes += prod(shape) * kind.itemsize
        return np.broadcast_to(np.zeros((), kind), tuple(shape))

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        """Return `x`: tables are small."""
        return x

    def fill(self, out: Array, value: float) -> None:
        """Do nothing."""


def bytes_of(jobs: Sequence[Job], data: DataShape, backend: Backend) -> int:
    """Return how many bytes training these jobs as one stack takes on the backend.

    Counted are parameters, the rule's state, kept copies, gradients and the buffers of a batch and of an evaluation;
    most of that once more, for the stack that is rebuilt when models have stopped; row numbers and sample weights; and
    on a device the data. Not counted is the scratch of kernels and libraries.
    """
    ruler: Any = Ruler(backend)
    p = _parameters(jobs, ruler)
    for _ in RULES.get(jobs[0].optimizer).state:
        ruler.empty(p.theta.shape)
    _step(jobs, data, ruler, p)
    once_more = (1 - WORTH_REBUILDING) * ruler.bytes if len(jobs) > 1 else 0
    n_keepers = 2 if any(job.monitors for job in jobs) else 1  # of the last finite epoch, and of a best one
    ruler.empty((n_keepers, *p.theta.shape))
    return int(ruler.bytes + once_more) + _bytes_of_rows(jobs, data, on_device=backend.device != "cpu")


def _parameters(jobs: Sequence[Job], ruler: Any) -> Parameters:
    net = stacked_architecture([job.member for job in jobs])
    return Parameters(ruler, ParameterLayout(net.sizes, net.normalisation), len(jobs))


def _step(jobs: Sequence[Job], data: DataShape, ruler: Any, p: Parameters) -> None:
    """Take what a step and an evaluation compute in."""
    members, first, n_models = [job.member for job in jobs], jobs[0], len(jobs)
    net, runs = stacked_architecture(members), find_runs(members)
    runs = runs if len(runs) > 1 else ()
    Parameters(ruler, p.layout, n_models, "the gradients")
    batch, own_rows = data.batch_of(first), any(job.rows is not None for job in jobs)
    n_inputs = n_models if first.shuffle or own_rows else 1
    n_weights = 1 if first.sample_weight is None else n_models
    Workspace(ruler, net, p, batch, n_inputs, n_weights, in_place=True, backward=True, runs=runs)
    keys = model_keys([m.seed for m in members], [m.model_id for m in members])
    build_dropout(ruler, [m.dropout for m in members], net.sizes, batch, keys, np.zeros(3, np.int64))
    held_out = [len(job.validation_rows) for job in jobs if job.validation_rows is not None]
    if held_out:
        Workspace(ruler, net, p, min(ROWS_AT_A_TIME, max(held_out)), n_models, in_place=True, runs=runs)


def _bytes_of_rows(jobs: Sequence[Job], data: DataShape, on_device: bool) -> int:
    """Return what row numbers and sample weights take, and on a device the data."""
    different = {id(rows): len(rows) for job in jobs for rows in (job.rows, job.validation_rows) if rows is not None}
    weights = 0 if jobs[0].sample_weight is None else len(jobs) * data.n_rows
    return 8 * (sum(different.values()) + weights) + (data.bytes if on_device else 0)
