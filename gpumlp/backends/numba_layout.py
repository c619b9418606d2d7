"""How arrays and work are handed to the compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from gpumlp.backends.numba_program import Call, Room
from gpumlp.backends.protocol import Array
from gpumlp.formulas.term import Recording

After = Callable[[range, slice, slice, Room], list[Call]]  # (models, rows, units, room): what follows a product's part

PIECE_UNITS = 16  # units or rows that are worth a thread: what a BLAS computes at once
CHUNK, CHUNK_ROWS = 4096, 32  # values and rows of a layer that are worked on, and summed, together
LARGER, ENOUGH = 16384, 32  # values of a chunk where that leaves enough chunks for many threads: fewer sums to add up
FULL = 256  # numbers that keep a processor's vectors full, when there are so many in a row
WEIGHTS = {"exp": 12, "expm1": 14, "tanh": 16, "log": 14, "log1p": 16, "sin": 100, "cos": 100, "power": 200}


def row_ranges(models: range, rows: slice, batch: int) -> list[tuple[int, int]]:
    """Return which rows, numbered through all models, some rows of each of these models are."""
    if rows == slice(0, batch):
        return [(models.start * batch, models.stop * batch)]
    return [(m * batch + rows.start, m * batch + rows.stop) for m in models]


def chunks_of_rows(n_rows: int, n: int) -> tuple[int, int]:
    """Return how many rows of n units a chunk has, and how many chunks a model."""
    rows_of_chunk = max(1, min(CHUNK_ROWS, max(CHUNK // n, min(LARGER // n, n_rows // ENOUGH)), n_rows))
    return rows_of_chunk, -(-n_rows // rows_of_chunk)


def rows_at_once(n: int) -> int:
    """Return how many rows of n units are worked on as one: 1, 2, 4, 8 or 16."""
    return 1 << min(4, max(1, FULL // n).bit_length() - 1)


def flat(x: Array) -> tuple[Any, int]:
    """Return all that lies between the first and the last number of x (n_models, n), and the stride of its models.

    The numbers of a model have to lie side by side; between two models there may be others.
    """
    stride = x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]
    size = (len(x) - 1) * stride + x.shape[1]
    return np.lib.stride_tricks.as_strided(x, (size,), (x.itemsize,)), stride


def model_flat(x: Array) -> tuple[Any, int]:
    """Return an array (1 or n_models, ...) flat, and the stride of its models: 0 where all share one."""
    return x.reshape(-1), 0 if len(x) == 1 else x.size // len(x)


@cache
def weight(recording: Recording) -> int:
    """Return about how many simple operations a recording is, with what it reads and writes."""
    return 4 + sum(WEIGHTS.get(recording.operations[i].word, 1) for i in recording.live())
