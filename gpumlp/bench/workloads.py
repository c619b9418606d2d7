"""The four networks that times are taken on, and a training step on each, ready to be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp.backends.protocol import POSITION, Tally
from gpumlp.formulas.update_rules import RULES
from gpumlp.network.evaluation import build_source
from gpumlp.network.network import Network
from gpumlp.network.targets import check_targets
from gpumlp.randomness.seeds import shared_key
from gpumlp.shapes import HostArray
from gpumlp.training.hyper_table import HyperTable
from gpumlp.training.step import TrainingStep
from gpumlp.training.trainer import build_numbers

LEARNING_RATE = 1e-3
SEVERAL = 8  # steps in one graph, where the host's time for a launch matters


@dataclass(frozen=True)
class Workload:
    """A stack of ReLU networks with softmax and cross-entropy, trained by Adam on one shared order of rows.

    n_steps     steps of an epoch, so rows of the data set / batch
    predicted   mode -> seconds of a step on an H100, from a model of launches, bytes and flops: never measured
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    n_models: int
    n_steps: int
    predicted: dict[str, float] = field(default_factory=dict)

    def data(self) -> tuple[HostArray, HostArray]:
        """Return X (n_steps * batch, in_features) float32 and labels (n_steps * batch,), the same ones at each call."""
        random = np.random.default_rng(0)
        n_rows = self.n_steps * self.batch
        X = random.standard_normal((n_rows, self.sizes[0]), dtype=np.float32)
        return X, random.integers(0, self.sizes[-1], n_rows)

    @property
    def flops(self) -> int:
        """Operations of a step's products: z, dW, and g of all layers but the first."""
        once = sum(2 * self.batch * i * o for i, o in pairwise(self.sizes))
        return self.n_models * (3 * once - 2 * self.batch * self.sizes[0] * self.sizes[1])


WORKLOADS = (
    Workload("784-128-10, batch 64", (784, 128, 10), 64, 1, 64, {"tf32": 29e-6}),
    Workload("784-1024-1024-10, batch 256", (784, 1024, 1024, 10), 256, 1, 32, {"tf32": 70e-6}),
    Workload("4096 x 4, batch 4096", (4096,) * 5, 4096, 1, 2, {"float32": 29.1e-3, "tf32": 5.38e-3}),
    Workload("100 models of 784-128-10, batch 64", (784, 128, 10), 64, 100, 64, {"tf32": 174e-6}),
)
SMALL = Workload("33-20-12-7, batch 16", (33, 20, 12, 7), 16, 3, 8)  # for devices that are not quick


class ReadyStep:
    """A network with everything that a training step on it needs, on its backend."""

    def __init__(
        self,
        workload: Workload,
        backend: str,
        device: str | None = None,
        precision: str | None = None,
        clip_norm: float | None = None,
        shuffle: bool = True,
        per_launch: int = 1,
    ) -> None:
        self.workload, self.per_launch = workload, per_launch
        self.net = Network(
            workload.sizes, n_models=workload.n_models, backend=backend, device=device, precision=precision
        )
        self.backend = self.net.backend
        self.clock = self.backend.empty((3,), np.int64)
        self.backend.fill(self.clock, 0)
        self._build(clip_norm, shuffle)

    def _build(self, clip_norm: float | None, shuffle: bool) -> None:
        net, backend, rule = self.net, self.backend, RULES.get("adam")
        X, labels = self.workload.data()
        targets = check_targets(labels, len(X), net.architecture, net.dtype)
        keys = shared_key(net.seeds[0])[None] if shuffle else None
        source = build_source(backend, X, targets, self.workload.batch, sample_weight=None, mean=True, keys=keys)
        layout, n_models = net.parameters.layout, net.n_models
        hyper = HyperTable(rule, layout, n_models, LEARNING_RATE, 0.0, 0.0, clip_norm, True, True)
        numbers = build_numbers(rule, hyper, net)
        numbers.factors = np.ones(source.n_steps)
        self.state = backend.empty((len(rule.state), n_models, layout.n_params))
        self.tally = Tally(backend.empty((4, n_models), np.float64), targets.counts_hits, targets.threshold)
        for table in (self.state, self.tally.values):
            backend.fill(table, 0)
        backend.bring_numbers(numbers)
        self.step = TrainingStep(net, source, hyper, numbers, self.state, self.clock, self.tally, self.per_launch)

    @property
    def captured(self) -> Any:
        """What the backend's `capture` returned for as many steps as are launched at once."""
        return self.step.captured if self.per_launch == 1 else self.step.together

    def rewind(self) -> None:
        """Let the next step be the first of its epoch, as each must be after n_steps of them."""
        self.backend.fill(self.clock[POSITION : POSITION + 1], 0)

    def run(self, steps: int) -> None:
        """Perform so many steps from the beginning of an epoch, and as many epochs as that takes."""
        done, n_steps = 0, self.workload.n_steps
        with self.backend.session():
            while done < steps:
                position = done % n_steps
                if position == 0:
                    self.rewind()
                done += self.step(min(n_steps - position, steps - done))
