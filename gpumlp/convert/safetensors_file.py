"""Models as .safetensors: the length of a JSON head, the head, then the arrays one behind the other.

Written and read here without a further library; https://github.com/huggingface/safetensors describes the format.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.convert.one_model import as_model
from gpumlp.errors import ModelFileError
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.saved_model.files import expect_model_file, unreadable, write_file
from gpumlp.saved_model.header import MAX_HEADER, arrays_of, header_of, read_header
from gpumlp.saved_model.loading import restore
from gpumlp.saved_model.npz import expect_array
from gpumlp.shapes import HostArray

METADATA, ENTRY = "__metadata__", "gpumlp"  # where our header is: head[METADATA][ENTRY], a text
MAX_HEAD = 2 * MAX_HEADER  # bytes; the header is escaped in it, and the arrays' places stand beside it
DTYPES: dict[Any, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
N_LENGTH = 8  # bytes that say how long the head is


def save_safetensors(model: SavedModel | Network, path: str | Path) -> Path:
    """Write a model as .safetensors, in one step, and return the path.

    W0, b0, ... are (n_models, out, in) and (n_models, out); x_mean, x_scale, y_mean, y_scale the scalers, if any; the
    header of a .npz stands as JSON in the metadata's entry "gpumlp".

    Raises   ModelFileError if it cannot be written; an old file then stays as it was
    """
    model = as_model(model)
    return write_file(Path(path), as_safetensors(header_of(model), arrays_of(model)))


def as_safetensors(header: dict[str, Any], arrays: dict[str, HostArray]) -> bytes:
    """Return the content of a file; the arrays of larger numbers come first, so that all are aligned."""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    head: dict[str, Any] = {METADATA: {ENTRY: json.dumps(header)}}
    parts: list[bytes] = []
    end = 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + array.nbytes
        head[name] = {
            "dtype": codes[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        parts.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(N_LENGTH, "little"), text, *parts])


def load_safetensors(path: str | Path, backend: str | None = "auto", device: str | None = None) -> SavedModel:
    """Return the model that `save_safetensors` wrote, checked array by array before any is read.

    Raises   ModelFileError if it is missing, damaged, from a newer version, or holds what does not fit
    """
    path = Path(path)
    try:
        expect_model_file(path)
        with open(path, "rb") as file:
            return restore(SafetensorsFile(path, file), backend, device)
    except OSError as error:
        raise ModelFileError(f"cannot read model {path}: {error.strerror or error}; check the path") from error


class SafetensorsFile:
    """An open file, of which only the head is read at first; see TensorFile."""

    place = METADATA

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        size = file.seek(0, 2)
        file.seek(0)
        n_head = int.from_bytes(file.read(N_LENGTH), "little")
        self.start = N_LENGTH + n_head
        if size < self.start or n_head > MAX_HEAD:
            raise ModelFileError(
                f"{path} is no safetensors file, or is cut off: it claims a head of {n_head} bytes and has {size} "
                f"bytes, of which the head may take {MAX_HEAD}; save the model again"
            )
        self.head = self._read_head(n_head)
        self.arrays = {name: self._entry(name, entry) for name, entry in self.head.items() if name != METADATA}
        self._check_places(size)

    def _read_head(self, n_bytes: int) -> dict[str, Any]:
        try:
            head = json.loads(self.file.read(n_bytes), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise unreadable(self.path, "the head", error) from error
        if not isinstance(head, dict):
            raise ModelFileError(f"{self.path}: the head is no JSON object; it is damaged, save the model again")
        return head

    def _entry(self, name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
        """Return dtype, shape, and the first byte of an array and the one behind its last."""
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            if whole and end - begin == prod(shape) * DTYPES[dtype].itemsize:
                return DTYPES[dtype], tuple(shape), begin, end
        except (KeyError, TypeError, ValueError):
            whole = False
        raise ModelFileError(
            f"{self.path}: array {name} is described as {str(entry)[:200]}, expected dtype F32 or F64, a shape and the "
            "offsets of just so many bytes; it is damaged or forged"
        )

    def _check_places(self, size: int) -> None:
        """Raise ModelFileError unless the arrays fill the rest of the file, each byte once."""
        end = 0
        for name, (_, _, begin, its_end) in sorted(self.arrays.items(), key=lambda item: item[1][2:]):
            if begin != end:
                raise ModelFileError(
                    f"{self.path}: array {name} begins at byte {begin}, expected {end}; it is damaged or forged"
                )
            end = its_end
        if end != size - self.start:
            raise ModelFileError(
                f"{self.path}: the arrays take {end} bytes, the file holds {size - self.start}; it is cut off or "
                "damaged, save the model again"
            )

    def header(self) -> dict[str, Any]:
        """Return the header, checked."""
        metadata = self.head.get(METADATA)
        text = metadata.get(ENTRY) if isinstance(metadata, dict) else None
        if not isinstance(text, str):
            raise ModelFileError(
                f"{self.path} is no gpumlp model: its {METADATA} has no text {ENTRY!r}; write one with save_safetensors"
            )
        return read_header(text, METADATA, self.path)

    def names(self) -> set[str]:
        """Return the names of the arrays."""
        return set(self.arrays)

    def n_bytes(self) -> int:
        """Return how many bytes the arrays take."""
        return max((end for _, _, _, end in self.arrays.values()), default=0)

    def read(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
        """Return an array."""
        found_dtype, found_shape, begin, end = self.arrays[name]
        expect_array(self.path, name, (found_dtype, found_shape), (dtype, shape))
        self.file.seek(self.start + begin)
        return np.frombuffer(self.file.read(end - begin), found_dtype).reshape(shape)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found
