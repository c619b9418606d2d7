"""Fitting by sgd or adam as scikit-learn does it, an epoch at a time on an engine.

Whatever scikit-learn draws at random, says, warns of, counts and decides between two epochs is drawn from the same
generator, said in the same words and decided by its own methods here.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from itertools import pairwise
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpumlp.accel.engine import KINDS, Engine, plan_of
from gpumlp.shapes import HostArray

SCIKIT_LEARNS_MODULE = "sklearn.neural_network._multilayer_perceptron"
# what a step consists of there; a subclass that has one of its own is trained by it
REPLACED = (
    "_fit",
    "_fit_stochastic",
    "_backprop",
    "_forward_pass",
    "_compute_loss_grad",
    "_update_no_improvement_count",
    "_score",
    "_predict",
    "_forward_pass_fast",
)
# how many of X, y and sample_weight a check of the validation set takes: weights since 1.7
VALIDATED = len(inspect.signature(BaseMultilayerPerceptron._update_no_improvement_count).parameters) - 2
_engines: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()  # of estimators that are fitted again and again


def why_not(
    estimator: Any, accelerated: type, X: Any, y: HostArray, sample_weight: Any, sizes: list[int], incremental: bool
) -> str:
    """Return why this call cannot be served here, "" if it can; nothing is changed."""
    for name in REPLACED:
        if name in vars(estimator) or getattr(type(estimator), name, None) is not getattr(accelerated, name, None):
            return f"{type(estimator).__name__} has a {name} of its own"
    if not isinstance(X, np.ndarray):
        return f"X is a {type(X).__name__}"  # sparse
    if incremental and type(getattr(estimator, "_optimizer", None)) not in (type(None), *KINDS):
        return f"its optimizer is a {type(estimator._optimizer).__name__}"
    if any(array.dtype != X.dtype for array in (*estimator.coefs_, *estimator.intercepts_)):
        return f"X has dtype {X.dtype}, the weights another"
    if [W.shape for W in estimator.coefs_] != list(pairwise(sizes)):
        return f"the weights do not lead through layers of {', '.join(str(n) for n in sizes)}"
    if estimator.early_stopping and (incremental or ceil(len(X) * estimator.validation_fraction) < 2):
        return "scikit-learn refuses it"
    if y.dtype.kind not in "fiub":
        return f"y has dtype {y.dtype}"
    if estimator.loss == "poisson" and y.min() < 0:
        return "a Poisson loss is not defined for its targets below 0"
    if sample_weight is not None and np.count_nonzero(sample_weight == 0) >= _smallest_batch(estimator, len(X)):
        return "the sample weights of a batch may sum to 0"
    return ""


def _smallest_batch(estimator: Any, n_rows: int) -> int:
    """Return how many rows the smallest batch of an epoch has, with or without a part for validation."""
    if estimator.early_stopping:
        n_rows -= ceil(n_rows * estimator.validation_fraction)
    batch = _clipped(estimator.batch_size, n_rows)
    return n_rows % batch or batch


def _clipped(batch_size: int | str, n_rows: int) -> int:
    """Return the rows of a batch."""
    if batch_size == "auto":
        return min(200, n_rows)
    return int(np.clip(batch_size, 1, n_rows))


class Fitting:
    """One call of fit or partial_fit.

    Nothing of the estimator is changed, nor drawn from its generator, before `run`.
    Raises   GpumlpError, saying why, if this cannot be trained
    """

    def __init__(
        self,
        estimator: Any,
        X: HostArray,
        y: HostArray,
        sample_weight: HostArray | None,
        sizes: list[int],
        incremental: bool,
    ) -> None:
        self.estimator, self.incremental = estimator, incremental
        self.X, self.y, self.sample_weight = X, y.astype(X.dtype, copy=False), sample_weight
        self.optimizer = self._optimizer()
        plan = plan_of(estimator, self.optimizer, sizes, X.dtype)
        engine = _engines.get(estimator) if _is_kept(estimator) else None
        self.engine = engine if engine is not None and engine.plan == plan else Engine(plan)
        self.n_rows = len(X)
        self.validation: tuple[Any, ...] = (None, None, None)  # X, y, sample_weight
        self.data = self.engine.check(self.X, self.y, sample_weight)

    def _optimizer(self) -> Any:
        """Return the optimizer that scikit-learn would go on with, or begin with."""
        est = self.estimator
        if self.incremental and hasattr(est, "_optimizer"):
            return est._optimizer
        parameters = est.coefs_ + est.intercepts_
        if est.solver == "adam":
            return AdamOptimizer(parameters, est.learning_rate_init, est.beta_1, est.beta_2, est.epsilon)
        return SGDOptimizer(
            parameters,
            est.learning_rate_init,
            est.learning_rate,
            est.momentum,
            est.nesterovs_momentum,
            est.power_t,
        )

    def run(self) -> None:
        """Train, and leave the estimator as scikit-learn would have."""
        est, engine = self.estimator, self.engine
        est._optimizer = self.optimizer
        if est.early_stopping:
            self._split()
        engine.load(est.coefs_, est.intercepts_, self.optimizer)
        self.epochs = engine.begin(self.data, self._batch(), again=self.incremental)
        try:
            self._epochs()
        except KeyboardInterrupt:
            engine.forget()
            _warn("Training interrupted by user.")
        finally:
            engine.store_weights(est.coefs_, est.intercepts_)
            engine.store_moments(self.optimizer)
        if est.early_stopping:
            est.coefs_, est.intercepts_ = est._best_coefs, est._best_intercepts
        if (self.incremental or est.warm_start) and _is_kept(est):
            _engines[est] = engine

    def _split(self) -> None:
        """Set the rows for validation aside."""
        est = self.estimator
        given = [a for a in (self.X, self.y, self.sample_weight) if a is not None]
        parts = train_test_split(
            *given,
            random_state=est._random_state,
            test_size=est.validation_fraction,
            stratify=self.y if is_classifier(est) and est.n_outputs_ == 1 else None,
        )
        X, y, sample_weight = (*parts[::2], None)[:3]
        held_X, held_y, held_weight = (*parts[1::2], None)[:3]
        self.data, self.n_rows = self.engine.check(X, y, sample_weight), len(X)
        if is_classifier(est):
            held_y = est._label_binarizer.inverse_transform(held_y)
        self.validation = (held_X, held_y, held_weight)

    def _batch(self) -> int:
        size = self.estimator.batch_size
        if size != "auto" and size > self.n_rows:
            _warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        return _clipped(size, self.n_rows)

    def _epochs(self) -> None:
        est = self.estimator
        order = np.arange(self.n_rows, dtype=int)
        est.n_iter_ = 0
        for _ in range(est.max_iter):
            if est.shuffle:
                order = shuffled(order, est._random_state)
            est.loss_ = self.epochs.run(order, getattr(self.optimizer, self.engine.plan.kind.rate))
            self._count()
            if self._should_stop() or self.incremental:
                return
        _warn(
            f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the optimization hasn't converged "
            "yet.",
            ConvergenceWarning,
        )

    def _count(self) -> None:
        """Note that an epoch is done, and whether it was a better one."""
        est = self.estimator
        est.n_iter_ += 1
        est.t_ += self.n_rows
        est.loss_curve_.append(est.loss_)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        if est.early_stopping:
            self.engine.store_weights(est.coefs_, est.intercepts_)
        est._update_no_improvement_count(est.early_stopping, *self.validation[:VALIDATED])

    def _should_stop(self) -> bool:
        """Let the optimizer change its rate, or end the training."""
        est = self.estimator
        self.optimizer.iteration_ends(est.t_)
        if est._no_improvement_count <= est.n_iter_no_change:
            return False
        what = "Validation score" if est.early_stopping else "Training loss"
        message = f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} consecutive epochs."
        if self.optimizer.trigger_stopping(message, est.verbose):
            return True
        est._no_improvement_count = 0
        return False


def shuffled(order: HostArray, random_state: np.random.RandomState) -> HostArray:
    """Return an order of the last order, drawn as sklearn.utils.shuffle draws it, which takes ten times as long."""
    places = np.arange(len(order))
    random_state.shuffle(places)
    found: HostArray = order[places]
    return found


def _is_kept(estimator: Any) -> bool:
    """Tell whether an engine can be found again by its estimator: not where a subclass defines equality alone."""
    return type(estimator).__hash__ is not None


def _warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as from scikit-learn's own module, so that a program's filters for it act."""
    module = sys.modules[SCIKIT_LEARNS_MODULE]
    warnings.warn_explicit(
        message,
        category,
        str(module.__file__),
        BaseMultilayerPerceptron._fit_stochastic.__code__.co_firstlineno,
        SCIKIT_LEARNS_MODULE,
        vars(module).setdefault("__warningregistry__", {}),
    )
