"""The format of .safetensors: the length of a JSON head, the head, then the arrays one behind the other.

Written and read here without a further library; https://github.com/huggingface/safetensors describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.errors import TensorsFileError

METADATA = "__metadata__"  # the entry of the head that holds texts by name
MAX_HEAD = 64 * 2**20  # bytes; twice that of a model, whose text is escaped in it, is not more
N_LENGTH = 8  # bytes that say how long the head is
DTYPES: dict[Any, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
}


def tensor_parts(metadata: Mapping[str, str], arrays: Mapping[str, Any]) -> list[Any]:
    """Return the content of a file in parts: length, head, and arrays as bytes, which share the arrays' memory.

    The arrays of larger numbers come first, so that all are aligned.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    head: dict[str, Any] = {METADATA: dict(metadata)}
    parts: list[Any] = []
    end = 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + array.nbytes
        head[name] = {
            "dtype": codes[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        parts.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8))
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(N_LENGTH, "little"), text, *parts]


class TensorsFile:
    """An open file, of which only the head is read at first.

    metadata   texts by name; a damaged file may hold anything
    arrays     name -> dtype, shape, first byte behind the head, and the one behind the last
    start      where the arrays begin

    Raises     TensorsFileError for what is no such file, cut off, or contradicts itself
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        size = file.seek(0, 2)
        file.seek(0)
        n_head = int.from_bytes(file.read(N_LENGTH), "little")
        self.start = N_LENGTH + n_head
        if size < self.start or n_head > MAX_HEAD:
            raise TensorsFileError(
                f"{path} is no safetensors file, or is cut off: it claims a head of {n_head} bytes and has {size} "
                f"bytes, of which the head may take {MAX_HEAD}"
            )
        head = self._read_head(n_head)
        self.metadata: Any = head.get(METADATA)
        self.arrays = {name: self._entry(name, entry) for name, entry in head.items() if name != METADATA}
        self._check_places(size)

    def _read_head(self, n_bytes: int) -> dict[str, Any]:
        try:
            head = json.loads(self.file.read(n_bytes), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise TensorsFileError(f"{self.path}: the head cannot be read ({error}); it is damaged") from error
        if not isinstance(head, dict):
            raise TensorsFileError(f"{self.path}: the head is no JSON object; it is damaged")
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
        raise TensorsFileError(
            f"{self.path}: array {name} is described as {str(entry)[:200]}, expected dtype {', '.join(DTYPES)}, a "
            "shape and the offsets of just so many bytes; it is damaged or forged"
        )

    def _check_places(self, size: int) -> None:
        """Raise TensorsFileError unless the arrays fill the rest of the file, each byte once."""
        end = 0
        for name, (_, _, begin, its_end) in sorted(self.arrays.items(), key=lambda item: item[1][2:]):
            if begin != end:
                raise TensorsFileError(
                    f"{self.path}: array {name} begins at byte {begin}, expected {end}; it is damaged or forged"
                )
            end = its_end
        if end != size - self.start:
            raise TensorsFileError(
                f"{self.path}: the arrays take {end} bytes, the file holds {size - self.start}; it is cut off or "
                "damaged"
            )

    def n_bytes(self) -> int:
        """Return how many bytes the arrays take."""
        return max((end for _, _, _, end in self.arrays.values()), default=0)

    def array(self, name: str) -> Any:
        """Return an array, which cannot be written into."""
        dtype, shape, begin, end = self.arrays[name]
        self.file.seek(self.start + begin)
        return np.frombuffer(self.file.read(end - begin), dtype).reshape(shape)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found
