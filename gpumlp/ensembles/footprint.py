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

    Counted are parameters, gradients, the rule's state, kept copies, the buffers of a batch and of an evaluation, row
    numbers and sample weights; and on a device the data. Not counted is the scratch of kernels and libraries.
    """
    ruler: Any = Ruler(backend)
    members, first, n_models = [job.member for job in jobs], jobs[0], len(jobs)
    net, runs = stacked_architecture(members), find_runs(members)
    runs = runs if len(runs) > 1 else ()
    p = Parameters(ruler, ParameterLayout(net.sizes, net.normalisation), n_models)
    keepers = 1 + (1 if any(job.monitors for job in jobs) else 0)  # its last finite epoch's, and a best epoch's
    ruler.empty((1 + len(RULES.get(first.optimizer).state) + keepers, *p.theta.shape))  # with the gradients
    batch, own_rows = data.batch_of(first), any(job.rows is not None for job in jobs)
    n_inputs = n_models if first.shuffle or own_rows else 1
    n_weights = 1 if first.sample_weight is None else n_models
    Workspace(ruler, net, p, batch, n_inputs, n_weights, in_place=True, backward=True, runs=runs)
    keys = model_keys([m.seed for m in members], [m.model_id for m in members])
    build_dropout(ruler, [m.dropout for m in members], net.sizes, batch, keys, np.zeros(3, np.int64))
    if first.validation_rows is not None:
        most = max(len(job.validation_rows) for job in jobs if job.validation_rows is not None)
        Workspace(ruler, net, p, min(ROWS_AT_A_TIME, most), n_models, in_place=True, runs=runs)
    return int(ruler.bytes) + _bytes_of_rows(jobs, data, on_device=backend.device != "cpu")


def _bytes_of_rows(jobs: Sequence[Job], data: DataShape, on_device: bool) -> int:
    """Return what row numbers and sample weights take, and on a device the data."""
    different = {id(rows): len(rows) for job in jobs for rows in (job.rows, job.validation_rows) if rows is not None}
    weights = 0 if jobs[0].sample_weight is None else len(jobs) * data.n_rows
    return 8 * (sum(different.values()) + weights) + (data.bytes if on_device else 0)
