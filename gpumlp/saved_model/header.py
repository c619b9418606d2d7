"""The header of a model file: all that is no array, as plain JSON; and the arrays' names."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpumlp.data import Standardiser
from gpumlp.errors import ModelFileError, readable_bytes
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS, Cost
from gpumlp.formulas.term import record
from gpumlp.network.initialisers import initialiser_name
from gpumlp.network.network import Network
from gpumlp.saved_model.files import unreadable
from gpumlp.shapes import HostArray

if TYPE_CHECKING:
    from gpumlp.saved_model.model import SavedModel

FORMAT = "gpumlp model"
# 2 says more of how rows become features: a scaling by quantiles, categorical columns; 3 has embeddings
VERSION = 3
MAX_HEADER = 32 * 2**20  # bytes; a header with a million names or categories of 20 letters stays below


def header_of(model: SavedModel) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays; raise ModelFileError for what it cannot say."""
    net = model.network
    if net.is_mixed:
        raise ModelFileError(
            f"a model file holds models that are alike, this is a stack of {len(net.runs)} kinds; save them one by "
            "one: gpumlp.convert.one_of(model, 0)"
        )
    check_names(net)
    preparation, embeddings = _preparation(model), [astuple(each) for each in net.architecture.embeddings]
    return {
        "format": FORMAT,
        "version": VERSION if embeddings else 2 if preparation else 1,  # so that earlier ones read what they can
        "written_by": own_version(),
        "sizes": list(net.sizes),
        "activations": [a.name for a in net.architecture.activations],
        "cost": net.architecture.cost.name,
        "dtype": net.dtype.name,
        "model_ids": list(net.model_ids),
        "seeds": list(net.seeds),
        "dropout": list(net.dropout),
        "normalisation": list(net.architecture.normalisation),
        "initialiser": initialiser_name(net.initialiser),
        "task": model.task,
        "classes": None if model.classes is None else model.classes.tolist(),
        "feature_names": None if model.feature_names is None else list(model.feature_names),
        "target_name": model.target_name,
        "scaled": model.scaler is not None,
        "target_scaled": model.target_scaler is not None,
        **preparation,
        **({"embeddings": embeddings} if embeddings else {}),
    }


def _preparation(model: SavedModel) -> dict[str, Any]:
    """Return what version 1 cannot say of how rows become features."""
    found: dict[str, Any] = {}
    if model.scaler is not None and not isinstance(model.scaler, Standardiser):
        found["scaling"] = model.scaler.header()
    if model.columns is not None:
        found["columns"] = model.columns.header()
    return found


def arrays_of(model: SavedModel) -> dict[str, HostArray]:
    """Return the arrays of a model by the names they have in a file."""
    arrays = {}
    for l, (W, b) in enumerate(zip(model.network.weights, model.network.biases, strict=True)):
        arrays[f"W{l}"], arrays[f"b{l}"] = W, b
    arrays |= {f"E{i}": E for i, E in enumerate(model.network.embeddings)}
    for l, of_layer in enumerate(model.network.normalising):
        arrays |= {f"{name}{l}": array for name, array in of_layer.items()}
    for name, scaler in (("x", model.scaler), ("y", model.target_scaler)):
        if scaler is not None:
            arrays |= {f"{name}_{part}": array for part, array in scaler.arrays().items()}
    return arrays


def spelled_header(header: dict[str, Any], indent: int | None = None) -> str:
    """Return a header as JSON; raise ModelFileError if it is longer than any that is read."""
    text = json.dumps(header, indent=indent)
    if len(text) > MAX_HEADER:
        raise ModelFileError(
            f"the names of the features and their categories take {readable_bytes(len(text))}, a model file holds at "
            f"most {readable_bytes(MAX_HEADER)} of them; drop the columns in which nearly each row has its own"
        )
    return text


def read_header(text: bytes | str, place: str, path: Path) -> dict[str, Any]:
    """Return the header that a file holds as JSON at `place`; raise ModelFileError unless this version can read it."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, place, error) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} is no gpumlp model: its header does not say so; write one with `gpumlp train --save`"
        )
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION or version < 1:
        raise ModelFileError(
            f"{path} has format version {version!r}, gpumlp {own_version()} reads versions up to {VERSION}; "
            f"it was written by gpumlp {header.get('written_by')}, install that or a newer one"
        )
    return header


def check_names(net: Network) -> None:
    """Raise ModelFileError if a definition has the name of another one, which loading would take for it."""
    definitions: list[Activation | Cost] = [*net.architecture.activations, net.architecture.cost]
    for definition in definitions:
        if is_disguised(definition):
            raise ModelFileError(
                f"{definition.name!r} is not the registered definition of that name, which would be loaded instead; "
                "register it under a name of its own"
            )


def is_disguised(definition: Activation | Cost) -> bool:
    """Tell whether a definition has a registered name and another formula."""
    base = definition.name.partition("(")[0]
    if isinstance(definition, Cost):
        return base in COSTS and record(definition.term, "a", "y") != record(COSTS.get(definition.name).term, "a", "y")
    if definition.row_wise or base not in ACTIVATIONS:
        return False
    return record(definition.value, "z") != record(ACTIVATIONS.get(definition.name).value, "z")


def own_version() -> str:
    """Return the version of gpumlp."""
    import gpumlp

    return gpumlp.__version__
