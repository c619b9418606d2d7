"""Text tables, .csv and .tsv: numbers by NumPy's fast reader, labels and every complaint by the csv module."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpumlp.data.blocks import Blocks, Piece, gathered
from gpumlp.data.files import PartsWithTexts, Request, about, categorical_columns, listed, nearest, open_text, shortened
from gpumlp.data.limits import longest_line
from gpumlp.data.table import (
    Array,
    Codes,
    Texts,
    expect_room_for_codes,
    expect_room_for_texts,
    rows_per_block,
    texts_by_codes,
)
from gpumlp.errors import DataError

Row = tuple[int, list[str]]  # the number of the line, counted from 1, on which the row ends; its cells without blanks

BLOCK_CHARACTERS = 1 << 24  # of lines that are read at once
LONGEST_ROW = 1 << 20  # characters that a row may go on for beyond its line, by quoted cells


@dataclass(frozen=True)
class Layout:
    """What the first rows of a text table tell.

    advice   what else may be done with text where a number is expected
    codes    of the columns that are read as text; they grow while it is read
    named    those of them that were asked for by name, in which numbers are text, too
    """

    delimiter: str
    names: tuple[str, ...] | None
    n_columns: int
    target: int | None
    n_header_lines: int
    missing: bool
    advice: str
    codes: dict[int, Codes] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)

    @property
    def n_features(self) -> int:
        """Columns beside the target."""
        return self.n_columns - (self.target is not None)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the features, if there is a header."""
        if self.names is None or self.target is None:
            return self.names
        return self.names[: self.target] + self.names[self.target + 1 :]

    @property
    def target_name(self) -> str | None:
        """The name of the target, if there is a header and a target."""
        return None if self.names is None or self.target is None else self.names[self.target]

    def texts(self) -> Texts | None:
        """Return Table's texts, after all rows were read."""
        return texts_by_codes(self.codes, (i for i in range(self.n_columns) if i != self.target))

    def column(self, i: int) -> str:
        """Spell column `i` as its reader would look for it."""
        return f"column {self.names[i]!r}" if self.names else f"column {i} (from 0)"


class LabelsAreText(Exception):
    """A label is no number, so that all are text as they are spelled."""


def read_delimited(path: Path, request: Request) -> PartsWithTexts:
    """Return the features of a text table as float64 and its target as int64, float64 or str.

    header   "auto": the first row is a header if `target` is a column's name, or if no feature cell in it is a number;
             a row of both is taken as data, so that a slip in the first row is told and not swallowed
    target   a name of the header, else a number of a column from 0 (from the end if negative); without it the last
             column, or none where the request is without target
    """
    with about(path):
        layout = _find_layout(path, request)
        try:
            X, y = gathered(_pieces(path, request, layout, as_text=False))
        except LabelsAreText:
            X, y = gathered(_pieces(path, request, layout, as_text=True))
    if y is not None and y.dtype.kind == "f":
        y = _whole_if_whole(y)
    return X, y, layout.feature_names, layout.target_name, layout.texts()


def open_delimited(path: Path, request: Request) -> Blocks:
    """Return a text table as Blocks; it is read once to the end to count its rows and to tell what its labels are."""
    with about(path):
        layout = _find_layout(path, request)
        n_rows, y_dtype = _survey(path, request, layout)

    def pieces(start: int) -> Iterator[Piece]:
        as_text = y_dtype is not None and y_dtype.kind == "U"
        with about(path):
            for X, y in _pieces(path, request, layout, as_text):
                if start < len(X):
                    yield X[start:], None if y is None else y[start:].astype(y_dtype)
                start = max(0, start - len(X))

    return Blocks(
        pieces,
        n_rows,
        layout.n_features,
        np.dtype(np.float64),
        y_dtype,
        layout.feature_names,
        layout.target_name,
        str(path),
        layout.texts if layout.codes else None,
    )


def lines_of(text: TextIO) -> Iterator[str]:
    """Yield the lines of a text; raise DataError for one without end, before it fills the memory."""
    longest = longest_line()
    for number, line in enumerate(iter(lambda: text.readline(longest), ""), 1):
        if len(line) == longest:
            raise DataError(f"line {number} has {longest} characters or more, expected rows; is it a text table?")
        yield line


# ---------------------------------------------------------------- what the first rows tell


def _find_layout(path: Path, request: Request) -> Layout:
    delimiter = _find_delimiter(path, request)
    with open_text(path, request) as text:
        rows = list(islice(_rows(lines_of(text), delimiter), 2))
    if not rows:
        raise DataError("is empty, expected rows of comma-separated numbers; check where it comes from")
    line, first = rows[0]
    has_header = _is_header(first, request)
    if has_header and len(rows) == 1:
        raise DataError("holds a header and no row, expected one or more; if line 1 is data, pass header=False")
    names = tuple(first) if has_header else None
    target = _target_column(names, len(first), request)
    if len(first) == 1 and target is not None:
        raise DataError("has one column, expected a feature and a target; is the delimiter a comma, semicolon or tab?")
    layout = Layout(
        delimiter, names, len(first), target, line if has_header else 0, request.missing, _advice(names, request)
    )
    if request.categorical is not None:
        _find_text(path, request, layout)
        if len(layout.codes) == layout.n_features and not layout.named and _may_be_a_row(rows, target, request):
            raise DataError(
                "holds text in all features, so that line 1 may be names or a row; say which: --header or --no-header "
                "(header=True or False)"
            )
    return layout


def _advice(names: tuple[str, ...] | None, request: Request) -> str:
    if request.categorical is None:
        return ""
    if names is None:
        return ", or give the table a line of names: columns of text are taken by name"
    return ", or name the column as categorical (--categorical)"


def _find_text(path: Path, request: Request, layout: Layout) -> None:
    """Give codes to the columns that are categorical by name, and to those whose first value is no number.

    Columns without names, which no model could ask for again, get none.
    """
    if layout.names is None:
        if request.categorical:
            raise DataError(f"there is no header, but categorical columns came: {listed(request.categorical)}; add one")
        return
    layout.named.update(categorical_columns(layout.names, layout.target, request))
    unknown = set(range(layout.n_columns)) - layout.named - {layout.target}
    text = set(layout.named)
    with open_text(path, request) as lines:
        for line, cells in _rows(lines_of(lines), layout.delimiter):
            if line <= layout.n_header_lines:
                continue
            known = {i for i in unknown if i < len(cells) and cells[i]}
            text |= {i for i in known if _number(cells[i]) is None}
            unknown -= known
            if not unknown:
                break
    layout.codes.update({i: {} for i in text})


def _may_be_a_row(rows: list[Row], target: int | None, request: Request) -> bool:
    """Tell whether nothing but the absence of numbers made line 1 a header."""
    if request.header != "auto" or (request.target is not None and _whole(request.target) is None):
        return False
    if target is None:
        return True
    (_, first), (_, second) = rows
    return target >= len(second) or _number(first[target]) is not None or _number(second[target]) is None


def _find_delimiter(path: Path, request: Request) -> str:
    """Return a tab for .tsv, else that of comma, semicolon and tab that the first line holds most often."""
    if path.name.lower().endswith((".tsv", ".tsv.gz")):
        return "\t"
    with open_text(path, request) as text:
        first = next((line for line in lines_of(text) if line.strip()), "")
    return max(",;\t", key=first.count)


def _is_header(cells: list[str], request: Request) -> bool:
    if isinstance(request.header, bool):
        return request.header
    if request.header != "auto":
        raise DataError(
            f"header is {request.header!r}, expected 'auto', True or False; leave it out to be told by line 1"
        )
    if request.target is not None and _whole(request.target) is None:
        return True
    if request.categorical and set(request.categorical) <= set(cells):
        return True
    target = _target_column(None, len(cells), request)
    features = [cell for i, cell in enumerate(cells) if i != target and cell]
    return bool(features) and all(_number(cell) is None for cell in features)


def _target_column(names: tuple[str, ...] | None, n_columns: int, request: Request) -> int | None:
    target = request.target
    if target is None:
        return n_columns - 1 if request.with_target else None
    if names and str(target) in names:
        if names.count(str(target)) > 1:
            raise DataError(f"{names.count(str(target))} columns are named {str(target)!r}; give the number of one")
        return names.index(str(target))
    number = _whole(target)
    if number is None:
        hint = nearest(str(target), names) if names else "there is no header, so give its number"
        raise DataError(f"no column is named {shortened(str(target))!r}; {hint}")
    if not -n_columns <= number < n_columns:
        raise DataError(f"no column {number}, expected {-n_columns} to {n_columns - 1}; columns are counted from 0")
    return number % n_columns


# ---------------------------------------------------------------- rows, block by block


def _survey(path: Path, request: Request, layout: Layout) -> tuple[int, np.dtype[Any] | None]:
    """Return the number of rows and the dtype of the target: int64, float64, or text as long as the longest label."""
    n_rows, longest, numbers, whole = 0, 1, True, True
    with open_text(path, request) as text:
        for line, cells in _rows(lines_of(text), layout.delimiter):
            if line <= layout.n_header_lines:
                continue
            _expect_cells(line, cells, layout)
            n_rows += 1
            if layout.target is not None:
                label = cells[layout.target]
                longest = max(longest, len(label))
                value = _number(label) if numbers else None
                numbers = value is not None
                whole = whole and value is not None and _is_whole(value)
    if layout.target is None:
        return n_rows, None
    if not numbers:
        expect_room_for_texts(min(n_rows, rows_per_block(layout.n_columns)), longest, copies=3)
    kind: Any = np.int64 if whole and numbers else np.float64 if numbers else f"<U{longest}"
    return n_rows, np.dtype(kind)


def _pieces(path: Path, request: Request, layout: Layout, as_text: bool) -> Iterator[Piece]:
    """Yield the rows in blocks, labels as float64 or as text; raise LabelsAreText where they should be and are not."""
    n_rows, fast = rows_per_block(layout.n_columns), not (as_text or layout.codes)
    with open_text(path, request) as text:
        lines = lines_of(text)
        before, block = len(list(islice(lines, layout.n_header_lines))), list[str]()
        while fast and (block := _next_lines(lines, n_rows)):
            piece = _numbers(block, layout)
            if piece is None:  # text, a ragged row, a missing value, a row that is not over: find out which
                break
            before += len(block)
            if len(piece[0]):
                yield piece
        rows = _rows(chain(block, lines), layout.delimiter, before)
        while len((piece := _cells(_next_rows(rows, n_rows), layout, as_text))[0]):
            yield piece


def _next_lines(lines: Iterator[str], n: int) -> list[str]:
    """Return the next lines, n or as many as are long enough."""
    block, n_characters = [], 0
    for some in islice(lines, n):
        block.append(some)
        n_characters += len(some)
        if n_characters >= BLOCK_CHARACTERS:
            break
    return block


def _next_rows(rows: Iterator[Row], n: int) -> Iterator[Row]:
    """Yield the next rows, n or as many as are long enough."""
    n_characters = 0
    for line, cells in islice(rows, n):
        yield line, cells
        n_characters += sum(map(len, cells))
        if n_characters >= BLOCK_CHARACTERS:
            break


def _numbers(lines: list[str], layout: Layout) -> Piece | None:
    """Return a block that consists of numbers; None for another, and where a quoted number may go on behind it."""
    if "".join(lines).count('"') % 2:
        return None
    if not any(line.strip() for line in lines):
        return np.empty((0, layout.n_features)), None
    try:
        values = np.loadtxt(lines, delimiter=layout.delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError:
        return None
    if values.shape[1] != layout.n_columns:
        return None
    if layout.target is None:
        return values, None
    last = layout.target == layout.n_columns - 1  # as is usual: no copy is needed
    X = values[:, :-1] if last else np.delete(values, layout.target, axis=1)
    return X, values[:, layout.target].copy()  # which does not keep X alive


def _cells(rows: Iterable[Row], layout: Layout, as_text: bool) -> Piece:
    features, labels, numbers = array("d"), [], array("d")
    for line, cells in rows:
        _expect_cells(line, cells, layout)
        if layout.target is not None:
            label = cells[layout.target]
            value = None if as_text else _number(label)
            if as_text:
                labels.append(label)
            elif value is None:
                raise LabelsAreText
            else:
                numbers.append(value)
        features.extend(_feature_values(line, cells, layout))
    X = np.frombuffer(features).reshape(-1, layout.n_features) if features else np.empty((0, layout.n_features))
    expect_room_for_codes(layout.codes)
    if layout.target is None:
        return X, None
    if not as_text:
        return X, np.array(numbers)
    expect_room_for_texts(len(labels), max(map(len, labels), default=0))
    return X, np.array(labels, np.str_)


def _rows(lines: Iterable[str], delimiter: str, before: int = 0) -> Iterator[Row]:
    """Yield the rows that stand in lines, blank ones skipped; `before` is the number of lines before them."""
    begins, more = True, 0

    def bounded() -> Iterator[str]:
        nonlocal begins, more
        for line in lines:
            begins, more = False, 0 if begins else more + len(line)
            if more > LONGEST_ROW:
                raise DataError(
                    f"line {before + reader.line_num}: a row goes on for {LONGEST_ROW} characters or more behind its "
                    "first line, expected a quote where each quoted cell ends; is one missing?"
                )
            yield line

    reader = csv.reader(bounded(), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            begins = True
            row = [cell.strip() for cell in cells]
            if row not in ([], [""]):
                yield before + reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"line {before + reader.line_num}: {error}, expected rows of cells; is it a text table?"
        ) from error


def _expect_cells(line: int, cells: list[str], layout: Layout) -> None:
    """Raise DataError if a row has more or fewer cells than the first, or one is empty that must not be."""
    if len(cells) != layout.n_columns:
        raise DataError(f"line {line} has {len(cells)} cells, expected {layout.n_columns} as in the first; correct it")
    if "" in cells:
        bearing = layout.codes if not layout.missing else set(range(len(cells))) - {layout.target}
        empty = [i for i, cell in enumerate(cells) if not cell and i not in bearing]
        if empty:
            raise DataError(
                f"missing value in line {line}, {layout.column(empty[0])}, expected one in each cell; "
                "fill it or remove the row"
            )


def _feature_values(line: int, cells: list[str], layout: Layout) -> Iterator[float]:
    for i, cell in enumerate(cells):
        if i == layout.target:
            continue
        codes = layout.codes.get(i)
        if codes is not None:
            if i not in layout.named and _number(cell) is not None:
                before = shortened(next(text for text in codes if text))
                raise DataError(
                    f"line {line}, {layout.column(i)} holds {shortened(cell)!r}, expected text such as {before!r} in "
                    f"the rows before; correct one of them{layout.advice}"
                )
            yield codes.setdefault(cell, len(codes))
            continue
        value = _number(cell or "nan")
        if value is None:
            advice = "; pass header=True if it is the header" if line == 1 and not layout.names else ""
            raise DataError(
                f"line {line}, {layout.column(i)} holds {shortened(cell)!r}, expected a number; "
                f"encode or drop it{layout.advice}{advice}"
            )
        yield value


# ---------------------------------------------------------------- cells


def _whole_if_whole(y: Array) -> Array:
    """Return whole numbers as int64, others as they are."""
    return y.astype(np.int64) if np.all((np.abs(y) <= 2.0**53) & (y == np.floor(y))) else y


def _is_whole(value: float) -> bool:
    return abs(value) <= 2.0**53 and value == int(value)


def _number(cell: str) -> float | None:
    if "_" in cell:  # Python's own literals, not a number in a table
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(target: object) -> int | None:
    try:
        return int(str(target))
    except ValueError:
        return None
