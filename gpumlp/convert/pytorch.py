"""Networks to and from PyTorch's nn.Sequential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np

from gpumlp.convert.one_model import Layers, as_model, folded_layers, network_of, spelled_as
from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.normalisation import EPSILON
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.shapes import HostArray

COSTS = {"softmax": "categorical_cross_entropy", "sigmoid": "cross_entropy"}  # of an output; else quadratic
# our name -> their class, and its options from our parameters. Their softplus is linear from a threshold on, which lies
# where log(1 + exp(z)) and z are the same double
MODULES: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "sigmoid": ("Sigmoid", dict),
    "tanh": ("Tanh", dict),
    "relu": ("ReLU", dict),
    "leaky_relu": ("LeakyReLU", lambda slope=0.01: {"negative_slope": slope}),
    "elu": ("ELU", lambda alpha=1.0: {"alpha": alpha}),
    "selu": ("SELU", dict),
    "silu": ("SiLU", dict),
    "gelu": ("GELU", lambda: {"approximate": "tanh"}),
    "softplus": ("Softplus", lambda: {"threshold": 40.0}),
    "softsign": ("Softsign", dict),
    "hard_tanh": ("Hardtanh", dict),
    "mish": ("Mish", dict),
    "softmax": ("Softmax", lambda: {"dim": -1}),
}


STATE = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_variance": "running_var"}


def to_torch(model: SavedModel | Network) -> Any:
    """Return a torch.nn.Sequential, in evaluation mode, that gives the model's output activations.

    Each layer is nn.Linear, then nn.LayerNorm or nn.BatchNorm1d if it is normalised, then the module of its activation
    (none for identity), then nn.Dropout if it has any. The output activation is the last module: nn.Softmax(dim=-1) or
    nn.Sigmoid for probabilities; a loss that wants logits is given those of sequential[:-1]. The first module is
    gpumlp.convert.torch_embedding.EmbeddedColumns where columns are embedded. Scalers are folded into the weights, in
    the network's dtype: where a feature's mean is many deviations away from 0, float32 loses digits.

    Raises   BackendUnavailable without PyTorch; ConfigurationError for a stack and for activations it does not have
    """
    torch = _torch("to_torch")
    model = as_model(model)
    layers = folded_layers(model, "an nn.Sequential", normalises=True, embeds=True)
    dtype, net = getattr(torch, model.network.dtype.name), model.network
    modules = [_embedded(torch, net, dtype)] if net.architecture.embeddings else []
    behind = zip(net.architecture.activations, (*net.dropout, 0.0), (*net.normalising, {}), strict=True)
    for (W, b), (activation, rate, of_layer) in zip(layers, behind, strict=True):
        linear = torch.nn.Linear(W.shape[1], W.shape[0], dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        modules.append(linear)
        if of_layer:
            modules.append(_normalisation(torch, of_layer, dtype))
        if spelled_as(activation) != "identity":
            modules.append(_module(torch, activation))
        if rate:
            modules.append(torch.nn.Dropout(rate))
    return torch.nn.Sequential(*modules).eval()


def _embedded(torch: Any, net: Network, dtype: Any) -> Any:
    """Return the module that reads codes, with what a network has learned of them."""
    from gpumlp.convert.torch_embedding import EmbeddedColumns

    module = EmbeddedColumns(net.sizes[0], [astuple(each) for each in net.architecture.embeddings]).to(dtype)
    with torch.no_grad():
        for table, E in zip(module.tables, net.embeddings, strict=True):
            table.weight[:-1] = torch.from_numpy(E[0].copy())
    return module


def _normalisation(torch: Any, of_layer: dict[str, HostArray], dtype: Any) -> Any:
    """Return the module that normalises with what a hidden layer has."""
    values = {STATE[name]: torch.from_numpy(x[0].copy()) for name, x in of_layer.items()}
    kind = torch.nn.BatchNorm1d if "running_mean" in of_layer else torch.nn.LayerNorm
    module = kind(len(values["weight"]), eps=EPSILON, dtype=dtype)
    module.load_state_dict(values, strict=False)  # they also count their batches
    return module


def _module(torch: Any, activation: Activation) -> Any:
    name = spelled_as(activation)
    if name not in MODULES:
        raise ConfigurationError(
            f"PyTorch has no module for activation {activation.name}, only for identity, {', '.join(MODULES)}; "
            "train with one of these, or export to ONNX"
        )
    _, arguments, parameters = ACTIVATIONS.read(activation.name)
    kind, options = MODULES[name]
    return getattr(torch.nn, kind)(**options(*arguments, **parameters))


def from_torch(
    sequential: Any,
    output: str | None = None,
    cost: str | None = None,
    backend: str | None = "auto",
    device: str | None = None,
) -> Network:
    """Return the network that an nn.Sequential of nn.Linear, activations and nn.Dropout is, in its dtype.

    EmbeddedColumns, as to_torch makes them, may be its first module.

    output   the activation to put behind the last nn.Linear, where the loss brought it: "softmax" for
             nn.CrossEntropyLoss, "sigmoid" for nn.BCEWithLogitsLoss; None: the one that is there, else identity
    cost     None: the one matched with softmax or sigmoid, else quadratic
    Raises   BackendUnavailable without PyTorch; ConfigurationError, which names the module that does not fit
    """
    torch = _torch("from_torch")
    if not isinstance(sequential, torch.nn.Sequential):
        raise ConfigurationError(f"{type(sequential).__name__} is no torch.nn.Sequential; give one")
    embedded, modules = _embedded_first(list(sequential))
    layers, activations, rates = _read(torch, modules)
    if output is not None and activations[-1] != "identity":
        raise ConfigurationError(f"output={output!r}, but the last module is {activations[-1]} already; leave it away")
    last = output or activations[-1]
    if rates.pop():
        raise ConfigurationError("nn.Dropout stands behind the output; leave it away")
    net = network_of(
        layers, activations[:-1], last, cost or COSTS.get(last, "quadratic"), rates, backend, device, *_inputs(embedded)
    )
    for i, table in enumerate(embedded.tables if embedded is not None else ()):
        net.set_embedding(i, table.weight.detach().cpu().numpy()[:-1])
    return net


def _embedded_first(modules: list[Any]) -> tuple[Any, list[Any]]:
    """Return the module that reads codes, None without one, and the modules behind it."""
    from gpumlp.convert.torch_embedding import EmbeddedColumns

    return (modules[0], modules[1:]) if modules and isinstance(modules[0], EmbeddedColumns) else (None, modules)


def _inputs(embedded: Any) -> tuple[int | None, tuple[Embedding, ...]]:
    """Return how many columns there are, None for what the first layer says, and which are embedded."""
    if embedded is None:
        return None, ()
    return embedded.n_columns, tuple(Embedding(*each) for each in embedded.embeddings)


def _read(torch: Any, modules: list[Any]) -> tuple[Layers, list[str], list[float]]:
    """Return the layers, and the activation and the dropout rate behind each."""
    layers: Layers = []
    activations: list[str] = []
    rates: list[float] = []
    for place, module in enumerate(modules):
        if isinstance(module, torch.nn.Linear):
            layers.append(_linear(module))
            activations.append("")
            rates.append(0.0)
            continue
        name = None if isinstance(module, torch.nn.Dropout) else _name(torch, module, place)
        if not layers or rates[-1] or (name and activations[-1]):
            raise ConfigurationError(
                f"module {place}, {module!r}, stands where none of its kind is understood; expected nn.Linear, then "
                "one activation, then nn.Dropout"
            )
        if name is not None:
            activations[-1] = name
        else:
            activations[-1] = activations[-1] or "identity"
            rates[-1] = float(module.p)
    if not layers:
        raise ConfigurationError("the nn.Sequential has no nn.Linear; give one with at least one")
    return layers, [name or "identity" for name in activations], rates


def _linear(module: Any) -> tuple[Any, Any]:
    W = module.weight.detach().cpu()
    if str(W.dtype) not in ("torch.float32", "torch.float64"):
        raise ConfigurationError(
            f"{module!r} has weights of {W.dtype}, expected float32 or float64; call .float() first"
        )
    W = W.numpy()
    return W, np.zeros(len(W), W.dtype) if module.bias is None else module.bias.detach().cpu().numpy()


def _name(torch: Any, module: Any, place: int) -> str:
    """Return our name, with parameters, of an activation module."""
    nn = torch.nn
    for name, (kind, _) in MODULES.items():
        if type(module) is getattr(nn, kind) and _is_same(module):
            parameters = {"LeakyReLU": "negative_slope", "ELU": "alpha"}
            return f"{name}({float(getattr(module, parameters[kind]))})" if kind in parameters else name
    if isinstance(module, nn.Identity):
        return "identity"
    raise ConfigurationError(
        f"module {place}, {module!r}, is not understood; expected nn.Linear, nn.Dropout, nn.Identity, "
        f"{', '.join(f'nn.{kind}' for kind, _ in MODULES.values())}, with GELU in its tanh form and Softplus of beta 1"
    )


def _is_same(module: Any) -> bool:
    """Tell whether the options of a module leave it the function of our name."""
    kind = type(module).__name__
    if kind == "GELU":
        return bool(module.approximate == "tanh")
    if kind == "Softplus":
        return bool(module.beta == 1 and module.threshold >= 20)  # their default: 2e-9 away from ours
    if kind == "Hardtanh":
        return bool((module.min_val, module.max_val) == (-1, 1))
    return kind != "Softmax" or module.dim in (-1, 1)


def _torch(who: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(f"{who} needs PyTorch; pip install torch") from error
    return torch
