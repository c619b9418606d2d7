"""Training an estimator with a Trainer, from where its last fit ended if that is wanted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp.errors import DivergenceError
from gpumlp.estimators.held_out import score_of
from gpumlp.estimators.inputs import Rows, drawn_again
from gpumlp.estimators.solvers import Rate, rule_of
from gpumlp.estimators.stopping import EpochWatch, Penalty
from gpumlp.network.network import Network
from gpumlp.training.trainer import Trainer

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


def train(mlp: Any, rows: Rows, held: Rows | None, random: np.random.RandomState, incremental: bool) -> None:
    """Train for up to max_iter epochs, or for one more if `incremental`, and publish the weights.

    held   rows whose score decides about progress; None: the loss does
    """
    before = mlp._progress if incremental else None
    if before is None:
        before = {"seed": int(random.randint(2**31 - 1)), "steps": 0, "epochs": 0, "factor": 1.0, "state": {}}
    net = mlp._build_network(before["seed"])
    falls = mlp.solver == "sgd" and mlp.optimizer is None and mlp.schedule is None
    rate = Rate(mlp.learning_rate if falls else "constant", mlp.learning_rate_init, mlp.power_t, before["factor"])
    batch = batch_size_for(mlp.batch_size, len(rows))
    trainer = build_trainer(mlp, net, rate, batch, before)
    if mlp.n_models > 1:
        rows = rows.times(drawn_again(mlp.n_models, len(rows), before["seed"]))
    score = None if held is None else score_of(mlp, net, held)
    share = 0.5 * mlp.alpha * -(-len(rows) // batch) / rows.total_weight  # a loss has it once a batch
    watch = EpochWatch(mlp, rate, Penalty(share, net), len(rows), score)
    mlp.n_iter_ = 0
    try:
        run(mlp, trainer, watch, rows, held, 1 if incremental else mlp.max_iter)
    finally:
        mlp._take(net)
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


def build_trainer(mlp: Any, net: Network, rate: Rate, batch: int, before: dict[str, Any]) -> Trainer:
    """Return a trainer that goes on where `before` ended."""
    trainer = Trainer(
        net,
        mlp.optimizer or rule_of(mlp.solver, mlp.get_params(deep=False)),
        mlp.learning_rate_init,
        batch_size=batch,
        l2=mlp.alpha,
        penalty="batch",
        clip_norm=mlp.clip_norm,
        schedule=mlp.schedule or rate.schedule(),
        shuffle=bool(mlp.shuffle),
        state=before["state"],
        on_divergence="raise",
    )
    trainer.go_on_from(before["steps"], before["epochs"])
    return trainer


def run(mlp: Any, trainer: Trainer, watch: EpochWatch, rows: Rows, held: Rows | None, epochs: int) -> None:
    """Train; warn of Ctrl-C, and raise ValueError where training diverges and there is no better epoch to return to."""
    validation = (held.X, held.targets) if held is not None and mlp.monitors else None
    try:
        trainer.fit(rows.X, rows.targets, epochs, validation, rows.weights, monitors=[watch, *mlp.monitors])
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
