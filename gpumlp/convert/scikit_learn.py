"""Models to and from scikit-learn's MLPClassifier and MLPRegressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.convert.one_model import Layers, as_model, folded_layers, network_of, spelled_as
from gpumlp.errors import ConfigurationError
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.shapes import HostArray

HIDDEN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}  # our name -> theirs
OUTPUTS = {"softmax": "softmax", "logistic": "sigmoid", "identity": "identity", "exp": "exp"}  # theirs -> ours
COSTS = {
    "softmax": "categorical_cross_entropy",
    "sigmoid": "cross_entropy",
    "identity": "quadratic",
    "exp": "poisson",
}
NAME = "a scikit-learn MLP"


def to_sklearn(model: SavedModel | Network, loss_curve: Sequence[float] = ()) -> Any:
    """Return a fitted MLPClassifier or MLPRegressor that predicts as the model does.

    It scores, is pickled, and goes on learning by partial_fit, with scikit-learn's own loss for its output. Scalers are
    folded into its weights, which then are float64; two softmax outputs become its one logistic output. Where both
    classes have a probability of exactly 1/2, it predicts the first.

    loss_curve   the cost after each epoch, for loss_curve_ and what depends on it; unknown without it
    Raises       ConfigurationError for what scikit-learn cannot express: a stack, other activations, one for each layer
    """
    model = as_model(model)
    layers = folded_layers(model, NAME)
    kind, layers, options = _classifier(model, layers) if model.task == "classification" else _regressor(model, layers)
    scaled = model.scaler is not None or model.target_scaler is not None
    dtype = np.dtype(np.float64) if scaled else model.network.dtype
    fitted = kind(hidden_layer_sizes=model.network.sizes[1:-1], activation=hidden_activation(model.network), **options)
    fitted.coefs_ = [np.ascontiguousarray(W.T, dtype) for W, _ in layers]
    fitted.intercepts_ = [b.astype(dtype) for _, b in layers]
    fitted.n_layers_, fitted.n_outputs_ = len(layers) + 1, len(layers[-1][1])
    fitted.n_features_in_ = model.network.sizes[0]
    if model.feature_names is not None:
        fitted.feature_names_in_ = np.array(model.feature_names, dtype=object)
    if model.classes is not None:
        _set_labels(fitted, model.classes)
    else:
        fitted.out_activation_ = spelled_as(model.network.architecture.activations[-1])
    _set_progress(fitted, loss_curve)
    return fitted


def hidden_activation(net: Network) -> str:
    """Return scikit-learn's name of the one activation of all hidden layers; raise ConfigurationError without one."""
    *hidden, _ = net.architecture.activations
    names = {a.name: HIDDEN.get(spelled_as(a)) for a in hidden}
    for name, theirs in names.items():
        if theirs is None:
            raise ConfigurationError(
                f"{NAME} has no activation {name}, only {', '.join(HIDDEN)}; train with one of these, or export to ONNX"
            )
    if len(names) > 1:
        raise ConfigurationError(
            f"{NAME} has one activation for all hidden layers, this model has {', '.join(names)}; train with one, or "
            "export to PyTorch or ONNX"
        )
    return next((theirs for theirs in names.values() if theirs), "relu")


def _classifier(model: SavedModel, layers: Layers) -> tuple[Any, Layers, dict[str, Any]]:
    """Return the class, the layers as it wants them, and what its constructor is given."""
    from sklearn.neural_network import MLPClassifier

    output = model.network.architecture.activations[-1]
    W, b = layers[-1]
    if spelled_as(output) == "sigmoid" and len(b) == 1:
        cost = model.network.architecture.cost
        if sum(cost.labels) != 1:
            raise ConfigurationError(
                f"an MLPClassifier tells two classes apart at an output of 1/2, this model, of cost {cost.name}, at "
                f"{sum(cost.labels) / 2:g}; train with cross_entropy, or export to ONNX"
            )
        return MLPClassifier, layers, {}
    if spelled_as(output) != "softmax" or len(b) < 2:
        raise ConfigurationError(
            f"an MLPClassifier has softmax outputs, or one sigmoid for two classes; this model has {len(b)} x "
            f"{output.name}; train with softmax, or export to ONNX"
        )
    if len(b) == 2:  # softmax(z)[1] = sigmoid(z[1] - z[0])
        layers = [*layers[:-1], (W[1:] - W[:1], b[1:] - b[:1])]
    return MLPClassifier, layers, {}


def _regressor(model: SavedModel, layers: Layers) -> tuple[Any, Layers, dict[str, Any]]:
    from sklearn.neural_network import MLPRegressor

    output = model.network.architecture.activations[-1]
    if spelled_as(output) == "identity":
        return MLPRegressor, layers, {}
    if spelled_as(output) == "exp" and "loss" in MLPRegressor().get_params():
        return MLPRegressor, layers, {"loss": "poisson"}
    raise ConfigurationError(
        f"an MLPRegressor has identity outputs, or with scikit-learn 1.7 or newer exp; this model has {output.name}; "
        "train with one of these, or export to ONNX"
    )


def _set_labels(fitted: Any, classes: HostArray) -> None:
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils.multiclass import type_of_target

    kind = type_of_target(classes)
    if kind not in ("binary", "multiclass") or not np.array_equal(np.unique(classes), classes):
        raise ConfigurationError(
            f"{NAME} has sorted classes that are text or whole numbers, these are {classes.tolist()!r}; give such ones"
        )
    fitted._label_binarizer = LabelBinarizer().fit(classes)
    fitted.classes_ = fitted._label_binarizer.classes_
    fitted.out_activation_ = "softmax" if kind == "multiclass" else "logistic"


def _set_progress(fitted: Any, loss_curve: Sequence[float]) -> None:
    """Set what tells of the training so far, and what partial_fit goes on from; the optimiser begins anew."""
    fitted.loss_curve_ = [float(loss) for loss in loss_curve]
    fitted.n_iter_, fitted.t_ = len(fitted.loss_curve_), 0
    fitted.loss_ = fitted.loss_curve_[-1] if fitted.loss_curve_ else np.nan
    fitted.best_loss_ = min(fitted.loss_curve_, default=np.inf)
    fitted.validation_scores_ = fitted.best_validation_score_ = None
    fitted._no_improvement_count = 0


def from_sklearn(fitted: Any, backend: str | None = "auto", device: str | None = None) -> SavedModel:
    """Return a fitted MLPClassifier or MLPRegressor as a model that predicts as it does, in its dtype.

    Raises   ConfigurationError for other objects, for one that is not fitted, and for several labels a row
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if not isinstance(fitted, MLPClassifier | MLPRegressor):
        raise ConfigurationError(f"{fitted!r} is no MLPClassifier or MLPRegressor of scikit-learn; give a fitted one")
    if not hasattr(fitted, "coefs_"):
        raise ConfigurationError(f"{fitted!r} is not fitted; call its fit first")
    classes = getattr(fitted, "classes_", None)
    if classes is not None and fitted._label_binarizer.y_type_.startswith("multilabel"):
        raise ConfigurationError(
            "this MLPClassifier gives several labels to a row, a SavedModel gives one; build a gpumlp.Network with "
            'output="sigmoid" and set_weights(l, coefs_[l].T, intercepts_[l])'
        )
    layers = [(np.asarray(W).T, np.asarray(b)) for W, b in zip(fitted.coefs_, fitted.intercepts_, strict=True)]
    output = OUTPUTS[fitted.out_activation_]
    hidden = [next(ours for ours, theirs in HIDDEN.items() if theirs == fitted.activation)] * (len(layers) - 1)
    names = getattr(fitted, "feature_names_in_", None)
    return SavedModel(
        network_of(layers, hidden, output, COSTS[output], backend=backend, device=device),
        "regression" if classes is None else "classification",
        None if classes is None else np.array(classes.tolist()),
        None if names is None else tuple(str(name) for name in names),
    )
