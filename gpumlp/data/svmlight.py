"""Text files of sparse rows, "label index:value ...", as libsvm and svmlight write them; read by scikit-learn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.data.blocks import Blocks, Piece
from gpumlp.data.files import Request, about, damage_told, one_line, open_bytes
from gpumlp.data.limits import expect_room, longest_line
from gpumlp.data.table import rows_per_block
from gpumlp.errors import DataError

LINES = 4096  # of a block
BLOCK_BYTES = 1 << 24
DAMAGED = "lines such as `1 3:0.5 7:2`", "correct it"


@dataclass
class Survey:
    """What reading to the end tells; `one_based`: no index is 0, so that the first is 1."""

    n_rows: int = 0
    last: int = -1
    one_based: bool = True
    whole: bool = True


def open_svmlight(path: Path, request: Request) -> Blocks:
    """Return sparse rows as dense Blocks; indices count from 1 unless one of them is 0, as scikit-learn takes them."""
    if request.target is not None:
        raise DataError(
            f"{path}: target={request.target!r} came, but the target of such a file stands first in each line; "
            "leave it out"
        )
    with about(path), damage_told(*DAMAGED):
        survey = _survey(path, request)
        n_features = survey.last + 1 - survey.one_based
        if survey.n_rows == 0 or n_features < 1:
            raise DataError(
                f"holds {survey.n_rows} rows and {max(n_features, 0)} features, expected at least one of each; check "
                "where it comes from"
            )
        step = rows_per_block(n_features)
        expect_room(min(step, survey.n_rows) * n_features * 8, f"a block of {min(step, survey.n_rows)} dense rows")
    y_dtype = np.dtype(np.int64 if survey.whole else np.float64)

    def pieces(start: int) -> Iterator[Piece]:
        with about(path), damage_told(*DAMAGED):
            for X, y in _blocks(path, request, survey.last + 1):
                for first in range(start, X.shape[0], step):
                    dense = X[first : min(first + step, X.shape[0])].toarray()[:, int(survey.one_based) :]
                    yield dense, y[first : first + step].astype(y_dtype) if request.with_target else None
                start = max(0, start - X.shape[0])

    return Blocks(
        pieces,
        survey.n_rows,
        n_features,
        np.dtype(np.float64),
        y_dtype if request.with_target else None,
        name=str(path),
    )


def _survey(path: Path, request: Request) -> Survey:
    found = Survey()
    for X, y in _blocks(path, request, None):
        found.n_rows += X.shape[0]
        if len(X.indices):
            found.last = max(found.last, int(X.indices.max()))
            found.one_based = found.one_based and int(X.indices.min()) > 0
        found.whole = found.whole and bool(np.all((np.abs(y) <= 2.0**53) & (y == np.floor(y))))
    return found


def _next_lines(file: BinaryIO) -> list[bytes]:
    """Return the next lines, LINES or as many as are long enough."""
    longest, lines, n_bytes = longest_line(), [], 0
    for line in islice(iter(lambda: file.readline(longest), b""), LINES):
        if len(line) == longest:
            raise DataError(f"has a line of {longest} bytes or more, expected {'; '.join(DAMAGED)}")
        lines.append(line)
        n_bytes += len(line)
        if n_bytes >= BLOCK_BYTES:
            break
    return lines


def _blocks(path: Path, request: Request, width: int | None) -> Iterator[tuple[Any, Any]]:
    """Yield some thousand rows at a time, sparse (n, width) with explicit indices from 0, and their labels."""
    from sklearn.datasets import load_svmlight_file

    with open_bytes(path, request) as file:
        before = 0
        while lines := _next_lines(file):
            try:
                X, y = load_svmlight_file(io.BytesIO(b"".join(lines)), n_features=width, zero_based=True)
            except (ValueError, OverflowError) as error:
                raise DataError(
                    f"lines {before + 1} to {before + len(lines)}: {one_line(error)}, expected {'; '.join(DAMAGED)}"
                ) from error
            before += len(lines)
            if X.shape[0]:
                yield X, y
