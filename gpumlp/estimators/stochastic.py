"""Training an estimator with a Trainer, from where its last fit ended if that is wanted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp.errors import DivergenceError
from gpumlp.estimators.inputs import Rows, hold_out
from gpumlp.estimators.solvers import Rate, rule_of
from gpumlp.estimators.stopping import EpochWatch, Penalty
from gpumlp.estimators.weights import put_weights, take_weights
from gpumlp.training.trainer import Trainer

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


def train(mlp: Any, rows: Rows, random: np.random.RandomState, incremental: bool) -> None:
    """Train for up to max_iter epochs, or for one more if `incremental`, and publish the weights."""
    if incremental and mlp.early_stopping:
        raise ValueError("partial_fit does not support early_stopping=True")
    score_rows = None
    if mlp.early_stopping:
        rows, score_rows = hold_out(rows, mlp.validation_fraction, mlp._stratifies(), random)
    before = mlp._progress if incremental else None
    if before is None:
        before = {"seed": int(random.randint(2**31 - 1)), "steps": 0, "epochs": 0, "factor": 1.0, "state": {}}
    net = mlp._live.get(**mlp._network_options(), seed=before["seed"])
    put_weights(net, mlp.coefs_, mlp.intercepts_)
    rate = Rate(
        mlp.learning_rate if mlp.solver == "sgd" else "constant", mlp.learning_rate_init, mlp.power_t, before["factor"]
    )
    batch = batch_size_for(mlp.batch_size, len(rows))
    trainer = build_trainer(mlp, net, rate, batch, before)
    score = None if score_rows is None else lambda: mlp._score_outputs(net.predict(score_rows.X), score_rows)
    watch = EpochWatch(mlp, rate, Penalty(penalty_share(mlp.alpha, rows, batch), net), len(rows), score)
    mlp.n_iter_ = 0
    try:
        run(mlp, trainer, watch, rows, 1 if incremental else mlp.max_iter)
    finally:
        mlp.coefs_, mlp.intercepts_ = take_weights(net)
        mlp._progress = {
            "seed": before["seed"],
            "steps": trainer.step_count,
            "epochs": trainer.epoch_count,
            "factor": rate.factor,
            "state": {name: np.array(net.backend.to_host(kept)) for name, kept in trainer.state.items()},
        }
    if not (incremental or watch.stopped) and mlp.n_iter_ == mlp.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({mlp.max_iter}) reached and the optimization hasn't converged "
            "yet.",
            ConvergenceWarning,
            stacklevel=4,
        )


def build_trainer(mlp: Any, net: Any, rate: Rate, batch: int, before: dict[str, Any]) -> Trainer:
    """Return a trainer that goes on where `before` ended."""
    trainer = Trainer(
        net,
        rule_of(mlp.solver, mlp.get_params(deep=False)),
        mlp.learning_rate_init,
        batch_size=batch,
        l2=mlp.alpha,
        penalty="batch",
        schedule=rate.schedule(),
        shuffle=bool(mlp.shuffle),
        state=before["state"],
        on_divergence="raise",
    )
    trainer.go_on_from(before["steps"], before["epochs"])
    return trainer


def run(mlp: Any, trainer: Trainer, watch: EpochWatch, rows: Rows, epochs: int) -> None:
    """Train; warn of Ctrl-C, and raise ValueError where training diverges and there is no better epoch to return to."""
    try:
        trainer.fit(rows.X, rows.targets, epochs, sample_weight=rows.weights, monitors=[watch])
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    except DivergenceError as error:
        if watch.score is None:
            raise ValueError(NOT_FINITE) from error
        mlp.validation_scores_[-1] = float("nan")
        warnings.warn(f"{error}; the weights are those of the best epoch", ConvergenceWarning, stacklevel=5)


def batch_size_for(asked: Any, n_rows: int) -> int:
    """Return the rows of a batch, clipped to the rows there are with a warning."""
    if asked == "auto":
        return min(200, n_rows)
    if asked > n_rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
        )
    return min(int(asked), n_rows)


def penalty_share(alpha: float, rows: Rows, batch: int) -> float:
    """Return what |W|^2 is multiplied with in the loss of an epoch, the mean over its batches' losses."""
    total = len(rows) if rows.weights is None else float(rows.weights.sum())
    return 0.5 * alpha * -(-len(rows) // batch) / total
