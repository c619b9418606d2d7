"""Places: which rows of one data set each model of a stack has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.shapes import HostArray


@dataclass(frozen=True)
class Places:
    """The rows of each model, on the host.

    rows     (n_folds, most) int64: the row at each place of a fold; beyond its last place the row there again
    fold     (n_models,) int64: the line of `rows` that each model has
    counts   (n_models,) int64: how many rows each model has
    """

    rows: HostArray
    fold: HostArray
    counts: HostArray

    @property
    def are_own(self) -> bool:
        """Whether models have different rows."""
        return len(self.rows) > 1

    def arrays(self, name: str) -> dict[str, HostArray]:
        """Return what these are made of, by name."""
        return {f"{name} {part}": getattr(self, part) for part in ("rows", "fold", "counts")}

    def of(self, models: slice | HostArray) -> Places:
        """Return those of some models, by their places in the stack."""
        lines, fold = np.unique(self.fold[models], return_inverse=True)
        counts = self.counts[models]
        return Places(self.rows[lines, : counts.max()], fold.astype(np.int64), counts)

    def of_model(self, model: int) -> HostArray:
        """Return the rows of one model."""
        rows: HostArray = self.rows[self.fold[model], : self.counts[model]]
        return rows

    def on(self, backend: Backend) -> dict[str, Any]:
        """Return what a BatchSource has of them; where all models have the same rows, it needs no more than these."""
        names = ("rows", "fold", "counts") if self.are_own else ("rows",)
        return {name: backend.asarray(getattr(self, name)) for name in names}


def build_places(rows: Sequence[HostArray], folds: Any) -> Places:
    """Return the places of models.

    rows    the row numbers of each model
    folds   (n_models,) a number for each model, the same for those of the same rows
    """
    _, first, fold = np.unique(folds, return_index=True, return_inverse=True)
    counts = np.array([len(own) for own in rows], np.int64)
    lines = np.empty((len(first), counts.max()), np.int64)
    for line, m in zip(lines, first, strict=True):
        line[: counts[m]], line[counts[m] :] = rows[m], rows[m][-1]
    return Places(lines, fold.astype(np.int64), counts)
