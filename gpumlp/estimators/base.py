"""What both estimators share: a fit is validate, encode, begin, train, publish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gpumlp.estimators import lbfgs, stochastic
from gpumlp.estimators.inputs import Rows, check_weights, dense, dense_pieces
from gpumlp.estimators.parameters import Table, check_parameters
from gpumlp.estimators.solvers import STOCHASTIC
from gpumlp.estimators.weights import LiveNetwork, draw_weights, put_weights
from gpumlp.formulas.activations import ACTIVATIONS, SIGMOID
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray

FLOATS = (np.float64, np.float32)


class BaseMLP(BaseEstimator, ABC):  # type: ignore[misc]
    """A multi-layer perceptron behind scikit-learn's interface; what is fitted is plain arrays and numbers.

    _live       the network that was built last; a pickle does not hold it
    _progress   what partial_fit goes on from: seed, steps, epochs, factor of the rate, and the update rule's state
    """

    _table: ClassVar[Table]

    # ---------------------------------------------------------------- what the two estimators say themselves

    @abstractmethod
    def _validate(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        """Return X and y, checked."""

    @abstractmethod
    def _encode(self, y: Any) -> HostArray:
        """Return y as a Network is trained on it: (n_rows,) labels, or (n_rows, n_outputs) numbers."""

    @abstractmethod
    def _count_outputs(self, targets: HostArray) -> int:
        """Return how many outputs the network needs for these targets."""

    @abstractmethod
    def _output(self) -> tuple[str, str]:
        """Return out_activation_ and the name of the cost."""

    @abstractmethod
    def _score_outputs(self, outputs: HostArray, rows: Rows) -> float:
        """Return the score of a network's outputs (n_models, n_rows, n_outputs); NaN where they are not finite."""

    @abstractmethod
    def _loss_of(self, cost: float) -> float:
        """Return the mean cost of an example as it is reported in loss_."""

    @abstractmethod
    def _stratifies(self) -> bool:
        """Tell whether rows are held out class by class."""

    # ---------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train anew, or with warm_start from the present weights on.

        X              (n_samples, n_features) array, data frame or sparse matrix, which is made dense; float32 stays
                       float32, everything else is computed in float64
        y              (n_samples,) or (n_samples, n_outputs) labels or numbers
        sample_weight  (n_samples,) of at least 0, or None for 1 everywhere
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        if not get_config()["skip_parameter_validation"]:
            check_parameters(self, self._table)
        hidden = self._hidden_sizes()
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._validate(X, y, incremental, reset=first)
        weights = check_weights(sample_weight, X.shape[0])
        targets = self._encode(y)
        random = check_random_state(self.random_state)
        self.n_outputs_ = self._count_outputs(targets)
        if first:
            self._begin([X.shape[1], *hidden, self.n_outputs_], X.dtype, random)
        rows = Rows(dense(X), y, targets, weights)
        if self.solver in STOCHASTIC:
            stochastic.train(self, rows, random, incremental)
        else:
            lbfgs.train(self, rows)
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            raise ValueError(stochastic.NOT_FINITE)
        return self

    def _hidden_sizes(self) -> list[int]:
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        if any(n <= 0 for n in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes  # type: ignore[no-any-return]

    def _begin(self, sizes: list[int], dtype: Any, random: np.random.RandomState) -> None:
        """Draw the first weights, and forget what was before."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_, self._cost = self._output()
        saturating = [ACTIVATIONS.get(self.activation) is SIGMOID] * (len(sizes) - 1)
        self.coefs_, self.intercepts_ = draw_weights(sizes, saturating, dtype, random)
        self._live, self._progress = LiveNetwork(), None
        if self.solver in STOCHASTIC:
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            stops_early = self.early_stopping
            self.validation_scores_: list[float] | None = [] if stops_early else None
            self.best_validation_score_ = -np.inf if stops_early else None
            self.best_loss_ = None if stops_early else np.inf

    def _check_solver(self) -> bool:
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    # ---------------------------------------------------------------- the network

    def _network_options(self) -> dict[str, Any]:
        """Return what the network is built with, besides its seed and weights."""
        sizes = [self.coefs_[0].shape[-2], *(W.shape[-1] for W in self.coefs_)]
        return {
            "sizes": sizes,
            "activation": self.activation,
            "output": self.out_activation_,
            "cost": self._cost,
            "dtype": self.coefs_[0].dtype.name,
            "backend": self.backend,
            "device": self.device,
        }

    def _outputs(self, X: Any) -> HostArray:
        """Return the activations of the output layer, (n_samples, n_outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        seed = 0 if self._progress is None else self._progress["seed"]
        net: Network = self._live.get(**self._network_options(), seed=seed)
        put_weights(net, self.coefs_, self.intercepts_)
        return np.concatenate([net.predict(piece)[0] for piece in dense_pieces(X)])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coefs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
