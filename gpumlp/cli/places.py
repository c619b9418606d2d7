"""Where results go: places are refused before the work begins, and files appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gpumlp.atomic import replacing
from gpumlp.errors import ConfigurationError


def check_place(path: Path | None, option: str, endings: tuple[str, ...] = ()) -> None:
    """Raise ConfigurationError unless a file can be written at `path` and its name has one of the endings, if any."""
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise ConfigurationError(f"{option} {path}: expected a name ending in {' or '.join(endings)}; rename it")
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{option} {path}: is a folder or a device, expected a file; name one")
    if path.parent.exists() and not path.parent.is_dir():
        raise ConfigurationError(f"{option} {path}: {path.parent} is a file, expected a folder; name one")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{option} {path}: there is no folder {path.parent}; make it first")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ConfigurationError(
            f"{option} {path}: cannot write into {path.parent} ({error.strerror}); choose another place"
        ) from error


def check_folder(path: Path | None, option: str) -> None:
    """Raise ConfigurationError for what is there and is no folder."""
    if path is not None and path.exists() and not path.is_dir():
        raise ConfigurationError(f"{option} {path}: is a file, expected a folder; choose another name")


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the place of `path` when the block ends well; raise ConfigurationError if it cannot."""
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise ConfigurationError(f"cannot write {path} ({error.strerror}); choose another place") from error
