"""Columns of text as features: 1 at the category that a row has and 0 at all others, or the category's number."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.files import listed, nearest, shortened
from gpumlp.data.limits import expect_room
from gpumlp.data.table import Array, Table, Texts, codes_of
from gpumlp.errors import DataError

log = logging.getLogger("gpumlp")

MOST_CATEGORIES = 1000  # of a column with a feature for each; one of more is rather a name or a number of its row
MOST_CODES = 2**24  # of a column of codes; float32 holds no larger whole number exactly
FEW = 2  # categories, of which one feature of 0 and 1 says all
CODE = "code"  # what a header says of a column of codes
ROWS_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class Encoding:
    """The columns of a table as training met them, and which features a network sees instead.

    A column of numbers is a feature. A categorical column is one feature for each category that a training row has:
    1 where a row is of it, else 0. A missing value, the text "", is a category as any other. A row of a category that
    no training row has is 0 at all of them.

    A categorical column may instead be one feature, for an embedding: the place of a row's category, and -1 for one
    that no training row has.

    names        of the columns
    categories   of each column its categories in order; None for numbers
    coded        the names of the columns that are codes
    """

    names: tuple[str, ...]
    categories: Texts
    coded: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.categories) or len(set(self.names)) != len(self.names):
            raise DataError(f"columns {listed(self.names)} need a name of their own and categories each; give them")
        for name, of_column in zip(self.names, self.categories, strict=True):
            if of_column is not None and (not of_column or len(set(of_column)) != len(of_column)):
                raise DataError(
                    f"column {shortened(name)!r} has the categories {listed(of_column) or 'none'}, expected one or "
                    "more, each once; correct them"
                )
        for name in sorted(self.coded):
            expect_categorical(name, self.categorical)

    @classmethod
    def fit(cls, table: Table, rows: Array, coded: Collection[str] = (), every: bool = False) -> Encoding:
        """Learn the categories from some rows, by their numbers; no other row is looked at.

        coded    the names of columns that become codes
        every    those of more than FEW categories become codes, too
        Raises   DataError if the columns have no names, one has more than MOST_CATEGORIES, or MOST_CODES where it
                 becomes codes, or one of `coded` is not categorical
        """
        texts = _texts_of(table)
        if table.feature_names is None:
            raise DataError("columns of text need names, by which prediction finds them; name all features")
        found = tuple(
            None if of_column is None else tuple(sorted(_met(table.X, rows, j, of_column, name)))
            for j, (name, of_column) in enumerate(zip(table.feature_names, texts, strict=True))
        )
        counts = {n: len(of) for n, of in zip(table.feature_names, found, strict=True) if of is not None}
        chosen = {*coded, *(name for name, n in counts.items() if every and n > FEW)}
        for name, n in counts.items():
            _expect_few(name, n, MOST_CODES if name in chosen else MOST_CATEGORIES)
        return cls(table.feature_names, found, frozenset(chosen))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of each feature: the column's, with "=category" for a category, and "'" where that is taken."""
        each = [(name, text) for name, _, texts in self.columns() for text in self._of(name, texts)]
        taken = {name for name, text in each if text is None}
        names = []
        for name, text in each:
            told = name if text is None else f"{name}={text}"
            while text is not None and told in taken:
                told += "'"
            taken.add(told)
            names.append(told)
        return tuple(names)

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Whether a feature tells a category, so that its size means nothing; (n_features,)."""
        return np.array([texts is not None for name, _, texts in self.columns() for _ in self._of(name, texts)])

    @property
    def n_features(self) -> int:
        """How many features the columns become."""
        return sum(len(self._of(name, texts)) for name, _, texts in self.columns())

    @property
    def categorical(self) -> tuple[str, ...]:
        """The names of the categorical columns."""
        return tuple(name for name, _, texts in self.columns() if texts is not None)

    @property
    def codes(self) -> dict[str, tuple[int, int]]:
        """The number of the feature and the number of categories of each column of codes."""
        return {name: (at, len(texts)) for name, at, texts in self.columns() if texts and name in self.coded}

    def transform(self, table: Table, unseen: Literal["zeros", "error"] = "zeros") -> Table:
        """Return the features as a new table; the columns are found by name, in any order.

        unseen   "zeros": categories that no training row has are logged; "error": they are refused
        Raises   DataError if the columns are others, or hold text instead of numbers or numbers instead of text
        """
        recoder = Recoder(self, table)
        for name, texts in recoder.unseen(table.X):
            _tell_unseen(name, texts, unseen, name in self.coded)
        expect_room(len(table.X) * recoder.row_bytes, f"{self.n_features:,} features")
        return Table(recoder.features(table.X), table.y, self.feature_names, table.target_name)

    def columns(self) -> Iterator[tuple[str, int, tuple[str, ...] | None]]:
        """Yield each column with the number of its first feature and its categories."""
        at = 0
        for name, categories in zip(self.names, self.categories, strict=True):
            yield name, at, categories
            at += len(self._of(name, categories))

    def where(self, table: Table) -> dict[str, int]:
        """Return where the columns stand in a table, which must have these and no others."""
        if table.feature_names is None:
            raise DataError(f"the columns have no names, expected {listed(self.names)}; name them")
        expect_columns(table.feature_names, self.names)
        return {name: i for i, name in enumerate(table.feature_names)}

    def _of(self, name: str, categories: tuple[str, ...] | None) -> tuple[str | None, ...]:
        """Return the category of each feature of a column, None for a feature that is the column itself."""
        return (None,) if categories is None or name in self.coded else categories

    # ---------------------------------------------------------------- file

    def header(self) -> list[list[Any]]:
        """Return all of it as plain JSON: of each column a name, categories or None, and CODE for one of codes."""
        return [[name, texts and list(texts), *[CODE] * (name in self.coded)] for name, _, texts in self.columns()]

    @classmethod
    def restored(cls, header: Any) -> Encoding:
        """Return what `header` gave; raise DataError for what it never gives."""
        if not isinstance(header, list) or not header or not all(_is_column(column) for column in header):
            raise DataError(f"columns are {shortened(repr(header))}, expected a name and categories of each")
        coded = frozenset(name for name, _, *code in header if code)
        return cls(tuple(name for name, *_ in header), tuple(of[1] and tuple(of[1]) for of in header), coded)


class Recoder:
    """What makes features of the columns of tables that share names and texts; what they mean is looked up once.

    table    one of them
    Raises   DataError if the columns are others, or hold text instead of numbers or numbers instead of text
    """

    def __init__(self, encoding: Encoding, table: Table) -> None:
        self.encoding, self.texts = encoding, _texts_of(table)
        self.dtype = table.X.dtype if table.X.dtype.kind == "f" else np.dtype(np.float32)
        where = encoding.where(table)
        self._columns = [
            (name, at, where[name], _places_of(name, categories, self.texts[where[name]]))
            for name, at, categories in encoding.columns()
        ]

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of a row."""
        return self.encoding.n_features * self.dtype.itemsize

    @property
    def places(self) -> dict[str, Array]:
        """The place among its categories of each text of a categorical column, -1 for none."""
        return {name: places for name, _, _, places in self._columns if places is not None}

    def features(self, X: Array) -> Array:
        """Return the features of some rows of columns as a new array."""
        found = np.zeros((len(X), self.encoding.n_features), self.dtype)
        for name, at, source, places in self._columns:
            if places is None:
                found[:, at] = X[:, source]
                continue
            place = places[self._codes(X, name, source)]
            if name in self.encoding.coded:
                found[:, at] = place
            else:
                known = np.flatnonzero(place >= 0)
                found[known, at + place[known]] = 1
        return found

    def unseen(self, X: Array) -> Iterator[tuple[str, list[str]]]:
        """Yield each column with rows of categories that no training row had, and these rows' texts."""
        for name, _, source, places in self._columns:
            of_column = self.texts[source]
            if places is None or of_column is None or places.min(initial=0) >= 0:
                continue
            codes = self._codes(X, name, source)
            if texts := [of_column[code] for code in codes[places[codes] < 0]]:
                yield name, texts

    def tell_unseen(self) -> None:
        """Log of each column which texts no training row has; no row is looked at."""
        for name, _, source, places in self._columns:
            if places is not None and (new := np.flatnonzero(places < 0)).size:
                texts = self.texts[source] or ()
                _log_unseen(name, _quoted(texts[code] for code in new), name in self.encoding.coded)

    def _codes(self, X: Array, name: str, source: int) -> NDArray[np.int64]:
        return codes_of(X[:, source], len(self.texts[source] or ()), name)


def expect_categorical(name: str, categorical: Collection[str]) -> None:
    """Raise DataError unless a column that is to become codes is one of those that are categorical."""
    if name not in categorical:
        raise DataError(
            f"column {shortened(name)!r} is not categorical, expected one that is, to become codes; "
            f"{nearest(name, categorical) if categorical else 'no column is'}"
        )


def expect_columns(found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Raise DataError if a column is missing or has another name; their order does not matter."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if missing or surplus:
        raise DataError(
            f"features {listed(surplus) or 'none'} are not the model's, and its {listed(missing) or 'none'} are "
            "missing; rename or add them"
        )


def _texts_of(table: Table) -> Texts:
    return table.texts or (None,) * table.X.shape[1]


def _met(X: Array, rows: Array, j: int, texts: tuple[str, ...], name: str) -> Iterator[str]:
    """Yield the texts of a categorical column that some rows have, each once; a few rows are read at a time."""
    met = np.zeros(len(texts), np.bool_)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        met[codes_of(X[rows[start : start + ROWS_AT_A_TIME], j], len(texts), name)] = True
    return (texts[code] for code in np.flatnonzero(met))


def _expect_few(name: str, n: int, most: int) -> None:
    if n > most:
        advice = "" if most == MOST_CODES else ", or embed it (--embed)"
        raise DataError(
            f"column {name!r} has {n:,} different texts in the rows to train on, expected at most {most:,} categories; "
            f"drop it, or make groups of them{advice}"
        )


def _places_of(
    name: str, categories: tuple[str, ...] | None, texts: tuple[str, ...] | None
) -> NDArray[np.int64] | None:
    """Return the place among the categories of each text of a column, -1 for none; None for numbers."""
    if (categories is None) != (texts is None):
        held, expected = ("numbers", "text") if texts is None else ("text", "numbers")
        raise DataError(f"column {name!r} holds {held}, expected {expected} as in training; correct it")
    if categories is None or texts is None:
        return None
    places = {text: place for place, text in enumerate(categories)}
    return np.array([places.get(text, -1) for text in texts], np.int64)


def _is_column(column: Any) -> bool:
    if not isinstance(column, list) or len(column) not in (2, 3) or not isinstance(column[0], str):
        return False
    texts, *code = column[1:]
    if texts is None:
        return not code
    plain = isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
    return plain and code in ([], [CODE])


def _tell_unseen(name: str, texts: list[str], unseen: Literal["zeros", "error"], coded: bool) -> None:
    rows = f"{len(texts):,} row{'s' * (len(texts) > 1)}"
    if unseen == "error":
        zeros = "embedded as zeros" if coded else "0 at all categories"
        raise DataError(
            f"column {name!r} holds {_quoted(texts)} in {rows}, expected categories of the training rows; correct "
            f'them, or let them be {zeros} (unseen="zeros")'
        )
    _log_unseen(name, f"{_quoted(texts)} in {rows}", coded)


def _log_unseen(name: str, held: str, coded: bool) -> None:
    zeros = "embedded as zeros" if coded else "0 at all its categories"
    log.info("column %r holds %s, of which no training row is: %s", name, held, zeros)


def _quoted(texts: Iterable[str]) -> str:
    return listed(sorted({repr(shortened(text)) for text in texts}))
