"""The engine: a network and its trainer, into which an estimator's state is brought and from which it returns.

scikit-learn keeps coefs_[l] as (in, out) and gpumlp W[l] as (out, in); all else has the same shapes on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpumlp.accel import losses
from gpumlp.accel.epochs import Epochs, copy_of
from gpumlp.accel.settings import SETTINGS
from gpumlp.backends.protocol import STEP
from gpumlp.backends.select import asked_for
from gpumlp.errors import ConfigurationError
from gpumlp.estimators import solvers
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.data_set import TrainingSet, check_training_set
from gpumlp.training.trainer import Trainer


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
    AdamOptimizer: Kind(("beta_1", "beta_2", "epsilon"), solvers.adam, "learning_rate_init", ("ms", "vs")),
    SGDOptimizer: Kind(("momentum", "nesterov"), solvers.sgd, "learning_rate", ("velocities",)),
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
    backend: str
    device: str | None

    @property
    def kind(self) -> Kind:
        """How the optimizer is mirrored."""
        return KINDS[self.optimizer]


class Engine:
    """Holds an estimator's state while it trains.

    load -> begin -> an Epochs, which trains; the state goes back by store_weights and store_moments
    """

    def __init__(self, plan: Plan) -> None:
        cost = losses.cost_of(plan.loss, plan.output, plan.dtype)
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
        self._kept: tuple[tuple[Any, ...], Epochs] | None = None

    # ---------------------------------------------------------------- data

    def check(self, X: HostArray, y: HostArray, sample_weight: HostArray | None) -> TrainingSet:
        """Return the arrays as they are trained on; raise GpumlpError, saying why, if they cannot be."""
        return check_training_set(self.network, X, y, sample_weight)

    def begin(self, data: TrainingSet, batch: int, again: bool) -> Epochs:
        """Return what trains on these data.

        again   whether more data of these shapes may come: they are copied into arrays that stay, so that the steps
                need not be made anew
        """
        shapes = (data.X.shape, batch, data.weights is None)
        if not again:
            return Epochs(self.trainer, data, batch, self.plan.alpha, self._outputs_averaged)
        if self._kept is not None and self._kept[0] == shapes:
            self._kept[1].refill(data)
        else:
            epochs = Epochs(self.trainer, copy_of(data), batch, self.plan.alpha, self._outputs_averaged)
            self._kept = (shapes, epochs)
        return self._kept[1]

    @property
    def _outputs_averaged(self) -> int:
        """Over how many outputs the loss is a mean: squared errors are averaged over them, the others summed."""
        return self.plan.sizes[-1] if self.plan.loss == "squared_error" else 1

    def forget(self) -> None:
        """Let go of the data that stayed, and of the steps that were made for them."""
        self._kept = None

    # ---------------------------------------------------------------- state

    def load(self, coefs: list[HostArray], intercepts: list[HostArray], optimizer: Any) -> None:
        """Take over weights, biases, moments and the number of steps that were done."""
        backend, p = self.network.backend, self.network.parameters
        for l, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
            self.network.set_weights(l, W.T, b)
        for buffer, name in zip(self.trainer.state.values(), self.plan.kind.moments, strict=True):
            for moment, out in zip(getattr(optimizer, name), p.views(buffer), strict=True):
                backend.copy(backend.asarray(moment.T[None], backend.dtype), out)
        t = getattr(optimizer, "t", None)
        if t is not None and t != self.trainer.step_count:
            self.forget()  # steps may have computed ahead
            backend.fill(self.trainer.clock[STEP : STEP + 1], t)

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
                eta, beta_1, beta_2 = optimizer.learning_rate_init, optimizer.beta_1, optimizer.beta_2
                optimizer.learning_rate = eta * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)


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
        asked_for(SETTINGS.backend),
        SETTINGS.device,
    )
