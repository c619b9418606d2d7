"""What `gpumlp train` does with a table that is larger than the memory it may use: it is trained on pool by pool.

The features stay in their file. What a row has besides, its target and its use, is in memory.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.atomic import replacing
from gpumlp.cli.problem import Array, Parts, Problem
from gpumlp.data import Scaler, Standardiser
from gpumlp.data.files import about
from gpumlp.data.limits import free_memory, parse_size
from gpumlp.data.row_blocks import ArrayBlocks, ChangedBlocks, RowBlocks
from gpumlp.data.statistics import ColumnStatistics
from gpumlp.errors import ConfigurationError, readable_bytes
from gpumlp.saved_model import SavedModel
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.pools import Pool, kept_dtype

log = logging.getLogger("gpumlp")

SHARE = 0.5  # of the memory that is free
OF_POOLS = 0.5  # of the memory that may be used; what is evaluated after each epoch may have half of that
ROWS_AT_A_TIME = 1 << 14  # whose predictions are made at once, fewer if they are wide:
BYTES_AT_A_TIME = 1 << 26  # in float64
NEAR = 8  # times what is free may fall until a training goes on
NOTE = "memory"  # of what was allowed, beside the checkpoints


def memory_of(text: str | None, begun: Path | None) -> int:
    """Return how many bytes the features may take: what --memory says, else half of what is free.

    begun   a folder of checkpoints to go on from: what it was then decides, since the order of the rows hangs on it
    """
    if text is not None:
        return parse_size(text, "--memory")
    kept = None if begun is None else begun / NOTE
    if kept is not None and kept.is_file():
        with about(kept):
            return parse_size(kept.read_text(encoding="utf-8"), str(kept))
    return int(SHARE * free_memory())


def keep_memory(checkpoints: Checkpoints, X: Array, memory: int) -> None:
    """Note beside checkpoints that are about to begin how many bytes the features may take, if it may ever matter."""
    if NEAR * X.nbytes <= memory:
        return
    checkpoints.make_folder()
    if not checkpoints.have_begun:
        try:
            with replacing(checkpoints.folder / NOTE) as file:
                file.write(f"{memory}\n".encode())
        except OSError as error:
            log.warning(
                "cannot write %s (%s); give --memory %d when this training is to go on",
                checkpoints.folder / NOTE,
                error.strerror or error,
                memory,
            )


def bytes_of_row(problem: Problem, is_scaled: bool, dtype: np.dtype[Any]) -> int:
    """Return what a row takes in a pool for a network of `dtype`, its target included."""
    X, y = problem.table.X, problem.targets
    of_x = dtype if is_scaled else kept_dtype(X.dtype, dtype)
    n_bytes: int = of_x.itemsize * X.shape[1]
    return n_bytes + (y.itemsize if problem.classes is not None else dtype.itemsize * y.shape[1])


def pool_for(X: Array, memory: int, batch: int | str, row: int) -> Pool | None:
    """Return how to train on features that do not fit into memory; None if they do.

    row      bytes that one takes in a pool
    Raises   ConfigurationError for a batch that needs them all there, or more than there is room for
    """
    if X.nbytes <= memory:
        return None
    if isinstance(batch, str):
        raise ConfigurationError(
            f"--batch-size {batch} needs all rows in memory, {readable_bytes(X.nbytes)}, but --memory allows "
            f"{readable_bytes(memory)}; give a number of rows, or allow more"
        )
    rows = int(OF_POOLS * memory) // (2 * row)
    if rows < batch:
        raise ConfigurationError(
            f"--memory allows {readable_bytes(memory)}, in which pools have room for {rows} rows, but a batch has "
            f"{batch}; allow more, or make --batch-size smaller"
        )
    return Pool(str(int(OF_POOLS * memory)))


def few_enough(parts: Parts, X: Array, pool: Pool) -> Parts:
    """Return parts of which the one that chooses the epoch fits into memory; the rest of it is trained on."""
    kept = that_fit(parts.choice, X, pool)
    freed = np.setdiff1d(parts.choice, kept)
    return replace(parts, choice=kept, train=np.sort(np.concatenate([parts.train, freed])))


def that_fit(rows: Array, X: Array, pool: Pool) -> Array:
    """Return as many rows as may be in memory beside the pools."""
    return spread(rows, max(1, parse_size(str(pool.size), "pool") // (2 * X.itemsize * X.shape[1])))


def spread(rows: Array, most: int) -> Array:
    """Return so many rows at most, at equal distances."""
    n = len(rows)
    return rows if n <= most else rows[np.arange(most) * n // most]


def training_rows(problem: Problem, parts: Parts, model: SavedModel) -> RowBlocks:
    """Return the rows to train on, scaled as the model wants them."""
    without = np.sort(np.concatenate([parts.choice, parts.test]))
    blocks = ArrayBlocks(problem.table.X, problem.targets, without)
    x_scaler, y_scaler, dtype = model.scaler, model.target_scaler, model.network.dtype
    if x_scaler is None and y_scaler is None:
        return blocks

    def scaled(X: Array, Y: Array) -> tuple[Array, Array]:
        X = X if x_scaler is None else x_scaler.transform(X, dtype)
        return X, Y if y_scaler is None else y_scaler.transform(Y, dtype)

    return ChangedBlocks(blocks, scaled)


def feature_scaler(problem: Problem, rows: Array, scaling: type[Scaler] | None) -> Scaler | None:
    """Return the scaling of the features, measured on some rows, a few at a time; None if none is wanted.

    Raises   ConfigurationError for one that needs all rows at once
    """
    if scaling is None:
        return None
    if scaling is not Standardiser:
        raise ConfigurationError(
            f"--scale {scaling.name} needs all rows in memory, but they are streamed; give --scale standardise, or "
            "allow more by --memory"
        )
    return standardiser(problem, rows)


def standardiser(problem: Problem, rows: Array) -> Standardiser:
    """Measure mean and deviation of each feature, some rows at a time."""
    X = problem.table.X
    statistics = ColumnStatistics(X.shape[1])
    for some in pieces(rows, X.shape[1]):
        statistics.add(X[some])
    return Standardiser.of_measures(statistics.mean, statistics.variance, statistics.least, statistics.largest)


def predicted_for(model: SavedModel, X: Array, rows: Array) -> Array:
    """Return the predictions for some rows, made a few at a time."""
    return np.concatenate([model.predict(X[some]) for some in pieces(rows, X.shape[1])])


def pieces(rows: Array, n_features: int) -> list[Array]:
    """Return rows in parts that fit into memory."""
    most = max(1, min(ROWS_AT_A_TIME, BYTES_AT_A_TIME // (8 * n_features)))
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def in_words(X: Array, memory: int, pool: Pool) -> str:
    """Say that training streams, and why."""
    return (
        f"the features take {readable_bytes(X.nbytes)}, more than the {readable_bytes(memory)} allowed (--memory): "
        f"they are streamed from their file, {readable_bytes(parse_size(str(pool.size), 'pool'))} at a time"
    )
