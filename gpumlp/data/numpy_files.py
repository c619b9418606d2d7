"""Arrays that NumPy saved; Python objects in them are never unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from gpumlp.data.files import Parts, Request, about, expect_file, listed, nearest, one_line
from gpumlp.data.table import Array
from gpumlp.errors import DataError

NPY: Any = np.lib.format  # older NumPys do not tell its types

FEATURES = ("X", "x", "data")
TARGETS = ("y", "Y", "target", "labels")


def read_npz(path: Path, request: Request) -> Parts:
    """Return X, y and feature_names of a .npz file, by the first of the names FEATURES and TARGETS that it holds.

    A `target` is the name of the array to take as y.
    """
    with about(path), path.open("rb") as file, _damage_told():
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise DataError("holds a single array, expected an archive with X and y; rename it to .npy")
        with archive:
            X = archive[_first_of(FEATURES, archive.files)]
            names = tuple(str(n) for n in archive["feature_names"].ravel()) if "feature_names" in archive else None
            target = _target_name(archive.files, request)
            return X, None if target is None else archive[target], names, target


def read_npy(path: Path, request: Request) -> Parts:
    """Return X from one .npy file and y from the one whose path is `target`."""
    if request.target is None and request.with_target:
        raise DataError(f"{path}: a .npy file holds X alone; give the path of another with y as target")
    X = _load_npy(path)
    return X, None if request.target is None else _load_npy(Path(str(request.target))), None, None


def _load_npy(path: Path) -> Array:
    expect_file(path)
    with about(path), path.open("rb") as file, _damage_told():
        found: Array = NPY.read_array(file, allow_pickle=False)
        return found


def _target_name(found: list[str], request: Request) -> str | None:
    if request.target is None:
        return _first_of(TARGETS, found) if request.with_target else None
    target = str(request.target)
    if target not in found:
        raise DataError(f"no array {target!r} to be the target; {nearest(target, found)}")
    return target


def _first_of(names: tuple[str, ...], found: list[str]) -> str:
    for name in names:
        if name in found:
            return name
    raise DataError(
        f"holds the arrays {listed(found) or '(none)'}, expected one named {' or '.join(names)}; "
        "save it with np.savez(path, X=X, y=y)"
    )


@contextmanager
def _damage_told() -> Iterator[None]:
    """Turn any failure of NumPy's readers into a DataError."""
    try:
        yield
    except (DataError, PermissionError):
        raise
    except Exception as error:  # a damaged file can fail in any layer: zip, zlib, header, dtype, memory
        raise DataError(
            f"cannot be read ({one_line(error)}); save plain numbers or text again "
            "with np.save or np.savez (Python objects are never unpickled)"
        ) from error
