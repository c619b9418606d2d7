"""Columnar files of Apache Arrow, .parquet and .arrow or .feather, read by pyarrow group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.arrow_batches import batches_of
from gpumlp.data.blocks import Blocks, Piece
from gpumlp.data.files import Request, about, categorical_columns, damage_told, nearest, needed, shortened
from gpumlp.data.limits import expect_piece
from gpumlp.data.table import (
    Array,
    Codes,
    expect_room_for_codes,
    expect_room_for_texts,
    rows_per_block,
    texts_by_codes,
)
from gpumlp.errors import DataError

DAMAGED = "a whole file of Apache Arrow or Parquet", "is it damaged or cut short? write it again"


@dataclass(frozen=True)
class Layout:
    """Which columns are features, and which is the target.

    texts   names of the columns that hold text
    codes   of the columns that are read as text; they grow while it is read
    """

    names: tuple[str, ...]
    texts: list[str]
    target: int | None
    x_dtype: np.dtype[Any]
    y_dtype: np.dtype[Any] | None
    missing: bool
    codes: dict[int, Codes]

    @property
    def features(self) -> tuple[int, ...]:
        """The numbers of all columns but the target."""
        return tuple(i for i in range(len(self.names)) if i != self.target)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all columns but the target."""
        return tuple(self.names[i] for i in self.features)


def open_parquet(path: Path, request: Request) -> Blocks:
    """Return a Parquet file as Blocks, read group of rows by group; the target is a column's name or number."""
    with about(path), damage_told(*DAMAGED), _opened_parquet(path) as file:
        layout = _layout(file.schema_arrow, request)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        counts = _counted(group.num_rows for group in groups)
        largest = max((group.total_byte_size for group in groups), default=0)
        expect_piece(largest, "has a group of rows", "again with a smaller row_group_size")

    def batches(start: int) -> Iterator[tuple[int, Any]]:
        with _opened_parquet(path, layout.texts) as file:
            for i, at in _from(start, counts):
                for batch in file.iter_batches(rows_per_block(len(layout.names)), row_groups=[i]):
                    yield at, batch
                    at += batch.num_rows

    return _as_blocks(path, layout, sum(counts), batches)


@contextmanager
def _opened_parquet(path: Path, texts: list[str] | None = None) -> Iterator[Any]:
    """Open a file, which is closed whatever happens; a text that stands in many rows of `texts` is read once."""
    parquet, arrow = needed("pyarrow.parquet", "arrow"), needed("pyarrow", "arrow")
    with arrow.OSFile(str(path)) as source, parquet.ParquetFile(source, read_dictionary=texts) as file:
        yield file


def open_arrow(path: Path, request: Request) -> Blocks:
    """Return a file of Arrow record batches (Feather version 2 is one) as Blocks; it is mapped, not read."""
    with about(path), damage_told(*DAMAGED):
        ipc, arrow = needed("pyarrow.ipc", "arrow"), needed("pyarrow", "arrow")
        with arrow.memory_map(str(path)) as source, ipc.open_file(source) as file:
            layout = _layout(file.schema, request)
            source.seek(0)
            rows, dictionaries = batches_of(memoryview(source.read_buffer()))
            largest = max((batch.n_bytes for batch in rows), default=0) + sum(batch.n_bytes for batch in dictionaries)
            expect_piece(largest, "has a batch of rows", "again in smaller batches")
            counts = _counted(batch.n_rows for batch in rows)

    def batches(start: int) -> Iterator[tuple[int, Any]]:
        with arrow.memory_map(str(path)) as source, ipc.open_file(source) as file:
            for i, at in _from(start, counts):
                yield at, file.get_batch(i)

    return _as_blocks(path, layout, sum(counts), batches)


def _counted(rows: Iterable[int]) -> list[int]:
    """Return the rows of each group as it claims them; raise ValueError for one that claims fewer than none."""
    counts = list(rows)
    if min(counts, default=0) < 0:
        raise ValueError(f"a group of {min(counts)} rows")
    return counts


def _from(start: int, counts: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the groups of so many rows each that have a row at `start` or behind, with where each begins."""
    ends = np.cumsum(counts).tolist()
    yield from ((i, end - count) for i, (count, end) in enumerate(zip(counts, ends, strict=True)) if start < end)


def _as_blocks(path: Path, layout: Layout, n_rows: int, batches: Callable[[int], Iterator[tuple[int, Any]]]) -> Blocks:
    if n_rows == 0:
        raise DataError(f"{path}: holds no row, expected at least one; check where it comes from")

    def pieces(start: int) -> Iterator[Piece]:
        step = rows_per_block(len(layout.names))
        with about(path), damage_told(*DAMAGED):
            for at, batch in batches(start):
                batch.validate(full=True)
                for first in range(max(start - at, 0), batch.num_rows, step):
                    yield _piece(batch.slice(first, step), at + first, layout)

    return Blocks(
        pieces,
        n_rows,
        len(layout.feature_names),
        layout.x_dtype,
        layout.y_dtype,
        layout.feature_names,
        None if layout.target is None else layout.names[layout.target],
        str(path),
        (lambda: texts_by_codes(layout.codes, layout.features)) if layout.codes else None,
    )


def _layout(schema: Any, request: Request) -> Layout:
    names = tuple(str(name) for name in schema.names)
    target = _target_column(names, request)
    features = [i for i in range(len(names)) if i != target]
    if not features:
        raise DataError(f"has {len(names)} column{'s' * (len(names) != 1)}, expected a feature and a target; add one")
    text = {i for i in features if request.categorical is not None and _is_text(schema.field(i).type)}
    coded = text | categorical_columns(names, target, request)
    types = [np.dtype(np.float64) if i in text else _feature_type(schema.field(i)) for i in features]
    kept = types[0] if len(set(types)) == 1 and types[0].name in ("uint8", "float32") else np.dtype(np.float64)
    if coded:
        kept = np.dtype(np.float64)
    if request.missing and kept.kind != "f":
        kept = np.dtype(np.float32)
    y_dtype = None if target is None else _target_type(schema.field(target))
    texts = [name for i, name in enumerate(names) if _is_text(schema.field(i).type)]
    return Layout(names, texts, target, kept, y_dtype, request.missing, {i: {} for i in coded})


def _target_column(names: tuple[str, ...], request: Request) -> int | None:
    target = request.target
    if target is None:
        return len(names) - 1 if request.with_target else None
    if names.count(str(target)) > 1:
        raise DataError(f"{names.count(str(target))} columns are named {str(target)!r}; give the number of one")
    if str(target) in names:
        return names.index(str(target))
    try:
        return range(len(names))[int(str(target))]
    except (ValueError, IndexError) as error:
        raise DataError(f"no column is named {shortened(str(target))!r}; {nearest(str(target), names)}") from error


def _feature_type(field: Any) -> np.dtype[Any]:
    types = needed("pyarrow.types", "arrow")
    kind = field.type
    if types.is_boolean(kind):
        return np.dtype(np.bool_)
    if types.is_integer(kind) or types.is_floating(kind):
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    if types.is_decimal(kind):
        return np.dtype(np.float64)
    raise DataError(f"column {field.name!r} holds {kind}, expected numbers; encode or drop it")


def _target_type(field: Any) -> np.dtype[Any] | None:
    """Return the dtype of the target; None for text, of which only reading tells the longest."""
    types = needed("pyarrow.types", "arrow")
    if _is_text(field.type):
        return None
    return _feature_type(field.with_type(field.type.value_type) if types.is_dictionary(field.type) else field)


def _is_text(kind: Any) -> bool:
    types = needed("pyarrow.types", "arrow")
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _piece(batch: Any, at: int, layout: Layout) -> Piece:
    X = np.empty((batch.num_rows, len(layout.feature_names)), layout.x_dtype)
    for j, i in enumerate(layout.features):
        if i in layout.codes:
            X[:, j] = _coded(batch.column(i), layout.codes[i])
        else:
            X[:, j] = _values(batch.column(i), at, layout.names[i], layout.missing)
    expect_room_for_codes(layout.codes)
    if layout.target is None:
        return X, None
    y = _values(batch.column(layout.target), at, layout.names[layout.target], missing=False)
    if layout.y_dtype is not None:
        return X, y.astype(layout.y_dtype)
    expect_room_for_texts(len(y), max(map(len, y), default=0))
    return X, y.astype(np.str_)


def _coded(column: Any, codes: Codes) -> Array:
    """Return the codes of a column as text, in which new texts get new ones; a missing value is the text ""."""
    types, arrow = needed("pyarrow.types", "arrow"), needed("pyarrow", "arrow")
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    used = encoded.indices.dictionary_encode(null_encoding="encode")  # in the order in which they appear
    texts = encoded.dictionary.take(used.dictionary).cast(arrow.string()).fill_null("").to_pylist()
    places = np.array([codes.setdefault(text, len(codes)) for text in texts], np.int64)
    found: Array = places[used.indices.to_numpy(zero_copy_only=False)]
    return found


def _values(column: Any, at: int, name: str, missing: bool) -> Array:
    types, arrow = needed("pyarrow.types", "arrow"), needed("pyarrow", "arrow")
    if types.is_dictionary(column.type):
        if _is_text(column.type):
            used = column.dictionary.take(column.indices.unique()).to_pylist()
            expect_room_for_texts(len(column), max((len(text or "") for text in used), default=0))
        column = column.dictionary_decode()
    if column.null_count and not missing:
        row = at + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"missing value in row {row + 1}, column {name!r}, expected one in each cell; fill it or remove the row"
        )
    if types.is_boolean(column.type) or types.is_decimal(column.type):
        column = column.cast(arrow.uint8() if types.is_boolean(column.type) else arrow.float64())
    values: Array = column.to_numpy(zero_copy_only=False)
    return values
