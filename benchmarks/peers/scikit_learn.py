"""The training steps of a workload in scikit-learn: MLPClassifier, by parts of an epoch through partial_fit.

A call goes once through the rows that it is given, in a new order, after it has looked whether all are finite. It is
given some thousand neighbouring rows at a time, another part at each call, so that a sample need not be a whole epoch:
rows are shuffled within their part alone, which makes less work, not more. Its Adam adds epsilon before the bias of the
second moment is corrected, which changes nothing that could be seen after a few steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from gpumlp.bench.workloads import BETA1, BETA2, EPSILON, LEARNING_RATE, MOMENTUM, Workload
from gpumlp.shapes import HostArray

PART = 4096  # rows of a call


def why_absent(device: str) -> str:
    """Return why scikit-learn cannot take part on a device, "" if it can."""
    return "computes on the CPU" if device.startswith("cuda") else ""


class Classifier:
    """scikit-learn's MLPClassifier."""

    name = "scikit-learn"

    def __init__(self, workload: Workload, mode: str, device: str, initial: list[tuple[HostArray, HostArray]]) -> None:
        self.workload, self.position = workload, 0
        self.X, self.y = workload.data()
        self.launch = min(workload.n_steps, max(1, PART // workload.batch))
        self.net = MLPClassifier(
            workload.sizes[1:-1],
            activation=workload.activation,
            solver="sgd" if workload.rule == "momentum" else "adam",
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=LEARNING_RATE,
            shuffle=False,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=EPSILON,
        )
        self.begin(initial)

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why there is no such training of a workload, "" if there is."""
        return "" if workload.n_models == 1 else "is for one model"

    def begin(self, initial: list[tuple[HostArray, HostArray]]) -> None:
        """Let a first call make all that is needed, then put the weights in place, and a new optimiser."""
        n = self.workload.batch
        self.net.partial_fit(self.X[:n], self.y[:n], classes=np.arange(self.workload.sizes[-1]))
        for l, (W, b) in enumerate(initial):
            self.net.coefs_[l] = np.ascontiguousarray(W[0].T)
            self.net.intercepts_[l] = b[0].copy()
        del self.net._optimizer

    def tune(self) -> str:
        """Take a new order at each call from now on; say what a call is."""
        self.net.shuffle, self.position = True, 0
        return f"{self.launch} steps a call of partial_fit"

    def run(self, steps: int) -> None:
        """Train on so many further batches, as many at a call as there may be."""
        left, batch, n_steps = steps, self.workload.batch, self.workload.n_steps
        while left:
            now = min(left, self.launch, n_steps - self.position)
            part = slice(self.position * batch, (self.position + now) * batch)
            self.net.partial_fit(self.X[part], self.y[part])
            self.position, left = (self.position + now) % n_steps, left - now

    def weights(self) -> list[Any]:
        """Return the weights of each layer, (1, out, in)."""
        return [W.T[None] for W in self.net.coefs_]


PEERS = (Classifier,)
