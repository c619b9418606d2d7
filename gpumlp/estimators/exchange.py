"""Estimators in exchange with other libraries: each way out is through one network, which answers as the estimator."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from gpumlp import convert
from gpumlp.errors import ConfigurationError
from gpumlp.estimators.weights import LiveNetwork, take_weights
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel

PUBLISHED = (  # what a fit leaves behind in gpumlp's and scikit-learn's estimators alike
    "n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "out_activation_", "classes_", "_label_binarizer",
    "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "n_iter_", "t_",
    "_no_improvement_count",
)  # fmt: skip
LEARNED = ("coefs_", "intercepts_", "normalising_", "embeddings_")


class Exchange:
    """The ways of an estimator to other libraries and back."""

    def to_saved_model(self: Any) -> SavedModel:
        """Return the gpumlp.SavedModel that predicts as the estimator does: its temperature is in the last weights.

        Where a probability is exactly 1/2, a SavedModel answers with the second of two classes, the estimator with the
        first. Codes of embedded columns that are above those of the fit it refuses; unknown categories are -1.

        Raises   ConfigurationError for several labels a row, for one class alone, for missing="indicator", and for the
                 temperature of n_models > 1
        """
        net = exchanged_network(self)
        names = getattr(self, "feature_names_in_", None)
        return SavedModel(
            net,
            "classification" if is_classifier(self) else "regression",
            _single_labels(self) if is_classifier(self) else None,
            None if names is None else tuple(str(name) for name in names),
        )

    def save(self: Any, path: str | Path) -> Path:
        """Write the SavedModel to `path`, a .npz, for gpumlp.load and the command line; see to_saved_model."""
        return self.to_saved_model().save(path)  # type: ignore[no-any-return]

    def save_safetensors(self: Any, path: str | Path) -> Path:
        """Write the SavedModel as .safetensors; see to_saved_model and gpumlp.convert.save_safetensors."""
        return convert.save_safetensors(self.to_saved_model(), path)

    def to_onnx(self: Any, path: str | Path) -> Path:
        """Write the SavedModel as .onnx, of labels and probabilities or of numbers; see gpumlp.convert.to_onnx."""
        return convert.to_onnx(self.to_saved_model(), path)

    def to_torch(self: Any) -> Any:
        """Return a torch.nn.Sequential of the output activations, for several labels a row, too; see convert.to_torch.

        Of two classes it gives the probability of the second.
        """
        return convert.to_torch(exchanged_network(self))

    def to_sklearn(self: Any) -> Any:
        """Return scikit-learn's own estimator, fitted, with the same parameters where it has them.

        It predicts the same, several labels a row included, and goes on learning by partial_fit, with its own loss and
        an optimiser that begins anew.

        Raises   ConfigurationError for what it cannot express: several models, other activations, embeddings,
                 missing="indicator"
        """
        net = exchanged_network(self)
        theirs = _peer(type(self))
        _check_output(self, theirs)
        expressed = {"activation": convert.hidden_activation(net)}
        if "loss" in theirs().get_params():  # whatever cost trained it
            expressed["loss"] = "poisson" if self.out_activation_ == "exp" else "squared_error"
        fitted = theirs(**_shared_parameters(self, theirs) | expressed)
        fitted.coefs_, fitted.intercepts_ = take_weights(net)
        _publish(self, fitted)
        if getattr(self, "best_validation_score_", None) is not None:  # with warm_start it may come back to these
            fitted._best_coefs, fitted._best_intercepts = deepcopy((fitted.coefs_, fitted.intercepts_))
        return fitted

    @classmethod
    def from_sklearn(cls: Any, fitted: Any, **params: Any) -> Any:
        """Return an estimator with the parameters and what was learnt of scikit-learn's, which predicts the same.

        params   further parameters, backend="cuda" for one, or others in the place of theirs
        Raises   ConfigurationError for an object of another class, and for one that is not fitted
        """
        if not isinstance(fitted, _peer(cls)):
            raise ConfigurationError(f"{fitted!r} is no {_peer(cls).__name__} of scikit-learn; give a fitted one")
        if not hasattr(fitted, "coefs_"):
            raise ConfigurationError(f"{fitted!r} is not fitted; call its fit first")
        mlp = cls(**_shared_parameters(fitted, cls) | params)
        mlp.coefs_, mlp.intercepts_ = deepcopy((list(fitted.coefs_), list(fitted.intercepts_)))
        _publish(fitted, mlp)
        _, mlp._cost = mlp._output()
        mlp._live, mlp._progress, mlp._filling = LiveNetwork(), None, None
        return mlp

    @classmethod
    def from_torch(
        cls: Any, sequential: Any, output: str | None = None, classes: Sequence[Any] | None = None, **params: Any
    ) -> Any:
        """Return an estimator with the weights of a torch.nn.Sequential; see gpumlp.convert.from_torch.

        A classifier takes softmax outputs, one sigmoid for two classes, or several for as many labels a row.

        output   the activation that the loss brought: "softmax" for nn.CrossEntropyLoss, "sigmoid" for
                 nn.BCEWithLogitsLoss, "exp" for nn.PoissonNLLLoss; None: the one that is there, else identity
        classes  the label of each output, sorted; None: 0, 1, ...
        params   parameters of the estimator besides hidden_layer_sizes, activation, dropout, normalisation and those of
                 the cost
        Raises   ConfigurationError for a network that is none of these
        """
        net = convert.from_torch(sequential, output, backend="numpy")
        *hidden, last = net.architecture.activations
        mlp = cls(
            hidden_layer_sizes=tuple(net.sizes[1:-1]),
            activation=[activation.name for activation in hidden],
            dropout=list(net.dropout),
            normalisation=list(net.architecture.normalisation) if any(net.architecture.normalisation) else None,
            embeddings={e.column: e.n_units for e in net.architecture.embeddings} or None,
            **({} if is_classifier(cls()) or last.name != "exp" else {"loss": "poisson"}) | params,
        )
        mlp._take(net)
        if is_classifier(mlp):
            _set_classes(mlp, last.name, classes)
        elif classes is not None or last.name not in ("identity", "exp"):
            raise ConfigurationError(
                f"an MLPRegressor has identity or exp outputs and no classes; this network has {last.name}; see "
                "MLPClassifier.from_torch, or gpumlp.convert.from_torch for a Network of any output"
            )
        _begin_anew(mlp)
        return mlp


def exchanged_network(mlp: Any) -> Network:
    """Return a network of its own that answers as a fitted estimator does, a temperature made part of its weights.

    Raises   ConfigurationError for what stands before or behind the network and cannot be part of it
    """
    check_is_fitted(mlp)
    if mlp.missing == "indicator":
        raise ConfigurationError(
            'what missing="indicator" fills is no part of a network; fill before it, with '
            'sklearn.impute.SimpleImputer(add_indicator=True), train with missing="error" and keep both, or pickle '
            "this estimator"
        )
    own = copy(mlp)
    own._live = LiveNetwork()
    temperature = getattr(mlp, "temperature_", None)
    if temperature is not None:
        _check_temperature(mlp)
        own.coefs_, own.intercepts_ = (
            [*layers[:-1], layers[-1] / layers[-1].dtype.type(temperature)] for layers in (mlp.coefs_, mlp.intercepts_)
        )
    return own._build_network(0)  # type: ignore[no-any-return]


def _check_temperature(mlp: Any) -> None:
    """Raise ConfigurationError unless log-odds are differences of the last layer's sums, which can be divided."""
    if _is_stack(mlp) or (mlp.out_activation_ != "softmax" and mlp.n_outputs_ > 1):
        raise ConfigurationError(
            "the temperature of n_models > 1, or of several logistic outputs, divides what comes after the network and "
            "cannot become part of its weights; train with calibration=None, or pickle this estimator"
        )


def _is_stack(mlp: Any) -> bool:
    return bool(mlp.coefs_[0].ndim == 3)


def _single_labels(mlp: Any) -> Any:
    """Return the classes of a classifier that gives one of several labels to each row."""
    if mlp._label_binarizer.y_type_.startswith("multilabel"):
        raise ConfigurationError(
            "this MLPClassifier gives several labels to a row, a SavedModel gives one; use to_torch or to_sklearn, or "
            "fit one classifier for each label"
        )
    if len(mlp.classes_) < 2:
        raise ConfigurationError(
            f"this MLPClassifier knows the class {mlp.classes_.tolist()} alone, a SavedModel has two or more; train "
            "on rows of each"
        )
    return np.array(mlp.classes_.tolist())


# -------------------------------------------------------------------- scikit-learn


def _peer(cls: type) -> Any:
    """Return scikit-learn's class of the same kind."""
    return next(
        getattr(neural_network, each.__name__) for each in cls.__mro__ if hasattr(neural_network, each.__name__)
    )


def _shared_parameters(source: Any, cls: Any) -> dict[str, Any]:
    """Return copies of the parameters of an estimator that another class has, too."""
    known = cls().get_params()
    return {name: deepcopy(value) for name, value in source.get_params(deep=False).items() if name in known}


def _publish(source: Any, target: Any) -> None:
    """Copy from one fitted estimator to another what both have."""
    for name in PUBLISHED:
        if hasattr(source, name):
            setattr(target, name, deepcopy(getattr(source, name)))


def _check_output(mlp: Any, theirs: Any) -> None:
    """Raise ConfigurationError for several models, and for layers and outputs that scikit-learn's does not have."""
    if mlp.normalisation is not None:
        raise ConfigurationError(
            f"an {theirs.__name__} of scikit-learn normalises no layer, this estimator has "
            f"normalisation={mlp.normalisation!r}; use to_torch or to_onnx"
        )
    if mlp._embedded():
        raise ConfigurationError(
            f"an {theirs.__name__} of scikit-learn embeds no columns, this estimator does so with "
            f"{', '.join(str(e.column) for e in mlp._embedded())}; use to_torch or to_onnx"
        )
    if _is_stack(mlp):
        raise ConfigurationError(
            f"an {theirs.__name__} of scikit-learn is one network, this estimator has {len(mlp.coefs_[0])}; use "
            "to_onnx, or gpumlp.convert.to_sklearn(gpumlp.convert.one_of(mlp.to_saved_model(), 0))"
        )
    if is_classifier(mlp):
        expected = ["softmax" if mlp._label_binarizer.y_type_ == "multiclass" else "logistic"]
    else:
        expected = ["identity", *(["exp"] if "loss" in theirs().get_params() else [])]
    if mlp.out_activation_ not in expected:
        raise ConfigurationError(
            f"an {theirs.__name__} of scikit-learn has {' or '.join(expected)} outputs here, with cost={mlp.cost!r} "
            f"they are {mlp.out_activation_}; leave cost away, or use to_onnx"
        )


# -------------------------------------------------------------------- PyTorch


def _set_classes(mlp: Any, output: str, classes: Sequence[Any] | None) -> None:
    """Set the labels that a network's outputs stand for; two softmax outputs become the one logistic of two classes."""
    n_out = len(mlp.intercepts_[-1])
    if output not in ("softmax", "sigmoid") or (output == "softmax" and n_out < 2):
        raise ConfigurationError(
            f"an MLPClassifier has two or more softmax outputs, or sigmoid ones; this network has {n_out} x {output}; "
            'say output="softmax" or "sigmoid" if the loss of its training brought that'
        )
    if output == "sigmoid" and n_out > 1:
        if classes is not None and list(classes) != list(range(n_out)):
            raise ConfigurationError(
                f"{n_out} sigmoid outputs are labels that a row may have together, whose numbers are their classes; "
                "leave classes away"
            )
        mlp._label_binarizer = LabelBinarizer().fit(np.vstack([np.ones(n_out, int), np.zeros(n_out, int)]))
    else:
        labels = np.arange(max(n_out, 2)) if classes is None else np.asarray(classes)
        if labels.shape != (max(n_out, 2),) or not np.array_equal(np.unique(labels), labels):
            raise ConfigurationError(
                f"classes are {labels.tolist()!r}, expected {max(n_out, 2)} labels, each once and sorted, as the "
                "outputs are"
            )
        mlp._label_binarizer = LabelBinarizer().fit(labels)
    mlp.classes_ = mlp._label_binarizer.classes_
    if output == "softmax" and n_out == 2:  # softmax(z)[1] = sigmoid(z[1] - z[0])
        for layers in (mlp.coefs_, mlp.intercepts_):
            layers[-1] = layers[-1][..., 1:] - layers[-1][..., :1]


def _begin_anew(mlp: Any) -> None:
    """Set what an estimator has that was given weights and has not trained."""
    learned = {name: value for name, value in vars(mlp).items() if name in LEARNED}
    sizes, dtype = mlp._sizes(), mlp.coefs_[0].dtype
    mlp.n_features_in_, mlp.n_outputs_ = sizes[0], sizes[-1]
    mlp._begin(sizes, dtype, np.random.RandomState(0))
    vars(mlp).update(learned)
    mlp.loss_, mlp._filling = float("nan"), None
