"""One checkpoint: a tree of plain values and arrays, as a .safetensors file with a checksum over every byte of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.atomic import replacing
from gpumlp.errors import CheckpointError, TensorsFileError
from gpumlp.tensors_file import TensorsFile, tensor_parts

FORMAT = "gpumlp checkpoint"
VERSION = 2
ENTRY, DIGEST = "gpumlp", "sha256"  # in the metadata: the tree as JSON; the checksum, taken with NO_DIGEST in its place
NO_DIGEST = "0" * 64
HEAD = 1  # which part of a file holds the checksum
TENSOR = "$tensor"  # {TENSOR: name} in the tree stands for an array
FEW = 256  # bytes
PIECE = 2**20  # bytes read at a time for the checksum


class DamagedCheckpoint(CheckpointError):
    """A file that is not what was written."""


def write_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write dicts, lists, plain values and arrays, so that `path` holds all of them or is as it was.

    Raises   OSError
    """
    arrays: dict[str, Any] = {}
    plain = _without_arrays({"format": FORMAT, "version": VERSION, **tree}, "", arrays)
    parts = tensor_parts({DIGEST: NO_DIGEST, ENTRY: json.dumps(plain)}, arrays)
    parts[HEAD] = parts[HEAD].replace(NO_DIGEST.encode(), _digest(parts).encode(), 1)
    with replacing(path) as file:
        file.writelines(parts)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what was written, lists for tuples; its arrays cannot be written into.

    Raises   DamagedCheckpoint if a byte has changed; CheckpointError if a newer version wrote it; OSError
    """
    with path.open("rb") as file:
        try:
            tensors = TensorsFile(path, file)
        except TensorsFileError as error:
            raise DamagedCheckpoint(str(error)) from error
        _check_digest(tensors, file)
        tree = json.loads(tensors.metadata[ENTRY])
        if tree["version"] > VERSION:
            raise CheckpointError(
                f"{path} has format version {tree['version']}, this gpumlp reads versions up to {VERSION}; install a "
                "newer one"
            )
        found: dict[str, Any] = _with_arrays(tree, tensors)
        return found


def _check_digest(tensors: TensorsFile, file: BinaryIO) -> None:
    metadata = tensors.metadata
    claimed = metadata.get(DIGEST) if isinstance(metadata, dict) else None
    if not (isinstance(claimed, str) and len(claimed) == len(NO_DIGEST) and ENTRY in metadata):
        raise DamagedCheckpoint(f"{tensors.path} is no checkpoint: it has no checksum")
    file.seek(0)
    head = file.read(tensors.start).replace(claimed.encode(), NO_DIGEST.encode(), 1)
    if _digest([head, *iter(lambda: file.read(PIECE), b"")]) != claimed:
        raise DamagedCheckpoint(f"{tensors.path}: its checksum is another one; it is damaged")


def _digest(parts: Iterable[Any]) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _without_arrays(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return a tree for JSON, and put its arrays into `arrays` by their place in it."""
    if isinstance(value, dict):
        return {key: _without_arrays(inner, f"{name}/{key}", arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(inner, f"{name}/{i}", arrays) for i, inner in enumerate(value)]
    if isinstance(value, np.ndarray):
        # several copies of the weights are often the same: the present, the best, the last finite ones
        name = next((other for other, array in arrays.items() if _is_same(array, value)), name)
        arrays[name] = value
        return {TENSOR: name}
    return value.item() if isinstance(value, np.generic) else value


def _is_same(x: Any, y: Any) -> bool:
    """Tell whether two arrays have the same bytes; a look at the first few tells most others apart."""
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    a, b = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (x, y))
    return np.array_equal(a[:FEW], b[:FEW]) and np.array_equal(a, b)


def _with_arrays(value: Any, tensors: TensorsFile) -> Any:
    """Return a tree with its arrays in their places."""
    if isinstance(value, list):
        return [_with_arrays(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {TENSOR}:
        return tensors.array(value[TENSOR])
    return {key: _with_arrays(inner, tensors) for key, inner in value.items()}
