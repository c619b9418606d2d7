"""Run a formula over arrays of any size in blocks that stay in the cache, without allocating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.formulas.printers import NumpyProgram

BLOCK_BYTES = 256 * 1024  # of one register; the best of 8 to 256 KiB for Adam on 0.1 and 2 million weights
THREAD_WORK = 400_000  # elements times operations below which a second thread costs more than it gives

Block = tuple[slice, slice, slice]


def blocks(shape: tuple[int, int, int], size: int) -> Iterator[Block]:
    """Cut (n_models, rows, features) into blocks of at most `size` elements, in the order of memory.

    Whole models are kept together if they fit, else whole rows, else parts of a row.
    """
    n_models, rows, features = shape
    model_step = max(1, size // max(1, rows * features))
    row_step = max(1, min(rows, size // max(1, features)))
    feature_step = max(1, min(features, size))
    for m in range(0, n_models, model_step):
        for r in range(0, rows, row_step):
            for f in range(0, features, feature_step):
                yield (
                    slice(m, min(m + model_step, n_models)),
                    slice(r, min(r + row_step, rows)),
                    slice(f, min(f + feature_step, features)),
                )


def view(x: Any, block: Block) -> Any:
    """Return the part of an array of three axes that meets a block; an axis of length 1 meets all of them."""
    return x[tuple(slice(None) if n == 1 else s for n, s in zip(x.shape, block, strict=True))]


def simplify(views: list[Any]) -> list[Any]:
    """Return views with as few axes as possible: lone numbers as 0-d, and flat arrays where all are contiguous."""
    shape = views[-1].shape  # of an output
    views = [v.reshape(()) if v.size == 1 and v.shape != shape else v for v in views]
    if all(v.ndim == 0 or (v.shape == shape and v.flags.c_contiguous) for v in views):
        return [v if v.ndim == 0 else v.reshape(-1) for v in views]
    return views


class Elementwise:
    """Plans programs over arrays; keeps the scratch registers, one set for each thread."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.block_size = BLOCK_BYTES // self.dtype.itemsize
        self._scratch: list[tuple[list[Any], list[Any]]] = []

    def plan(
        self, program: NumpyProgram, inputs: Sequence[Any], outputs: Sequence[Any], thread: int | None = None
    ) -> Callable[[], None]:
        """Return a function that runs the program over all blocks of its outputs.

        inputs, outputs   arrays of three axes; an input's axis may have length 1
        thread            the thread that will run it; None: all of them, if that pays
        """
        shape = outputs[0].shape
        total = shape[0] * shape[1] * shape[2]
        operations = max(1, program.source.count("\n") - 1)
        n_threads = threads.count() if thread is None and total * operations >= THREAD_WORK else 1
        size = min(self.block_size, max(1, -(-total // n_threads)))
        cut = list(blocks(shape, size))
        pieces = []
        for i in range(n_threads):
            part = cut[len(cut) * i // n_threads : len(cut) * (i + 1) // n_threads]
            if part:
                pieces.append(self._piece(thread or i, program, part, inputs, outputs))
        if len(pieces) == 1:
            return pieces[0]
        return lambda: threads.together(pieces)

    def _piece(
        self, thread: int, program: NumpyProgram, part: list[Block], inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> Callable[[], None]:
        calls = []
        for block in part:
            views = simplify([view(x, block) for x in (*inputs, *outputs)])
            calls.append((*views, *self._registers(thread, program, views[-1].shape)))
        run = program.run
        if len(calls) == 1:
            only = calls[0]
            return lambda: run(*only)

        def piece() -> None:
            for call in calls:
                run(*call)

        return piece

    def _registers(self, thread: int, program: NumpyProgram, shape: tuple[int, ...]) -> list[Any]:
        """Return scratch arrays of this shape; all plans of a thread share them, one after another."""
        while len(self._scratch) <= thread:
            self._scratch.append(([], []))
        registers, flags = self._scratch[thread]
        size = int(np.prod(shape))
        used = []
        for kept, needed, dtype in ((registers, program.n_registers, self.dtype), (flags, program.n_flags, np.bool_)):
            for i in range(needed):
                if i == len(kept):
                    kept.append(np.empty(size, dtype))
                elif kept[i].size < size:
                    kept[i] = np.empty(size, dtype)
                used.append(kept[i][:size].reshape(shape))
        return used
