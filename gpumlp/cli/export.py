"""`gpumlp export`: a saved model for another library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from gpumlp import convert
from gpumlp.cli.errors import tell
from gpumlp.cli.places import check_place, writing
from gpumlp.cli.predict import ModelFile
from gpumlp.errors import unknown_name
from gpumlp.saved_model import SavedModel, load


@dataclass(frozen=True)
class Format:
    """One kind of file.

    write   write(model, path) -> how to load it, in one line of Python
    """

    ending: str
    write: Callable[[SavedModel, Path], str]


def _onnx(model: SavedModel, place: Path) -> str:
    convert.to_onnx(model, place)
    return f'onnxruntime.InferenceSession({str(place)!r}).run(None, {{"X": X}})  # X: {model.network.dtype.name} rows'


def _safetensors(model: SavedModel, place: Path) -> str:
    convert.save_safetensors(model, place)
    return f"gpumlp.convert.load_safetensors({str(place)!r})  # or safetensors.numpy.load_file for the arrays alone"


def _torch(model: SavedModel, place: Path) -> str:
    """Write plain values alone, so that torch.load needs no trust: the weights and, as text, what they belong to."""
    sequential = convert.to_torch(model)
    import torch  # which is there, or to_torch would have said what is missing

    modules = ", ".join(_spelled(module) for module in sequential)
    rebuild = f"nn.Sequential({modules}).to(torch.{model.network.dtype.name})"
    content: dict[str, Any] = {
        "state_dict": sequential.state_dict(),
        "module": rebuild,
        "classes": None if model.classes is None else model.classes.tolist(),
        "feature_names": None if model.feature_names is None else list(model.feature_names),
    }
    with writing(place) as file:
        torch.save(content, file)
    needed = "import gpumlp.convert.torch_embedding; " if "gpumlp." in rebuild else ""
    return f'{needed}net = {rebuild}.eval(); net.load_state_dict(torch.load({str(place)!r})["state_dict"])'


def _spelled(module: Any) -> str:
    """Return the Python that makes a module, of PyTorch or of gpumlp."""
    own = type(module).__module__
    return f"{own}.{module!r}" if own.startswith("gpumlp.") else f"nn.{module!r}"


def _sklearn(model: SavedModel, place: Path) -> str:
    import joblib

    fitted = convert.to_sklearn(model)
    with writing(place) as file:
        joblib.dump(fitted, file)
    kind, number = type(fitted).__name__, version("scikit-learn")
    return f"joblib.load({str(place)!r})  # {kind}, a pickle of scikit-learn {number}"


FORMATS = {
    "onnx": Format(".onnx", _onnx),
    "safetensors": Format(".safetensors", _safetensors),
    "sklearn": Format(".joblib", _sklearn),
    "torch": Format(".pt", _torch),
}

To = Annotated[str, typer.Option("--to", metavar="NAME", help=f"{', '.join(FORMATS)}.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Where to; beside MODEL by default. A file there is replaced."),
]


def export(model_file: ModelFile, to: To, out: Out = None) -> None:
    """Write a saved model for another library, and print the line of Python that loads it there."""
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS)
    chosen = FORMATS[to]
    place = Path(model_file).with_suffix(chosen.ending) if out is None else out
    check_place(place, "--out", (chosen.ending,))
    model = load(model_file, "numpy")
    print(chosen.write(model, place))
    if model.columns is not None and to != "safetensors":
        tell(
            f"note      X has {model.network.sizes[0]:,} features, not the {len(model.columns.names):,} columns of a "
            "table, which model.features(table) makes of them"
        )
