"""Watching an estimator's training: its loss, its score on rows that were held out, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.estimators.solvers import Rate
from gpumlp.network.network import Network
from gpumlp.training.monitors import EpochReport, Monitor, RunInfo, Stop, WeightKeeper


class EpochWatch(Monitor):
    """Writes loss_, loss_curve_, n_iter_, t_ and the scores into an estimator, and stops where there is no progress.

    mlp        the estimator
    rate       its learning rate, which falls at the end of an epoch or where there is no progress
    penalty    the loss of an epoch has penalty * |W|^2 besides the cost, W as it was when the epoch began
    n_rows     rows of an epoch
    score      score(network) of its present weights on rows that were held out; None: the loss decides

    stopped    afterwards, whether training has stopped for want of progress
    """

    def __init__(
        self, mlp: Any, rate: Rate, penalty: float, n_rows: int, score: Callable[[Network], float] | None = None
    ) -> None:
        self.mlp, self.rate, self.penalty, self.n_rows, self.score = mlp, rate, penalty, n_rows, score
        self.stopped = False
        self._keeper: WeightKeeper | None = None

    def training_began(self, run: RunInfo) -> None:
        self.everyone, self.network = np.ones(run.n_models, bool), run.network
        if self.score is not None:
            self._keeper = run.keeper()
            self._keeper.save(self.everyone)

    def epoch_began(self, epoch: int) -> None:
        self.extra = self.penalty * mean_square(self.network()) if self.penalty else 0.0

    def epoch_ended(self, report: EpochReport) -> Stop | None:
        mlp = self.mlp
        mlp.n_iter_ += 1
        mlp.t_ += self.n_rows
        mlp.loss_ = mlp._loss_of(float(np.mean(report.values["cost"]))) + self.extra
        mlp.loss_curve_.append(mlp.loss_)
        if mlp.verbose:
            print(f"Iteration {mlp.n_iter_}, loss = {mlp.loss_:.8f}")
        if self.score is None:
            self._compare_loss()
        else:
            self._compare_score(self.score(self.network()) if np.isfinite(mlp.loss_) else float("nan"))
        self.rate.epoch_ended(mlp.t_)
        return self._stop() if mlp._no_improvement_count > mlp.n_iter_no_change else None

    def _compare_loss(self) -> None:
        mlp = self.mlp
        worse = mlp.loss_ > mlp.best_loss_ - mlp.tol
        mlp._no_improvement_count = mlp._no_improvement_count + 1 if worse else 0
        if mlp.loss_ < mlp.best_loss_:
            mlp.best_loss_ = mlp.loss_

    def _compare_score(self, score: float) -> None:
        mlp = self.mlp
        mlp.validation_scores_.append(score)
        if mlp.verbose:
            print(f"Validation score: {score:f}")
        worse = score < mlp.best_validation_score_ + mlp.tol
        mlp._no_improvement_count = mlp._no_improvement_count + 1 if worse else 0
        if score > mlp.best_validation_score_:
            mlp.best_validation_score_ = score
            assert self._keeper is not None
            self._keeper.save(self.everyone)

    def _stop(self) -> Stop | None:
        """Return a Stop unless the rate could be lowered instead."""
        mlp, what = self.mlp, "Training loss" if self.score is None else "Validation score"
        message = f"{what} did not improve more than tol={mlp.tol:f} for {mlp.n_iter_no_change} consecutive epochs."
        why = self.rate.after_plateau()
        if mlp.verbose:
            print(message, why or f"Setting learning rate to {self.rate.initial * self.rate.factor:f}")
        if why:
            self.stopped = True
            return Stop(message)
        mlp._no_improvement_count = 0
        return None

    def training_ended(self) -> None:
        if self._keeper is not None:
            self._keeper.restore(self.everyone)


def mean_square(net: Network) -> float:
    """Return |W|^2 of all weights and tables of embeddings, the mean over the models."""
    return sum(float(np.vdot(W, W)) for W in (*net.weights, *net.embeddings)) / net.n_models
