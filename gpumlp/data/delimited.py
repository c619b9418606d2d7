"""Text tables, .csv and .tsv: numbers by NumPy's fast reader, labels and every complaint by the csv module."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from gpumlp.data.files import Parts, Request, about, nearest, open_text
from gpumlp.data.table import Array
from gpumlp.errors import DataError

Row = tuple[int, list[str]]  # the number of the line, counted from 1, on which the row ends; its cells without blanks


@dataclass(frozen=True)
class Layout:
    """What the first rows of a text table tell."""

    delimiter: str
    names: tuple[str, ...] | None
    n_columns: int
    target: int | None
    n_header_lines: int

    def column(self, i: int) -> str:
        """Spell column `i` as its reader would look for it."""
        return f"column {self.names[i]!r}" if self.names else f"column {i} (from 0)"


def read_delimited(path: Path, request: Request) -> Parts:
    """Return the features of a text table as float64 and its target as int64, float64 or str.

    header   "auto": the first row is a header if `target` is a column's name, or if no feature cell in it is a number;
             a row of both is taken as data, so that a slip in the first row is told and not swallowed
    target   a name of the header, else a number of a column from 0 (from the end if negative); without it the last
             column, or none where the request is without target
    """
    with about(path):
        layout = _find_layout(path, request)
        try:
            X, y = _read_numbers(path, layout)
        except ValueError:  # text, a ragged row, a missing value: find out which
            X, y = _read_cells(path, layout)
    names, target = layout.names, layout.target
    if names is None or target is None:
        return X, y, names, None
    return X, y, names[:target] + names[target + 1 :], names[target]


def _find_layout(path: Path, request: Request) -> Layout:
    delimiter = _find_delimiter(path)
    rows = list(islice(_rows(path, delimiter), 2))
    if not rows:
        raise DataError("is empty, expected rows of comma-separated numbers; check where it comes from")
    line, first = rows[0]
    has_header = _is_header(first, request)
    if has_header and len(rows) == 1:
        raise DataError("holds a header and no row; if line 1 is data, pass header=False")
    names = tuple(first) if has_header else None
    target = _target_column(names, len(first), request)
    if len(first) == 1 and target is not None:
        raise DataError("has one column, expected a feature and a target; is the delimiter a comma, semicolon or tab?")
    return Layout(delimiter, names, len(first), target, line if has_header else 0)


def _find_delimiter(path: Path) -> str:
    """Return a tab for .tsv, else that of comma, semicolon and tab that the first line holds most often."""
    if path.name.lower().endswith((".tsv", ".tsv.gz")):
        return "\t"
    with open_text(path) as lines:
        first = next((line for line in lines if line.strip()), "")
    return max(",;\t", key=first.count)


def _rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a text table, blank lines skipped."""
    with open_text(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        try:
            for cells in reader:
                row = [cell.strip() for cell in cells]
                if row not in ([], [""]):
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"line {reader.line_num}: {error}; is it a text table?") from error


def _is_header(cells: list[str], request: Request) -> bool:
    if isinstance(request.header, bool):
        return request.header
    if request.header != "auto":
        raise DataError(
            f"header is {request.header!r}, expected 'auto', True or False; leave it out to be told by line 1"
        )
    if request.target is not None and _whole(request.target) is None:
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
        raise DataError(f"no column is named {str(target)!r}; {hint}")
    if not -n_columns <= number < n_columns:
        raise DataError(f"no column {number}, expected {-n_columns} to {n_columns - 1}; columns are counted from 0")
    return number % n_columns


def _read_numbers(path: Path, layout: Layout) -> tuple[Array, Array | None]:
    with open_text(path) as lines:
        data = islice(lines, layout.n_header_lines, None)
        values = np.loadtxt(data, delimiter=layout.delimiter, comments=None, quotechar='"', ndmin=2)
    if values.shape[1] != layout.n_columns:
        raise ValueError
    if layout.target is None:
        return values, None
    return np.delete(values, layout.target, axis=1), _whole_if_whole(values[:, layout.target])


def _read_cells(path: Path, layout: Layout) -> tuple[Array, Array | None]:
    features, labels = array("d"), []
    for line, cells in _rows(path, layout.delimiter):
        if line <= layout.n_header_lines:
            continue
        if len(cells) != layout.n_columns:
            raise DataError(
                f"line {line} has {len(cells)} cells, expected {layout.n_columns} as in the first; correct it"
            )
        if "" in cells:
            missing = layout.column(cells.index(""))
            raise DataError(f"missing value in line {line}, {missing}; fill it or remove the row")
        if layout.target is not None:
            labels.append(cells[layout.target])
        features.extend(_feature_values(line, cells, layout))
    X = np.frombuffer(features).reshape(-1, layout.n_columns - (layout.target is not None))
    return X, None if layout.target is None else _as_labels(labels)


def _feature_values(line: int, cells: list[str], layout: Layout) -> Iterator[float]:
    for i, cell in enumerate(cells):
        if i == layout.target:
            continue
        value = _number(cell)
        if value is None:
            text = cell if len(cell) <= 40 else cell[:40] + "..."
            advice = "; pass header=True if it is the header" if line == 1 and not layout.names else ""
            raise DataError(
                f"line {line}, {layout.column(i)} holds {text!r}, expected a number; encode or drop it{advice}"
            )
        yield value


def _as_labels(labels: Sequence[str]) -> Array:
    numbers = [_number(label) for label in labels]
    return np.array(labels) if None in numbers else _whole_if_whole(np.array(numbers, np.float64))


def _whole_if_whole(y: Array) -> Array:
    """Return whole numbers as int64, others as they are."""
    return y.astype(np.int64) if np.all((np.abs(y) <= 2.0**53) & (y == np.floor(y))) else y.copy()


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
