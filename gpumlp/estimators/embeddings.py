"""Columns of codes that an estimator embeds: which they are, which categories they hold, and what is no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, DataError, unknown_name
from gpumlp.estimators.inputs import dense
from gpumlp.network.embedding import Embedding, are_no_codes, check_embeddings
from gpumlp.shapes import HostArray, is_on_device

Names = Sequence[str] | None  # of the columns of X, where it has some


class EmbedsColumns:
    """What an estimator knows of its columns of codes; embeddings_ is all that it keeps of them."""

    def _names(self: Any) -> Names:
        """Return the names of the columns, None where they have none."""
        return getattr(self, "feature_names_in_", None)

    def _tables(self: Any) -> list[HostArray]:
        """Return what is learned of codes, in the order of their columns."""
        return [table for _, table in sorted(getattr(self, "embeddings_", {}).items())]

    def _embedded(self: Any) -> tuple[Embedding, ...]:
        """Return how columns are embedded since the first fit."""
        columns = sorted(getattr(self, "embeddings_", {}))
        return tuple(Embedding(c, *table.shape[-2:]) for c, table in zip(columns, self._tables(), strict=True))

    def _units(self: Any) -> dict[int, int]:
        """Return the units that are asked for of each column, by its number."""
        return numbered(self.embeddings, self._names(), self.n_features_in_)

    def _codes(self: Any, X: Any, column: int) -> HostArray:
        """Return a column of codes on the host; raise DataError for what is no code."""
        codes: HostArray = self._on_host(dense(X[:, column : column + 1])[:, 0], "X")
        expect_codes(codes, column, self._names())
        return codes

    def _categories_in(self: Any, X: Any) -> dict[Embedding, HostArray]:
        """Return how columns are to be embedded, with (n_categories,) whether X has each category."""
        units = self._units()
        codes = {column: self._codes(X, column) for column in units}
        return categories_in(codes, units, self._names(), self.n_features_in_)

    def _expect_same_embeddings(self: Any) -> None:
        """Raise ConfigurationError where a training that goes on is to embed other columns than it began with."""
        asked, there = self._units(), {e.column: e.n_units for e in self._embedded()}
        if asked != there:
            raise ConfigurationError(
                f"embeddings are {asked} by number of the column, but those of the training that is to go on are "
                f"{there}; leave them as they were, or begin anew: fit with warm_start=False"
            )

    def _without_new_codes(self: Any, X: Any) -> Any:
        """Return X with -1 in place of codes above those of the first fit: itself, where it has none."""
        for e in self._embedded():
            codes = self._codes(X, e.column)
            new = codes >= e.n_categories
            if new.any():
                X = X.astype(np.result_type(X.dtype, np.int8))  # which is a copy, and can hold -1
                known = np.where(new, -1, codes.astype(X.dtype))
                X[:, e.column] = self._get_backend().asarray(known) if is_on_device(X) else known
        return X


def are_by_name(embeddings: Any) -> bool:
    """Tell whether some columns are given by name, so that X has to bring names."""
    return isinstance(embeddings, Mapping) and any(isinstance(column, str) for column in embeddings)


def numbered(embeddings: Mapping[Any, int] | None, names: Names, n_columns: int) -> dict[int, int]:
    """Return the units of each embedded column by its number, in the order of the columns.

    Raises   ConfigurationError for a column that there is not, or that comes twice
    """
    found: dict[int, int] = {}
    for given, n_units in (embeddings or {}).items():
        column = _number_of(given, names, n_columns)
        if column in found:
            raise ConfigurationError(f"embeddings: {given!r} is column {column}, which comes twice; give it once")
        found[column] = int(n_units)
    return dict(sorted(found.items()))


def _number_of(given: Any, names: Names, n_columns: int) -> int:
    if not isinstance(given, str):
        if not 0 <= given < n_columns:
            raise ConfigurationError(f"embeddings: there is no column {given}; X has columns 0 to {n_columns - 1}")
        return int(given)
    if names is None:
        raise ConfigurationError(
            f"embeddings: column {given!r} is given by name, but X has no names; give its number, or a data frame, as "
            'transformers make with set_output(transform="pandas")'
        )
    if given not in names:
        raise unknown_name("column of embeddings", given, names)
    return list(names).index(given)


def expect_codes(codes: HostArray, column: int, names: Names) -> None:
    """Raise DataError, naming column and value, unless all are whole numbers of at least -1."""
    wrong = are_no_codes(codes, np.inf)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"X[{row}, {column}] is {codes[row]:.9g}, but {_called(column, names)} is embedded and holds codes: whole "
            "numbers from 0, or -1 for a category that is not known; encode it, as "
            'sklearn.preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, '
            "encoded_missing_value=-1) does"
        )


def categories_in(
    codes: Mapping[int, HostArray], units: Mapping[int, int], names: Names, n_columns: int
) -> dict[Embedding, HostArray]:
    """Return how each column is embedded, with (n_categories,) whether a row has the category.

    codes, units   by number of the column
    Raises         DataError for a column without a category, ConfigurationError for one with too many
    """
    for column, of_rows in codes.items():
        if of_rows.max() < 0:
            raise DataError(
                f"{_called(column, names)} of X is embedded, but all its codes are -1, for categories that are not "
                "known; leave it out of embeddings"
            )
    largest = {column: int(of_rows.max()) for column, of_rows in codes.items()}
    embeddings = check_embeddings([Embedding(c, most + 1, units[c]) for c, most in largest.items()], n_columns)
    return {e: np.isin(np.arange(e.n_categories), codes[e.column]) for e in embeddings}


def _called(column: int, names: Names) -> str:
    return f"column {column}" if names is None else f"column {column}, {names[column]!r},"
