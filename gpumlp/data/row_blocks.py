"""Rows that come block by block, again in each epoch: of arrays that may be mapped files, of a list, of an iterable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpumlp.data.table import Array, Table, expect_as_many, rows_per_block
from gpumlp.errors import DataError


class Block(NamedTuple):
    """Rows of features and their targets, which follow one another in the data from row `start` on."""

    start: int
    X: Array
    Y: Array

    def part(self, begin: int, end: int) -> Block:
        """Return some of its rows, counted from its first one."""
        return Block(self.start + begin, self.X[begin:end], self.Y[begin:end])


class RowBlocks(Protocol):
    """A data set in blocks.

    is_fixed   whether the same values come each time
    """

    is_fixed: bool

    def survey(self) -> Iterator[Block]:
        """Yield all rows as they stand, and count them."""
        ...

    def cut(self, rows: int) -> int:
        """Let blocks have about so many rows if that can be chosen; return how many blocks can be put in any order.

        1 if they come as they come.
        """
        ...

    def read(self, order: Array) -> Iterator[Block]:
        """Yield the blocks in this order of their numbers."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Return by name what the values come from, as far as they are arrays."""
        ...


class ArrayBlocks:
    """Blocks of arrays.

    without   numbers of rows, sorted, that are left out; those behind them move up
    """

    is_fixed = True

    def __init__(self, X: Array, Y: Array, without: Array | None = None) -> None:
        expect_as_many(len(X), len(Y))
        self.X, self.Y = X, Y
        self._without = np.empty(0, np.int64) if without is None else without
        self._step = rows_per_block(values_of_row(X))

    @property
    def kept(self) -> Array:
        """The numbers of all rows that are not left out."""
        return np.delete(np.arange(len(self.X)), self._without)

    def survey(self) -> Iterator[Block]:
        """Yield all rows as they stand."""
        return self.read(np.arange(self._n_blocks()))

    def cut(self, rows: int) -> int:
        """Let blocks have so many rows, the last one fewer."""
        self._step = rows
        return self._n_blocks()

    def read(self, order: Array) -> Iterator[Block]:
        """Yield the blocks in this order."""
        for start, rows in self._parts(order):
            yield Block(start, self.X[rows], self.Y[rows])

    def numbers(self, order: Array) -> Iterator[Block]:
        """Yield the blocks in this order with the numbers of their rows for X and Y."""
        for start, rows in self._parts(order):
            numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            yield Block(start, numbers, numbers)

    def _parts(self, order: Array) -> Iterator[tuple[int, slice | Array]]:
        """Yield where each block begins among the rows that are not left out, and which rows it has."""
        for number in order.tolist():
            rows = slice(number * self._step, min((number + 1) * self._step, len(self.X)))
            before, until = np.searchsorted(self._without, (rows.start, rows.stop))
            start = rows.start - int(before)
            if until == before:
                yield start, rows
            elif until - before < rows.stop - rows.start:
                is_kept = np.ones(rows.stop - rows.start, np.bool_)
                is_kept[self._without[before:until] - rows.start] = False
                yield start, rows.start + np.flatnonzero(is_kept)

    def arrays(self) -> dict[str, Array]:
        """Return all that the rows come from."""
        return {"X": self.X, "Y": self.Y, "without": self._without}

    def _n_blocks(self) -> int:
        return -(-len(self.X) // self._step)


class ChangedBlocks:
    """Other blocks, whose rows are changed as they come.

    change   change(X, Y) -> X, Y of as many rows
    by       arrays by name that the change depends on, if any
    """

    is_fixed = False

    def __init__(
        self,
        blocks: RowBlocks,
        change: Callable[[Array, Array], tuple[Array, Array]],
        by: dict[str, Array] | None = None,
    ) -> None:
        self.blocks, self.change, self.by = blocks, change, by or {}

    def survey(self) -> Iterator[Block]:
        """Yield all rows as they stand."""
        return map(self._changed, self.blocks.survey())

    def cut(self, rows: int) -> int:
        """Cut the others."""
        return self.blocks.cut(rows)

    def read(self, order: Array) -> Iterator[Block]:
        """Yield the blocks in this order."""
        return map(self._changed, self.blocks.read(order))

    def arrays(self) -> dict[str, Array]:
        """Return those of the others, and what they are changed by."""
        return self.blocks.arrays() | self.by

    def _changed(self, block: Block) -> Block:
        return Block(block.start, *self.change(block.X, block.Y))


class ListedBlocks:
    """Blocks of a list, or of anything that has a length and gives its elements by number, in any order."""

    is_fixed = False

    def __init__(self, blocks: Sequence[Any]) -> None:
        self.blocks, self._starts = blocks, [0]

    def survey(self) -> Iterator[Block]:
        """Yield all blocks and note where each begins."""
        self._starts = [0]
        for number in range(len(self.blocks)):
            block = self._block(number)
            self._starts.append(block.start + len(block.X))
            yield block

    def cut(self, rows: int) -> int:
        """Return how many blocks there are."""
        return len(self.blocks)

    def read(self, order: Array) -> Iterator[Block]:
        """Yield the blocks in this order."""
        for number in order.tolist():
            block = self._block(number)
            found, known = len(block.X), self._starts[number + 1] - self._starts[number]
            if found != known:
                raise DataError(f"block {number} has {found} rows, before it had {known}; give the same each time")
            yield block

    def arrays(self) -> dict[str, Array]:
        """Return nothing: blocks are taken at their word."""
        return {}

    def _block(self, number: int) -> Block:
        return Block(self._starts[number], *pair(self.blocks[number], number))


class IteratedBlocks:
    """Blocks of an object whose __iter__ begins anew, in the order in which they come."""

    is_fixed = False

    def __init__(self, blocks: Iterable[Any]) -> None:
        if iter(blocks) is blocks:
            raise DataError(
                f"the blocks are {type(blocks).__name__}, which can be read once, but each epoch reads them again; "
                "give a list, or an object whose __iter__ begins anew"
            )
        self.blocks = blocks

    def survey(self) -> Iterator[Block]:
        """Yield all blocks."""
        return self.read(np.zeros(1, np.int64))

    def cut(self, rows: int) -> int:
        """Return 1: the order is theirs."""
        return 1

    def read(self, order: Array) -> Iterator[Block]:
        """Yield the blocks as they come."""
        start = 0
        for number, item in enumerate(self.blocks):
            X, Y = pair(item, number)
            yield Block(start, X, Y)
            start += len(X)

    def arrays(self) -> dict[str, Array]:
        """Return nothing: blocks are taken at their word."""
        return {}


def row_blocks(X: Any, Y: Any = None) -> RowBlocks:
    """Return arrays, or without Y a list or an iterable of (X, Y) or Table of some rows, as blocks; blocks as given.

    Raises   DataError for what cannot be read again
    """
    if Y is not None:
        return ArrayBlocks(as_array(X), as_array(Y))
    if isinstance(X, ArrayBlocks | ChangedBlocks):
        return X
    if hasattr(X, "__len__") and hasattr(X, "__getitem__"):
        return ListedBlocks(X)
    if isinstance(X, Iterable):
        return IteratedBlocks(X)
    raise DataError(f"X is {type(X).__name__}, and Y is missing; give both, or an iterable of blocks (X, Y)")


def pair(item: Any, number: int) -> tuple[Array, Array]:
    """Return X and Y of what an iterable gave; raise DataError if it is no block."""
    X, Y = (item.X, item.y) if isinstance(item, Table) else item if isinstance(item, tuple | list) else (None, None)
    if X is None or Y is None:
        raise DataError(f"block {number} is {type(item).__name__}, expected (X, Y) of some rows")
    X, Y = as_array(X), as_array(Y)
    expect_as_many(len(X), len(Y))
    return X, Y


def as_array(values: Any) -> Array:
    """Return rows as an array of the host; raise DataError where they are on a device."""
    if hasattr(values, "__cuda_array_interface__"):
        raise DataError("rows that come by pools lie on a CUDA device, expected those of the host; leave `pool` away")
    return np.asarray(values)


def values_of_row(X: Array) -> int:
    """Return how many values a row has."""
    return int(np.prod(X.shape[1:], dtype=np.int64))
