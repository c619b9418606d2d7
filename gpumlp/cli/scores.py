"""How good predictions are, in numbers and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.data import encode_labels

Array = NDArray[Any]


def compare(task: str, predicted: Array, y: Array) -> dict[str, float]:
    """Return {"accuracy"}, or {"rmse", "r2"} for a regression; nothing if the two cannot be compared.

    predicted   as SavedModel.predict returns it
    y           what a table holds: one-hot rows count as their column numbers
    """
    if task == "classification":
        codes, classes = encode_labels(y)
        if (classes.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            return {}
        return {"accuracy": float(np.mean(predicted == classes[codes]))}
    if y.dtype.kind == "U" or y.shape != predicted.shape:
        return {}
    squares = np.mean((predicted - y) ** 2, axis=0)
    spread = np.var(y, axis=0)
    r2 = 1 - squares / np.where(spread > 0, spread, np.nan)  # of a constant target it is not defined
    return {"rmse": float(np.sqrt(np.mean(squares))), "r2": float(np.mean(r2))}


def in_words(scores: dict[str, float]) -> str:
    """Spell what `compare` returns."""
    if "accuracy" in scores:
        return f"accuracy {100 * scores['accuracy']:.1f} %"
    return f"RMSE {scores['rmse']:.4g}, R2 {scores['r2']:.3f}"
