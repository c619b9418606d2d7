"""The data folder: X.npy and Y.npy, which are mapped and not read, and manifest.json, which says what they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from gpumlp.atomic import new_mode, sync_folder
from gpumlp.data.blocks import Blocks, blocks_of_arrays
from gpumlp.data.files import PartsWithTexts, Request, about, expect_file, listed, nearest, one_line, shortened
from gpumlp.data.npy_writer import NpyWriter
from gpumlp.data.numpy_files import load_npy
from gpumlp.data.statistics import ColumnStatistics
from gpumlp.data.table import Array, Texts, check_finite
from gpumlp.data.targets import Classes
from gpumlp.errors import DataError, readable_bytes

ENDING, MANIFEST = ".d", "manifest.json"
FILES = {"X": "X.npy", "Y": "Y.npy"}
SHARE = 0.75  # of the disk that is free
FORMAT, VERSION = "gpumlp data", 2  # 2 has the texts of categorical columns
MAX_MANIFEST = 1 << 28  # bytes; that of a million features stays below


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says, checked.

    arrays        {"X": {"dtype", "shape", "sha256"}, "Y": the same}; without a target there is no "Y"
    statistics    {"X": {"count", "mean", "variance", "min", "max", "missing"}, "Y": the same}; none of a text
    classes       the distinct labels, sorted; None for a regression
    texts         Table's: of each categorical column the texts that X holds the places of; None if there is none
    """

    rows: int
    arrays: dict[str, dict[str, Any]]
    feature_names: tuple[str, ...] | None
    target_name: str | None
    classes: list[Any] | None
    statistics: dict[str, dict[str, list[Any]]]
    texts: Texts | None = None

    @property
    def n_categorical(self) -> int:
        """Columns that are categorical."""
        return sum(of_column is not None for of_column in self.texts or ())

    @property
    def n_missing(self) -> int:
        """Values that are missing in the features."""
        return sum(self.statistics["X"]["missing"])


# ---------------------------------------------------------------- writing


def write_folder(blocks: Blocks, place: str | Path, *, replace: bool = False, max_bytes: int | None = None) -> Manifest:
    """Write a data set as a data folder, a block at a time, and return its manifest.

    The folder appears whole or not at all. Values may be missing (NaN) in the features; they are counted.
    replace     a data folder at `place` gives way to the new one when that is whole
    max_bytes   how large the folder may become; `free_disk` by default
    Raises      DataError for wrong rows, for a place that is taken, and where it cannot be written
    """
    place = Path(place)
    check_folder_place(place, replace)
    with _making(place, replace) as making:
        limit = free_disk(place.parent) if max_bytes is None else max_bytes
        manifest = _write_arrays(blocks, making, limit)
        with (making / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(_as_object(manifest), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            _expect_readable(file.tell(), place.name)
    return manifest


def check_folder_place(place: Path, replace: bool) -> None:
    """Raise DataError unless a data folder can be made at `place`."""
    if place.suffix != ENDING:
        raise DataError(f"{place}: expected the name of a data folder, which ends in {ENDING}; name it so")
    if not place.parent.is_dir():
        raise DataError(f"{place}: there is no folder {place.parent}, expected one to make it in; make it first")
    if not os.path.lexists(place):
        return
    if not replace:
        raise DataError(f"{place}: is there already, expected a new name; choose another, or ask to replace it")
    if place.is_symlink() or not (place / MANIFEST).is_file():
        raise DataError(f"{place}: is no data folder, expected one to replace; choose another name")


def free_disk(folder: Path) -> int:
    """Return how many bytes a new data folder may take: three quarters of what is free."""
    return int(SHARE * shutil.disk_usage(folder).free)


@contextmanager
def _making(place: Path, replace: bool) -> Iterator[Path]:
    """Give a folder that becomes `place` when the block ends well; else nothing is left of it."""
    try:
        making = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
        try:
            yield making
            making.chmod(new_mode(0o777))
            sync_folder(making)
            _put_in_place(making, place, replace)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write {place} ({error.strerror or error}), expected room and permission; choose another place"
        ) from error


def _put_in_place(making: Path, place: Path, replace: bool) -> None:
    old = making.with_name(making.name + ".old")
    try:
        if replace and place.exists():
            os.rename(place, old)
        os.rename(making, place)
        sync_folder(place.parent)
    finally:  # a signal may come between any two of these, too
        if old.exists() and not place.exists():
            os.rename(old, place)
        shutil.rmtree(old, ignore_errors=True)


def _write_arrays(blocks: Blocks, making: Path, limit: int) -> Manifest:
    with _about_rows(blocks.name, 0):
        statistics, classes, n_rows = ColumnStatistics(blocks.n_features), Classes(), 0
    y_statistics: ColumnStatistics | None = None
    with NpyWriter(making / FILES["X"]) as X, NpyWriter(making / FILES["Y"]) as Y:
        for table in blocks:
            with _about_rows(blocks.name, n_rows):
                check_finite(table, missing=True)
            X.add(table.X)
            statistics.add(table.X)
            if table.y is not None:
                Y.add(table.y)
                classes.add(table.y)
                if table.y.dtype.kind != "U":
                    columns = table.y.reshape(len(table.y), -1)
                    with _about_rows(blocks.name, n_rows):
                        y_statistics = y_statistics or ColumnStatistics(columns.shape[1])
                    y_statistics.add(columns)
            n_rows += len(table.X)
            if X.n_bytes + Y.n_bytes > limit:
                raise DataError(
                    f"{blocks.name}: takes more than the {readable_bytes(limit)} that the folder may have; free some "
                    "room on the disk, or allow more (`--max-size`)"
                )
        if n_rows == 0:
            raise DataError(f"{blocks.name}: holds no row, expected at least one; check where it comes from")
        has_target = Y.n_rows > 0
    if not has_target:
        (making / FILES["Y"]).unlink()
    arrays = {name: _description(making / FILES[name]) for name in (("X", "Y") if has_target else ("X",))}
    both = {"X": statistics.as_lists()} | ({"Y": y_statistics.as_lists()} if y_statistics else {})
    texts = None if blocks.texts is None else blocks.texts()
    if texts is not None and blocks.feature_names is None:
        raise DataError(f"{blocks.name}: columns of text need names, by which they are found again; name all features")
    return Manifest(n_rows, arrays, blocks.feature_names, blocks.target_name, classes.found(), both, texts)


@contextmanager
def _about_rows(name: str, before: int) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: after {before} rows: {error}") from error


def _description(path: Path) -> dict[str, Any]:
    array = load_npy(path, mapped_from=0)
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": checksum(path)}


def _as_object(manifest: Manifest) -> dict[str, Any]:
    texts = None if manifest.texts is None else [of_column and list(of_column) for of_column in manifest.texts]
    return {
        "format": FORMAT,
        "version": 1 if texts is None else VERSION,  # so that earlier versions of gpumlp read what they can
        "written_by": version("gpumlp"),
        "rows": manifest.rows,
        "arrays": manifest.arrays,
        "feature_names": manifest.feature_names,
        "target_name": manifest.target_name,
        "classes": manifest.classes,
        "statistics": manifest.statistics,
    } | ({} if texts is None else {"texts": texts})


# ---------------------------------------------------------------- reading


def is_data_folder(path: Path) -> bool:
    """Tell whether a path is a folder that should be a data folder, by its name or by its manifest."""
    try:
        return path.is_dir() and (path.name.endswith(ENDING) or (path / MANIFEST).is_file())
    except (OSError, ValueError):
        return False


def read_data_folder(path: Path, request: Request) -> PartsWithTexts:
    """Return X and y of a data folder, both mapped; checksums are not looked at, see `verify_folder`."""
    with about(path):
        manifest = read_manifest(path)
        wanted = _expect_target(manifest, request)
        _expect_categorical(manifest, request)
        X = _mapped(path, manifest, "X")
        y = _mapped(path, manifest, "Y") if wanted else None
        return X, y, manifest.feature_names, manifest.target_name if wanted else None, manifest.texts


def open_data_folder(path: Path, request: Request) -> Blocks:
    """Return a data folder as Blocks."""
    X, y, names, target_name, texts = read_data_folder(path, request)
    return blocks_of_arrays(X, y, names, target_name, str(path), texts)


def verify_folder(path: str | Path) -> Manifest:
    """Return the manifest of a data folder; raise DataError unless both files have the checksums that it names."""
    path = Path(path)
    with about(path):
        manifest = read_manifest(path)
        for name, described in manifest.arrays.items():
            _mapped(path, manifest, name)
            found = checksum(path / FILES[name])
            if found != described["sha256"]:
                raise DataError(
                    f"{FILES[name]} has the checksum {found[:12]}..., expected {described['sha256'][:12]}...; it was "
                    "changed or damaged, convert the data again"
                )
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a data folder; raise DataError if there is none that this version can read."""
    place = path / MANIFEST
    if not place.exists():
        raise DataError(f"is no data folder: it has no {MANIFEST}; make one with `gpumlp convert DATA NAME{ENDING}`")
    expect_file(place)
    _expect_readable(place.stat().st_size, path.name)
    try:
        found = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{MANIFEST} cannot be read ({one_line(error)}), expected JSON; convert the data again"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"is no data folder: {MANIFEST} does not say so; make one with `gpumlp convert`")
    if found.get("version") not in range(1, VERSION + 1):
        raise DataError(
            f"has format version {found.get('version')!r}, expected 1 to {VERSION}; it was written by gpumlp "
            f"{found.get('written_by')!r}, install that or convert the data again"
        )
    return _checked(found)


def _expect_readable(n_bytes: int, name: str) -> None:
    if n_bytes > MAX_MANIFEST:
        raise DataError(
            f"{name}: {MANIFEST} is larger than {readable_bytes(MAX_MANIFEST)}; convert the data again, with fewer "
            "columns"
        )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            found.update(part)
    return found.hexdigest()


def _checked(found: dict[str, Any]) -> Manifest:
    rows, arrays, statistics = found.get("rows"), found.get("arrays"), found.get("statistics")
    if type(rows) is not int or rows < 1:
        _refuse("rows", rows, "a whole number of at least 1")
    if not isinstance(arrays, dict) or "X" not in arrays or not set(arrays) <= set(FILES):
        _refuse("arrays", arrays, "X, and Y where there is a target")
    for name, described in arrays.items():
        kinds = {"dtype": str, "shape": list, "sha256": str}
        if not isinstance(described, dict) or any(not isinstance(described.get(k), t) for k, t in kinds.items()):
            _refuse(f"arrays[{name!r}]", described, "a dtype, a shape and a sha256")
    names, target_name, classes = found.get("feature_names"), found.get("target_name"), found.get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        _refuse("feature_names", names, "a list of texts")
    if not isinstance(target_name, str | None):
        _refuse("target_name", target_name, "a text")
    if classes is not None and not isinstance(classes, list):
        _refuse("classes", classes, "a list")
    of_x = statistics.get("X") if isinstance(statistics, dict) else None
    missing = of_x.get("missing") if isinstance(of_x, dict) else None
    if statistics is None or not isinstance(missing, list) or not all(type(n) is int for n in missing):
        _refuse("statistics", statistics, "those of X, with whole numbers that are missing")
    names = None if names is None else tuple(names)
    return Manifest(rows, arrays, names, target_name, classes, statistics, _checked_texts(found, names))


def _checked_texts(found: dict[str, Any], names: tuple[str, ...] | None) -> Texts | None:
    texts = found.get("texts")
    if texts is None:
        return None
    if not isinstance(texts, list) or names is None or len(texts) != len(names):
        _refuse("texts", texts, "a list of texts, or null, for each named feature")
    for name, of_column in zip(names, texts, strict=True):
        if of_column is None:
            continue
        if not (isinstance(of_column, list) and of_column and all(isinstance(text, str) for text in of_column)):
            _refuse(f"texts of {shortened(name)!r}", of_column, "a list of one text or more")
        if len(set(of_column)) != len(of_column):
            _refuse(f"texts of {shortened(name)!r}", of_column, "each once")
    return tuple(of_column and tuple(of_column) for of_column in texts)


def _refuse(name: str, found: Any, expected: str) -> NoReturn:
    raise DataError(f"{MANIFEST}: {name} is {repr(found)[:80]}, expected {expected}; convert the data again")


def _expect_target(manifest: Manifest, request: Request) -> bool:
    """Tell whether y is wanted; raise DataError if it is and there is none, or if another is."""
    there = "Y" in manifest.arrays
    if request.target is not None and not (there and str(request.target) == manifest.target_name):
        raise DataError(
            f"target={str(request.target)!r} came, but the target was chosen when it was converted: "
            f"{manifest.target_name if there else 'none'}; leave it out, or convert the data again"
        )
    if request.with_target and not there:
        raise DataError("holds features alone, expected a target; convert the data again with one")
    return there and (request.with_target or request.target is not None)


def _expect_categorical(manifest: Manifest, request: Request) -> None:
    """Raise DataError if columns of text are not wanted, or one is wanted as text that was converted to numbers."""
    names = manifest.feature_names or ()
    of_text = [name for name, texts in zip(names, manifest.texts or (), strict=False) if texts is not None]
    if request.categorical is None and of_text:
        raise DataError(
            f"column {shortened(of_text[0])!r} holds text, expected numbers; read it with categorical=(), or drop it "
            "and convert the data again"
        )
    for name in request.categorical or ():
        if name == manifest.target_name and "Y" in manifest.arrays:
            raise DataError(
                f"column {shortened(name)!r} is the target, expected a feature as categorical; leave it out"
            )
        if name not in names:
            raise DataError(f"no categorical column is named {shortened(name)!r}; {nearest(name, names)}")
        if name not in of_text:
            raise DataError(
                f"column {shortened(name)!r} holds numbers, expected text as categorical; convert the data again with "
                f"--categorical {shortened(name)}"
            )


def _mapped(path: Path, manifest: Manifest, name: str) -> Array:
    array = load_npy(path / FILES[name], mapped_from=0)
    described = manifest.arrays[name]
    found, expected = (array.dtype.str, list(array.shape)), (described["dtype"], described["shape"])
    if found != expected or len(array) != manifest.rows:
        raise DataError(
            f"{FILES[name]} holds {found[0]} of shape {listed(found[1])}, expected {expected[0]} of "
            f"{listed(expected[1])} and {manifest.rows} rows as {MANIFEST} says; it was changed, convert the data again"
        )
    return array
