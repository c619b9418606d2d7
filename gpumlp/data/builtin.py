"""Data sets that need no download: those that scikit-learn ships, and XOR."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gpumlp.data.files import listed, nearest
from gpumlp.data.readers import read_table
from gpumlp.data.table import Table
from gpumlp.errors import DataError


@dataclass(frozen=True)
class Shipped:
    """A data set of scikit-learn: its name there, what its target is called, and whether its classes have names."""

    name: str
    target_name: str
    classes_named: bool = False


SHIPPED = (
    Shipped("digits", "digit"),
    Shipped("iris", "species", classes_named=True),
    Shipped("wine", "cultivar", classes_named=True),
    Shipped("breast_cancer", "diagnosis", classes_named=True),
    Shipped("diabetes", "progression"),
)
BUILTIN = (*(data.name for data in SHIPPED), "xor")


def load_builtin(name: str) -> Table:
    """Return a data set named in BUILTIN: X float64 with feature names, y str, int or float.

    y is str where classes have names (iris, wine, breast_cancer), int for digits and xor, float for diabetes.
    Pixels of digits run from 0 to 16; the features of diabetes are scaled as scikit-learn ships them.
    Raises   DataError with the nearest name
    """
    if name == "xor":
        X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        return Table(X, np.array([0, 1, 1, 0]), ("a", "b"), "a xor b")
    for data in SHIPPED:
        if data.name == name:
            return _load_shipped(data)
    raise DataError(f"no built-in data set {name!r}; {nearest(name, BUILTIN)}")


def load_table(
    name_or_path: str | Path,
    *,
    target: str | int | Path | None = None,
    header: Literal["auto"] | bool = "auto",
    with_target: bool = True,
    categorical: Iterable[str] | None = None,
) -> Table:
    """Return a built-in data set if a str names one, else read a file as `read_table` does.

    A file called like a built-in data set is reached as "./digits".
    """
    if name_or_path in BUILTIN:
        if target is not None:
            raise DataError(
                f"{name_or_path} is built in and has its own target, but target={target!r} came; leave it out"
            )
        if categorical:
            raise DataError(
                f"{name_or_path} is built in and has no categorical columns, but {listed(categorical)} came; drop them"
            )
        table = load_builtin(str(name_or_path))
        return table if with_target else replace(table, y=None, target_name=None)
    if _is_bare_word(name_or_path):
        raise DataError(f"no built-in data set or file {name_or_path!r}; {nearest(str(name_or_path), BUILTIN)}")
    return read_table(name_or_path, target=target, header=header, with_target=with_target, categorical=categorical)


def _load_shipped(data: Shipped) -> Table:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{data.name}")()
    y = np.asarray(bunch.target_names)[bunch.target] if data.classes_named else bunch.target
    return Table(bunch.data, y, tuple(str(name) for name in bunch.feature_names), data.target_name)


def _is_bare_word(name: str | Path) -> bool:
    return isinstance(name, str) and not set("./\\") & set(name) and not Path(name).exists()
