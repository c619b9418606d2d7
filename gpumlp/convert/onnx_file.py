"""Models as .onnx: the layers as products, the activations as the operators that their formulas consist of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.convert.one_model import as_model, spelled_as, standardiser_of
from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.normalisation import EPSILON
from gpumlp.formulas.onnx_nodes import onnx_formula
from gpumlp.formulas.registry import UNIT
from gpumlp.formulas.term import record
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.saved_model.files import write_file
from gpumlp.saved_model.header import own_version
from gpumlp.shapes import HostArray

OPSET, IR_VERSION = 13, 7  # of 2020, which every runtime in use reads
LARGEST = 2**31 - 1  # bytes of a protobuf message


def to_onnx(model: SavedModel | Network, path: str | Path) -> Path:
    """Write a model as .onnx, in one step, and return the path.

    It takes "X" (rows, features), in the network's dtype and for any number of rows, and gives

    label           of a classification: (rows,), text or int64, true and false as 1 and 0
    probabilities   beside it: (rows, classes); "scores", the outputs themselves, where they are no probabilities
    variable        of a regression: (rows, outputs)

    as SavedModel.predict and probabilities do: scalers included, several models averaged, dropout left out.

    Raises   BackendUnavailable without the extra "onnx"; ConfigurationError for labels that are neither text nor whole
             numbers, and above 2 GiB; ModelFileError if it cannot be written
    """
    onnx = _onnx()
    graph = _Graph(onnx, as_model(model))
    content = graph.build()
    onnx.checker.check_model(content)
    return write_file(Path(path), content)


class _Graph:
    """Collects the nodes of a model in the order in which they compute, each on what the one before gives."""

    def __init__(self, onnx: Any, model: SavedModel) -> None:
        self.onnx, self.model, self.net, self.dtype = onnx, model, model.network, model.network.dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.outputs: list[Any] = []
        if self.net.parameters.theta.nbytes > LARGEST - 2**20:
            raise ConfigurationError(
                "the parameters take more than the 2 GiB of an ONNX file; export to safetensors, or one model of a "
                "stack: gpumlp.convert.one_of(model, 0)"
            )

    def build(self) -> bytes:
        """Return the content of the file."""
        now = self._embedded(self._scaled("X"))
        for l, activation in enumerate(self.net.architecture.activations):
            now = self._activated(self._normalised(self._layer(now, l), l), activation, f"a{l + 1}")
        if self.net.n_models > 1:
            now = self.add("ReduceMean", [now], "mean", axes=[0], keepdims=0)
        if self.model.task == "classification":
            self._label(now)
            self._shares(now)
        else:
            self._variable(now)
        helper = self.onnx.helper
        given = helper.make_tensor_value_info("X", self._type(), ["rows", self.net.sizes[0]])
        made = helper.make_model(
            helper.make_graph(self.nodes, "gpumlp", [given], self.outputs, self.constants),
            producer_name="gpumlp",
            producer_version=own_version(),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        names, target = self.model.feature_names, self.model.target_name
        facts = {"feature_names": names and json.dumps([str(name) for name in names]), "target_name": target}
        helper.set_model_props(made, {key: str(value) for key, value in facts.items() if value is not None})
        content: bytes = made.SerializeToString()
        return content

    # ---------------------------------------------------------------- parts

    def _scaled(self, X: str) -> str:
        """Take the mean away in two numbers, so that it loses nothing in float32, and divide."""
        scaler = standardiser_of(self.model, "an ONNX model of gpumlp")
        if scaler is None:
            return X
        mean, scale = scaler.mean, scaler.scale
        high = mean.astype(self.dtype)
        X = self.add("Sub", [X, self.constant("x_mean", high)], "x_less_mean")
        X = self.add("Sub", [X, self.constant("x_mean_rest", mean - high)], "x_centred")
        return self.add("Div", [X, self.constant("x_scale", scale)], "x_scaled")

    def _embedded(self, X: str) -> str:
        """Put learned numbers in place of each code, those of a stack as (n_models, rows, numbers)."""
        embeddings, parts, begin = self.net.architecture.embeddings, [], 0
        for i, (each, E) in enumerate(zip(embeddings, self.net.embeddings, strict=True)):
            parts += [self._columns(X, begin, each.column), self._looked_up(X, i, each, E)]
            begin = each.column + 1
        parts.append(self._columns(X, begin, self.net.sizes[0]))
        return self.add("Concat", [part for part in parts if part], "a0", axis=-1) if embeddings else X

    def _columns(self, X: str, begin: int, end: int) -> str:
        """Return some columns as they are, for each model of a stack; nothing where there are none."""
        if begin == end:
            return ""
        columns = self.constant(f"columns{begin}", np.arange(begin, end))
        found = self.add("Gather", [X, columns], f"numbers{begin}", axis=1)
        if self.net.n_models == 1:
            return found
        shape = self.constant(f"models{begin}", np.array([self.net.n_models, 1, 1]))
        return self.add("Expand", [found, shape], f"numbers{begin}_of_models")

    def _looked_up(self, X: str, i: int, embedding: Embedding, E: HostArray) -> str:
        """Return the rows of a table by their codes; behind the last one are zeros, for all that is no code."""
        unknown = self.constant(f"unknown{i}", np.array(float(embedding.n_categories)))
        code = self.add("Gather", [X, self.constant(f"column{i}", np.array(embedding.column))], f"code{i}", axis=1)
        whole = self.add("Equal", [code, self.add("Floor", [code], f"floor{i}")], f"whole{i}")
        least = self.add("GreaterOrEqual", [code, self.constant(f"first{i}", np.array(0.0))], f"least{i}")
        inside = self.add("And", [least, self.add("Less", [code, unknown], f"most{i}")], f"inside{i}")
        known = self.add("And", [whole, inside], f"known{i}")
        place = self.add("Where", [known, code, unknown], f"place{i}")
        number = self.add("Cast", [place], f"number{i}", to=self.onnx.TensorProto.INT64)
        table = np.concatenate([E, np.zeros_like(E[:, :1])], axis=1)
        alone = self.net.n_models == 1
        name = self.constant(f"E{i}", table[0] if alone else table)
        return self.add("Gather", [name, number], f"embedded{i}", axis=0 if alone else 1)

    def _layer(self, a: str, l: int) -> str:
        """Return z = a W^T + b: of one model with (rows, out) values, of a stack with (n_models, rows, out)."""
        W, b = self.net.weights[l].swapaxes(1, 2), self.net.biases[l][:, None]
        if self.net.n_models == 1:
            W, b = W[0], b[0, 0]
        product = self.add("MatMul", [a, self.constant(f"W{l}", W)], f"product{l}")
        return self.add("Add", [product, self.constant(f"b{l}", b)], f"z{l}")

    def _normalised(self, z: str, l: int) -> str:
        """Return u = gamma zhat + beta of a hidden layer that is normalised, with the running statistics of "batch"."""
        of_layer = dict(enumerate(self.net.normalising)).get(l)
        if not of_layer:
            return z
        of = {name: x[0] if self.net.n_models == 1 else x[:, None] for name, x in of_layer.items()}
        if "running_mean" in of:
            centred = self.add("Sub", [z, self.constant(f"mean{l}", of["running_mean"])], f"centred{l}")
            variance = self.constant(f"variance{l}", of["running_variance"])
        else:
            mean = self.add("ReduceMean", [z], f"mean{l}", axes=[-1], keepdims=1)
            centred = self.add("Sub", [z, mean], f"centred{l}")
            square = self.add("Mul", [centred, centred], f"square{l}")
            variance = self.add("ReduceMean", [square], f"variance{l}", axes=[-1], keepdims=1)
        floored = self.add("Add", [variance, self.constant(f"epsilon{l}", np.array(EPSILON))], f"floored{l}")
        zhat = self.add("Div", [centred, self.add("Sqrt", [floored], f"deviation{l}")], f"zhat{l}")
        scaled = self.add("Mul", [zhat, self.constant(f"gamma{l}", of["gamma"])], f"scaled{l}")
        return self.add("Add", [scaled, self.constant(f"beta{l}", of["beta"])], f"u{l}")

    def _activated(self, z: str, activation: Activation, name: str) -> str:
        if activation.row_wise:
            if spelled_as(activation) != "softmax":
                raise ConfigurationError(
                    f"activation {activation.name} couples the units of a row, and of those only softmax can be "
                    "exported; leave it to whoever reads the outputs"
                )
            return self.add("Softmax", [z], name, axis=-1)
        recording = record(activation.value, "z")
        if not recording.reads("z"):
            raise ConfigurationError(
                f"activation {activation.name} is the same for every z; such a layer needs no export"
            )
        formula = onnx_formula(recording, z, f"{name}_")
        for constant, value in formula.constants.items():
            self.constant(constant, np.array(value))
        for node in formula.nodes:
            self.add(node.operator, list(node.inputs), node.output)
        return formula.result

    def _label(self, mean: str) -> None:
        """Give the class of the largest output, or of the one output by its threshold."""
        if self.net.sizes[-1] > 1:
            code = self.add("ArgMax", [mean], "code", axis=1, keepdims=0)
        else:
            threshold = self.constant("threshold", np.array(sum(self.net.architecture.cost.labels) / 2))
            reached = self.add("GreaterOrEqual", [mean, threshold], "reached")
            column = self.add("Cast", [reached], "code_column", to=self.onnx.TensorProto.INT64)
            code = self.add("Squeeze", [column, self.constant("axis_1", np.array([1]))], "code")
        classes = labels_of(self.model)
        self.give(self.add("Gather", [self.constant("classes", classes), code], "label"), classes.dtype, ["rows"])

    def _shares(self, mean: str) -> None:
        activation, n_out = self.net.architecture.activations[-1], self.net.sizes[-1]
        if activation.range not in UNIT:
            self.give(self.add("Identity", [mean], "scores"), self.dtype, ["rows", n_out])
            return
        if n_out == 1:
            other = self.add("Sub", [self.constant("one", np.array(1.0)), mean], "other")
            self.add("Concat", [other, mean], "probabilities", axis=1)
        elif activation.row_wise:
            self.add("Identity", [mean], "probabilities")
        else:
            total = self.add("ReduceSum", [mean, self.constant("axis_1", np.array([1]))], "total", keepdims=1)
            self.add("Div", [mean, total], "probabilities")
        self.give("probabilities", self.dtype, ["rows", max(n_out, 2)])

    def _variable(self, mean: str) -> None:
        scaler = self.model.target_scaler
        if scaler is not None:
            mean = self.add("Mul", [mean, self.constant("y_scale", scaler.scale)], "y_scaled")
            mean = self.add("Add", [mean, self.constant("y_mean", scaler.mean)], "y_moved")
        self.give(self.add("Identity", [mean], "variable"), self.dtype, ["rows", self.net.sizes[-1]])

    # ---------------------------------------------------------------- words

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of what it gives."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: HostArray) -> str:
        """Add a constant, real numbers in the network's dtype, and return its name."""
        value = np.ascontiguousarray(value, self.dtype if value.dtype.kind == "f" else None).reshape(value.shape)
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def give(self, name: str, dtype: np.dtype[Any], shape: list[Any]) -> None:
        """Make a value an output of the graph."""
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self._type(dtype), shape))

    def _type(self, dtype: np.dtype[Any] | None = None) -> int:
        found: int = self.onnx.helper.np_dtype_to_tensor_dtype(self.dtype if dtype is None else dtype)
        return found


def labels_of(model: SavedModel) -> HostArray:
    """Return the classes as text objects or int64; raise ConfigurationError for any others."""
    assert model.classes is not None
    classes = np.asarray(model.classes)
    if classes.dtype.kind in "UO" and all(isinstance(label, str) for label in classes.tolist()):
        return classes.astype(object)
    if classes.dtype.kind in "biuf" and np.array_equal(classes, whole := classes.astype(np.int64)):
        return whole
    raise ConfigurationError(
        f"labels of an ONNX model are text or whole numbers, these are {classes.tolist()!r}; encode them first"
    )


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise BackendUnavailable('to_onnx needs onnx; pip install "gpumlp[onnx]"') from error
    return onnx
