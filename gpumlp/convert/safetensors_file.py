"""Models as .safetensors: arrays by name, and the header of a .npz as JSON beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.convert.one_model import as_model
from gpumlp.errors import ModelFileError, TensorsFileError
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel
from gpumlp.saved_model.files import expect_model_file, write_file
from gpumlp.saved_model.header import arrays_of, header_of, read_header, spelled_header
from gpumlp.saved_model.loading import restore
from gpumlp.saved_model.npz import expect_array
from gpumlp.shapes import HostArray
from gpumlp.tensors_file import METADATA, TensorsFile, tensor_parts

ENTRY = "gpumlp"  # where the header is in the metadata


def save_safetensors(model: SavedModel | Network, path: str | Path) -> Path:
    """Write a model as .safetensors, in one step, and return the path.

    W0, b0, ... are (n_models, out, in) and (n_models, out); x_mean, x_scale, y_mean, y_scale the scalers, if any; the
    header of a .npz stands as JSON in the metadata's entry "gpumlp".

    Raises   ModelFileError if it cannot be written; an old file then stays as it was
    """
    model = as_model(model)
    parts = tensor_parts({ENTRY: spelled_header(header_of(model))}, arrays_of(model))
    return write_file(Path(path), b"".join(parts))


def load_safetensors(path: str | Path, backend: str | None = "auto", device: str | None = None) -> SavedModel:
    """Return the model that `save_safetensors` wrote, checked array by array before any is read.

    Raises   ModelFileError if it is missing, damaged, from a newer version, or holds what does not fit
    """
    path = Path(path)
    try:
        expect_model_file(path)
        with open(path, "rb") as file:
            return restore(SafetensorsFile(path, file), backend, device)
    except TensorsFileError as error:
        raise ModelFileError(f"{error}; save the model again") from error
    except OSError as error:
        raise ModelFileError(f"cannot read model {path}: {error.strerror or error}; check the path") from error


class SafetensorsFile:
    """An open file of a model; see TensorFile."""

    place = METADATA

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, TensorsFile(path, file)

    def header(self) -> dict[str, Any]:
        """Return the header, checked."""
        metadata = self.file.metadata
        text = metadata.get(ENTRY) if isinstance(metadata, dict) else None
        if not isinstance(text, str):
            raise ModelFileError(
                f"{self.path} is no gpumlp model: its {METADATA} has no text {ENTRY!r}; write one with save_safetensors"
            )
        return read_header(text, METADATA, self.path)

    def names(self) -> set[str]:
        """Return the names of the arrays."""
        return set(self.file.arrays)

    def n_bytes(self) -> int:
        """Return how many bytes the arrays take."""
        return self.file.n_bytes()

    def read(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
        """Return an array."""
        expect_array(self.path, name, self.file.arrays[name][:2], (dtype, shape))
        found: HostArray = self.file.array(name)
        return found
