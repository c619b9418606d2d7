"""The arrays that a network is trained on, as checked, and the explicit order of their rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpumlp.backends.protocol import BatchSource
from gpumlp.errors import DataError
from gpumlp.network.evaluation import build_source
from gpumlp.network.kinds import bring
from gpumlp.network.network import Network
from gpumlp.network.places import Places
from gpumlp.network.targets import Targets, check_inputs, check_sample_weight
from gpumlp.randomness.seeds import model_keys, shared_key
from gpumlp.shapes import HostArray, expect, is_on_device
from gpumlp.training.folds import Folds, check_folds, check_weights, common_batch
from gpumlp.training.pools import Feed, Whole

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer


class TrainingSet(NamedTuple):
    """A user's arrays, checked; on the host, or on the device where the user has them."""

    X: HostArray
    targets: Targets
    weights: HostArray | None
    places: Places | None = None

    def take(self, models: HostArray, source: BatchSource) -> TrainingSet:
        """Return what some models are trained on, by their places; `source` has brought the arrays of all."""
        weights = self.weights if self.weights is None or len(self.weights) == 1 else self.weights[models]
        targets = replace(self.targets.take(models), Y=source.Y)
        return TrainingSet(source.X, targets, weights, None if self.places is None else self.places.of(models))

    def arrays(self) -> dict[str, Any]:
        """Return by name all that is trained on."""
        found = {"X": self.X, **self.targets.arrays("Y"), "sample_weight": self.weights}
        return found | ({} if self.places is None else self.places.arrays("folds"))

    def feed(self, trainer: Trainer, batch: int | str, explicit: bool = False) -> tuple[BatchSource, Feed]:
        """Return the set as a source, and what makes that ready for each epoch."""
        source = self.source(trainer, batch, explicit)
        return source, Whole(source)

    def source(self, trainer: Trainer, batch: int | str, explicit: bool = False) -> BatchSource:
        """Return the set on the trainer's backend, in batches, with the order in which its rows come.

        explicit   whether that is written into `rows` epoch by epoch
        """
        net, backend, n_rows = trainer.net, trainer.net.backend, len(self.X)
        counts = [n_rows] if self.places is None else self.places.counts
        keys = rows = None
        if explicit:
            rows = backend.empty((1, n_rows), np.int64)
        elif trainer.shuffle == "shared":
            n_orders = net.n_models if self.places is not None and self.places.are_own else 1
            keys = np.repeat(shared_key(net.seeds[0])[None], n_orders, axis=0)
        elif trainer.shuffle:
            keys = model_keys(net.seeds, net.model_ids)
        return build_source(
            backend,
            self.X,
            self.targets,
            common_batch(batch, counts),
            sample_weight=self.weights,
            mean=trainer.reduction == "mean",
            keys=keys,
            rows=rows,
            places=self.places,
        )


def check_training_set(
    net: Network, X: Any, Y: Any, sample_weight: Any = None, folds: Folds | None = None
) -> TrainingSet:
    """Return the arrays as this network is trained on them; raise ShapeError, DataError or ConfigurationError."""
    backend = net.backend
    with backend.session():
        X = check_inputs(bring(X, "X", backend), net.architecture)
        targets = net.check_targets(Y, len(X))
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(bring(sample_weight, "sample_weight", backend), len(X), net.n_models)
        places = None if folds is None else check_folds(folds, net.n_models, len(X))
        if weights is not None and places is not None:
            check_weights(weights, places)
    return TrainingSet(X, targets, weights, places)


def check_order(order: Any, epochs: int, n_rows: int) -> HostArray:
    """Return an explicit order as (epochs, n_rows) int64; raise ShapeError or DataError."""
    if is_on_device(order):
        raise DataError("order lies on a CUDA device, but is read on the host; pass order.get()")
    array = np.asarray(order)
    expect(array, "order", (epochs, n_rows), "one line of row numbers for each epoch")
    if array.dtype.kind not in "iu":
        raise DataError(f"order has dtype {array.dtype}, expected whole row numbers")
    if array.size and not (array.min() >= 0 and array.max() < n_rows):
        raise DataError(f"order names rows {array.min()} to {array.max()}, the data have rows 0 to {n_rows - 1}")
    return array.astype(np.int64)
