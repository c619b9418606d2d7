"""The engine: a network and its trainer, into which a scikit-learn estimator's state is brought and from which it returns.

scikit-learn keeps coefs_[l] as (in, out) and gpumlp W[l] as (out, in); all else has the same shapes on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpumlp.accel import formulas
from gpumlp.accel.settings import SETTINGS
from gpumlp.backends.protocol import COST, STEP, WEIGHT
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray, is_on_device
from gpumlp.training.trainer import Steps, Trainer, check_training_set


@dataclass(frozen=True)
class Kind:
    """What an optimizer of scikit-learn is called here.

    numbers   the attributes that its update rule is made from
    rule      rule(*numbers) -> the update rule
    rate      the attribute that holds the learning rate which the rule is given
    moments   the attributes that hold the rule's state, in its order
    """

    numbers: tuple[str, ...]
    rule: Callable[..., UpdateRule]
    rate: str
    moments: tuple[str, ...]


KINDS = {
    AdamOptimizer: Kind(("beta_1", "beta_2", "epsilon"), formulas.adam, "learning_rate_init", ("ms", "vs")),
    SGDOptimizer: Kind(("momentum", "nesterov"), formulas.sgd, "learning_rate", ("velocities",)),
}


@dataclass(frozen=True)
class Plan:
    """What an engine is built from; estimators with equal plans can be trained by one engine.

    optimizer, numbers   the class of scikit-learn's optimizer, and the numbers of its rule
    output, loss         of the estimator, by scikit-learn's names
    backend, device      as of Network
    """

    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    dtype: str
    optimizer: type
    numbers: tuple[float, ...]
    alpha: float
    backend: str | None
    device: str | None

    @property
    def kind(self) -> Kind:
        """How the optimizer is mirrored."""
        return KINDS[self.optimizer]


class Engine:
    """Trains as scikit-learn does, epoch by epoch.

    begin -> epoch, epoch, ... -> the state goes back by store_weights and store_moments
    """

    def __init__(self, plan: Plan) -> None:
        cost = formulas.cost_of(plan.loss, plan.output, plan.dtype)
        if cost is None:
            raise ConfigurationError(f"gpumlp does not know loss {plan.loss} of outputs through {plan.output}")
        self.plan = plan
        self.network = Network(
            plan.sizes,
            activation=plan.activation,
            output=plan.output,
            cost=cost,
            initialiser="zeros",
            dtype=plan.dtype,
            backend=plan.backend,
            device=plan.device,
        )
        self.trainer = Trainer(
            self.network, plan.kind.rule(*plan.numbers), l2=plan.alpha, penalty="batch", shuffle=False
        )

    # ---------------------------------------------------------------- data

    def check(self, X: HostArray, y: HostArray, sample_weight: HostArray | None) -> None:
        """Raise GpumlpError, saying why, if this is nothing that can be trained on."""
        check_training_set(self.network, X, y, sample_weight)

    def begin(self, X: HostArray, y: HostArray, sample_weight: HostArray | None, batch: int) -> None:
        """Take the data of the epochs to come."""
        backend, trainer = self.network.backend, self.trainer
        data = check_training_set(self.network, X, y, sample_weight)
        with backend.session():
            self._source = data.source(trainer, batch, explicit=True)
        self._steps = Steps(trainer, self._source, data.targets, trainer.clock, trainer.numbers)
        # each step is waited for on a device only where rows have weights, by whose sum each batch's loss is divided
        self._asks_each_step = sample_weight is not None or not is_on_device(self.network.parameters.theta)

    def end(self) -> None:
        """Let go of the data."""
        del self._steps, self._source

    # ---------------------------------------------------------------- an epoch

    def epoch(self, order: HostArray, learning_rate: float) -> float:
        """Train on all rows in this order, and return the loss as scikit-learn sums it up."""
        backend, trainer = self.network.backend, self.trainer
        trainer.hyper.values["eta"][:] = learning_rate
        self._steps.begin_epoch()
        backend.copy(backend.asarray(order[None]), self._source.rows)
        with backend.session():
            total = self._ask_each_step() if self._asks_each_step else self._ask_at_both_ends()
            backend.synchronize()
        self._steps.end_epoch(trainer.epoch_count + 1)
        return total / self._source.n_rows

    def _ask_each_step(self) -> float:
        """Perform the steps of an epoch; return the sum over its batches of rows times loss."""
        total, seen = 0.0, np.zeros(2)
        for rows in self._batches():
            penalty = self._penalty()
            self._steps.step()
            now = self._tally()
            cost, weight = now - seen
            total += rows * (self._mean_over_outputs(cost) + penalty) / weight
            seen = now
        return total

    def _ask_at_both_ends(self) -> float:
        """Do the same with a penalty that is the mean of those before and after the epoch."""
        before = self._penalty()
        for _ in self._batches():
            self._steps.step()
        penalty = (before + self._penalty()) / 2
        return self._mean_over_outputs(self._tally()[0]) + penalty * self._source.n_steps

    def _batches(self) -> Iterator[int]:
        """Yield the rows of each batch."""
        n_rows, batch = self._source.n_rows, self._source.batch
        for start in range(0, n_rows, batch):
            yield min(batch, n_rows - start)

    def _tally(self) -> HostArray:
        """Return the cost and the weight of this epoch's rows so far."""
        values = self.network.backend.to_host(self._steps.tally.values)
        return np.array([values[COST, 0], values[WEIGHT, 0]])

    def _penalty(self) -> float:
        """Return (alpha / 2) |W|^2."""
        if not self.plan.alpha:
            return 0.0
        p = self.network.parameters
        weights = self.network.backend.to_host(p.theta[0, : p.layout.n_weights])
        return 0.5 * self.plan.alpha * float(np.dot(weights, weights))

    def _mean_over_outputs(self, cost: float) -> float:
        """Return what the loss makes of the outputs: squared errors are averaged over them, the others summed."""
        return float(cost) / (self.plan.sizes[-1] if self.plan.loss == "squared_error" else 1)

    # ---------------------------------------------------------------- state

    def load(self, coefs: list[HostArray], intercepts: list[HostArray], optimizer: Any) -> None:
        """Take over weights, biases, moments and the number of steps that were done."""
        backend, p = self.network.backend, self.network.parameters
        for l, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
            self.network.set_weights(l, W.T, b)
        for buffer, name in zip(self.trainer.state.values(), self.plan.kind.moments, strict=True):
            for moment, out in zip(getattr(optimizer, name), p.views(buffer), strict=True):
                backend.copy(backend.asarray(moment.T[None], backend.dtype), out)
        backend.fill(self.trainer.clock, 0)
        backend.fill(self.trainer.clock[STEP : STEP + 1], getattr(optimizer, "t", 0))

    def store_weights(self, coefs: list[HostArray], intercepts: list[HostArray]) -> None:
        """Overwrite scikit-learn's arrays with the present weights and biases."""
        for own, theirs in ((self.network.weights, coefs), (self.network.biases, intercepts)):
            for values, out in zip(own, theirs, strict=True):
                out[...] = values[0].T

    def store_moments(self, optimizer: Any) -> None:
        """Give scikit-learn's optimizer the present moments and the number of steps."""
        backend, p = self.network.backend, self.network.parameters
        for buffer, name in zip(self.trainer.state.values(), self.plan.kind.moments, strict=True):
            views = p.views(buffer)
            setattr(optimizer, name, [np.array(backend.to_host(view)[0].T, order="C") for view in views])
        if isinstance(optimizer, AdamOptimizer):
            t = optimizer.t = self.trainer.step_count
            if t:
                corrected = np.sqrt(1 - optimizer.beta_2**t) / (1 - optimizer.beta_1**t)
                optimizer.learning_rate = optimizer.learning_rate_init * corrected


def plan_of(estimator: Any, optimizer: Any, sizes: list[int], dtype: Any) -> Plan:
    """Return the plan for an estimator that goes on with this optimizer of scikit-learn's."""
    kind = KINDS[type(optimizer)]
    return Plan(
        tuple(int(n) for n in sizes),
        estimator.activation,
        estimator.out_activation_,
        estimator.loss,
        np.dtype(dtype).name,
        type(optimizer),
        tuple(getattr(optimizer, name) for name in kind.numbers),
        float(estimator.alpha),
        SETTINGS.backend,
        SETTINGS.device,
    )
