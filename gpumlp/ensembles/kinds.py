"""The kind of a job: what has to be equal for jobs to be trained as one stack."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp.ensembles.job import Job
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.formulas.costs import Cost
from gpumlp.formulas.output_delta import output_delta
from gpumlp.formulas.update_rules import RULES, UpdateRule, finished_names, per_step_recording, rule_recording
from gpumlp.network.architecture import Architecture
from gpumlp.shapes import HostArray


@dataclass(frozen=True)
class DataShape:
    """What of X and Y a plan depends on.

    n_rows   of X
    bytes    that X and Y take
    labels   whether Y names classes, so that each model may have its own share of label smoothing
    """

    n_rows: int
    bytes: int
    labels: bool

    def rows_of(self, job: Job) -> int:
        """Return how many rows a job is trained on."""
        return self.n_rows if job.rows is None else len(job.rows)

    def batch_of(self, job: Job) -> int:
        """Return how many rows a batch of a job has."""
        n_rows = self.rows_of(job)
        return n_rows if job.batch_size == "full" else min(int(job.batch_size), n_rows)


def kind_of(job: Job, data: DataShape, rules: dict[int, tuple[UpdateRule, Hashable]]) -> Hashable:
    """Return what is equal for all jobs of a stack; those of different kinds are never trained together.

    Activations, dropout, widths, all numbers of an update rule, l1, l2, clip_norm, schedules, seeds, rows, monitors and
    epochs may differ. A job without a penalty, or without a limit to its gradient, computes the same bits beside one
    that has it; one without sample weights would, too, but it would take a table of ones.

    rules   what has been found out of update rules, by their identity, for the jobs that are yet to come
    """
    rule = RULES.get(job.optimizer)
    if id(rule) not in rules:
        rules[id(rule)] = (rule, _of_rule(rule))  # with the rule itself, so that its identity stays its own
    net, batch = job.member.architecture, data.batch_of(job)
    return (
        *_of_architecture(net, data.labels and net.sizes[-1] > 1),
        job.member.dropout if any(net.normalisation) else None,
        batch,
        -(-data.rows_of(job) // batch),
        rules[id(rule)][1],
        job.epochs == 0,
        job.shuffle,
        job.reduction,
        job.penalty,
        job.train_biases,
        job.momentum_on_biases,
        job.validation_rows is None,
        job.sample_weight is None,
    )


def _of_architecture(net: Architecture, labels: bool) -> tuple[Hashable, ...]:
    """Return depth, outer sizes, what is embedded, output and cost; everything where a layer is normalised."""
    normalised = any(net.normalisation)
    sizes = net.sizes if normalised else (net.sizes[0], net.sizes[-1])
    activations = net.activations if normalised else net.activations[-1:]
    return net.n_layers, sizes, net.embeddings, activations, net.normalisation, _of_cost(net.cost, net, labels)


def _of_cost(cost: Cost, net: Architecture, labels: bool) -> Hashable:
    """Return a cost's formulas, and its label smoothing unless that is a matter of the labels' codes."""
    formulas = output_delta(cost, net.activations[-1])
    name = cost.name.partition("(label_smoothing")[0]
    smoothing = None if labels else cost.label_smoothing
    return name, formulas.term, formulas.outer, formulas.delta, cost.labels, cost.targets, smoothing


def _of_rule(rule: UpdateRule) -> Hashable:
    """Return a rule's names and formulas; its numbers are those of each model."""
    step = rule_recording(rule, finished_names(rule), frozenset())
    return rule.name, rule.state, tuple(rule.defaults), rule.momentum, rule.decay, per_step_recording(rule), step


def combined_rule(rules: Sequence[UpdateRule]) -> UpdateRule:
    """Return one rule of the same kind as all of these, with each one's numbers."""
    numbers = {name: np.array([float(rule.defaults[name]) for rule in rules]) for name in rules[0].defaults}
    return replace(rules[0], defaults=numbers)


def check_job(job: Job, number: int, data: DataShape) -> None:
    """Raise ConfigurationError or DataError, naming the job, for what no stack can be planned with."""
    if not isinstance(job, Job):
        raise ConfigurationError(f"jobs[{number}] is {job!r}; expected a gpumlp.ensembles.Job")
    whole = isinstance(job.batch_size, int | np.integer) and not isinstance(job.batch_size, bool)
    if job.batch_size != "full" and not (whole and int(job.batch_size) >= 1):
        raise ConfigurationError(
            f'jobs[{number}] has batch_size={job.batch_size!r}: expected a number of rows of at least 1, or "full"'
        )
    if not (isinstance(job.epochs, int | np.integer) and job.epochs >= 0):
        raise ConfigurationError(f"jobs[{number}] has epochs={job.epochs!r}: expected a whole number of at least 0")
    if job.shuffle not in (True, False):
        raise ConfigurationError(f"jobs[{number}] has shuffle={job.shuffle!r}: expected True or False")
    for name in ("rows", "validation_rows"):
        _check_rows(getattr(job, name), f"jobs[{number}].{name}", data.n_rows)


def _check_rows(rows: HostArray | None, name: str, n_rows: int) -> None:
    if rows is None:
        return
    found: Any = np.asarray(rows)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size:
        raise DataError(f"{name} has shape {found.shape} and dtype {found.dtype}; expected row numbers, at least one")
    if found.min() < 0 or found.max() >= n_rows:
        raise DataError(f"{name} names rows {found.min()} to {found.max()}, X has rows 0 to {n_rows - 1}")
