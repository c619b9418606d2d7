"""Columns of text as features: 1 at the category that a row has, and 0 at all others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpumlp.data.files import listed, shortened
from gpumlp.data.limits import expect_room
from gpumlp.data.table import Array, Table, Texts
from gpumlp.errors import DataError

log = logging.getLogger("gpumlp")

MOST_CATEGORIES = 1000  # of a column; one of more is rather a name or a number of its row


@dataclass(frozen=True)
class OneHot:
    """The columns of a table as training met them, and which features a network sees instead.

    A column of numbers is a feature. A categorical column is one feature for each category that a training row has:
    1 where a row is of it, else 0. A missing value, the text "", is a category as any other. A row of a category that
    no training row has is 0 at all of them.

    names        of the columns
    categories   of each column its categories in order; None for numbers
    """

    names: tuple[str, ...]
    categories: Texts

    def __post_init__(self) -> None:
        if len(self.names) != len(self.categories) or len(set(self.names)) != len(self.names):
            raise DataError(f"columns {listed(self.names)} need a name of their own and categories each; give them")
        for name, of_column in zip(self.names, self.categories, strict=True):
            if of_column is not None and (not of_column or len(set(of_column)) != len(of_column)):
                raise DataError(
                    f"column {shortened(name)!r} has the categories {listed(of_column) or 'none'}, expected one or "
                    "more, each once; correct them"
                )

    @classmethod
    def fit(cls, table: Table, rows: Array) -> OneHot:
        """Learn the categories from some rows, by their numbers; no other row is looked at.

        Raises   DataError if the columns have no names, or one has more than MOST_CATEGORIES
        """
        texts = _texts_of(table)
        if table.feature_names is None:
            raise DataError("columns of text need names, by which prediction finds them; name all features")
        found: list[tuple[str, ...] | None] = []
        for j, (name, of_column) in enumerate(zip(table.feature_names, texts, strict=True)):
            if of_column is None:
                found.append(None)
                continue
            codes = np.unique(table.X[rows, j]).astype(np.int64)
            if len(codes) > MOST_CATEGORIES:
                raise DataError(
                    f"column {name!r} has {len(codes):,} different texts in the rows to train on, expected at most "
                    f"{MOST_CATEGORIES:,} categories; drop it, or make groups of them"
                )
            found.append(tuple(sorted(of_column[code] for code in codes)))
        return cls(table.feature_names, tuple(found))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of each feature: the column's, with "=category" for a category, and "'" where that is taken."""
        taken = {name for name, _, texts in self._places() if texts is None}
        names = []
        for name, _, texts in self._places():
            for told in (name,) if texts is None else (f"{name}={text}" for text in texts):
                while texts is not None and told in taken:
                    told += "'"
                taken.add(told)
                names.append(told)
        return tuple(names)

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Whether a feature is 1 or 0 for a category; (n_features,)."""
        return np.array([texts is not None for _, _, texts in self._places() for _ in texts or (None,)])

    @property
    def categorical(self) -> tuple[str, ...]:
        """The names of the categorical columns."""
        return tuple(name for name, _, texts in self._places() if texts is not None)

    def transform(self, table: Table, unseen: Literal["zeros", "error"] = "zeros") -> Table:
        """Return the features as a new table; the columns are found by name, in any order.

        unseen   "zeros": categories that no training row has are logged; "error": they are refused
        Raises   DataError if the columns are others, or hold text instead of numbers or numbers instead of text
        """
        found = self._found(table)
        texts, n_features = _texts_of(table), len(self.is_category)
        dtype = table.X.dtype if table.X.dtype.kind == "f" else np.dtype(np.float32)
        expect_room(len(table.X) * n_features * dtype.itemsize, f"{n_features:,} features")
        X = np.zeros((len(table.X), n_features), dtype)
        for name, at, categories in self._places():
            column, of_column = table.X[:, found[name]], texts[found[name]]
            if (categories is None) != (of_column is None):
                held, expected = ("numbers", "text") if of_column is None else ("text", "numbers")
                raise DataError(f"column {name!r} holds {held}, expected {expected} as in training; correct it")
            if categories is None or of_column is None:
                X[:, at] = column
                continue
            places = {text: place for place, text in enumerate(categories)}
            codes = column.astype(np.int64)
            place = np.array([places.get(text, -1) for text in of_column], np.int64)[codes]
            known = np.flatnonzero(place >= 0)
            X[known, at + place[known]] = 1
            if len(known) < len(codes):
                _tell_unseen(name, [of_column[code] for code in codes[place < 0]], unseen)
        return Table(X, table.y, self.feature_names, table.target_name)

    def _places(self) -> Iterator[tuple[str, int, tuple[str, ...] | None]]:
        """Yield each column with the number of its first feature and its categories."""
        at = 0
        for name, categories in zip(self.names, self.categories, strict=True):
            yield name, at, categories
            at += 1 if categories is None else len(categories)

    def _found(self, table: Table) -> dict[str, int]:
        """Return where the columns stand in a table, which must have these and no others."""
        if table.feature_names is None:
            raise DataError(f"the columns have no names, expected {listed(self.names)}; name them")
        expect_columns(table.feature_names, self.names)
        return {name: i for i, name in enumerate(table.feature_names)}

    # ---------------------------------------------------------------- file

    def header(self) -> list[list[Any]]:
        """Return all of it as plain JSON: a name, and categories or None, for each column."""
        return [[name, texts and list(texts)] for name, _, texts in self._places()]

    @classmethod
    def restored(cls, header: Any) -> OneHot:
        """Return what `header` gave; raise DataError for what it never gives."""
        if not isinstance(header, list) or not header or not all(_is_column(column) for column in header):
            raise DataError(f"columns are {shortened(repr(header))}, expected a name and categories of each")
        return cls(tuple(name for name, _ in header), tuple(texts and tuple(texts) for _, texts in header))


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


def _is_column(column: Any) -> bool:
    if not isinstance(column, list) or len(column) != 2 or not isinstance(column[0], str):
        return False
    texts = column[1]
    return texts is None or (isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts))


def _tell_unseen(name: str, texts: list[str], unseen: Literal["zeros", "error"]) -> None:
    told = listed(sorted({repr(shortened(text)) for text in texts}))
    rows = f"{len(texts):,} row{'s' * (len(texts) > 1)}"
    if unseen == "error":
        raise DataError(
            f"column {name!r} holds {told} in {rows}, expected categories of the training rows; correct them, or let "
            'them be 0 at all categories (unseen="zeros")'
        )
    log.info("column %r holds %s in %s, of which no training row is: 0 at all its categories", name, told, rows)
