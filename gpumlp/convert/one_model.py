"""One network out of whatever is given: with labels, out of a stack, with its scalers folded into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpumlp.data import Standardiser
from gpumlp.data.files import listed
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.normalisation import BATCH, EPSILON, LAYER
from gpumlp.formulas.registry import UNIT
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.saved_model.header import is_disguised
from gpumlp.shapes import HostArray

Layers = list[tuple[HostArray, HostArray]]  # W (out, in) and b (out,) of each layer


def as_model(model: SavedModel | Network) -> SavedModel:
    """Return a SavedModel itself, and a Network as one: a classification of 0, 1, ... if its outputs are shares."""
    if isinstance(model, SavedModel):
        return model
    if not isinstance(model, Network):
        raise ConfigurationError(f"{model!r} is neither a gpumlp.SavedModel nor a gpumlp.Network; give one of them")
    if model.architecture.activations[-1].range not in UNIT:
        return SavedModel(model, "regression")
    return SavedModel(model, "classification", np.arange(max(model.sizes[-1], 2)))


def one_of(model: SavedModel | Network, number: int) -> SavedModel:
    """Return one model of a stack by its place in it, from 0, as a model of its own."""
    saved = as_model(model)
    net = saved.network
    if not 0 <= number < net.n_models:
        raise ConfigurationError(f"model {number} does not exist; the stack has 0 to {net.n_models - 1}")
    return replace(saved, network=net.alone(number))


def folded_layers(model: SavedModel, purpose: str, normalises: bool = False, embeds: bool = False) -> Layers:
    """Return the layers of a single model in float64, standardisers made part of the first and the last one.

    W (x - mean) / scale + b = (W / scale) x + (b - (W / scale) mean), and the like for scaled targets.
    normalises   whether what is made can normalise; else what "batch" does with its running statistics becomes part of
                 the weights, too
    embeds       whether what is made can embed
    Raises       ConfigurationError for a stack, for scaled targets behind an output activation, for layers that are
                 normalised by "layer" and for embeddings where that cannot be said
    """
    net = model.network
    if net.architecture.embeddings and not embeds:
        numbers = listed(each.column for each in net.architecture.embeddings)
        raise ConfigurationError(
            f"{purpose} cannot embed codes of categories, as this model does in columns {numbers}; export to PyTorch, "
            "ONNX or safetensors"
        )
    if net.n_models > 1:
        raise ConfigurationError(
            f"{purpose} is one network, this is a stack of {net.n_models}; take one out of it: "
            "gpumlp.convert.one_of(model, 0)"
        )
    layers = [(W[0].astype(np.float64), b[0].astype(np.float64)) for W, b in zip(net.weights, net.biases, strict=True)]
    scaler = standardiser_of(model, purpose)
    if scaler is not None:
        W, b = layers[0]
        mean, scale = scaling_of_inputs(net, scaler)
        W = W / scale
        layers[0] = (W, b - W @ mean)
    if model.target_scaler is not None:
        if spelled_as(net.architecture.activations[-1]) != "identity":
            raise ConfigurationError(
                f"scaled targets behind the output activation {net.architecture.activations[-1].name} cannot become "
                f'part of the weights, and {purpose} has no scaler; export to ONNX, or train with output="identity"'
            )
        W, b = layers[-1]
        scale, mean = model.target_scaler.scale, model.target_scaler.mean
        layers[-1] = (W * scale[:, None], b * scale + mean)
    for l, kind in enumerate(() if normalises else net.architecture.normalisation):
        if kind == LAYER:
            raise ConfigurationError(
                f'{purpose} cannot normalise a layer over its units, as normalisation="layer" does; export to PyTorch '
                "or ONNX"
            )
        if kind == BATCH:
            layers[l] = _with_statistics(*layers[l], {name: x[0] for name, x in net.normalising[l].items()})
    return layers


def standardiser_of(model: SavedModel, purpose: str) -> Standardiser | None:
    """Return what the features are standardised with, if they are; raise ConfigurationError for another scaling."""
    if model.scaler is None or isinstance(model.scaler, Standardiser):
        return model.scaler
    raise ConfigurationError(
        f"{purpose} has no place for features scaled by {model.scaler.name}; train with --scale standardise, or export "
        "to safetensors"
    )


def scaling_of_inputs(net: Network, scaler: Standardiser) -> tuple[HostArray, HostArray]:
    """Return mean and scale of each number that the first layer reads: 0 and 1 of those that codes become.

    Raises   ConfigurationError for codes that are scaled
    """
    means, scales, begin = [], [], 0
    for each in net.architecture.embeddings:
        if scaler.mean[each.column] != 0 or scaler.scale[each.column] != 1:
            raise ConfigurationError(
                f"column {each.column} is embedded, but its codes are scaled; leave them as they are, with mean 0 and "
                "scale 1"
            )
        means += [scaler.mean[begin : each.column], np.zeros(each.n_units)]
        scales += [scaler.scale[begin : each.column], np.ones(each.n_units)]
        begin = each.column + 1
    return np.concatenate([*means, scaler.mean[begin:]]), np.concatenate([*scales, scaler.scale[begin:]])


def _with_statistics(W: HostArray, b: HostArray, of: dict[str, HostArray]) -> tuple[HostArray, HostArray]:
    """Return the layer that does what W, b and a normalisation with running statistics do one after another."""
    scale = of["gamma"] / np.sqrt(of["running_variance"].astype(np.float64) + EPSILON)
    return W * scale[:, None], (b - of["running_mean"]) * scale + of["beta"]


def spelled_as(activation: Activation) -> str:
    """Return the name of an activation, without parameters; none if its formula is not the registered one's."""
    return "" if is_disguised(activation) else activation.name.partition("(")[0]


def network_of(
    layers: Layers,
    hidden: list[str],
    output: str,
    cost: str,
    dropout: list[float] | float = 0.0,
    backend: str | None = "auto",
    device: str | None = None,
    n_columns: int | None = None,
    embeddings: Sequence[Embedding] = (),
    normalisation: Sequence[str | None] | None = None,
) -> Network:
    """Return a network with the given weights, in their dtype.

    n_columns   of X, where some are embedded; else as the first layer says
    """
    sizes = [n_columns or layers[0][0].shape[1], *(len(b) for _, b in layers)]
    net = Network(
        sizes,
        activation=hidden,
        output=output,
        cost=cost,
        dropout=dropout,
        dtype=layers[0][0].dtype.name,
        backend=backend,
        device=device,
        embeddings=embeddings,
        normalisation=normalisation,
    )
    for l, (W, b) in enumerate(layers):
        net.set_weights(l, W, b)
    return net
