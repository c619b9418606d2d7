"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to that takes the place of `path` when the block ends well; else `path` stays as it was.

    What was written has reached the disk before the name changes.
    Raises   OSError
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else new_mode(0o666))
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def new_mode(most: int) -> int:
    """Return the permissions of any new file or folder that asks for so many."""
    mask = os.umask(0)
    os.umask(mask)
    return most & ~mask


def sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system lets a folder be opened (Windows does not)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
