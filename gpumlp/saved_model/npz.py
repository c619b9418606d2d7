"""A model as .npz: a zip archive of arrays, with the header as JSON beside them."""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gpumlp.data.limits import DEFLATED
from gpumlp.errors import GpumlpError, ModelFileError
from gpumlp.saved_model.files import unreadable
from gpumlp.saved_model.header import MAX_HEADER, read_header, spelled_header
from gpumlp.shapes import HostArray

NPY: Any = np.lib.format  # older NumPys do not tell its types

HEADER = "header.json"
# what zipfile and NumPy raise for a damaged archive, RuntimeError where a flipped bit says that it is encrypted
DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    SyntaxError,  # of a dtype that NumPy reads as Python's tuples
    Warning,  # of a head as only Python 2 wrote it, of a dtype of another time, or of a damaged one
    EOFError,
    RuntimeError,
    KeyError,
    ValueError,
    OverflowError,
    MemoryError,
)


def as_npz(header: dict[str, Any], arrays: dict[str, HostArray]) -> bytes:
    """Return the content of a file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, spelled_header(header, indent=1))
        for name, array in arrays.items():
            member = io.BytesIO()
            NPY.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    return stream.getvalue()


class NpzFile:
    """An open archive; see TensorFile.

    Raises   OSError; BadZipFile and other errors of DAMAGE
    """

    place = HEADER

    def __init__(self, path: Path) -> None:
        self.path, self.archive = path, zipfile.ZipFile(path)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.archive.close()

    def header(self) -> dict[str, Any]:
        """Return the header, checked."""
        names = self.archive.namelist()
        if HEADER not in names:
            raise ModelFileError(
                f"{self.path} is no gpumlp model: it has no {HEADER}; write one with `gpumlp train --save`"
            )
        if len(names) != len(set(names)):
            raise ModelFileError(f"{self.path} holds two entries of one name; it is damaged or forged, save it again")
        if self.archive.getinfo(HEADER).file_size > MAX_HEADER:
            raise ModelFileError(f"{self.path}: {HEADER} is larger than {MAX_HEADER} bytes; it is damaged or forged")
        try:
            text = self.archive.read(HEADER)
        except DAMAGE as error:
            raise unreadable(self.path, HEADER, error) from error
        return read_header(text, HEADER, self.path)

    def names(self) -> set[str]:
        """Return the names of the arrays."""
        return {name.removesuffix(".npy") for name in self.archive.namelist()} - {HEADER}

    def n_bytes(self) -> int:
        """Return how many bytes the arrays take at most, unpacked."""
        claimed = sum(member.file_size for member in self.archive.infolist())
        return min(claimed, DEFLATED * self.path.stat().st_size)

    def read(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
        """Return an array; its own header is checked before its values are read."""
        try:
            with warnings.catch_warnings(), self.archive.open(f"{name}.npy") as member:
                warnings.simplefilter("error")
                version = NPY.read_magic(member)
                reader = {(1, 0): NPY.read_array_header_1_0, (2, 0): NPY.read_array_header_2_0}[version]
                found_shape, _, found_dtype = reader(member)
            expect_array(self.path, name, (found_dtype, found_shape), (dtype, shape))
            with self.archive.open(f"{name}.npy") as member:
                array: HostArray = NPY.read_array(member, allow_pickle=False)
        except GpumlpError:
            raise
        except DAMAGE as error:
            raise unreadable(self.path, f"array {name}", error) from error
        return array


def expect_array(path: Path, name: str, found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    """Raise ModelFileError unless an array's (dtype, shape) are those that the architecture needs."""
    if found != expected:
        raise ModelFileError(
            f"{path}: {name} is {found[0]} {found[1]}, the architecture needs {expected[0]} {expected[1]}; "
            "it is damaged"
        )
