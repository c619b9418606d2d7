"""What any file of a model does: appear whole, or be refused by name."""

from __future__ import annotations

from pathlib import Path

from gpumlp.atomic import replacing
from gpumlp.errors import ModelFileError


def write_file(path: Path, content: bytes) -> Path:
    """Write a file in one step and return its path.

    Raises   ModelFileError if it cannot be written; the old file then stays as it was
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror}; choose another place") from error
    return path
