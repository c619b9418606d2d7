"""Inputs, targets and sample weights as a network wants them: checked once, where the user's arrays enter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp.errors import ConfigurationError, DataError, ShapeError
from gpumlp.formulas.costs import Cost
from gpumlp.network.architecture import Architecture
from gpumlp.network.embedding import check_codes
from gpumlp.shapes import HostArray, as_numeric, expect, is_on_device


@dataclass(frozen=True)
class Targets:
    """Targets of a data set, on the host or where the user has them; codes on the host.

    Y               (n_rows, n_out) numbers, or (n_rows,) labels if `codes` is given
    codes           (n_classes, n_out) the target of each label, or (n_models, n_classes, n_out); or None
    counts_hits     whether they name classes, so that a share of right answers means something
    threshold       what a single output must reach for the class 1; None with several outputs
    """

    Y: HostArray
    codes: HostArray | None
    counts_hits: bool
    threshold: float | None

    def arrays(self, name: str) -> dict[str, Any]:
        """Return what these are made of, by name: rows, and what their labels stand for."""
        return {name: self.Y, f"{name} by label": self.codes}

    def rows(self, asarray: Callable[[HostArray], Any]) -> Any:
        """Return the target of each row, (n_rows, n_out), or (n_models, n_rows, n_out) where codes differ.

        asarray   brings the codes to where the labels are
        """
        if self.codes is None:
            return self.Y
        return (asarray(self.codes) if is_on_device(self.Y) else self.codes)[..., self.Y, :]

    @property
    def n_codes(self) -> int:
        """1 if a label means the same target to all models, else n_models."""
        return 1 if self.codes is None or self.codes.ndim == 2 else len(self.codes)

    def take(self, models: HostArray) -> Targets:
        """Return the targets of some models of a stack, by their places."""
        return self if self.n_codes == 1 or self.codes is None else replace(self, codes=self.codes[models])

    def of_costs(self, costs: Sequence[Cost]) -> Targets:
        """Return these targets for models of these costs, which may differ in their label smoothing.

        Raises   ConfigurationError where they do and the targets are no labels
        """
        if len({cost.label_smoothing for cost in costs}) == 1:
            return self
        if self.codes is None:
            raise ConfigurationError(
                "the models of this stack differ in label_smoothing, which needs Y as labels, one for each example"
            )
        return replace(self, codes=label_codes(costs, self.codes.shape[-1], self.codes.dtype))


def check_inputs(X: Any, net: Architecture, name: str = "X") -> HostArray:
    """Return X as an array (n_samples, in_features) of finite numbers, and codes; raise ShapeError or DataError."""
    array = as_numeric(X, name)
    advice = f"architecture {net} takes {net.sizes[0]} features, one row for each example"
    expect(array, name, ("n_samples", net.sizes[0]), advice)
    if len(array) == 0:
        raise DataError(f"{name} has no rows; give at least one example")
    check_finite(array, name)
    check_codes(array, net.embeddings, name)
    return array


def check_finite(array: HostArray, name: str) -> None:
    """Raise DataError, with the place of the first, if a value is NaN or infinite."""
    if array.dtype.kind != "f" or (np.isfinite(array.min()) and np.isfinite(array.max())):
        return
    bad = np.argwhere(~np.isfinite(array))
    place = ", ".join(str(i) for i in bad[0])
    raise DataError(f"{name} holds {len(bad)} values that are not finite, the first at [{place}]; remove or fill them")


def check_targets(Y: Any, n_rows: int, net: Architecture, dtype: Any, name: str = "Y") -> Targets:
    """Return the targets of `n_rows` examples as the network's cost wants them.

    Y        (n_rows, n_out) numbers; or (n_rows,) labels 0..n_out-1 of several outputs; or (n_rows,) numbers of one
    Raises   ShapeError or DataError
    """
    array, n_out, cost = as_numeric(Y, name), net.sizes[-1], net.cost
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != n_out):
        expect(array, name, ("n_samples", n_out), "or give one label for each example")
    if len(array) != n_rows:
        raise ShapeError(f"{name} has {len(array)} rows, X has {n_rows}; each example needs its target")
    check_finite(array, name)
    if array.ndim == 1 and n_out > 1:
        return _labels(array, n_out, cost, dtype, name)
    return _numbers(array.reshape(n_rows, n_out), net, dtype, name)


def _labels(labels: Any, n_out: int, cost: Cost, dtype: Any, name: str) -> Targets:
    """Return labels and the row of targets that each stands for."""
    whole = labels.astype(np.int64, copy=False)
    if not np.array_equal(whole, labels) or whole.min() < 0 or whole.max() >= n_out:
        lowest, highest = float(labels.min()), float(labels.max())
        raise DataError(
            f"{name} holds values from {lowest:g} to {highest:g}; expected labels 0 to {n_out - 1}, one for "
            f"each of the {n_out} outputs, or an array (n_samples, {n_out})"
        )
    return Targets(whole, label_codes([cost], n_out, dtype)[0], counts_hits=True, threshold=None)


def label_codes(costs: Sequence[Cost], n_out: int, dtype: Any) -> HostArray:
    """Return the target that each label has under each cost, (n_costs, n_classes, n_out)."""
    return np.stack([smooth(np.where(np.eye(n_out, dtype=bool), *c.labels), c).astype(dtype) for c in costs])


def _numbers(Y: Any, net: Architecture, dtype: Any, name: str) -> Targets:
    """Return numbers as they are, in the network's dtype, checked against what the cost is defined for."""
    cost, (right, wrong) = net.cost, net.cost.labels
    if cost.labels != (1.0, 0.0) and bool(((Y == 0) | (Y == 1)).all()):
        Y = np.where(Y == 1, right, wrong)  # hinge: 0 and 1 stand for -1 and 1
    lowest, highest = float(Y.min()), float(Y.max())
    if not cost.targets.holds(lowest, highest):
        raise DataError(
            f"{name} holds values from {lowest:g} to {highest:g}, cost {cost.name} is defined for targets in "
            f"{cost.targets}; scale the targets or choose another cost"
        )
    sums_to_one = net.activations[-1].row_wise
    if sums_to_one and np.abs(Y.sum(axis=1) - 1).max() > 1e-4:
        row = int(np.abs(Y.sum(axis=1) - 1).argmax())
        raise DataError(
            f"{name}[{row}] sums to {float(Y[row].sum()):g}, but the outputs of softmax sum to 1; give one-hot rows, "
            "probabilities or labels"
        )
    is_right = np.equal(Y, right)
    counts_hits = bool(np.all(is_right | np.equal(Y, wrong)))
    threshold = (right + wrong) / 2 if Y.shape[1] == 1 else None
    if threshold is None:
        counts_hits = counts_hits and bool(np.all(is_right.sum(axis=1) == 1))
    return Targets(smooth(Y, cost).astype(dtype, order="C", copy=False), None, counts_hits, threshold)


def smooth(Y: HostArray, cost: Cost) -> HostArray:
    """Return targets of which the cost's share of smoothing is spread over all classes."""
    s = cost.label_smoothing
    return (1 - s) * Y + s / Y.shape[1] if s else Y


def check_sample_weight(sample_weight: Any, n_rows: int, n_models: int) -> HostArray:
    """Return sample weights as (1 or n_models, n_rows) float64; raise ShapeError or ConfigurationError."""
    weights = as_numeric(sample_weight, "sample_weight").astype(np.float64, order="C", copy=False)
    found = weights.shape
    if weights.ndim == 1:
        weights = weights[None]
    if weights.shape not in ((1, n_rows), (n_models, n_rows)):
        raise ShapeError(f"sample_weight has shape {found}, expected ({n_rows},) or ({n_models}, {n_rows})")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights.sum(axis=1) > 0).all()):
        raise ConfigurationError("sample_weight must be finite and not negative, and some of each model's above 0")
    return weights
