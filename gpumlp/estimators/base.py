"""What both estimators share: a fit is validate, encode, begin, hold out, train, publish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.validation import check_is_fitted, check_X_y, validate_data

from gpumlp.backends.protocol import Backend
from gpumlp.backends.select import get_backend
from gpumlp.errors import ConfigurationError
from gpumlp.estimators import lbfgs, stochastic
from gpumlp.estimators.embeddings import EmbedsColumns
from gpumlp.estimators.exchange import Exchange
from gpumlp.estimators.inputs import Rows, check_weights, dense, dense_pieces, expect_some_weight, hold_out
from gpumlp.estimators.kinds import as_numpy, in_kind_of_rows, on_host
from gpumlp.estimators.missing import Filling
from gpumlp.estimators.parameters import InvalidParameterError, Table, check_parameters
from gpumlp.estimators.solvers import STOCHASTIC
from gpumlp.estimators.weights import (
    LiveNetwork,
    draw_tables,
    draw_weights,
    put_normalising,
    put_tables,
    put_weights,
    take_normalising,
    take_tables,
    take_weights,
)
from gpumlp.formulas.activations import ACTIVATIONS, SIGMOID, Activation
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.normalisation import BATCH, LAYER
from gpumlp.formulas.output_delta import fits
from gpumlp.network.architecture import build_architecture, normalisation_kinds
from gpumlp.network.embedding import Embedding, widths
from gpumlp.network.kinds import bring
from gpumlp.network.members import Member
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray, as_numeric, is_on_device

FLOATS = (np.float64, np.float32)


class BaseMLP(EmbedsColumns, Exchange, BaseEstimator, ABC):  # type: ignore[misc]
    """A multi-layer perceptron behind scikit-learn's interface; what is fitted is plain arrays and numbers.

    _live       the network that was built last; a pickle does not hold it
    _progress   what partial_fit goes on from: seed, steps, epochs, factor of the rate, and the rule with its state
    _filling    what fills missing values, None where they are an error
    _postpone   postpone(rows, held, random) is called in place of training, which then comes later; there only while
                many fits are prepared to be trained together
    """

    _table: ClassVar[Table]

    # ---------------------------------------------------------------- what the two estimators say themselves

    @abstractmethod
    def _validate(self, X: Any, y: Any, incremental: bool, reset: bool, held: bool = False) -> tuple[Any, Any]:
        """Return X and y, checked, and learn the classes if there are any and the rows are not held out."""

    @abstractmethod
    def _encode(self, y: Any) -> HostArray:
        """Return y as a Network is trained on it: (n_rows,) labels, or (n_rows, n_outputs) numbers."""

    @abstractmethod
    def _count_outputs(self, targets: HostArray) -> int:
        """Return how many outputs the network needs for these targets."""

    @abstractmethod
    def _output(self) -> tuple[str, Any]:
        """Return out_activation_ and the cost where none is asked for."""

    @abstractmethod
    def _outputs_by_cost(self) -> tuple[str, ...]:
        """Return the output activations for a cost that is asked for, of which the first that fits it is taken."""

    @abstractmethod
    def _score_outputs(self, outputs: HostArray, rows: Rows) -> float:
        """Return the score of a network's outputs (n_models, n_rows, n_outputs); NaN where they are not finite."""

    @abstractmethod
    def _loss_of(self, cost: float) -> float:
        """Return the mean cost of an example as it is reported in loss_."""

    @abstractmethod
    def _stratifies(self) -> bool:
        """Tell whether rows are held out class by class."""

    def _holds_out(self) -> bool:
        """Tell whether some rows are not trained on."""
        return bool(self.early_stopping and self._is_stochastic())

    def _weigh(self, rows: Rows) -> Rows:
        """Return the rows to train on with the weights that the estimator itself gives them."""
        return rows

    def _trained(self, held: Rows | None) -> None:
        """Do what is to be done with the rows held out when the weights are there."""

    # ---------------------------------------------------------------- fit

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Train anew, or with warm_start from the present weights on.

        X              (n_samples, n_features) array, data frame or sparse matrix, which is made dense; float32 stays
                       float32, everything else is computed in float64; what lies on a CUDA device stays there, but for
                       rows that are held out
        y              (n_samples,) or (n_samples, n_outputs) labels or numbers
        sample_weight  (n_samples,) of at least 0, or None for 1 everywhere
        X_val, y_val, sample_weight_val   rows to hold out; None: a share of X is drawn where some are needed
        """
        validation = (X_val, y_val, sample_weight_val)
        if X_val is None and any(given is not None for given in validation):
            raise ValueError("y_val or sample_weight_val came without X_val; give the rows that they are of")
        return self._fit(X, y, sample_weight, validation=None if X_val is None else validation)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool = False, validation: Any = None) -> Any:
        if not get_config()["skip_parameter_validation"]:
            check_parameters(self, self._table)
        if incremental and self._holds_out():
            raise ValueError(f"partial_fit does not support {self._why_held_out()}")
        hidden = self._hidden_sizes()
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._validate(X, self._on_host(y, "y"), incremental, reset=first)
        weights = self._check_weights(sample_weight, X.shape[0])
        targets = self._encode(y)
        random = check_random_state(self.random_state)
        self.n_outputs_ = self._count_outputs(targets)
        X = dense(X)
        if first:
            seen = self._categories_in(X)
            X = self._complete(X, learn=True)
            self._begin([X.shape[1], *hidden, self.n_outputs_], X.dtype, random, seen)
        else:
            self._expect_same_embeddings()
            self._expect_same_network(hidden)
            X = self._complete(X)
            if self._is_stochastic() and not self._is_watched():
                self._watch_anew(getattr(self, "loss_curve_", []))
        rows, held = self._hold_out(Rows(X, y, targets, weights), validation, random)
        if held is not None and is_on_device(held.table):
            held = replace(held, table=self._on_host(held.X, "X_val"), numbers=None)
        rows = self._weigh(rows)
        expect_some_weight(rows, "trained on")
        if held is not None:
            expect_some_weight(held, "held out")
        if self._is_stochastic():
            if "_postpone" in vars(self):
                return self._postpone(rows, held, random)
            stochastic.train(stochastic.prepare(self, rows, held, random, incremental))
        else:
            lbfgs.train(self, rows, random)
        return self._finished(held)

    def _finished(self, held: Rows | None) -> Any:
        """Return the estimator once it is trained; raise ValueError where its weights are not finite."""
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_, *self._tables())):
            raise ValueError(stochastic.NOT_FINITE)
        self._trained(held)
        return self

    def _hidden_sizes(self) -> list[int]:
        sizes = np.atleast_1d(self.hidden_layer_sizes).tolist()
        if not all(type(n) is int for n in sizes):
            raise InvalidParameterError(
                f"hidden_layer_sizes must be whole numbers of neurons, one for each hidden layer, got "
                f"{self.hidden_layer_sizes!r}; write (100,) for one hidden layer"
            )
        if any(n <= 0 for n in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes  # type: ignore[no-any-return]

    def _begin(
        self,
        sizes: list[int],
        dtype: Any,
        random: np.random.RandomState,
        seen: Mapping[Embedding, HostArray] = MappingProxyType({}),
    ) -> None:
        """Draw the first weights, and forget what was before."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_, self._cost = self._output() if self.cost is None else self._output_for_cost()
        hidden = self._activations(len(sizes) - 2)
        saturating = [ACTIVATIONS.get(a) is SIGMOID for a in [*hidden, *(hidden[-1:] or [self._first_activation()])]]
        read = widths(tuple(sizes), list(seen))
        self.coefs_, self.intercepts_ = draw_weights(read, saturating, dtype, random, self.n_models)
        self._live, self._progress = LiveNetwork(), None
        for name in ("normalising_", "embeddings_"):
            if hasattr(self, name):
                delattr(self, name)
        if seen:
            self.embeddings_ = draw_tables(seen, dtype, random, self.n_models)
        if self._is_stochastic():
            self._watch_anew([])

    def _is_watched(self) -> bool:
        """Tell whether what progress is compared with is there: a loss, or with early_stopping a score."""
        return hasattr(self, "loss_curve_") and (self.best_loss_ is None) == bool(self.early_stopping)

    def _watch_anew(self, loss_curve: list[float]) -> None:
        """Forget what progress was compared with; the losses to come stand behind those of the curve."""
        stops_early = self.early_stopping
        self.loss_curve_ = loss_curve
        self._no_improvement_count = 0
        self.validation_scores_: list[float] | None = [] if stops_early else None
        self.best_validation_score_ = -np.inf if stops_early else None
        self.best_loss_ = None if stops_early else np.inf

    def _expect_same_network(self, hidden: list[int]) -> None:
        """Raise ConfigurationError where a training that goes on is to have another network than it began with."""
        normalising = getattr(self, "normalising_", [{}] * len(hidden))
        there = {
            "hidden_layer_sizes": self._sizes()[1:-1],
            "n_models": len(self.coefs_[0]) if self.coefs_[0].ndim == 3 else 1,
            "missing": "error" if self._filling is None else "indicator",
            "normalisation": [BATCH if "running_mean" in layer else LAYER if layer else None for layer in normalising],
        }
        asked = {
            "hidden_layer_sizes": hidden,
            "n_models": self.n_models,
            "missing": self.missing,
            "normalisation": list(normalisation_kinds(self.normalisation, len(hidden))),
        }
        for name, value in there.items():
            if asked[name] != value:
                raise ConfigurationError(
                    f"{name} is {asked[name]!r}, but {value!r} in the training that is to go on; leave it as it was, "
                    "or begin anew: fit with warm_start=False"
                )

    def _output_for_cost(self) -> tuple[str, Any]:
        cost = COSTS.get(self.cost)
        outputs = self._outputs_by_cost()
        for name in outputs:
            if fits(cost, ACTIVATIONS.get(name)):
                return name, self.cost
        raise ValueError(f"cost {cost.name} fits none of {', '.join(outputs)}, the outputs that there are here")

    def _hold_out(self, rows: Rows, validation: Any, random: np.random.RandomState) -> tuple[Rows, Rows | None]:
        """Return the rows to train on, and those that are not, if any are needed."""
        if not self._holds_out():
            if validation is not None:
                raise ValueError("X_val is of no use without early_stopping=True or calibration; leave it away")
            return rows, None
        if validation is None:
            return hold_out(rows, self.validation_fraction, self._stratifies(), random)
        X, y, sample_weight = validation
        if y is None:
            raise ValueError("X_val came without y_val; each row needs its target")
        X, y = self._validate(X, self._on_host(y, "y_val"), incremental=False, reset=False, held=True)
        if y.shape[1:] != rows.y.shape[1:]:
            raise ValueError(f"y_val has shape {y.shape}, but y {rows.y.shape}; a row has its target in the same form")
        return rows, Rows(self._complete(dense(X)), y, self._encode(y), self._check_weights(sample_weight, X.shape[0]))

    def _why_held_out(self) -> str:
        return "early_stopping=True"

    def _is_stochastic(self) -> bool:
        return self.optimizer is not None or self.solver in STOCHASTIC

    def _check_solver(self) -> bool:
        if not self._is_stochastic():
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    # ---------------------------------------------------------------- rows

    def _get_backend(self) -> Backend:
        return get_backend(None if self.backend == "auto" else self.backend, self.device)

    def _on_host(self, x: Any, name: str) -> Any:
        """Return an array of a device or of another library as NumPy's, everything else as given."""
        return on_host(x, name, self._get_backend()) if is_on_device(x) else as_numpy(x)

    def _check_weights(self, sample_weight: Any, n_rows: int) -> HostArray | None:
        return check_weights(self._on_host(sample_weight, "sample_weight"), n_rows)

    def _check_rows(self, X: Any, reset: bool) -> Any:
        """Return rows on the device where they lie, in the dtype to compute in; the network looks for NaN in them.

        Raises   ConfigurationError where missing values are to be filled; DataError, ShapeError, ValueError
        """
        if self.missing == "indicator":
            raise ConfigurationError(
                'missing="indicator" fills on the host, X lies on a CUDA device; bring it to the host (CuPy: X.get(), '
                "torch: X.cpu())"
            )
        X = as_numeric(bring(X, "X", self._get_backend()), "X")
        validate_data(self, X, reset=reset, skip_check_array=True)
        return X.astype(self.dtype or (X.dtype if X.dtype in FLOATS else FLOATS[0]), copy=False)

    def _check_data(self, X: Any, y: Any, reset: bool, **how: Any) -> tuple[Any, Any]:
        """Return X and y as validate_data checks them, or X as the network does where it lies on a device."""
        if is_on_device(X):
            X = self._check_rows(X, reset)
            return X, check_X_y(np.zeros((len(X), 1)), y, multi_output=True, **how)[1]
        dtype = self.dtype or FLOATS
        X, y = validate_data(
            self, as_numpy(X), y, multi_output=True, dtype=dtype, reset=reset, **self._how_checked(), **how
        )
        self._expect_no_gaps(X)
        return X, y

    def _how_checked(self) -> dict[str, Any]:
        """Return how validate_data is to check X."""
        finite: bool | str = "allow-nan" if self.missing == "indicator" or self.embeddings else True
        return {"accept_sparse": ["csr", "csc"], "ensure_all_finite": finite}

    def _expect_no_gaps(self, X: Any) -> None:
        """Raise ValueError for NaN that _how_checked allows only so that one among codes is told by its column."""
        if self.missing == "error" and self.embeddings:
            for column in self._units():
                self._codes(X, column)
            assert_all_finite(X, estimator_name=type(self).__name__, input_name="X")

    def _in_kind_of(self, X: Any, y: Any) -> Any:
        """Return predictions in the kind of their rows, by the backend that has predicted them."""
        return in_kind_of_rows(y, X, self._live.backend)

    def _complete(self, X: HostArray, learn: bool = False) -> HostArray:
        """Return X without missing values, with its indicators, and with -1 for codes above those of the first fit."""
        if learn:
            self._filling = Filling.learn(X) if self.missing == "indicator" else None
        else:
            X = self._without_new_codes(X)
        return X if self.missing == "error" or self._filling is None else self._filling.fill(X)

    # ---------------------------------------------------------------- the network

    def _first_activation(self) -> str | Activation:
        one = isinstance(self.activation, str | Activation)
        return self.activation if one else next(iter(self.activation), "identity")

    def _activations(self, n_hidden: int) -> list[str | Activation]:
        """Return the activation of each hidden layer; raise ValueError unless there is one for each."""
        if isinstance(self.activation, str | Activation):
            return [self.activation] * n_hidden
        if len(self.activation) != n_hidden:
            raise ValueError(f"activation names {len(self.activation)} layers, hidden_layer_sizes {n_hidden}")
        return list(self.activation)

    def _sizes(self) -> list[int]:
        columns = self.coefs_[0].shape[-2] - sum(e.n_units - 1 for e in self._embedded())
        return [columns, *(W.shape[-1] for W in self.coefs_)]

    def _dropout(self) -> Any:
        return self.dropout if isinstance(self.dropout, list | tuple) else float(self.dropout)

    def _member(self, seed: int) -> Member:
        """Return what one model of a stack is, for an estimator of one model."""
        sizes = self._sizes()
        architecture = build_architecture(
            sizes,
            self._activations(len(sizes) - 2),
            self.out_activation_,
            self._cost,
            self.normalisation,
            self._embedded(),
        )
        dropout = self._dropout()
        rates = (dropout,) * (len(sizes) - 2) if isinstance(dropout, float) else tuple(float(rate) for rate in dropout)
        return Member(architecture, rates, seed, initialiser="zeros")

    def _build_network(self, seed: int, model: int | None = None) -> Network:
        """Return a network with the estimator's weights, or with those of one of its models."""
        sizes, stacked = self._sizes(), self.coefs_[0].ndim == 3
        net = (self._live if model is None else LiveNetwork()).get(
            sizes=sizes,
            activation=self._activations(len(sizes) - 2),
            output=self.out_activation_,
            cost=self._cost,
            n_models=len(self.coefs_[0]) if stacked and model is None else 1,
            dropout=self._dropout(),
            normalisation=self.normalisation,
            dtype=self.coefs_[0].dtype.name,
            backend=self.backend,
            device=self.device,
            seed=seed,
            embeddings=self._embedded(),
        )
        one = slice(None) if model is None else model
        if hasattr(self, "normalising_"):
            put_normalising(net, [{name: x[one] for name, x in layer.items()} for layer in self.normalising_])
        put_weights(net, *([w[one] for w in layers] for layers in (self.coefs_, self.intercepts_)))
        put_tables(net, [E[one] for E in self._tables()])
        return net

    def _take(self, net: Network) -> None:
        """Publish what a network has learned."""
        self.coefs_, self.intercepts_ = take_weights(net)
        if self.normalisation is not None:
            self.normalising_ = take_normalising(net)
        if net.architecture.embeddings:
            self.embeddings_ = take_tables(net)

    def _all_outputs(self, X: Any) -> HostArray:
        """Return the activations of the output layer, (n_models, n_samples, n_outputs), on the host."""
        check_is_fitted(self)
        on_device = is_on_device(X)
        if on_device:
            X = self._check_rows(X, False)
        else:
            X = validate_data(self, as_numpy(X), reset=False, **self._how_checked())
            self._expect_no_gaps(X)
        net = self._build_network(0 if self._progress is None else self._progress["seed"])
        if on_device:
            return net.backend.to_host(net.predict(self._complete(X)))  # type: ignore[no-any-return]
        parts = [net.predict(self._complete(piece)) for piece in dense_pieces(X)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coefs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "indicator"
        return tags


def mean_of_models(outputs: HostArray) -> HostArray:
    """Return outputs (n_models, n_rows, n_outputs) averaged over the models."""
    mean: HostArray = outputs[0] if len(outputs) == 1 else outputs.mean(axis=0)
    return mean
