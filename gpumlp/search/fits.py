"""Fits: each is prepared, all are trained together, and each is finished as if it had been trained alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from traceback import format_exc
from typing import Any

import numpy as np
from sklearn import config_context

from gpumlp.ensembles import Job, Outcome, plan, train
from gpumlp.errors import GpumlpError
from gpumlp.estimators import stochastic
from gpumlp.estimators.inputs import Rows
from gpumlp.estimators.stochastic import Fitting
from gpumlp.formulas.costs import COSTS
from gpumlp.search.postponing import last_step, postpone
from gpumlp.search.tables import Place, Table, Tables, Whole, put_together


@dataclass
class Fit:
    """One fit of an estimator.

    error     the traceback of why it failed, None if it did not
    seconds   what it took so far, with its share of what is trained together
    """

    estimator: Any
    may_fail: bool
    error: str | None = None
    seconds: float = 0.0
    fitting: Fitting | None = None
    place: Place | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step of the fit, and note why it failed unless that is to be raised."""
        began = perf_counter()
        try:
            yield
        except Exception:
            if not self.may_fail:
                raise
            self.error, self.fitting = format_exc(), None
        finally:
            self.seconds += perf_counter() - began

    def prepare(
        self, X: Any, y: Any, fit_params: dict[str, Any], tables: Tables, whole: Whole | None, part: Any
    ) -> None:
        """Make the fit ready to be trained.

        whole, part   the checked data and which rows of them X and y are; None where they have not been checked
        """

        def settle(mlp: Any, rows: Rows, held: Rows | None) -> tuple[Rows, Rows | None]:
            self.place, rows, held = tables.settle(mlp, rows, held, whole, part)
            return rows, held

        finite = {"assume_finite": True} if whole is not None and not fit_params else {}
        with self.step(), config_context(**finite):
            self.fitting = postpone(self.estimator, X, y, fit_params, settle)
            if whole is not None and whole.names is not None:
                self.estimator.feature_names_in_ = whole.names
            if self.fitting.is_evaluated and self._of_place().held is None:  # on rows that are in no table
                stochastic.train(self.fitting)
                self.fitting.mlp._finished(self.fitting.held)
                self.fitting = None

    def _of_place(self) -> Place:
        assert self.place is not None
        return self.place

    @property
    def kind(self) -> Hashable:
        """What fits have in common that can be trained together."""
        mlp = last_step(self.estimator)
        targets = COSTS.get(mlp._cost).targets, mlp.n_outputs_  # whatever one of them refuses, all of them refuse
        return self._of_place().table.kind, targets, mlp.coefs_[0].dtype.name, mlp.backend, mlp.device, mlp._embedded()

    def job(self, begin: int, n_rows: int) -> Job:
        """Return the job on tables of `n_rows` rows altogether, of which the fit's own begins at `begin`."""
        fitting, place, weights = self.fitting, self._of_place(), None
        assert fitting is not None
        rows = place.rows + begin if begin else place.rows
        if fitting.rows.weights is not None:
            weights = np.zeros(n_rows, fitting.rows.weights.dtype)
            weights[rows] = fitting.rows.weights
        return fitting.job(rows, weights, None if place.held is None else place.held + begin)

    def finish(self, outcome: Outcome) -> None:
        """Leave the estimator as a fit of its own would have."""
        self.seconds += outcome.seconds
        with self.step():
            assert self.fitting is not None
            stochastic.finish(self.fitting, outcome)
        self.fitting = None


def train_together(fits: Sequence[Fit]) -> None:
    """Train and finish all fits that are ready to be trained."""
    kinds: dict[Hashable, list[Fit]] = {}
    for fit in fits:
        if fit.fitting is not None:
            kinds.setdefault(fit.kind, []).append(fit)
    for alike in kinds.values():
        by_table: dict[Table, list[Fit]] = {}
        for fit in alike:
            by_table.setdefault(fit._of_place().table, []).append(fit)
        for tables, X, targets in put_together(by_table):
            begins = accumulate((len(table.X) for table in tables), initial=0)
            placed = [(fit, begin) for table, begin in zip(tables, begins, strict=False) for fit in by_table[table]]
            _train(placed, X, targets)


def _train(placed: Sequence[tuple[Fit, int]], X: Any, targets: Any) -> None:
    """Train fits whose tables begin at these rows of X."""
    mlp = last_step(placed[0][0].estimator)
    where = {"dtype": mlp.coefs_[0].dtype.name, "backend": mlp.backend, "device": mlp.device}
    jobs = [fit.job(begin, len(X)) for fit, begin in placed]
    try:
        stacks = plan(jobs, X, targets, **where)
    except GpumlpError:  # of a fit that could not be trained alone either, such as one that does not fit into memory
        for (fit, _), job in zip(placed, jobs, strict=True):
            with fit.step():
                plan([job], X, targets, **where)
        left = [(fit, begin) for fit, begin in placed if fit.error is None]
        if len(left) == len(placed):
            raise
        if left:
            _train(left, X, targets)
        return
    train(jobs, X, targets, stacks=stacks, done=lambda i, outcome: placed[i][0].finish(outcome), **where)
