"""Who uses which counter: each use of randomness has its own stream of Philox counters (c0, c1, c2, c3).

| use | c0 | c1 | c2 | c3 |
|---|---|---|---|---|
| shuffle | epoch | 0 or 1 | 0 | SHUFFLE << 16 |
| dropout | unit / 4 | row of the batch | step | DROPOUT << 16 + layer |
| order of blocks | epoch | 0 or 1 | 0 | BLOCKS << 16 |
| key of a pool | pool | 0 | 0 | POOL << 16 |

The dropout counter names the unit and the row, not a flat index, so that padding a layer or a batch changes no mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpumlp.randomness.philox import Words, philox4x32

SHUFFLE = 0
DROPOUT = 1
BLOCKS = 2
POOL = 3
WORD = 0xFFFFFFFF


def shuffle_keys(keys: Words, epoch: int, use: int = SHUFFLE) -> Words:
    """Return the eight round keys (..., 8) of the order of one epoch, for each key (..., 2).

    use   SHUFFLE of rows, or BLOCKS of rows
    """
    words = philox4x32((epoch & WORD, np.array([0, 1]), 0, use << 16), (keys[..., 0, None], keys[..., 1, None]))
    return np.stack(words, axis=-1).reshape(*keys.shape[:-1], 8)


def pool_keys(keys: Words, n_pools: int) -> Words:
    """Return the keys (n_pools, ..., 2) of which those of `shuffle_keys` in each pool are made; the first has `keys`.

    keys   (..., 2)
    """
    pools = np.arange(n_pools).reshape(-1, *(1 for _ in keys.shape[1:]))
    words = philox4x32((pools, 0, 0, POOL << 16), (keys[..., 0], keys[..., 1]))
    found = np.stack(words[:2], axis=-1)
    found[0] = keys
    return found


def dropout_threshold(rate: float) -> int:
    """Return the word below which a unit is dropped: an integer comparison, so that no rounding can differ."""
    return min(WORD, round(rate * 2.0**32))


def dropout_words(key: Words, rows: NDArray[np.integer], features: int, step: int, layer: int) -> Words:
    """Return one random word for each unit of each row, (len(rows), features); a unit is kept if its word reaches
    the threshold of `dropout_threshold`.

    rows    (n,) places in the batch
    step    number of the training step, from 0
    layer   number of the hidden layer, from 0
    """
    quads = np.arange(-(-features // 4), dtype=np.uint32)
    words = philox4x32((quads[None, :], rows[:, None], step & WORD, (DROPOUT << 16) + layer), (key[0], key[1]))
    return np.stack(words, axis=-1).reshape(len(rows), -1)[:, :features]
