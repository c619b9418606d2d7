"""Training an estimator with a Trainer, from where its last fit ended if that is wanted, or as a job among others.

A fit is prepared, trained and published: alone at once, or many that are prepared first and trained together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpumlp.ensembles.job import Job, Outcome
from gpumlp.errors import ConfigurationError, DivergenceError
from gpumlp.estimators.held_out import score_of
from gpumlp.estimators.inputs import Rows, drawn_again
from gpumlp.estimators.solvers import Rate, rule_of
from gpumlp.estimators.stopping import EpochWatch
from gpumlp.formulas.update_rules import RULES, UpdateRule
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.trainer import Trainer

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)
MOMENTUM = {"momentum", "nesterov"}  # of which one can go on from the velocity of the other


@dataclass
class Fitting:
    """A fit of an estimator that is ready to be trained; the estimator has its first weights.

    rows     to train on, with the weights that each model gives them
    held     rows that are not trained on, if any
    before   what training goes on from
    epochs   most of them; 1 if it is incremental, and goes on in the next fit
    """

    mlp: Any
    rows: Rows
    held: Rows | None
    before: dict[str, Any]
    rate: Rate
    batch: int
    epochs: int
    incremental: bool
    watch: EpochWatch

    @property
    def is_evaluated(self) -> bool:
        """Whether monitors are told of the rows held out after each epoch."""
        return self.watch.score is not None and bool(self.mlp.monitors)

    @cached_property
    def rule(self) -> UpdateRule:
        """The update rule."""
        mlp = self.mlp
        return RULES.get(mlp.optimizer or rule_of(mlp.solver, mlp.get_params(deep=False)))

    def expect_same_rule(self) -> None:
        """Raise ConfigurationError where the state that training goes on from is that of another update rule."""
        there = self.before.get("rule", self.rule.name)
        if there != self.rule.name and not {there, self.rule.name} <= MOMENTUM:
            raise ConfigurationError(
                f"the training that is to go on has the state of update rule {there}, solver and optimizer ask for "
                f"{self.rule.name}; leave them as they were, or begin with another state: fit, which keeps the weights "
                "with warm_start=True"
            )

    def settings(self) -> dict[str, Any]:
        """Return what a Trainer and a Job both take."""
        mlp = self.mlp
        return {
            "optimizer": self.rule,
            "learning_rate": mlp.learning_rate_init,
            "batch_size": self.batch,
            "l2": mlp.alpha,
            "penalty": "batch",
            "clip_norm": mlp.clip_norm,
            "schedule": mlp.schedule or self.rate.schedule(),
            "shuffle": bool(mlp.shuffle),
        }

    def trainer(self) -> Trainer:
        """Return a trainer that goes on where the last fit ended."""
        self.expect_same_rule()
        net = self.mlp._build_network(self.before["seed"])
        trainer = Trainer(net, state=self.before["state"], on_divergence="raise", **self.settings())
        trainer.go_on_from(self.before["steps"], self.before["epochs"])
        return trainer

    def job(self, rows: Any, sample_weight: Any = None, validation_rows: Any = None) -> Job:
        """Return the first fit of one model as a job.

        rows, ...   as of Job
        """
        return Job(
            self.mlp._member(self.before["seed"]),
            self.epochs,
            rows=rows,
            sample_weight=sample_weight,
            validation_rows=validation_rows if self.is_evaluated else None,
            monitors=[self.watch, *self.mlp.monitors],
            weights=[(W.T, b) for W, b in zip(self.mlp.coefs_, self.mlp.intercepts_, strict=True)],
            tables=self.mlp._tables(),
            **self.settings(),
        )


def prepare(mlp: Any, rows: Rows, held: Rows | None, random: np.random.RandomState, incremental: bool) -> Fitting:
    """Return what trains for up to max_iter epochs, or for one more if `incremental`."""
    before = mlp._progress if incremental else None
    if before is None:
        before = {"seed": int(random.randint(2**31 - 1)), "steps": 0, "epochs": 0, "factor": 1.0, "state": {}}
    falls = mlp.solver == "sgd" and mlp.optimizer is None and mlp.schedule is None
    rate = Rate(mlp.learning_rate if falls else "constant", mlp.learning_rate_init, mlp.power_t, before["factor"])
    batch = batch_size_for(mlp.batch_size, len(rows))
    if mlp.n_models > 1:
        rows = rows.times(drawn_again(mlp.n_models, len(rows), before["seed"]))
    score = score_of(mlp, held) if held is not None and mlp.early_stopping else None
    share = 0.5 * mlp.alpha * -(-len(rows) // batch) / rows.total_weight  # a loss has it once a batch
    watch = EpochWatch(mlp, rate, share, len(rows), score)
    mlp.n_iter_ = 0
    return Fitting(mlp, rows, held, before, rate, batch, 1 if incremental else mlp.max_iter, incremental, watch)


def train(fitting: Fitting) -> None:
    """Train the estimator alone and publish the weights."""
    trainer = fitting.trainer()
    try:
        run(fitting, trainer)
    finally:
        state = {name: np.array(trainer.net.backend.to_host(kept)) for name, kept in trainer.state.items()}
        publish(fitting, trainer.net, trainer.step_count, trainer.epoch_count, state)
    _warn_unless_converged(fitting, stacklevel=5)


def run(fitting: Fitting, trainer: Trainer) -> None:
    """Train; warn of Ctrl-C, and raise ValueError where training diverges and there is no better epoch to return to."""
    rows, held = fitting.rows, fitting.held
    validation = (held.X, held.targets) if held is not None and fitting.is_evaluated else None
    monitors = [fitting.watch, *fitting.mlp.monitors]
    try:
        trainer.fit(rows.X, rows.targets, fitting.epochs, validation, rows.weights, monitors=monitors)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    except DivergenceError as error:
        _diverged(fitting, error, stacklevel=6)


def publish(fitting: Fitting, net: Network, steps: int, epochs: int, state: dict[str, HostArray]) -> None:
    """Give the estimator the weights of a network, and what the next partial_fit goes on from."""
    fitting.mlp._take(net)
    fitting.mlp._progress = {
        "seed": fitting.before["seed"],
        "rule": fitting.rule.name,
        "steps": steps,
        "epochs": epochs,
        "factor": fitting.rate.factor,
        "state": state,
    }


def finish(fitting: Fitting, outcome: Outcome) -> Any:
    """Return the estimator with what became of its job, as `train` would have left it; raise ValueError likewise."""
    epochs = len(outcome.history)
    publish(fitting, outcome.network, epochs * -(-len(fitting.rows) // fitting.batch), epochs, dict(outcome.state))
    if outcome.error is not None:
        _diverged(fitting, outcome.error, stacklevel=4)
    _warn_unless_converged(fitting, stacklevel=4)
    return fitting.mlp._finished(fitting.held)


def _diverged(fitting: Fitting, error: DivergenceError, stacklevel: int) -> None:
    """Raise ValueError if the weights are of no use, else warn."""
    if fitting.watch.score is None:
        raise ValueError(NOT_FINITE) from error
    fitting.mlp.validation_scores_[-1] = float("nan")
    warnings.warn(f"{error}; the weights are those of the best epoch", ConvergenceWarning, stacklevel=stacklevel)


def _warn_unless_converged(fitting: Fitting, stacklevel: int) -> None:
    mlp = fitting.mlp
    if not (fitting.incremental or fitting.watch.stopped) and mlp.n_iter_ == mlp.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({mlp.max_iter}) reached and the optimization hasn't converged "
            "yet.",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def batch_size_for(asked: Any, n_rows: int) -> int:
    """Return the rows of a batch, clipped to the rows there are with a warning."""
    if asked == "auto":
        return min(200, n_rows)
    if asked > n_rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
        )
    return min(int(asked), n_rows)
