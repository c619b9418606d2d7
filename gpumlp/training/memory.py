"""What memory a training needs, part by part, before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.hollow import Ledger, hollow, hollow_backend
from gpumlp.backends.select import cublas_bytes
from gpumlp.errors import ConfigurationError, readable_bytes
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.architecture import Architecture
from gpumlp.network.evaluation import Evaluation
from gpumlp.network.members import Member
from gpumlp.network.network import Network
from gpumlp.network.targets import Targets
from gpumlp.training.active import Active
from gpumlp.training.data_set import TrainingSet
from gpumlp.training.steps import Steps
from gpumlp.training.trainer import Trainer
from gpumlp.training.weight_copy import WeightCopy

# what is in a part, by how the uses of its arrays begin
PARTS = {
    "the gradients": "gradients",
    "a of layer": "activations",
    "z of layer": "activations",
    "a of the embedding": "activations",
    "delta of layer": "deltas",
    "delta of the embedding": "deltas",
    "a dropout mask": "dropout masks",
    "scratch": "scratch",
}
ORDER = (
    "parameters",
    "gradients",
    "optimiser state",
    "kept parameters",
    "activations",
    "deltas",
    "dropout masks",
    "batch",
    "data set",
    "evaluation",
    "scratch",
    "cuBLAS",
)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part, in the order in which they are told; a part that takes nothing is left out.

    parameters, gradients, optimiser state   as they say, with padding
    kept parameters   copies that are gone back to: the last finite epoch, and the best one
    activations, deltas, dropout masks       of one batch: z and a, and delta, of each layer
    batch             rows, targets and weights of one batch, and the tables of a step
    data set          X, Y and sample weights for training; on a processor they are the user's own arrays
    evaluation        the validation set and the buffers for it
    scratch           what the backend itself needs for a step
    cuBLAS            its workspace; what CUDA's context takes beside it is the driver's, and not in the plan
    """

    backend: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    def table(self) -> list[str]:
        """Return the parts and their sum as lines of text."""
        rows = [*self.parts.items(), ("total", self.total)]
        return [f"{name:<16}  {readable_bytes(n):>11}  {n / self.total:>6.1%}" for name, n in rows]


def plan_memory(
    model: Network | Architecture | Sequence[Member],
    batch_size: int | str = 64,
    optimizer: str | UpdateRule = "adam",
    n_rows: int | None = None,
    n_validation: int = 0,
    backend: str | None = None,
    dtype: Any = "float32",
    data_dtype: Any = None,
    labels: bool = True,
    kept: int = 2,
    **training: Any,
) -> MemoryPlan:
    """Return what memory it takes to train a network or a stack; nothing is allocated.

    model         a Network, whose backend and dtype then count; an Architecture; or the members of a stack
    n_rows        of the training set; None: one batch of them
    n_validation  rows of the validation set
    backend       "numpy", "numba" or "cuda", which need not work here; "numpy" by default
    data_dtype    of X, as given to `fit`; None: dtype
    labels        whether Y names classes, (n_rows,); else it holds (n_rows, n_out) numbers
    kept          copies of the parameters: one that `fit` always keeps, and one for each of KeepBest and EarlyStopping
    training      what Trainer takes besides: shuffle, clip_norm and so on
    Raises        ConfigurationError, UnknownName
    """
    if batch_size == "tune":
        raise ConfigurationError('batch_size="tune" is known once it is measured; give a number of rows or "full"')
    for what, n, least in (("n_rows", n_rows, 1), ("n_validation", n_validation, 0), ("kept", kept, 0)):
        if not (isinstance(n, int | np.integer) and n >= least) and (what, n) != ("n_rows", None):
            raise ConfigurationError(f"{what}={n!r}: expected a whole number of at least {least}")
    if isinstance(model, Network):
        members, backend, dtype = model.members, backend or model.backend.name, model.dtype
    else:
        several: Sequence[Architecture | Member] = [model] if isinstance(model, Architecture) else model
        members = tuple(_member(m, i) for i, m in enumerate(several))
    name = backend or "numpy"
    ledger = Ledger()
    there = hollow_backend(name, dtype, ledger)
    with ledger.under("parameters"):
        net = Network.hollow(members, there)
    with ledger.under("optimiser state"):
        trainer = Trainer(net, optimizer, batch_size=batch_size, **training)
    if n_rows is None:
        n_rows = 1 if batch_size == "full" else int(batch_size)
    data_dtype = there.dtype if data_dtype is None else data_dtype
    data = hollow_set(net, n_rows, data_dtype, labels)
    held_out = hollow_set(net, n_validation, data_dtype, labels) if n_validation else None
    go_through(trainer, ledger, data, held_out, kept)
    if name == "cuda":
        ledger.add("cuBLAS", cublas_bytes())
    return MemoryPlan(name, by_part(ledger))


def go_through(trainer: Trainer, ledger: Ledger, data: TrainingSet, held_out: TrainingSet | None, kept: int) -> None:
    """Have a trainer on a hollow backend write down what a fit with these data takes beside network and trainer."""
    net, there = trainer.net, trainer.net.backend
    with ledger.under("data set"):
        source = data.source(trainer, trainer.batch_size)
    steps = Steps(trainer, source, data.targets, trainer.clock, trainer.numbers)
    steps.begin_epoch()
    steps.step()
    if held_out is not None:
        X, targets, _, places = held_out
        with ledger.under("evaluation"):
            Evaluation(there, net.architecture, net.parameters, X, targets, places=places, runs=net.runs).step()
    with ledger.under("kept parameters"):
        active = Active(trainer)
        for _ in range(kept):
            WeightCopy(net, lambda: active)


def _member(model: Architecture | Member, place: int) -> Member:
    """Return a model of a stack, without dropout where only its architecture is given."""
    if isinstance(model, Member):
        return model
    return Member(model, (0.0,) * (model.n_layers - 1), model_id=place)


def hollow_set(net: Network, n_rows: int, dtype: Any, labels: bool) -> TrainingSet:
    """Return a set of this size without memory."""
    n_in, n_out = net.sizes[0], net.sizes[-1]
    X = hollow((n_rows, n_in), dtype)
    if not labels:
        return TrainingSet(X, Targets(hollow((n_rows, n_out), net.dtype), None, False, None), None)
    codes = hollow((max(2, n_out), n_out), net.dtype)
    return TrainingSet(X, Targets(hollow((n_rows,), np.int64), codes, True, 0.5 if n_out == 1 else None), None)


def by_part(ledger: Ledger) -> dict[str, int]:
    """Return bytes by part, in order."""
    found = dict.fromkeys(ORDER, 0)
    for what, n_bytes in ledger.bytes.items():
        part = next((part for start, part in PARTS.items() if what.startswith(start)), "batch")
        found[what if what in found else part] += n_bytes
    return {part: n for part, n in found.items() if n}
