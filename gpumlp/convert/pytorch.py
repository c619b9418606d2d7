"""Networks to and from PyTorch's nn.Sequential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from gpumlp.convert.one_model import as_model, folded_layers, network_of, spelled_as
from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.normalisation import BATCH, EPSILON, LAYER
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


NORMALISING = {LAYER: "LayerNorm", BATCH: "BatchNorm1d"}
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
    kind = BATCH if "running_mean" in of_layer else LAYER
    module = getattr(torch.nn, NORMALISING[kind])(len(values["weight"]), eps=EPSILON, dtype=dtype)
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


@dataclass
class Layer:
    """What is read of a layer's modules.

    norm        nn.LayerNorm or nn.BatchNorm1d, None without one
    activation  our name of it; "" as long as none has come
    rate        of nn.Dropout
    """

    W: HostArray
    b: HostArray
    norm: Any = None
    activation: str = ""
    rate: float = 0.0


def from_torch(
    sequential: Any,
    output: str | None = None,
    cost: str | None = None,
    backend: str | None = "auto",
    device: str | None = None,
) -> Network:
    """Return the network that an nn.Sequential is, in its dtype.

    Each layer is nn.Linear, then nn.LayerNorm or nn.BatchNorm1d in hidden layers, an activation and nn.Dropout, as far
    as it has them. EmbeddedColumns, as to_torch makes them, may be the first module. Trained further here, running
    statistics follow by a tenth, whatever the momentum of nn.BatchNorm1d.

    output   the activation to put behind the last nn.Linear, where the loss brought it: "softmax" for
             nn.CrossEntropyLoss, "sigmoid" for nn.BCEWithLogitsLoss; None: the one that is there, else identity
    cost     None: the one matched with softmax or sigmoid, else quadratic
    Raises   BackendUnavailable without PyTorch; ConfigurationError, which names the module that does not fit
    """
    torch = _torch("from_torch")
    if not isinstance(sequential, torch.nn.Sequential):
        raise ConfigurationError(f"{type(sequential).__name__} is no torch.nn.Sequential; give one")
    embedded, modules = _embedded_first(list(sequential))
    *hidden, last = layers = _read(torch, modules)
    if output is not None and last.activation != "identity":
        raise ConfigurationError(f"output={output!r}, but the last module is {last.activation} already; leave it away")
    if last.rate:
        raise ConfigurationError("nn.Dropout stands behind the output; leave it away")
    if last.norm is not None:
        raise ConfigurationError(f"{last.norm!r} stands behind the output, of which no layer is normalised")
    f = output or last.activation
    net = network_of(
        [(layer.W, layer.b) for layer in layers],
        [layer.activation for layer in hidden],
        f,
        cost or COSTS.get(f, "quadratic"),
        [layer.rate for layer in hidden],
        backend,
        device,
        *_inputs(embedded),
        [_kind(torch, layer.norm) for layer in hidden],
    )
    for i, table in enumerate(embedded.tables if embedded is not None else ()):
        net.set_embedding(i, _values(table.weight)[:-1])
    for l, layer in enumerate(hidden):
        if layer.norm is not None:
            there = {name: getattr(layer.norm, theirs, None) for name, theirs in STATE.items()}
            net.set_normalisation(l, **{name: _values(x) for name, x in there.items() if x is not None})
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


def _read(torch: Any, modules: list[Any]) -> list[Layer]:
    """Return what the modules are, layer by layer."""
    layers: list[Layer] = []
    for place, module in enumerate(modules):
        if isinstance(module, torch.nn.Linear):
            layers.append(Layer(*_linear(module)))
            continue
        kind = _kind(torch, module)
        name = None if kind or isinstance(module, torch.nn.Dropout) else _name(torch, module, place)
        last = layers[-1] if layers else None
        if last is None or last.rate or (name and last.activation) or (kind and (last.activation or last.norm)):
            raise ConfigurationError(
                f"module {place}, {module!r}, stands where none of its kind is understood; expected nn.Linear, then "
                "nn.LayerNorm or nn.BatchNorm1d, then one activation, then nn.Dropout"
            )
        if kind:
            last.norm = _checked(torch, module, place, len(last.b))
        elif name is not None:
            last.activation = name
        else:
            last.activation, last.rate = last.activation or "identity", float(module.p)
    if not layers:
        raise ConfigurationError("the nn.Sequential has no nn.Linear; give one with at least one")
    for layer in layers:
        layer.activation = layer.activation or "identity"
    return layers


def _kind(torch: Any, module: Any) -> str | None:
    """Return how a module normalises, None if it does not."""
    return next((kind for kind, name in NORMALISING.items() if type(module) is getattr(torch.nn, name)), None)


def _checked(torch: Any, module: Any, place: int, n_units: int) -> Any:
    """Return a module that normalises; raise ConfigurationError if gpumlp normalises otherwise."""
    shape = (module.num_features,) if isinstance(module, torch.nn.BatchNorm1d) else tuple(module.normalized_shape)
    if shape != (n_units,) or module.eps != EPSILON or getattr(module, "running_mean", module) is None:
        raise ConfigurationError(
            f"module {place}, {module!r}, normalises otherwise than a layer here; expected {n_units} units, "
            f"eps={EPSILON} and, of nn.BatchNorm1d, running statistics"
        )
    _check_dtype(module, *(getattr(module, theirs, None) for theirs in STATE.values()))
    return module


def _check_dtype(module: Any, *values: Any) -> None:
    """Raise ConfigurationError unless what a module has is of a dtype that networks have."""
    for x in values:
        if x is not None and str(x.dtype) not in ("torch.float32", "torch.float64"):
            raise ConfigurationError(
                f"{module!r} has weights of {x.dtype}, expected float32 or float64; call .float() first"
            )


def _values(x: Any) -> HostArray:
    found: HostArray = x.detach().cpu().numpy()
    return found


def _linear(module: Any) -> tuple[HostArray, HostArray]:
    _check_dtype(module, module.weight, module.bias)
    W = _values(module.weight)
    return W, np.zeros(len(W), W.dtype) if module.bias is None else _values(module.bias)


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
        f"module {place}, {module!r}, is not understood; expected nn.Linear, nn.LayerNorm, nn.BatchNorm1d, nn.Dropout, "
        "nn.Identity, "
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
