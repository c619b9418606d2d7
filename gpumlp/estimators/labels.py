"""Labels: which classes there are, and the way from labels to targets and back from outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import type_of_target, unique_labels

from gpumlp.shapes import HostArray


def is_several(binarizer: LabelBinarizer) -> bool:
    """Tell whether a row has one label of at least three classes, so that it is one of several outputs."""
    return bool(binarizer.y_type_ == "multiclass")


def encode(binarizer: LabelBinarizer, y: Any) -> HostArray:
    """Return labels as a network's targets: (n_rows,) numbers of the classes, or (n_rows, n_outputs) bool."""
    if is_several(binarizer):
        codes: HostArray = np.searchsorted(binarizer.classes_, y)
        return codes
    targets: HostArray = binarizer.transform(y).astype(bool)
    return targets


def decode(binarizer: LabelBinarizer, outputs: HostArray) -> Any:
    """Return the labels that outputs (n_rows, n_outputs) stand for."""
    return binarizer.inverse_transform(outputs[:, 0] if outputs.shape[1] == 1 else outputs)


def first_classes(y: Any, classes: Any) -> LabelBinarizer:
    """Return what encodes labels of which y need not hold all."""
    return LabelBinarizer().fit(y if type_of_target(y).startswith("multilabel") else classes)


def check_announced(classes: Any, known: HostArray | None) -> HostArray:
    """Return the classes that partial_fit is told, or knows from before; raise ValueError where they differ."""
    if classes is None:
        if known is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return known
    told: HostArray = unique_labels(classes)
    if known is not None and not np.array_equal(known, told):
        raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}")
    return told


def check_known(y: Any, classes: HostArray, all_of_them: bool) -> None:
    """Raise ValueError for labels that are new, or with `all_of_them` for classes that are missing, too."""
    found = unique_labels(y)
    if all_of_them and set(found) != set(classes):
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously got "
            f"{classes}, `y` has {found}"
        )
    if len(np.setdiff1d(found, classes, assume_unique=True)):
        raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. 'y' has {found}.")
