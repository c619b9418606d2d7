"""The networks that times are taken on, and a training step on each, ready to be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from gpumlp.formulas.update_rules import RULES
from gpumlp.network.network import Network
from gpumlp.network.parameters import ParameterLayout
from gpumlp.shapes import HostArray
from gpumlp.training.data_set import check_training_set
from gpumlp.training.steps import Steps
from gpumlp.training.trainer import Trainer

LEARNING_RATE = 1e-3
MOMENTUM = RULES.get("momentum").defaults["momentum"]
BETA1, BETA2, EPSILON = (RULES.get("adam").defaults[name] for name in ("beta1", "beta2", "epsilon"))
SEVERAL = 8  # steps in one graph, where the host's time for a launch matters
MNIST = 60_000  # rows; too many for a cache
_in_use: WeakValueDictionary[tuple[Any, ...], HostArray] = WeakValueDictionary()


@dataclass(frozen=True)
class Workload:
    """A stack of networks with softmax and cross-entropy, trained on one shared order of rows.

    n_rows      of the data set, whole batches, so that no library meets a second shape
    rule        "adam" or "momentum"
    predicted   mode -> seconds of a step on an H100, from a model of launches, bytes and flops: never measured
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    n_models: int
    n_rows: int
    rule: str = "adam"
    activation: str = "relu"
    predicted: dict[str, float] = field(default_factory=dict, compare=False)

    def data(self) -> tuple[HostArray, HostArray]:
        """Return X (n_rows, in_features) float32 and labels (n_rows,): the same arrays as long as anyone uses them."""
        features, classes = self.sizes[0], self.sizes[-1]
        return (
            _kept(("X", self.n_rows, features), lambda r: r.standard_normal((self.n_rows, features), np.float32)),
            _kept(("labels", self.n_rows, classes), lambda r: r.integers(0, classes, self.n_rows)),
        )

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.n_rows // self.batch)

    @property
    def flops(self) -> int:
        """Operations of a step's products: z, dW, and g of all layers but the first."""
        once = sum(2 * self.batch * i * o for i, o in pairwise(self.sizes))
        return self.n_models * (3 * once - 2 * self.batch * self.sizes[0] * self.sizes[1])

    @property
    def n_params(self) -> int:
        """Weights and biases of all models."""
        return self.n_models * ParameterLayout(self.sizes).n_trainable

    @property
    def parameters(self) -> dict[str, Any]:
        """What names the workload in a result."""
        return {
            "sizes": list(self.sizes),
            "batch": self.batch,
            "n_models": self.n_models,
            "rows": self.n_rows,
            "activation": self.activation,
            "rule": self.rule,
        }


def whole_batches(n_rows: int, batch: int) -> int:
    """Return the most rows up to `n_rows`, and at least one batch, that are whole batches."""
    return max(1, n_rows // batch) * batch


def _rows(batch: int) -> int:
    return whole_batches(MNIST, batch)


SMALL_NET = Workload("784-128-10, batch 64, adam", (784, 128, 10), 64, 1, _rows(64), predicted={"tf32": 29e-6})
WIDE_NET = Workload(
    "784-1024-1024-10, batch 256, adam", (784, 1024, 1024, 10), 256, 1, _rows(256), predicted={"tf32": 70e-6}
)
STACK = Workload("100 models of 784-128-10, batch 64, momentum", (784, 128, 10), 64, 100, _rows(64), "momentum")
SMALL_STACK = Workload("100 models of 64-32-10, batch 64, momentum", (64, 32, 10), 64, 100, 16_384, "momentum")
ON_CPU = (
    SMALL_NET,
    WIDE_NET,
    Workload("2048 x 4, batch 1024, adam", (2048,) * 5, 1024, 1, 8_192),
    STACK,
    SMALL_STACK,
)
AT_4096 = {"float32": 29.1e-3, "tf32": 5.38e-3}
# what is predicted holds for Adam
WORKLOADS = (
    SMALL_NET,
    WIDE_NET,
    Workload("4096 x 4, batch 4096, adam", (4096,) * 5, 4096, 1, 8_192, predicted=AT_4096),
    Workload(
        "100 models of 784-128-10, batch 64, adam", (784, 128, 10), 64, 100, _rows(64), predicted={"tf32": 174e-6}
    ),
)
ON_CUDA = (*WORKLOADS, SMALL_STACK)
SMALL = Workload("33-20-12-7, batch 16", (33, 20, 12, 7), 16, 3, 128)  # for devices that are not quick


class ReadyStep:
    """A network with everything that a training step on it needs, on its backend, as a Trainer would do it.

    shuffle   whether each epoch has a new order, the same for all models; else the rows come as they stand
    """

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
        self.net = new_network(workload, backend, device, precision)
        self.backend = self.net.backend
        self.trainer = new_trainer(self.net, workload, shuffle, clip_norm=clip_norm, steps_per_launch=per_launch)
        data = check_training_set(self.net, *workload.data())
        with self.backend.session():
            source = data.source(self.trainer, workload.batch)
        self.clock, self.state = self.trainer.clock, tuple(self.trainer.state.values())
        self._steps = Steps(self.trainer, source, data.targets, self.clock, self.trainer.numbers)
        self.step = self._steps.step
        self._done = self._epochs = 0  # steps of this epoch, epochs before it
        self._steps.begin_epoch()

    @property
    def captured(self) -> Any:
        """What the backend's `capture` returned for as many steps as are launched at once."""
        return self.step.captured if self.per_launch == 1 else self.step.together

    def run(self, steps: int) -> None:
        """Perform so many more steps, through as many epochs as that takes."""
        left, n_steps = steps, self._steps.source.n_steps
        with self.backend.session():
            while left:
                if self._done == n_steps:
                    self._done, self._epochs = 0, self._epochs + 1
                    self._steps.end_epoch(self._epochs)
                    self._steps.begin_epoch()
                done = self.step(min(left, n_steps - self._done))
                self._done, left = self._done + done, left - done


def new_network(workload: Workload, backend: str, device: str | None = None, precision: str | None = None) -> Network:
    """Return the workload's network with its initial weights."""
    device = device if backend == "cuda" else None
    return Network(
        workload.sizes,
        workload.activation,
        n_models=workload.n_models,
        backend=backend,
        device=device,
        precision=precision,
    )


def new_trainer(net: Network, workload: Workload, shuffle: bool, **more: Any) -> Trainer:
    """Return what trains it, with one order for all models."""
    order = "shared" if shuffle else False
    return Trainer(net, workload.rule, LEARNING_RATE, workload.batch, shuffle=order, **more)


def _kept(key: tuple[Any, ...], make: Callable[[np.random.Generator], HostArray]) -> HostArray:
    """Return the array of that name, made once as long as it is used."""
    found = _in_use.get(key)
    if found is None:
        found = _in_use[key] = make(np.random.default_rng(0))
    return found
