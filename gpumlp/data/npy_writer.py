"""A .npy file that grows row by row, and whose dtype grows with what comes."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gpumlp.data.table import Array
from gpumlp.errors import DataError

HEAD = 128  # bytes, a multiple of 64 as the format wants; room for any number of rows
ROWS_AT_ONCE = 1 << 14


class NpyWriter:
    """An open .npy file that blocks of rows are added to; it is whole when it is closed.

    Numbers that come as int64 and later as float64 are float64 in the end, and texts as long as the longest.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("w+b")
        self.dtype: np.dtype[Any] | None = None
        self.shape: tuple[int, ...] = ()  # of a row
        self.n_rows = 0

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self.dtype is not None:
                self.file.seek(0)
                self.file.write(self._head(self.dtype))
                self.file.flush()
                os.fsync(self.file.fileno())
        finally:
            self.file.close()

    @property
    def n_bytes(self) -> int:
        """Bytes written so far."""
        return 0 if self.dtype is None else HEAD + self.n_rows * self._width(self.dtype)

    def add(self, block: Array) -> None:
        """Write rows behind those that are there; raise DataError if they are of another shape or kind."""
        if self.dtype is None:
            self.dtype, self.shape = block.dtype, block.shape[1:]
            self.file.write(b"\0" * HEAD)
        if block.shape[1:] != self.shape or (block.dtype.kind == "U") != (self.dtype.kind == "U"):
            raise DataError(
                f"rows of shape {block.shape[1:]} and {block.dtype} came behind rows of shape {self.shape} and "
                f"{self.dtype}; give the same columns in each block"
            )
        wide = np.promote_types(self.dtype, block.dtype)
        if wide != self.dtype:
            self._widen(self.dtype, wide)
        self.file.write(np.ascontiguousarray(block, wide).tobytes())
        self.n_rows += len(block)

    def _widen(self, old: np.dtype[Any], new: np.dtype[Any]) -> None:
        """Write the rows again in another dtype, a block at a time, into a file that takes the place of the old one."""
        widened = self.path.with_name(self.path.name + ".wider")
        with widened.open("w+b") as file:
            file.write(b"\0" * HEAD)
            self.file.seek(HEAD)
            while content := self.file.read(ROWS_AT_ONCE * self._width(old)):
                file.write(np.frombuffer(content, old).astype(new).tobytes())
        self.file.close()
        os.replace(widened, self.path)
        self.file = self.path.open("r+b")
        self.file.seek(0, os.SEEK_END)
        self.dtype = new

    def _width(self, dtype: np.dtype[Any]) -> int:
        return dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def _head(self, dtype: np.dtype[Any]) -> bytes:
        described = {"descr": dtype.str, "fortran_order": False, "shape": (self.n_rows, *self.shape)}
        text = repr(described).encode("ascii")
        length = HEAD - len(b"\x93NUMPY\x01\x00") - 2
        return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"
