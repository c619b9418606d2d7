"""What any file of a model does: appear whole, or be refused by name."""

from __future__ import annotations

from pathlib import Path

from gpumlp.atomic import replacing
from gpumlp.data.files import one_line, spelled
from gpumlp.errors import ModelFileError


def expect_model_file(path: Path) -> None:
    """Raise ModelFileError for what is no file and might never end, such as a pipe."""
    if path.is_dir():
        raise ModelFileError(f"cannot read model {spelled(path)}: it is a folder, expected a file; name one in it")
    if path.exists() and not path.is_file():
        raise ModelFileError(
            f"cannot read model {spelled(path)}: it is a device or a pipe, expected a file; copy it to one first"
        )


def unreadable(path: Path, what: str, error: Exception) -> ModelFileError:
    """Build the error for a part of a file that is damaged."""
    return ModelFileError(f"{path}: {what} cannot be read ({one_line(error)}); save the model again")


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
