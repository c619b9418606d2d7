"""SavedModel: a network with all that turns raw rows into answers, in one file without pickles."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.atomic import replacing
from gpumlp.data import Standardiser
from gpumlp.errors import ConfigurationError, GpumlpError, ModelFileError
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.registry import UNIT
from gpumlp.formulas.term import Recording, record
from gpumlp.network.initialisers import initialiser_name
from gpumlp.network.network import Network
from gpumlp.network.parameters import ParameterLayout
from gpumlp.shapes import HostArray

NPY: Any = np.lib.format  # older NumPys do not tell its types

FORMAT = "gpumlp model"
VERSION = 1
HEADER = "header.json"
# what zipfile raises for an archive that is damaged, RuntimeError where a flipped bit says that it is encrypted
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError, ValueError)
MAX_HEADER = 16 * 2**20  # bytes; a header with a million feature names stays below


@dataclass
class SavedModel:
    """A trained network and what belongs to it.

    task             "classification" or "regression"
    classes          (n_classes,) the label of each output, sorted; None for regression
    feature_names    names of the columns of X, or None
    target_name      name of the target, or None
    scaler           what X was scaled with, or None
    target_scaler    what the targets of a regression were scaled with, or None
    """

    network: Network
    task: str
    classes: HostArray | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    scaler: Standardiser | None = None
    target_scaler: Standardiser | None = None

    def outputs(self, X: Any) -> HostArray:
        """Return the output activations for raw rows, (n_models, n_samples, out)."""
        found: HostArray = self.network.predict(
            X if self.scaler is None else self.scaler.transform(X, self.network.dtype)
        )
        return found

    def predict(self, X: Any) -> HostArray:
        """Return labels (n_samples,), or numbers (n_samples,) or (n_samples, out), for raw rows.

        The outputs of a stack are averaged.
        """
        mean = self.outputs(X).mean(axis=0)
        if self.task == "classification":
            assert self.classes is not None
            right, wrong = self.network.architecture.cost.labels
            several = mean.shape[1] > 1
            codes = mean.argmax(axis=1) if several else (mean[:, 0] >= (right + wrong) / 2).astype(int)
            labels: HostArray = self.classes[codes]
            return labels
        if self.target_scaler is not None:
            mean = self.target_scaler.inverse(mean)
        numbers: HostArray = mean[:, 0] if mean.shape[1] == 1 else mean
        return numbers

    def probabilities(self, X: Any) -> HostArray:
        """Return the probability of each class, (n_samples, n_classes), for raw rows of a classification.

        Several sigmoid outputs are divided by their sum.
        Raises   ConfigurationError for a regression, and for outputs that are no probabilities
        """
        if self.task != "classification":
            raise ConfigurationError("probabilities are defined for a classification; this model is a regression")
        activation = self.network.architecture.activations[-1]
        if activation.range not in UNIT:
            raise ConfigurationError(
                f"output activation {activation.name} gives numbers in {activation.range}, which are no probabilities; "
                "train with softmax or sigmoid outputs"
            )
        mean = self.outputs(X).mean(axis=0)
        if mean.shape[1] == 1:
            return np.column_stack([1 - mean, mean])
        shares: HostArray = mean if activation.row_wise else mean / mean.sum(axis=1, keepdims=True)
        return shares

    # ---------------------------------------------------------------- file

    def save(self, path: str | Path) -> Path:
        """Write the model to `path`, which gets the ending .npz if it has none; a file there is replaced in one step.

        Raises   ModelFileError if it cannot be written; the old file then stays as it was
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        check_names(self.network)
        content = self._content()
        try:
            with replacing(path) as file:
                file.write(content)
        except OSError as error:
            raise ModelFileError(f"cannot write {path}: {error.strerror}; choose another place") from error
        return path

    def _content(self) -> bytes:
        net = self.network
        header = {
            "format": FORMAT,
            "version": VERSION,
            "written_by": _own_version(),
            "sizes": list(net.sizes),
            "activations": [a.name for a in net.architecture.activations],
            "cost": net.architecture.cost.name,
            "dtype": net.dtype.name,
            "model_ids": list(net.model_ids),
            "seeds": list(net.seeds),
            "dropout": list(net.dropout),
            "normalisation": list(net.architecture.normalisation),
            "initialiser": initialiser_name(net.initialiser),
            "task": self.task,
            "classes": None if self.classes is None else self.classes.tolist(),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "target_name": self.target_name,
            "scaled": self.scaler is not None,
            "target_scaled": self.target_scaler is not None,
        }
        arrays = {}
        for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            arrays[f"W{l}"], arrays[f"b{l}"] = W, b
        for l, of_layer in enumerate(net.normalising):
            arrays |= {f"{name}{l}": array for name, array in of_layer.items()}
        for name, scaler in (("x", self.scaler), ("y", self.target_scaler)):
            if scaler is not None:
                arrays[f"{name}_mean"], arrays[f"{name}_scale"] = scaler.mean, scaler.scale
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(HEADER, json.dumps(header, indent=1))
            for name, array in arrays.items():
                member = io.BytesIO()
                NPY.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", member.getvalue())
        return stream.getvalue()


def check_names(net: Network) -> None:
    """Raise ModelFileError if a definition has the name of another one, which loading would take for it."""
    for a in net.architecture.activations:
        if a.name.partition("(")[0] in ACTIVATIONS and not a.row_wise:
            _expect_same(record(a.value, "z"), record(ACTIVATIONS.get(a.name).value, "z"), a.name)
    cost = net.architecture.cost
    if cost.name.partition("(")[0] in COSTS:
        _expect_same(record(cost.term, "a", "y"), record(COSTS.get(cost.name).term, "a", "y"), cost.name)


def _expect_same(own: Recording, registered: Recording, name: str) -> None:
    if own != registered:
        raise ModelFileError(
            f"{name!r} is not the registered definition of that name, which would be loaded instead; register it "
            "under a name of its own"
        )


def load(path: str | Path, backend: str | None = "auto", device: str | None = None) -> SavedModel:
    """Return the model in a file, checked tensor by tensor before any is read.

    Raises   ModelFileError if it is missing, damaged, from a newer version, or holds what does not fit
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            header = _read_header(archive, path)
            _check_size(archive, header, path)
            network = _build_network(header, path, backend, device)
            return _read_arrays(archive, header, network, path)
    except GpumlpError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read model {path}: {error.strerror or error}; check the path") from error
    except DAMAGE as error:
        raise ModelFileError(f"{path} is no gpumlp model, or is damaged ({error}); save it again") from error


def _read_header(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    names = archive.namelist()
    if HEADER not in names:
        raise ModelFileError(f"{path} is no gpumlp model: it has no {HEADER}; write one with `gpumlp train --save`")
    if len(names) != len(set(names)):
        raise ModelFileError(f"{path} holds two entries of one name; it is damaged or forged, save it again")
    if archive.getinfo(HEADER).file_size > MAX_HEADER:
        raise ModelFileError(f"{path}: {HEADER} is larger than {MAX_HEADER} bytes; it is damaged or forged")
    try:
        header = json.loads(archive.read(HEADER))
    except DAMAGE as error:
        raise ModelFileError(f"{path}: {HEADER} cannot be read ({error}); save the model again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(f"{path} is no gpumlp model: its header does not say so")
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION or version < 1:
        raise ModelFileError(
            f"{path} has format version {version}, gpumlp {_own_version()} reads versions up to {VERSION}; "
            f"it was written by gpumlp {header.get('written_by')}, install that or a newer one"
        )
    return header


def _check_size(archive: zipfile.ZipFile, header: dict[str, Any], path: Path) -> None:
    """Refuse a header that claims more parameters than the file holds, before memory is taken for them."""
    try:
        kinds = tuple(header.get("normalisation") or ())
        layout = ParameterLayout(tuple(int(n) for n in header["sizes"]), kinds)
        claimed = layout.n_trainable * len(header["model_ids"]) * np.dtype(header["dtype"]).itemsize
    except (KeyError, TypeError, ValueError):
        return  # `_build_network` says what is wrong with it
    held = sum(member.file_size for member in archive.infolist())
    if claimed > held:
        raise ModelFileError(f"{path}: the header claims {claimed} bytes of parameters, the file holds {held}")


def _build_network(header: dict[str, Any], path: Path, backend: str | None, device: str | None) -> Network:
    try:
        *hidden, output = header["activations"]
        network = Network(
            header["sizes"],
            activation=hidden,
            output=output,
            cost=header["cost"],
            initialiser=header["initialiser"] or "zeros",
            dropout=header["dropout"],
            normalisation=header.get("normalisation"),  # which files of earlier versions do not have
            dtype=header["dtype"],
            backend=backend,
            device=device,
            seed=header["seeds"],
            n_models=len(header["model_ids"]),
            model_ids=header["model_ids"],
        )
        if header["initialiser"] is None:
            network.initialiser = _unknown_initialiser
        return network
    except KeyError as error:
        raise ModelFileError(f"{path}: {HEADER} has no entry {error}; it is damaged, save the model again") from error
    except (TypeError, ValueError, MemoryError) as error:
        advice = "; register your own definitions before loading" if "unknown" in str(error) else ""
        raise ModelFileError(f"{path}: {HEADER} describes no network: {error}{advice}") from error


def _unknown_initialiser(generator: Any, n_out: int, n_in: int) -> Any:
    raise ConfigurationError(
        "this model was loaded, and was first initialised by a function of the user's own; set network.initialiser to "
        "that function before starting anew"
    )


def _read_arrays(archive: zipfile.ZipFile, header: dict[str, Any], net: Network, path: Path) -> SavedModel:
    """Set the network's parameters and return the model; each array's shape and dtype are checked before it is read."""
    expected: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        expected[f"W{l}"], expected[f"b{l}"] = (W.shape, net.dtype), (b.shape, net.dtype)
    normalising = [{f"{name}{l}": array.shape for name, array in of.items()} for l, of in enumerate(net.normalising)]
    expected |= {name: (shape, net.dtype) for of in normalising for name, shape in of.items()}
    for name, key, length in (("x", "scaled", net.sizes[0]), ("y", "target_scaled", net.sizes[-1])):
        if header.get(key):
            for part in ("mean", "scale"):
                expected[f"{name}_{part}"] = ((length,), np.dtype(np.float64))
    found = {name.removesuffix(".npy") for name in archive.namelist()} - {HEADER}
    if found != set(expected):
        missing, surplus = sorted(set(expected) - found), sorted(found - set(expected))
        raise ModelFileError(f"{path}: arrays missing {missing}, not expected {surplus}; it is damaged or forged")
    arrays = {name: _read_array(archive, name, *what, path) for name, what in expected.items()}
    for l in range(net.architecture.n_layers):
        net.set_weights(l, arrays[f"W{l}"], arrays[f"b{l}"])
    try:
        for l, of in enumerate(normalising):
            net.set_normalisation(l, **{name.removesuffix(str(l)): arrays[name] for name in of})
    except ConfigurationError as error:
        raise ModelFileError(f"{path}: {error}; it is damaged, save the model again") from error
    scalers = {
        name: Standardiser(arrays[f"{name}_mean"], arrays[f"{name}_scale"]) if f"{name}_mean" in arrays else None
        for name in ("x", "y")
    }
    names, classes, task = header.get("feature_names"), header.get("classes"), header.get("task")
    n_out = net.sizes[-1]
    if task not in ("classification", "regression") or (task == "classification") != (classes is not None):
        raise ModelFileError(f"{path}: task {task!r} with classes {classes!r}; it is damaged, save the model again")
    if names is not None and len(names) != net.sizes[0]:
        raise ModelFileError(f"{path}: {len(names)} feature names for {net.sizes[0]} features; it is damaged")
    if classes is not None and len(classes) != (n_out if n_out > 1 else 2):
        raise ModelFileError(f"{path}: {len(classes)} classes for {n_out} outputs; it is damaged")
    return SavedModel(
        net,
        task,
        None if classes is None else np.array(classes),
        None if names is None else tuple(str(n) for n in names),
        header.get("target_name"),
        scalers["x"],
        scalers["y"],
    )


def _read_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path
) -> HostArray:
    try:
        with archive.open(f"{name}.npy") as member:
            version = NPY.read_magic(member)
            reader = {(1, 0): NPY.read_array_header_1_0, (2, 0): NPY.read_array_header_2_0}[version]
            found_shape, _, found_dtype = reader(member)
        if (found_shape, found_dtype) != (shape, dtype):
            raise ModelFileError(
                f"{path}: {name} is {found_dtype} {found_shape}, the architecture needs {dtype} {shape}; it is damaged"
            )
        with archive.open(f"{name}.npy") as member:
            array: HostArray = NPY.read_array(member, allow_pickle=False)
    except GpumlpError:
        raise
    except DAMAGE as error:
        raise ModelFileError(f"{path}: array {name} cannot be read ({error}); save the model again") from error
    if not np.isfinite(array).all():
        raise ModelFileError(f"{path}: array {name} holds values that are not finite; train the model again")
    return array


def _own_version() -> str:
    import gpumlp

    return gpumlp.__version__
