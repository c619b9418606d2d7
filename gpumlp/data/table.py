"""Features and their target, checked once where they enter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.limits import expect_room
from gpumlp.errors import DataError

Array = NDArray[Any]
Codes = dict[str, int]  # the texts of a column by their numbers, counted up as they appear
Texts = tuple[tuple[str, ...] | None, ...]  # of each feature the texts by their codes; None where it holds numbers

OF_A_TEXT = 160  # bytes that a short text takes, with its code
BLOCK_VALUES = 1 << 17  # a float64 block of 1 MiB stays in the cache


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of features with their target, of dtypes that training can take.

    X              (n_samples, n_features) uint8, float32 or float64; float16 becomes float32, other numbers float64
    y              (n_samples,) or (n_samples, n_out) numbers, bool or str, or None; one column becomes (n_samples,)
    feature_names  n_features names, or None
    target_name    the name of y, or None
    texts          of each feature the texts that its values are the places of, "" for one that is missing, and None for
                   a feature of numbers; None if all are
    Raises         DataError if a shape, a dtype or a number of rows or names does not fit; values are not looked at
    """

    X: Array
    y: Array | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    texts: Texts | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", _as_features(self.X))
        if self.y is not None:
            object.__setattr__(self, "y", _as_target(self.y))
            expect_as_many(len(self.X), len(self.y))
        n_features = self.X.shape[1]
        if self.feature_names is not None:
            expect_names(len(self.feature_names), self.X.shape)
        if self.texts is not None and len(self.texts) != n_features:
            raise DataError(f"texts of {len(self.texts)} features came for {n_features}; give those of each, or None")
        _expect_distinct(self.feature_names)


def texts_by_codes(codes: dict[int, Codes], features: Iterable[int]) -> Texts | None:
    """Return the texts of `features`, columns by their numbers, if any of them has codes."""
    return tuple(tuple(codes[i]) if i in codes else None for i in features) if codes else None


def codes_of(values: Array, n_texts: int, name: str) -> NDArray[np.int64]:
    """Return the values of a feature of text as places in its texts; raise DataError if one is none."""
    if not ((values >= 0) & (values < n_texts) & (values == np.floor(values))).all():
        raise DataError(
            f"column {name!r} holds values that are no places in its {n_texts:,} texts, expected whole numbers from 0; "
            "read or convert the data again"
        )
    return values.astype(np.int64)


def expect_room_for_codes(codes: dict[int, Codes]) -> None:
    """Raise DataError if columns hold more different texts than `data_limit` allows."""
    n_texts = sum(map(len, codes.values()))
    expect_room(n_texts * OF_A_TEXT, f"{n_texts:,} different texts", "drop columns that hold another in each row")


def expect_room_for_texts(n_rows: int, longest: int, copies: int = 1) -> None:
    """Raise DataError if so many texts take more memory than `data_limit` allows, each as much as the longest."""
    n_bytes = copies * n_rows * longest * np.dtype("<U1").itemsize
    expect_room(n_bytes, f"{n_rows:,} labels as long as the longest, of {longest:,} characters", "shorten it")


def expect_names(n_names: int, shape: tuple[int, ...]) -> None:
    """Raise DataError unless there is a name for each feature of an array of that shape."""
    if len(shape) == 2 and n_names != shape[1]:
        raise DataError(f"{n_names} feature names came for {shape[1]} features; give one for each")


def expect_as_many(n_rows: int, n_targets: int) -> None:
    """Raise DataError unless there is a target for each row."""
    if n_targets != n_rows:
        raise DataError(f"X has {n_rows} rows, but y has {n_targets}; each row needs its target, give as many")


def check_finite(table: Table, missing: bool = False) -> None:
    """Raise DataError if X or a numeric y holds NaN or infinity, naming the first place and their number.

    missing   NaN may stand in X, for values that are missing
    """
    names = table.feature_names
    _expect_finite(
        table.X,
        "X",
        lambda column: f", feature {names[column]!r}" if names else f", feature {column} (from 0)",
        np.isinf if missing else _is_bad,
    )
    if table.y is not None:
        y = table.y if table.y.ndim == 2 else table.y[:, None]
        several = y.shape[1] > 1
        _expect_finite(y, "y", lambda column: f", column {column} (from 0)" if several else "")


def row_blocks(X: Array) -> Iterator[slice]:
    """Yield slices that cover the rows of X in order, each of about BLOCK_VALUES values."""
    rows = rows_per_block(X.shape[1])
    for start in range(0, len(X), rows):
        yield slice(start, start + rows)


def rows_per_block(n_features: int) -> int:
    """Return how many rows make a block of about BLOCK_VALUES values."""
    return max(1, BLOCK_VALUES // max(1, n_features))


def _as_features(values: Any) -> Array:
    X: Array = np.asarray(values)
    if X.dtype.kind not in "biuf" or X.dtype.itemsize > 8:
        raise DataError(f"X has dtype {X.dtype}, expected numbers of at most 64 bits; convert it first")
    if X.ndim != 2:
        raise DataError(f"X has shape {X.shape}, expected (n_samples, n_features); reshape X to two axes")
    if 0 in X.shape:
        raise DataError(f"X has shape {X.shape}, expected at least one row and one feature; check where it comes from")
    kept: Any = {"uint8": np.uint8, "float16": np.float32, "float32": np.float32}.get(X.dtype.name, np.float64)
    if X.dtype.name != np.dtype(kept).name and X.size > BLOCK_VALUES:
        expect_room(X.size * np.dtype(kept).itemsize, f"X as {np.dtype(kept)}, which was {X.dtype}")
    return X.astype(kept, copy=False)  # native byte order, whatever the file's was


def _as_target(values: Any) -> Array:
    y: Array = np.asarray(values)
    if y.dtype.kind not in "biufU":
        raise DataError(f"y has dtype {y.dtype}, expected numbers or str; convert it first, text with astype(str)")
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise DataError(f"y has shape {y.shape}, expected (n_samples,) or (n_samples, n_out); reshape it")
    y = y.astype(y.dtype.newbyteorder("="), copy=False)
    return y[:, 0] if y.shape[1:] == (1,) else y


def _expect_distinct(names: tuple[str, ...] | None) -> None:
    twice = next((name for name, n in Counter(names or ()).items() if n > 1), None)
    if names is None or twice is None:
        return
    raise DataError(
        f"{names.count(twice)} features are named {twice!r}, expected a name of its own for each; rename or drop one"
    )


def _is_bad(values: Array) -> NDArray[np.bool_]:
    return ~np.isfinite(values)


def _expect_finite(
    values: Array, name: str, place: Callable[[int], str], is_bad: Callable[[Array], NDArray[np.bool_]] = _is_bad
) -> None:
    if values.dtype.kind != "f":
        return
    count, first = 0, (0, 0)
    for rows in row_blocks(values):
        bad = np.argwhere(is_bad(values[rows]))
        if len(bad) and not count:
            first = rows.start + int(bad[0, 0]), int(bad[0, 1])
        count += len(bad)
    if count:
        row, column = first
        raise DataError(
            f"{name} holds {count} value{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} not finite, "
            f"the first {values[row, column]} in row {row + 1}{place(column)}; remove or fill them"
        )
