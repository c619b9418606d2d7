"""Embedding: a column of codes, of which each stands for some numbers that the network learns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, DataError
from gpumlp.shapes import HostArray, is_on_device

MOST_CATEGORIES = 2**24  # up to there float32 holds every whole number


@dataclass(frozen=True)
class Embedding:
    """A column of X that holds codes; the first layer reads a learned row of a table in place of each code.

    column         its number, from 0
    n_categories   rows of the table: codes are 0 to n_categories - 1, and -1 is a category that is not known, of zeros
    n_units        learned numbers that a category becomes
    """

    column: int
    n_categories: int
    n_units: int


def check_embeddings(given: Sequence[Embedding], n_columns: int) -> tuple[Embedding, ...]:
    """Return embeddings in the order of their columns; raise ConfigurationError unless each has one of its own."""
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"embeddings={given!r}: expected a list of gpumlp.Embedding(column, n_categories, n_units)"
        )
    found = [_checked(embedding, n_columns) for embedding in given]
    columns = [embedding.column for embedding in found]
    for column in columns:
        if columns.count(column) > 1:
            raise ConfigurationError(f"embeddings: column {column} comes {columns.count(column)} times; give it once")
    return tuple(sorted(found, key=lambda embedding: embedding.column))


def _checked(embedding: Embedding, n_columns: int) -> Embedding:
    """Return an embedding of plain whole numbers."""
    if not isinstance(embedding, Embedding):
        raise ConfigurationError(f"embeddings: {embedding!r} is no gpumlp.Embedding(column, n_categories, n_units)")
    limits = {"column": (0, n_columns - 1), "n_categories": (1, MOST_CATEGORIES), "n_units": (1, MOST_CATEGORIES)}
    numbers = {name: getattr(embedding, name) for name in limits}
    for name, (least, most) in limits.items():
        value = numbers[name]
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigurationError(f"{embedding}: {name} has to be a whole number from {least} to {most}")
    return Embedding(**{name: int(value) for name, value in numbers.items()})


def widths(sizes: tuple[int, ...], embeddings: Sequence[Embedding]) -> tuple[int, ...]:
    """Return how many numbers each layer reads, and what the last one gives: the sizes, with embedded inputs."""
    return (sizes[0] + sum(embedding.n_units - 1 for embedding in embeddings), *sizes[1:])


def are_no_codes(values: HostArray, n_categories: float) -> HostArray:
    """Tell which numbers are neither -1 nor whole ones from 0 to below n_categories."""
    is_code: HostArray = (values >= -1) & (values < n_categories) & (values == np.floor(values))
    return ~is_code


def check_codes(X: Any, embeddings: Sequence[Embedding], name: str) -> None:
    """Raise DataError if a column of X on the host holds what is no code; on a device that is taken for unknown."""
    if is_on_device(X):
        return
    for embedding in embeddings:
        codes: HostArray = X[:, embedding.column]
        wrong = are_no_codes(codes, embedding.n_categories)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{name}[{row}, {embedding.column}] is {codes[row]:.9g}, but column {embedding.column} is embedded and "
                f"holds codes: whole numbers from 0 to {embedding.n_categories - 1}, or -1 for a category that is not "
                "known; encode it, or give the embedding more categories"
            )
