"""`gpumlp predict`: a saved model's answers for the rows of a file."""

from __future__ import annotations

import csv
import io
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from gpumlp.backends.select import asked_for
from gpumlp.cli import options as opt
from gpumlp.cli.errors import tell
from gpumlp.cli.notes import notes_told
from gpumlp.cli.places import check_place, writing
from gpumlp.cli.problem import Array
from gpumlp.cli.scores import compare, in_words
from gpumlp.data import Table, expect_columns, load_table
from gpumlp.data.files import about, listed
from gpumlp.errors import DataError, unknown_name
from gpumlp.saved_model import SavedModel, load

UNSEEN = ("zeros", "error")

ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help="A file that `gpumlp train --save` wrote.")]
Out = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help='Write a .csv or .npy file; "-" is CSV on stdout.')
]
Probabilities = Annotated[
    bool,
    typer.Option("--probabilities", help="Add a column for each class (.csv), or write these columns alone (.npy)."),
]

Unseen = Annotated[
    str,
    typer.Option(
        "--unseen",
        metavar="NAME",
        help="Of categories that no training row had: zeros, so that they are none of those known; or error.",
    ),
]


def predict(
    model_file: ModelFile,
    data: opt.Data,
    out: Out = "-",
    probabilities: Probabilities = False,
    unseen: Unseen = "zeros",
    target: opt.Target = None,
    header: opt.Header = None,
    backend: opt.BackendName = "auto",
    device: opt.Device = None,
) -> None:
    """Predict a class or a number for each row of DATA.

    A target in DATA is no feature: the column that --target or the model names, or the last one where DATA has one
    column more than the model has features. Where it can be compared, stderr tells how good the predictions are.

    A model that was trained on categorical columns takes the same columns by name, in any order.
    """
    if unseen not in UNSEEN:
        raise unknown_name("--unseen", unseen, UNSEEN)
    place = None if out == "-" else Path(out)
    check_place(place, "--out", (".csv", ".npy"))
    asked_for(backend)
    model = load(model_file, backend, device)
    table = read_rows(data, model, target, opt.header_mode(header))
    check_features(table, model, data)
    if model.columns is not None:
        with about(Path(data)), notes_told(True):
            table = model.columns.transform(table, "error" if unseen == "error" else "zeros")
    predicted = model.predict(table.X)
    shares = model.probabilities(table.X) if probabilities else None
    write(predicted, shares, model, place)
    if table.y is not None:
        tell(_verdict(model, predicted, table, data))


def read_rows(data: str, model: SavedModel, target: str | None, header: Literal["auto"] | bool) -> Table:
    """Return the table in which the features are as many as the model's, the target beside them if there is one."""
    names = None
    if model.columns is not None:  # which are found by their names
        header, names = True if header == "auto" else header, model.columns.categorical
    read = partial(load_table, data, header=header, categorical=names)
    if target is not None:
        return read(target=target)
    for name in dict.fromkeys((model.target_name, None)):
        with suppress(DataError):  # what is wrong with the features is told by the last attempt
            table = read(target=name)
            named = table.target_name is not None and table.target_name == model.target_name
            if named or table.X.shape[1] == n_columns(model):
                return table
    return read(with_target=False)


def n_columns(model: SavedModel) -> int:
    """Return how many columns of a table a model takes."""
    return model.network.sizes[0] if model.columns is None else len(model.columns.names)


def check_features(table: Table, model: SavedModel, data: str) -> None:
    """Raise DataError unless the features are those of the model: their number and, where both have them, names."""
    found, expected = table.feature_names, model.feature_names if model.columns is None else model.columns.names
    n_found, n_expected = table.X.shape[1], n_columns(model)
    if n_found != n_expected:
        names = f", {listed(expected)}" if expected else ""
        raise DataError(f"{data}: {n_found} features, expected {n_expected} as in the model{names}; give these columns")
    if found is None or expected is None or found == expected:
        return
    with about(Path(data)):
        expect_columns(found, expected)
    if model.columns is not None:
        return
    i = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    raise DataError(
        f"{data}: features stand in another order than the model's: feature {i} (from 0) is {found[i]!r}, expected "
        f"{expected[i]!r}; put them in the model's order"
    )


def write(predicted: Array, shares: Array | None, model: SavedModel, place: Path | None) -> None:
    """Write predictions, and class probabilities if there are any, to a file at once or to stdout."""
    if place is None:
        sys.stdout.write(_as_csv(predicted, shares, model))
        return
    with writing(place) as file:
        if place.suffix.lower() == ".npy":
            np.save(file, predicted if shares is None else shares, allow_pickle=False)
        else:
            file.write(_as_csv(predicted, shares, model).encode())


def _as_csv(predicted: Array, shares: Array | None, model: SavedModel) -> str:
    several = predicted.ndim == 2
    columns: list[Any] = [*predicted.T] if several else [predicted]
    names = [f"prediction_{i}" for i in range(len(columns))] if several else ["prediction"]
    if shares is not None and model.classes is not None:
        columns.extend(shares.T)
        names.extend(str(label) for label in model.classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(column.astype(str) for column in columns), strict=True))  # the shortest text of a float32
    return text.getvalue()


def _verdict(model: SavedModel, predicted: Array, table: Table, data: str) -> str:
    assert table.y is not None
    scores = compare(model.task, predicted, table.y)
    target = f"target {table.target_name!r}" if table.target_name else "target"
    if not scores:
        return f"the {target} in {data} is no feature; it cannot be compared with the predictions"
    return f"{in_words(scores)} on {len(table.y):,} rows, against the {target} in {data}"
