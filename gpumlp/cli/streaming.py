"""What `gpumlp train` does with a table that is larger than the memory it may use: it is trained on pool by pool.

The features stay in their file. What a row has besides, its target and its use, is in memory.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.atomic import replacing
from gpumlp.cli.problem import Array, Parts, Problem
from gpumlp.data import Encoding, Recoder, Scaler, Standardiser
from gpumlp.data.files import about
from gpumlp.data.limits import free_memory, parse_size
from gpumlp.data.row_blocks import ArrayBlocks, ChangedBlocks, RowBlocks
from gpumlp.data.statistics import ColumnStatistics
from gpumlp.data.table import rows_per_block
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


def keep_memory(checkpoints: Checkpoints, problem: Problem, memory: int) -> None:
    """Note beside checkpoints that are about to begin how many bytes the features may take, if it may ever matter."""
    if NEAR * problem.n_bytes <= memory:
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
    y = problem.targets
    of_x = dtype if is_scaled else kept_dtype(problem.dtype, dtype)
    n_bytes: int = of_x.itemsize * problem.n_features
    return n_bytes + (y.itemsize if problem.classes is not None else dtype.itemsize * y.shape[1])


def bytes_beside(problem: Problem, is_scaled: bool, dtype: np.dtype[Any]) -> int:
    """Return what the features of a row take that is evaluated by a network of `dtype`: it is kept as it is given."""
    return problem.n_features * max(problem.dtype.itemsize, dtype.itemsize if is_scaled else 0)


def pool_for(problem: Problem, memory: int, batch: int | str, row: int) -> Pool | None:
    """Return how to train on features that do not fit into memory; None if they do.

    row      bytes that one takes in a pool
    Raises   ConfigurationError for a batch that needs them all there, or more than there is room for
    """
    needed = problem.n_bytes
    if needed <= memory:
        return None
    if isinstance(batch, str):
        raise ConfigurationError(
            f"--batch-size {batch} needs all rows in memory, {readable_bytes(needed)}, but --memory allows "
            f"{readable_bytes(memory)}; give a number of rows, or allow more"
        )
    rows = int(OF_POOLS * memory) // (2 * row)
    if rows < batch:
        raise ConfigurationError(
            f"--memory allows {readable_bytes(memory)}, in which pools have room for {rows} rows, but a batch has "
            f"{batch}; allow more, or make --batch-size smaller"
        )
    return Pool(str(int(OF_POOLS * memory)))


def few_enough(parts: Parts, row_bytes: int, pool: Pool) -> Parts:
    """Return parts of which the one that chooses the epoch fits into memory; the rest of it is trained on."""
    kept = that_fit(parts.choice, row_bytes, pool)
    freed = np.setdiff1d(parts.choice, kept)
    return replace(parts, choice=kept, train=np.sort(np.concatenate([parts.train, freed])))


def that_fit(rows: Array, row_bytes: int, pool: Pool) -> Array:
    """Return as many rows as may be in memory beside the pools."""
    return spread(rows, max(1, parse_size(str(pool.size), "pool") // (2 * row_bytes)))


def spread(rows: Array, most: int) -> Array:
    """Return so many rows at most, at equal distances."""
    n = len(rows)
    return rows if n <= most else rows[np.arange(most) * n // most]


def training_rows(problem: Problem, parts: Parts, model: SavedModel) -> RowBlocks:
    """Return the rows to train on, scaled as the model wants them."""
    without = np.sort(np.concatenate([parts.choice, parts.test]))
    blocks = ArrayBlocks(problem.table.X, problem.targets, without)
    blocks.cut(rows_per_block(problem.n_features))
    recoder, x_scaler, y_scaler, dtype = problem.recoder, model.scaler, model.target_scaler, model.network.dtype
    if recoder is None and x_scaler is None and y_scaler is None:
        return blocks

    def prepared(X: Array, Y: Array) -> tuple[Array, Array]:
        X = X if recoder is None else recoder.features(X)
        X = X if x_scaler is None else x_scaler.transform(X, dtype)
        return X, Y if y_scaler is None else y_scaler.transform(Y, dtype)

    return ChangedBlocks(blocks, prepared, categories_of(recoder))


def tell_unseen(problem: Problem) -> None:
    """Log which categories no row has that is trained on."""
    if problem.recoder is not None:
        problem.recoder.tell_unseen()


def categories_of(recoder: Recoder | None) -> dict[str, Array]:
    """Return what a checkpoint must find again beside the rows for the same features."""
    return {f"column {name}": places for name, places in (recoder.places if recoder else {}).items()}


def feature_scaler(
    problem: Problem, rows: Array, scaling: type[Scaler] | None, columns: Encoding | None
) -> Scaler | None:
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
    return standardiser(problem, rows, None if columns is None else columns.is_category)


def standardiser(problem: Problem, rows: Array, kept: NDArray[np.bool_] | None = None) -> Standardiser:
    """Measure mean and deviation of each feature, some rows at a time, but of those that are kept as they are."""
    statistics = ColumnStatistics(problem.n_features)
    for some in pieces(rows, problem.n_features):
        statistics.add(problem.features(some))
    of_each = statistics.mean, statistics.variance, statistics.least, statistics.largest
    return Standardiser.of_measures(*of_each, kept)


def predicted_for(model: SavedModel, problem: Problem, rows: Array) -> Array:
    """Return the predictions for some rows, made a few at a time."""
    found = [model.predict(problem.features(some)) for some in pieces(rows, problem.n_features)]
    return np.concatenate(found)


def pieces(rows: Array, n_features: int) -> list[Array]:
    """Return rows in parts that fit into memory."""
    most = max(1, min(ROWS_AT_A_TIME, BYTES_AT_A_TIME // (8 * n_features)))
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def in_words(problem: Problem, memory: int, pool: Pool) -> str:
    """Say that training streams, and why."""
    needed, read = problem.n_bytes, parse_size(str(pool.size), "pool")
    return (
        f"the features take {readable_bytes(needed)}, more than the {readable_bytes(memory)} allowed (--memory): "
        f"they are streamed from their file, {readable_bytes(read)} at a time"
    )
