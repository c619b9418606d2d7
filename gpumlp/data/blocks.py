"""A data set read by ranges of rows, so that it may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from typing import Any, BinaryIO

import numpy as np

from gpumlp.data.limits import expect_room
from gpumlp.data.table import Array, Table, Texts, expect_as_many, expect_room_for_texts, rows_per_block
from gpumlp.errors import DataError

Piece = tuple[Array, Array | None]  # X, y of some rows in their order


@dataclass(frozen=True)
class Blocks:
    """A data set whose rows are read block by block; the dtypes are those of `Table`.

    pieces          pieces(start) -> X and y of the rows from `start` on, in pieces of any length
    n_rows          or None where only reading to the end tells
    y_dtype         None without a target, and where only reading to the end tells
    name            what errors call it
    texts           gives Table's texts once all rows were read; None without text
    """

    pieces: Callable[[int], Iterator[Piece]]
    n_rows: int | None
    n_features: int
    x_dtype: np.dtype[Any]
    y_dtype: np.dtype[Any] | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    name: str = "the data"
    texts: Callable[[], Texts | None] | None = None

    def __iter__(self) -> Iterator[Table]:
        """Yield all rows in order, a table of some at a time; its values are not looked at."""
        for X, y in self.pieces(0):
            yield self._table(X, y)

    def read(self, start: int, stop: int) -> Table:
        """Return the rows from `start` to before `stop`; text and packed files are read from their beginning for it.

        Raises   DataError if there are no such rows, or if they take more memory than is allowed
        """
        if not 0 <= start < stop or (self.n_rows is not None and stop > self.n_rows):
            raise DataError(
                f"{self.name}: no rows {start} to {stop}, expected 0 <= start < stop <= {self.n_rows or 'the end'}; "
                "rows are counted from 0"
            )
        return self._with_texts(self._rows(start, stop, f"{self.name}: rows {start} to {stop}"))

    def gather(self) -> Table:
        """Return all rows; raise DataError if they take more memory than is allowed."""
        if self.n_rows:
            table = self._rows(0, self.n_rows, "the table")
        else:
            table = self._table(*gathered((part.X, part.y) for part in self))
        return self._with_texts(table)

    def _with_texts(self, table: Table) -> Table:
        """Return rows with the texts that were met so far."""
        return table if self.texts is None else replace(table, texts=self.texts())

    def _rows(self, start: int, stop: int, what: str) -> Table:
        """Return some rows, each block put where it belongs as it comes."""
        width = self.n_features * self.x_dtype.itemsize + (self.y_dtype.itemsize if self.y_dtype else 0)
        expect_room((stop - start) * width, what)
        X, labels = np.empty((stop - start, self.n_features), self.x_dtype), []
        found = 0
        for some, y in self.pieces(start):
            wanted = len(X) - found
            part = self._table(some[:wanted], None if y is None else y[:wanted])
            X[found : found + len(part.X)] = part.X
            found += len(part.X)
            if part.y is not None:
                labels.append(part.y)
                expect_room_for_labels(labels, found)
            if found == len(X):
                break
        else:
            raise DataError(
                f"{self.name}: ends after {start + found} rows, expected {stop}; it is cut short, or has changed"
            )
        return self._table(X, put_together(labels) if labels else None)

    def _table(self, X: Array, y: Array | None) -> Table:
        return Table(X, y, self.feature_names, self.target_name)


def gathered(pieces: Iterable[Piece]) -> Piece:
    """Return all rows; raise DataError if there is none, or if they take more memory than is allowed."""
    parts: list[Array] = []
    labels: list[Array] = []
    n_rows = n_bytes = 0
    for X, y in pieces:
        parts.append(X)
        n_rows, n_bytes = n_rows + len(X), n_bytes + X.nbytes
        if y is not None:
            labels.append(y)
            n_bytes += y.nbytes
            expect_room_for_labels(labels, n_rows)
        expect_room(n_bytes, "the table")
    if not parts:
        raise DataError("holds no row, expected at least one; check where it comes from")
    return put_together(parts), put_together(labels) if labels else None


def put_together(parts: list[Array]) -> Array:
    """Return the rows of arrays as one; the list is empty then, so that they are not in memory twice."""
    if len(parts) == 1:
        return parts.pop()
    at = sum(map(len, parts))
    whole = np.empty((at, *parts[0].shape[1:]), np.result_type(*parts))
    while parts:
        part = parts.pop()
        at -= len(part)
        whole[at : at + len(part)] = part
    return whole


def expect_room_for_labels(labels: list[Array], n_rows: int) -> None:
    """Raise DataError if labels of text, put together, take more memory than `data_limit` allows."""
    if labels[-1].dtype.kind == "U":
        expect_room_for_texts(n_rows, max(y.dtype.itemsize for y in labels) // 4)


def blocks_of_arrays(
    X: Any,
    y: Any,
    feature_names: tuple[str, ...] | None = None,
    target_name: str | None = None,
    name: str = "the data",
    texts: Texts | None = None,
) -> Blocks:
    """Return arrays of whatever gives rows by slices, mapped files among them, as Blocks."""
    n_rows = len(X)
    head = Table(X[:1], None if y is None else y[:1], feature_names, target_name, texts)
    expect_as_many(n_rows, n_rows if y is None else len(y))

    def pieces(start: int) -> Iterator[Piece]:
        step = rows_per_block(head.X.shape[1])
        for first in range(start, n_rows, step):
            rows = slice(first, first + step)
            yield X[rows], None if y is None else y[rows]

    y_dtype, known = None if head.y is None else head.y.dtype, _known(texts)
    return Blocks(pieces, n_rows, head.X.shape[1], head.X.dtype, y_dtype, feature_names, target_name, name, known)


def blocks_of(source: Iterable[Any], name: str = "the blocks") -> Blocks:
    """Return what an iterable gives, X or (X, y) or Table of some rows at a time, as Blocks.

    A list, or an object whose __iter__ begins anew, can be read as often as wanted; a generator once.
    Raises   DataError if it gives nothing, or no blocks
    """
    once = iter(source) is source
    rest = iter(source)
    first = next(rest, None)
    if first is None:
        raise DataError(f"{name}: gave nothing, expected X or (X, y) of some rows; was a generator read before?")
    head = _as_table(first, name)
    waiting = [chain([first], rest)] if once else []

    def begun() -> Iterator[Any]:
        if not once:
            return iter(source)
        if not waiting:
            raise DataError(
                f"{name}: a generator can be read once; give a list, or an object whose __iter__ begins anew"
            )
        return waiting.pop()

    def pieces(start: int) -> Iterator[Piece]:
        for item in begun():
            table = _as_table(item, name)
            _expect_alike(table, head, name)
            if start < len(table.X):
                yield table.X[start:], None if table.y is None else table.y[start:]
            start = max(0, start - len(table.X))

    y_dtype, known = None if head.y is None else head.y.dtype, _known(head.texts)
    names = head.feature_names, head.target_name
    return Blocks(pieces, None, head.X.shape[1], head.X.dtype, y_dtype, *names, name, known)


def _known(texts: Texts | None) -> Callable[[], Texts | None] | None:
    """Return what gives texts that are known beforehand."""
    return None if texts is None else lambda: texts


def streamed_rows(
    file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, step: int
) -> Iterator[Array]:
    """Yield the rows from `start` on, `step` at a time, of a C-ordered array of which `file` stands at the first."""
    n_values = prod(shape[1:])
    width = n_values * dtype.itemsize
    _skip(file, start * width)
    for first in range(start, shape[0], step):
        n = min(step, shape[0] - first)
        content = read_up_to(file, n * width)
        if len(content) < n * width:
            found = first + len(content) // max(width, 1)
            raise DataError(f"is cut short: it holds {found} of {shape[0]} rows; fetch or write it again")
        yield np.frombuffer(content, dtype, n * n_values).reshape(n, *shape[1:])


def read_up_to(file: BinaryIO, n_bytes: int) -> bytearray:
    """Return so many bytes, or fewer at the end of the file; memory grows with what is there."""
    content = bytearray()
    while len(content) < n_bytes:
        part = file.read(min(n_bytes - len(content), 1 << 20))
        if not part:
            break
        content += part
    return content


def _skip(file: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        part = file.read(min(n_bytes, 1 << 20))
        if not part:
            return
        n_bytes -= len(part)


def _as_table(item: Any, name: str) -> Table:
    if isinstance(item, Table):
        return item
    try:
        return Table(*item) if isinstance(item, tuple) and len(item) == 2 else Table(item)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: gave {type(item).__name__}, expected X or (X, y) of some rows: {error}") from error


def _expect_alike(table: Table, head: Table, name: str) -> None:
    kinds = ["none" if t.y is None else "text" if t.y.dtype.kind == "U" else "numbers" for t in (table, head)]
    shapes = [(t.X.shape[1], () if t.y is None else t.y.shape[1:]) for t in (table, head)]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        raise DataError(
            f"{name}: a block has {shapes[0][0]} features and a target of {kinds[0]}, expected {shapes[1][0]} and "
            f"{kinds[1]} as in the first; give the same columns in each"
        )
    if table.texts != head.texts:
        raise DataError(f"{name}: a block has other texts than the first, expected the same; code all blocks alike")
