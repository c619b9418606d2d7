"""DeltaNorms: how large the errors are that reach each layer, epoch by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.network.network import Network
from gpumlp.shapes import is_on_device
from gpumlp.training.monitors import EpochReport, Monitor

SAMPLE = 256  # rows that are enough for a mean


class DeltaNorms(Monitor):
    """Adds the mean |delta[l]| of each layer to the reports, as "delta_0", "delta_1" and so on.

    Measured after each epoch by one pass back on the same rows. Deltas that shrink by much from layer to layer, the
    output being the last, tell of vanishing gradients.

    net     the network that is trained; its models are alike
    X, Y    rows as given to `fit`, of which some that stand at equal distances are taken
    rows    how many at most
    """

    def __init__(self, net: Network, X: Any, Y: Any, rows: int = SAMPLE) -> None:
        chosen = np.unique(np.linspace(0, len(X) - 1, min(rows, len(X))).astype(int))
        self._net = net
        self._X, self._Y = (x[chosen] if is_on_device(x) else np.asarray(x)[chosen] for x in (X, Y))

    def epoch_ended(self, report: EpochReport) -> None:
        for l, delta in enumerate(self._net.backpropagate(self._X, self._Y).delta):
            means = np.abs(delta).mean(axis=(1, 2), dtype=np.float64)
            report.values[f"delta_{l}"] = np.where(report.active, means, np.nan)
