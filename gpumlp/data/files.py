"""What all readers share: finding a file, opening it, and naming it in every error."""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast

from gpumlp.data.limits import Unpacked, data_limit
from gpumlp.data.table import Array, Texts
from gpumlp.errors import DataError, printable

# X, y, feature_names, target_name: what a reader finds, in the order of Table's fields; and texts, where it finds any
Parts = tuple[Array, Array | None, tuple[str, ...] | None, str | None]
PartsWithTexts = tuple[Array, Array | None, tuple[str, ...] | None, str | None, Texts | None]

FEATURES = ("X", "x", "data")  # names of arrays
TARGETS = ("y", "Y", "target", "labels")


@dataclass(frozen=True)
class Request:
    """What the caller of read_table or open_blocks wants from a file.

    missing       values may be missing in the features; they are read as NaN
    limit         bytes that a packed file may unpack to; None for `data_limit`
    categorical   columns whose values are read as codes of texts, beside those of text; None: text is refused
    """

    target: str | int | Path | None = None
    header: Literal["auto"] | bool = "auto"
    with_target: bool = True
    missing: bool = False
    limit: int | None = None
    categorical: tuple[str, ...] | None = None


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside while a file is read into a DataError that begins with the file's name."""
    name = spelled(path)
    try:
        yield
    except DataError as error:
        told = str(error)
        raise DataError(told if told.startswith(f"{name}: ") else f"{name}: {told}") from error
    except PermissionError as error:
        raise DataError(
            f"{name}: no permission to read it, expected a readable file; change its mode or copy it"
        ) from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{name}: not UTF-8 (byte 0x{byte:02x}), expected UTF-8 text; save it as UTF-8") from error
    except MemoryError as error:
        raise DataError(
            f"{name}: there is no memory for it; convert it to a data folder (`gpumlp convert`), or take a smaller one"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{name}: cannot be read ({one_line(error)}), expected a whole file; is it damaged or cut short?"
        ) from error


@contextmanager
def damage_told(expected: str, advice: str) -> Iterator[None]:
    """Turn any failure of another library's reader into a DataError: a damaged file can fail in any of its layers."""
    try:
        yield
    except (DataError, PermissionError, MemoryError, UnicodeDecodeError):
        raise
    except Exception as error:
        raise DataError(f"cannot be read ({one_line(error)}), expected {expected}; {advice}") from error


def expect_file(path: Path) -> None:
    """Raise DataError unless `path` is a file, naming the nearest names in its folder."""
    with about(path):
        try:
            found, plain, folder = path.exists(), path.is_file(), path.is_dir()
        except ValueError as error:  # a NUL in the name, which older Pythons do not answer by False
            raise DataError(f"no file can have this name ({error}); check the path") from error
        if folder:
            raise DataError("is a folder, expected a file; name one in it")
        if found and not plain:
            raise DataError("is a device or a pipe, expected a file; write what it gives to a file first")
    if not found:
        raise DataError(f"no such file: {spelled(path)}; {nearest(path.name, _names_in(path.parent))}")


def open_bytes(path: Path, request: Request) -> BinaryIO:
    """Open a file for its bytes, unpacked up to the limit where its name ends in .gz."""
    if not packed(path):
        return path.open("rb")
    limit = data_limit() if request.limit is None else request.limit
    return cast(BinaryIO, io.BufferedReader(Unpacked(cast(BinaryIO, gzip.open(path, "rb")), limit), 1 << 16))


def open_text(path: Path, request: Request) -> TextIO:
    """Open a file for its UTF-8 text, unpacked where its name ends in .gz; a byte order mark is skipped."""
    return io.TextIOWrapper(open_bytes(path, request), encoding="utf-8-sig")


def packed(path: Path) -> bool:
    """Tell by its name whether a file is compressed by gzip."""
    return path.name.lower().endswith(".gz")


def needed(module: str, extra: str) -> Any:
    """Return a library that is not installed with gpumlp; raise DataError if it is not there."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise DataError(
            f"needs {library}, which cannot be imported here ({one_line(error)}); pip install 'gpumlp[{extra}]', or "
            "save the data as .csv or .npz"
        ) from error


def name_of_target(found: list[str], request: Request) -> str | None:
    """Return which of the arrays in a file is y: the one asked for, else the first of TARGETS that is there."""
    if request.target is None:
        return first_of(TARGETS, found) if request.with_target else None
    target = str(request.target)
    if target not in found:
        raise DataError(f"no array {shortened(target)!r} to be the target; {nearest(target, found)}")
    return target


def categorical_columns(names: tuple[str, ...], target: int | None, request: Request) -> set[int]:
    """Return the numbers of the columns that the request names as categorical; raise DataError for one that is none."""
    found = set()
    for name in request.categorical or ():
        if name not in names:
            raise DataError(f"no categorical column is named {shortened(name)!r}; {nearest(name, names)}")
        if names.index(name) == target:
            raise DataError(
                f"column {shortened(name)!r} is the target, expected a feature as categorical; leave it out"
            )
        found.add(names.index(name))
    return found


def first_of(names: tuple[str, ...], found: list[str]) -> str:
    """Return the first of `names` that a file holds an array of."""
    for name in names:
        if name in found:
            return name
    raise DataError(
        f"holds the arrays {listed(found) or '(none)'}, expected one named {' or '.join(names)}; "
        "save it with np.savez(path, X=X, y=y)"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to one that is not known, or which are known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return (
        f"did you mean {shortened(near[0])!r}?" if near else f"known are {listed(names)}" if names else "check the path"
    )


def spelled(path: Path) -> str:
    """Spell a path in one line that stays short and does not command a terminal."""
    return printable(shortened(str(path), 300))


def shortened(text: str, most: int = 60) -> str:
    """Return a text without its middle if it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def listed(values: Iterable[object], most: int = 8) -> str:
    """List values in one line, the first few of many."""
    texts = [printable(shortened(str(value))) for value in values]
    return ", ".join(texts[:most]) + (f", ... ({len(texts)} in all)" if len(texts) > most else "")


def one_line(error: Exception) -> str:
    """Spell another library's error in one line."""
    told = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return shortened(" ".join(f"{type(error).__name__}: {told}".split()), 300)


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return []
