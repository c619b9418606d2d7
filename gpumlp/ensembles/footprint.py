"""Footprint: the memory that training a stack takes, as the plan of a training has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpumlp.backends.hollow import Ledger, hollow, hollow_backend
from gpumlp.backends.protocol import Backend
from gpumlp.ensembles.building import build_trainer
from gpumlp.ensembles.job import Job
from gpumlp.ensembles.kinds import DataShape
from gpumlp.network.network import Network
from gpumlp.network.places import Places
from gpumlp.shapes import HostArray
from gpumlp.training.active import WORTH_REBUILDING
from gpumlp.training.data_set import TrainingSet
from gpumlp.training.memory import by_part, go_through, hollow_set

ONCE = ("data set", "kept parameters")  # what the stack that is rebuilt when models have stopped shares with the whole


def bytes_of(jobs: Sequence[Job], data: DataShape, backend: Backend) -> int:
    """Return how many bytes training these jobs as one stack takes on the backend.

    Beside what is in a MemoryPlan, most of it is counted once more, for the stack that is rebuilt when models have
    stopped. X and Y count on a device only. Not counted are the scratch of a step on a processor, and what libraries
    have once for all stacks.
    """
    ledger = Ledger()
    there = hollow_backend(backend.name, backend.dtype, ledger, scratch=False)
    with ledger.under("parameters"):
        net = Network.hollow([job.member for job in jobs], there)
    with ledger.under("optimiser state"):
        trainer = build_trainer(net, jobs, data.rows_of(jobs[0]))
    given = _given(net, jobs, data)
    held_out = _places([job.validation_rows for job in jobs], data.n_rows)
    n_keepers = 2 if any(job.monitors for job in jobs) else 1  # of the last finite epoch, and of a best one
    go_through(trainer, ledger, given, None if held_out is None else given._replace(places=held_out), n_keepers)
    parts = by_part(ledger)
    once_more = sum(n for part, n in parts.items() if part not in ONCE) if len(jobs) > 1 else 0
    stand_ins = given.X.nbytes + given.targets.Y.nbytes
    X_and_Y = (data.bytes if backend.device != "cpu" else 0) - stand_ins
    return sum(parts.values()) + int((1 - WORTH_REBUILDING) * once_more) + X_and_Y


def _given(net: Network, jobs: Sequence[Job], data: DataShape) -> TrainingSet:
    """Return the rows and weights of a stack's models, of arrays without memory."""
    given = hollow_set(net, data.n_rows, net.dtype, data.labels and net.sizes[-1] > 1)
    targets, several = given.targets, len({job.member.architecture.cost.label_smoothing for job in jobs}) > 1
    if targets.codes is not None and several:
        targets = replace(targets, codes=hollow((len(jobs), *targets.codes.shape), net.dtype))
    n_weights = len(jobs) if len({id(job.sample_weight) for job in jobs}) > 1 else 1
    weights = None if jobs[0].sample_weight is None else hollow((n_weights, data.n_rows), np.float64)
    return TrainingSet(given.X, targets, weights, _places([job.rows for job in jobs], data.n_rows))


def _places(rows: Sequence[HostArray | None], n_rows: int) -> Places | None:
    """Return places for the rows of each model, without memory; None where all have all, or none has any."""
    if all(of_model is None for of_model in rows):
        return None
    lengths = {id(of_model): n_rows if of_model is None else len(of_model) for of_model in rows}
    numbers = {key: number for number, key in enumerate(lengths)}
    fold = np.array([numbers[id(of_model)] for of_model in rows])
    counts = np.array([lengths[id(of_model)] for of_model in rows])
    return Places(hollow((len(lengths), counts.max()), np.int64), fold, counts)
