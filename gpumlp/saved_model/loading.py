"""From a file to a model: every claim of the header is checked, tensor by tensor, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpumlp.data import Encoding, Scaler, Standardiser, scaler_named
from gpumlp.data.files import listed, one_line, shortened
from gpumlp.data.limits import LARGER, expect_room
from gpumlp.errors import ConfigurationError, DataError, GpumlpError, ModelFileError, readable_bytes
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.network.parameters import ParameterLayout
from gpumlp.saved_model.files import expect_model_file
from gpumlp.saved_model.model import SavedModel
from gpumlp.saved_model.npz import DAMAGE, NpzFile
from gpumlp.shapes import HostArray


class TensorFile(Protocol):
    """An open file of arrays with a header, of any format.

    path    where it is
    place   what the header is called in it
    """

    path: Path
    place: str

    def header(self) -> dict[str, Any]:
        """Return the header, checked by `read_header`."""

    def names(self) -> set[str]:
        """Return the names of the arrays."""

    def n_bytes(self) -> int:
        """Return how many bytes the arrays take at most, unpacked."""

    def read(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
        """Return an array; raise ModelFileError, before its values are read, if it is of another shape or dtype."""


def load(path: str | Path, backend: str | None = "auto", device: str | None = None) -> SavedModel:
    """Return the model in a .npz file, checked tensor by tensor before any is read.

    Raises   ModelFileError if it is missing, damaged, from a newer version, or holds what does not fit
    """
    path = Path(path)
    try:
        expect_model_file(path)
        with NpzFile(path) as file:
            return restore(file, backend, device)
    except GpumlpError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read model {path}: {error.strerror or error}; check the path") from error
    except DAMAGE as error:
        raise ModelFileError(f"{path} is no gpumlp model, or is damaged ({one_line(error)}); save it again") from error


def restore(file: TensorFile, backend: str | None, device: str | None) -> SavedModel:
    """Return the model in an open file; raise ModelFileError for whatever does not fit."""
    header = file.header()
    _check_size(file, header)
    network = _build_network(file, header, backend, device)
    arrays = _read_arrays(file, header, network)
    for l in range(network.architecture.n_layers):
        network.set_weights(l, arrays[f"W{l}"], arrays[f"b{l}"])
    for i in range(len(network.architecture.embeddings)):
        network.set_embedding(i, arrays[f"E{i}"])
    with damage_told(file.path):
        for l, of_layer in enumerate(network.normalising):
            network.set_normalisation(l, **{name: arrays[f"{name}{l}"] for name in of_layer})
    return _furnish(file, header, network, arrays)


def _check_size(file: TensorFile, header: dict[str, Any]) -> None:
    """Refuse a header that claims more parameters than the file holds."""
    try:
        kinds = tuple(header.get("normalisation") or ())
        layout = ParameterLayout(tuple(int(n) for n in header["sizes"]), kinds, embeddings=_embeddings(header))
        claimed = layout.n_trainable * len(header["model_ids"]) * np.dtype(header["dtype"]).itemsize
    except (LookupError, TypeError, ValueError, OverflowError, SyntaxError):
        return  # `_build_network` says what is wrong with it
    held = file.n_bytes()
    if claimed > held:
        raise ModelFileError(
            f"{file.path}: the header claims {readable_bytes(claimed)} of parameters, the file holds at most "
            f"{readable_bytes(held)}; it is damaged or forged, save the model again"
        )
    try:
        expect_room(claimed, "the parameters", LARGER)
    except DataError as error:
        raise ModelFileError(f"{file.path}: {error}") from error


def _build_network(file: TensorFile, header: dict[str, Any], backend: str | None, device: str | None) -> Network:
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
            embeddings=_embeddings(header),
        )
        if header["initialiser"] is None:
            network.initialiser = _unknown_initialiser
        return network
    except KeyError as error:
        raise ModelFileError(
            f"{file.path}: {file.place} has no entry {error}; it is damaged, save the model again"
        ) from error
    except (TypeError, ValueError, MemoryError, OverflowError, RecursionError) as error:
        advice = "register your own definitions before loading" if "unknown" in str(error) else "save the model again"
        raise ModelFileError(
            f"{file.path}: {file.place} describes no network: {shortened(str(error), 300)}; {advice}"
        ) from error


def _embeddings(header: dict[str, Any]) -> tuple[Embedding, ...]:
    """Return the embeddings that a header claims; raise ValueError for what are none."""
    found = header.get("embeddings", [])  # which files of earlier versions do not have
    if not isinstance(found, list) or not all(
        isinstance(each, list) and len(each) == 3 and all(type(n) is int and n >= 0 for n in each) for each in found
    ):
        raise ValueError(
            f"embeddings are {shortened(repr(found))}, expected a column, its categories and its units of each"
        )
    return tuple(Embedding(*each) for each in found)


def _unknown_initialiser(generator: Any, n_out: int, n_in: int) -> Any:
    raise ConfigurationError(
        "this model was loaded, and was first initialised by a function of the user's own; set network.initialiser to "
        "that function before starting anew"
    )


def _read_arrays(file: TensorFile, header: dict[str, Any], net: Network) -> dict[str, HostArray]:
    """Return the arrays that the network and its scalers need, all finite; the file must hold these and no others."""
    expected: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        expected[f"W{l}"], expected[f"b{l}"] = (W.shape, net.dtype), (b.shape, net.dtype)
    expected |= {f"E{i}": (E.shape, net.dtype) for i, E in enumerate(net.embeddings)}
    for l, of_layer in enumerate(net.normalising):
        expected |= {f"{name}{l}": (array.shape, net.dtype) for name, array in of_layer.items()}
    for name, (kind, of_scaling, length) in _scalings(file, header, net).items():
        with damage_told(file.path):
            expected |= {f"{name}_{part}": what for part, what in kind.layout(of_scaling, length).items()}
    found = file.names()
    if found != set(expected):
        missing, surplus = sorted(set(expected) - found), sorted(found - set(expected))
        raise ModelFileError(
            f"{file.path}: arrays missing [{quoted(missing)}], not expected [{quoted(surplus)}]; "
            "it is damaged or forged"
        )
    arrays = {name: file.read(name, *what) for name, what in expected.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"{file.path}: array {name} holds values that are not finite; train the model again")
    return arrays


def quoted(names: list[str]) -> str:
    """List the names of arrays, the first few of many."""
    return listed(repr(shortened(name)) for name in names)


def _furnish(file: TensorFile, header: dict[str, Any], net: Network, arrays: dict[str, HostArray]) -> SavedModel:
    """Return the network with its labels, names and scalers, if they fit it."""
    names, classes, task = header.get("feature_names"), header.get("classes"), header.get("task")
    path, n_out = file.path, net.sizes[-1]
    if task not in ("classification", "regression") or (task == "classification") != (classes is not None):
        raise ModelFileError(f"{path}: task {task!r} with classes {classes!r}; it is damaged, save the model again")
    for key, several in (("feature_names", names), ("classes", classes)):
        plain = isinstance(several, list) and all(isinstance(value, str | int | float) for value in several)
        if several is not None and not plain:
            raise ModelFileError(
                f"{path}: {key} are {shortened(repr(several))}, expected a list of plain values; it is damaged"
            )
    if names is not None and len(names) != net.sizes[0]:
        raise ModelFileError(f"{path}: {len(names)} feature names for {net.sizes[0]} features; it is damaged")
    if classes is not None and len(set(classes)) != len(classes):
        raise ModelFileError(f"{path}: classes are {shortened(repr(classes))}, expected distinct ones; it is damaged")
    if classes is not None and len(classes) != (n_out if n_out > 1 else 2):
        raise ModelFileError(f"{path}: {len(classes)} classes for {n_out} outputs; it is damaged")
    target_name = header.get("target_name")
    if not isinstance(target_name, str | None):
        raise ModelFileError(f"{path}: target_name is {target_name!r}, expected a text; it is damaged")
    scalers: dict[str, Any] = {}
    for name, (kind, of_scaling, length) in _scalings(file, header, net).items():
        with damage_told(path, f"{name}_"):
            scalers[name] = kind.restored({part: arrays[f"{name}_{part}"] for part in kind.layout(of_scaling, length)})
    columns = None
    if "columns" in header:
        with damage_told(path):
            columns = Encoding.restored(header["columns"])
        if names is None or list(columns.feature_names) != names:
            raise ModelFileError(f"{path}: feature_names are not those of its columns; it is damaged, save it again")
        embedded = [(each.column, each.n_categories) for each in net.architecture.embeddings]
        if list(columns.codes.values()) != embedded:
            raise ModelFileError(f"{path}: its columns of codes are not those embedded; it is damaged, save it again")
    return SavedModel(
        net,
        task,
        None if classes is None else np.array(classes),
        None if names is None else tuple(str(n) for n in names),
        target_name,
        scalers.get("x"),
        scalers.get("y"),
        columns,
    )


def _scalings(
    file: TensorFile, header: dict[str, Any], net: Network
) -> dict[str, tuple[type[Scaler], dict[str, Any], int]]:
    """Return kind, header and number of features of the scalings that a file has, by the first letter of its arrays."""
    found: dict[str, tuple[type[Scaler], dict[str, Any], int]] = {}
    if header.get("scaled"):
        of_x = header.get("scaling", {"kind": Standardiser.name})  # which files of version 1 do not have
        with damage_told(file.path):
            if not isinstance(of_x, dict):
                raise DataError(f"scaling is {shortened(repr(of_x))}, expected its kind and more")
            found["x"] = scaler_named(str(of_x.get("kind"))), of_x, net.sizes[0]
    if header.get("target_scaled"):
        found["y"] = Standardiser, {}, net.sizes[-1]
    return found


@contextmanager
def damage_told(path: Path, what: str = "") -> Iterator[None]:
    """Turn what does not fit into a ModelFileError that begins with the file's name, and with that of `what` in it."""
    try:
        yield
    except (ConfigurationError, DataError) as error:
        raise ModelFileError(f"{path}: {what}{error}; it is damaged, save the model again") from error
