"""SavedModel: a network with all that turns raw rows into answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data import Encoding, Scaler, Standardiser, Table
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.registry import UNIT
from gpumlp.network.network import Network
from gpumlp.saved_model.files import write_file
from gpumlp.saved_model.header import arrays_of, header_of, spelled_header
from gpumlp.saved_model.npz import as_npz
from gpumlp.shapes import HostArray


@dataclass
class SavedModel:
    """A trained network and what belongs to it.

    task             "classification" or "regression"
    classes          (n_classes,) the label of each output, sorted; None for regression
    feature_names    names of the columns of X, or None
    target_name      name of the target, or None
    scaler           what X was scaled with, or None
    target_scaler    what the targets of a regression were scaled with, or None
    columns          how the columns of a table become features, where some are categorical, or None

    Raw rows are features as numbers, (n_samples, n_features), or a Table of the columns that there were in training.
    """

    network: Network
    task: str
    classes: HostArray | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    scaler: Scaler | None = None
    target_scaler: Standardiser | None = None
    columns: Encoding | None = None

    def features(self, X: Any) -> Any:
        """Return the features, before they are scaled, of a Table, and anything else as it is."""
        if not isinstance(X, Table):
            return X
        return X.X if self.columns is None else self.columns.transform(X).X

    def outputs(self, X: Any) -> HostArray:
        """Return the output activations for raw rows, (n_models, n_samples, out)."""
        X = self.features(X)
        found: HostArray = self.network.predict(
            X if self.scaler is None else self.scaler.transform(X, self.network.dtype)
        )
        return found

    def predict(self, X: Any) -> HostArray:
        """Return labels (n_samples,), or numbers (n_samples,) or (n_samples, out), for raw rows.

        The outputs of a stack are averaged.
        """
        mean = self.outputs(X).mean(axis=0)
        if self.task == "classification":
            assert self.classes is not None
            right, wrong = self.network.architecture.cost.labels
            several = mean.shape[1] > 1
            codes = mean.argmax(axis=1) if several else (mean[:, 0] >= (right + wrong) / 2).astype(int)
            labels: HostArray = self.classes[codes]
            return labels
        if self.target_scaler is not None:
            mean = self.target_scaler.inverse(mean)
        numbers: HostArray = mean[:, 0] if mean.shape[1] == 1 else mean
        return numbers

    def probabilities(self, X: Any) -> HostArray:
        """Return the probability of each class, (n_samples, n_classes), for raw rows of a classification.

        Several sigmoid outputs are divided by their sum.
        Raises   ConfigurationError for a regression, and for outputs that are no probabilities
        """
        if self.task != "classification":
            raise ConfigurationError("probabilities are defined for a classification; this model is a regression")
        activation = self.network.architecture.activations[-1]
        if activation.range not in UNIT:
            raise ConfigurationError(
                f"output activation {activation.name} gives numbers in {activation.range}, which are no probabilities; "
                "train with softmax or sigmoid outputs"
            )
        mean = self.outputs(X).mean(axis=0)
        if mean.shape[1] == 1:
            return np.column_stack([1 - mean, mean])
        shares: HostArray = mean if activation.row_wise else mean / mean.sum(axis=1, keepdims=True)
        return shares

    # ---------------------------------------------------------------- file

    def expect_saveable(self) -> None:
        """Raise ModelFileError for what a file cannot hold; it may be called before anything is trained."""
        spelled_header(header_of(self), indent=1)

    def save(self, path: str | Path) -> Path:
        """Write the model to `path`, which gets the ending .npz if it has none; a file there is replaced in one step.

        Raises   ModelFileError if it cannot be written; the old file then stays as it was
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        return write_file(path, as_npz(header_of(self), arrays_of(self)))
