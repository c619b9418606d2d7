"""MLPClassifier: one label a row, or several."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if

from gpumlp.errors import ConfigurationError
from gpumlp.estimators.base import BaseMLP, mean_of_models
from gpumlp.estimators.calibration import best_temperature, scaled
from gpumlp.estimators.held_out import for_complete_rows
from gpumlp.estimators.inputs import Rows
from gpumlp.estimators.labels import check_announced, check_known, decode, encode, first_classes, is_several
from gpumlp.estimators.parameters import NOTHING, Table, core_table, instance_of, one_of, real
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.registry import UNIT
from gpumlp.shapes import HostArray


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A classifier that takes the place of sklearn.neural_network.MLPClassifier, on a GPU where there is one.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int or int, default=(100,)
        Neurons of each hidden layer, from the input on; () for none.
    activation : str, Activation or list of them, default="relu"
        Activation of the hidden layers, or one for each: "identity", "logistic", "tanh", "relu", or any other that is
        registered and can stand in a hidden layer, with its parameters in brackets: "leaky_relu(slope=0.2)".
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        What makes the loss small: Adam, gradient descent with momentum, or L-BFGS on the whole set.
    alpha : float, default=0.0001
        Strength of the penalty (alpha / 2) |W|^2 on weights, not on biases; it is divided by the rows of a batch, or by
        the sum of their weights.
    batch_size : int or "auto", default="auto"
        Rows of a batch; "auto": 200, or all where there are fewer. Not for "lbfgs".
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        How the rate of "sgd" goes on: as it is; learning_rate_init / (t_ + 1)^power_t from the second epoch on; or
        divided by 5 where training would stop for want of progress, until it is at 1e-6.
    learning_rate_init : float, default=0.001
        The first learning rate of "adam" and "sgd".
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Most epochs of "adam" and "sgd", iterations of "lbfgs".
    shuffle : bool, default=True
        Whether each epoch of "adam" and "sgd" has an order of its own.
    random_state : int, RandomState instance or None, default=None
        From what the first weights, the rows that are held out and the orders are drawn. An int gives the same weights
        as scikit-learn's estimator has.
    tol : float, default=1e-4
        By how much loss or score must improve to count as progress; for "lbfgs" the largest component of the gradient
        at which it ends.
    verbose : bool or int, default=False
        Whether each epoch prints a line.
    warm_start : bool, default=False
        Whether `fit` begins at the present weights.
    momentum : float, default=0.9
        Momentum of "sgd", from 0 to 1.
    nesterovs_momentum : bool, default=True
        Whether that is applied once ahead.
    early_stopping : bool, default=False
        Whether rows are held out, whose score decides about progress; the weights of the best epoch come back.
    validation_fraction : float, default=0.1
        Share of the rows that is held out, at least 0 and below 1, unless `fit` is given X_val.
    beta_1, beta_2 : float, default=0.9 and 0.999
        How much Adam keeps of its running means of the gradient and of its square.
    epsilon : float, default=1e-8
        What Adam adds to the root mean square.
    n_iter_no_change : int or inf, default=10
        After more than this many epochs without progress training stops.
    max_fun : int, default=15000
        Most evaluations of the loss by "lbfgs".
    device : str, default="auto"
        Where it is computed: "auto", "cpu", "cuda", "cuda:1".
    backend : str, default="auto"
        By what: "auto", "cuda", "numba", "numpy".
    dtype : {"float32", "float64"} or None, default=None
        What it is computed in; None: float32 if X is, else float64.
    dropout : float or list of float, default=0.0
        Share of the units of each hidden layer, or of one each, that is dropped in a step of training.
    normalisation : {"layer", "batch"}, None or list of them, default=None
        What z of each hidden layer, or of one each, is normalised over: the units of a row, or the rows of a batch,
        whose running mean and variance predictions take. "batch" is not for "lbfgs".
    cost : str, Cost or None, default=None
        Any registered cost, with the first output activation that fits it of softmax (for several classes), logistic
        and identity; None: the cross-entropy.
    optimizer : str, UpdateRule or None, default=None
        Any registered update rule, "adamw(weight_decay=0.1)" or "lion", in place of `solver`, momentum and betas.
    schedule : str, Schedule or None, default=None
        Any registered schedule of the learning rate, "cosine(warmup=2)", in place of `learning_rate`. With partial_fit,
        say how many epochs it is for.
    clip_norm : float or None, default=None
        Largest norm of a batch's gradient, before the penalty.
    scoring : str, callable or None, default=None
        What the rows held out are scored by: a scorer's name, or scorer(estimator, X, y), which is given sample_weight,
        too, where they have weights; None: Accuracy.
    monitors : list of Monitor, default=()
        What else watches, as in Trainer.fit; with rows held out, reports have the names with validation_, too.
    n_models : int, default=1
        With several, each is trained on as many rows drawn with replacement (bagging), all at once; predictions are the
        mean, coefs_ and intercepts_ have the models as first axis, and loss_ is the mean.
    missing : {"error", "indicator"}, default="error"
        Whether NaN in X is an error, or filled with the mean of its column in the first fit, with a further column of 0
        and 1 for each column that had some then.
    embeddings : dict or None, default=None
        Columns of X that hold codes of categories, 0, 1, ..., by number or name, and as how many learned numbers the
        first layer reads each: {"city": 8, 3: 4}. There are as many categories as the codes of the first fit reach; -1,
        and larger codes later, are categories that are not known, and read as zeros. alpha is for these numbers, too.
    class_weight : dict, list of dict, "balanced" or None, default=None
        What the weight of a row is multiplied with by its label, or by each of several, which have a dict each;
        "balanced": n_rows / (n_classes rows of the class).
    label_smoothing : float, default=0.0
        Share of a target, at least 0 and below 1, that is spread over all classes.
    calibration : {"temperature"} or None, default=None
        Whether the log-odds are divided by one number, which makes the log loss of the rows held out smallest; some are
        held out for it even without early_stopping.

    Attributes
    ----------
    classes_ : (n_classes,) array
        The labels, sorted.
    temperature_ : float
        What the log-odds are divided by; only with calibration.
    coefs_, intercepts_ : list of arrays, (in, out) and (out,)
        Weights and biases of each layer; predictions follow what is written into them.
    normalising_ : list of dict of arrays, (out,)
        gamma, beta, running_mean and running_variance of each hidden layer, as far as it has them; only with
        normalisation.
    embeddings_ : dict of arrays, (n_categories, n_units)
        The numbers that each code is read as, by number of the column; with n_models > 1 the models are the first axis.
        Only with embeddings, with which coefs_[0] has a row for each number that is read.
    loss_ : float
        Mean loss of the last epoch with the penalty.
    loss_curve_ : list of float
        loss_ of each epoch; not for "lbfgs".
    best_loss_ : float or None
        The smallest of them; None with early_stopping.
    validation_scores_ : list of float or None
        Accuracy on the rows held out, by epoch; None without early_stopping.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Epochs or iterations of the last fit.
    t_ : int
        Rows trained on, counted once an epoch.
    n_layers_, n_outputs_ : int
        Layers, input and output included; neurons of the last.
    out_activation_ : str
        Activation of the last layer.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : (n_features_in_,) array of str
        Their names, where X has some.
    """

    loss = "log_loss"
    temperature_: float
    _table: ClassVar[Table] = {
        **core_table(),
        "class_weight": [one_of("balanced"), instance_of(dict), instance_of(list), NOTHING],
        "label_smoothing": [real(0, 1)],
        "calibration": [one_of("temperature"), NOTHING],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str = "auto",
        backend: str = "auto",
        dtype: str | None = None,
        dropout: Any = 0.0,
        normalisation: Any = None,
        cost: Any = None,
        optimizer: Any = None,
        schedule: Any = None,
        clip_norm: float | None = None,
        scoring: Any = None,
        monitors: Any = (),
        n_models: int = 1,
        missing: str = "error",
        embeddings: Any = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        calibration: str | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.backend = backend
        self.dtype = dtype
        self.dropout = dropout
        self.normalisation = normalisation
        self.cost = cost
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.scoring = scoring
        self.monitors = monitors
        self.n_models = n_models
        self.missing = missing
        self.embeddings = embeddings
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.calibration = calibration

    def predict(self, X: Any) -> Any:
        """Return the labels (n_samples,), or for several labels a row an array (n_samples, n_labels) of 0 and 1.

        For a CuPy array or a torch tensor numbers are of the same library and on the same device, text is NumPy's.
        """
        return self._in_kind_of(X, self._labels(self._all_outputs(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose label is right, or whose labels all are."""
        y, sample_weight = self._on_host(y, "y"), self._on_host(sample_weight, "sample_weight")
        return float(accuracy_score(y, self._on_host(self.predict(X), "predictions"), sample_weight=sample_weight))

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, (n_samples, n_classes), in the order of classes_ and the kind of X.

        Raises   ConfigurationError where a cost was asked for whose outputs are no probabilities
        """
        return self._in_kind_of(X, self._probabilities(X))

    def _probabilities(self, X: Any) -> HostArray:
        outputs = mean_of_models(self._all_outputs(X))
        activation = ACTIVATIONS.get(self.out_activation_)
        if activation.range not in UNIT:
            raise ConfigurationError(
                f"with cost={self.cost!r} the outputs are those of {activation.name}, in {activation.range}, and no "
                "probabilities; leave cost away, or use predict"
            )
        several = is_several(self._label_binarizer)
        if several and not activation.row_wise:
            outputs = outputs / outputs.sum(axis=1, keepdims=True)
        outputs = self._calibrated(outputs)
        return outputs if self.n_outputs_ > 1 else np.hstack([1 - outputs, outputs])

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of predict_proba; of a probability that is rounded to 0, -inf."""
        with np.errstate(divide="ignore"):
            return self._in_kind_of(X, np.log(self._probabilities(X)))

    @available_if(BaseMLP._check_solver)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Train for one more epoch on these rows, from where the last fit or partial_fit ended.

        X, y, sample_weight   as of fit; y need not hold all classes
        classes               all labels that will ever come; needed by the first call, and allowed in later ones
        """
        y, known = self._on_host(y, "y"), getattr(self, "classes_", None)
        self.classes_ = check_announced(classes, known)
        if known is None:
            self._label_binarizer = first_classes(y, classes)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit, which does not see all rows; pass a dict"
            )
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    # ---------------------------------------------------------------- what the base asks for

    def _validate(self, X: Any, y: Any, incremental: bool, reset: bool, held: bool = False) -> tuple[Any, Any]:
        X, y = self._check_data(X, y, reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if held or (hasattr(self, "classes_") and (self.warm_start or incremental)):
            check_known(y, self.classes_, all_of_them=self.warm_start and not held)
        else:
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        if self.calibration is not None and self._label_binarizer.y_type_.startswith("multilabel"):
            raise ValueError("calibration is for one label a row; leave it away for several")
        return X, y

    def _encode(self, y: Any) -> HostArray:
        targets = encode(self._label_binarizer, y)
        s = 0.0 if is_several(self._label_binarizer) else self.label_smoothing
        return (1 - s) * targets + s / 2 if s else targets

    def _count_outputs(self, targets: HostArray) -> int:
        return len(self.classes_) if is_several(self._label_binarizer) else targets.shape[1]

    def _output(self) -> tuple[str, Any]:
        if is_several(self._label_binarizer):
            smoothing = f"(label_smoothing={self.label_smoothing})" if self.label_smoothing else ""
            return "softmax", f"categorical_cross_entropy{smoothing}"
        return "logistic", "cross_entropy"

    def _outputs_by_cost(self) -> tuple[str, ...]:
        if min(COSTS.get(self.cost).labels) < 0:
            return ("identity",)
        return ("softmax", "logistic", "identity") if is_several(self._label_binarizer) else ("logistic", "identity")

    def _output_for_cost(self) -> tuple[str, Any]:
        if self.label_smoothing:
            raise ValueError("label_smoothing is that of the cross-entropies; leave it or cost away")
        cost = COSTS.get(self.cost)
        if not cost.targets.holds(min(cost.labels), max(cost.labels)):
            raise ValueError(f"cost {cost.name} is defined for targets in {cost.targets}, but labels stand for 0 and 1")
        return super()._output_for_cost()

    def _weigh(self, rows: Rows) -> Rows:
        if self.class_weight is None:
            return rows
        return rows.times(compute_sample_weight(self.class_weight, rows.y))

    def _labels(self, outputs: HostArray) -> Any:
        right, wrong = COSTS.get(self._cost).labels
        return decode(self._label_binarizer, (mean_of_models(outputs) - wrong) / (right - wrong))

    def _score_outputs(self, outputs: HostArray, rows: Rows) -> float:
        if not np.isfinite(outputs).all():
            return float("nan")
        found = self._labels(outputs)
        if found.ndim == 1:  # without the checks of accuracy_score, which take as long as a small epoch
            return float(np.average(found == rows.y, weights=rows.weights))
        return float(accuracy_score(rows.y, found, sample_weight=rows.weights))

    def _loss_of(self, cost: float) -> float:
        return cost

    def _stratifies(self) -> bool:
        return self.n_outputs_ == 1

    # ---------------------------------------------------------------- calibration

    def _holds_out(self) -> bool:
        return super()._holds_out() or self.calibration is not None

    def _why_held_out(self) -> str:
        return super()._why_held_out() if self.early_stopping else "calibration"

    def _trained(self, held: Rows | None) -> None:
        if hasattr(self, "temperature_"):
            del self.temperature_
        if self.calibration is None or held is None:
            return
        found = for_complete_rows(self, held)._probabilities(held.X)
        self.temperature_ = best_temperature(found, np.searchsorted(self.classes_, held.y), held.weights)

    def _calibrated(self, probabilities: HostArray) -> HostArray:
        temperature = getattr(self, "temperature_", None)
        return probabilities if temperature is None else scaled(probabilities, temperature)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
