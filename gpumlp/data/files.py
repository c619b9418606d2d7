"""What all readers share: finding a file, opening it, and naming it in every error."""

from __future__ import annotations

import difflib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, cast

from gpumlp.data.table import Array
from gpumlp.errors import DataError

# X, y, feature_names, target_name: what a reader finds, in the order of Table's fields
Parts = tuple[Array, Array | None, tuple[str, ...] | None, str | None]


@dataclass(frozen=True)
class Request:
    """What the caller of read_table wants from a file."""

    target: str | int | Path | None = None
    header: Literal["auto"] | bool = "auto"
    with_target: bool = True


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside while a file is read into a DataError that begins with the file's name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it; change its mode or copy it") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path}: not UTF-8 (byte 0x{byte:02x}), expected UTF-8 text; save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it damaged or cut short?") from error


def expect_file(path: Path) -> None:
    """Raise DataError unless `path` is a file, naming the nearest names in its folder."""
    with about(path):
        if path.is_dir():
            raise DataError("is a folder, expected a file; name one in it")
        found = path.exists()
    if not found:
        raise DataError(f"no such file: {path}; {nearest(path.name, _names_in(path.parent))}")


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for its bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if packed(path) else path.open("rb")


def open_text(path: Path) -> TextIO:
    """Open a file for its UTF-8 text, unpacked where its name ends in .gz; a byte order mark is skipped."""
    return gzip.open(path, "rt", encoding="utf-8-sig") if packed(path) else path.open(encoding="utf-8-sig")


def packed(path: Path) -> bool:
    """Tell by its name whether a file is compressed by gzip."""
    return path.name.lower().endswith(".gz")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to one that is not known, or which are known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {listed(names)}" if names else "check the path"


def listed(values: Iterable[object], most: int = 8) -> str:
    """List values, the first few of many."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f", ... ({len(texts)} in all)" if len(texts) > most else "")


def one_line(error: Exception) -> str:
    """Spell another library's error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
