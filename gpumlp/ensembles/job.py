"""Job and Outcome: one training of one model, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpumlp.errors import DivergenceError
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.members import Member
from gpumlp.network.network import Network
from gpumlp.shapes import HostArray
from gpumlp.training.history import History
from gpumlp.training.monitors import Monitor
from gpumlp.training.schedules import ReduceOnPlateau, Schedule


@dataclass(frozen=True, eq=False)
class Job:
    """One training of one model: what a Network of the member and a Trainer would do alone.

    member             the model
    optimizer, ...     as of Trainer, one number each
    rows               (n,) row numbers of X to train on, in this order; None: all of them
    validation_rows    (n,) row numbers of X to evaluate after each epoch
    sample_weight      (n_rows of X,)
    monitors           the job's own: they see a run of one model
    weights            initial (W (out, in), b (out,)) by layer, in place of those that the member's seed draws
    tables             initial tables of embeddings, in the order of their columns, that go with `weights`
    """

    member: Member
    epochs: int
    optimizer: str | UpdateRule = "adam"
    learning_rate: float = 1e-3
    batch_size: int | str = 64
    l2: float = 0.0
    l1: float = 0.0
    clip_norm: float | None = None
    schedule: str | Schedule | ReduceOnPlateau | None = None
    shuffle: bool = True
    reduction: str = "mean"
    penalty: str = "example"
    train_biases: bool = True
    momentum_on_biases: bool = True
    rows: HostArray | None = None
    validation_rows: HostArray | None = None
    sample_weight: HostArray | None = None
    monitors: Sequence[Monitor] = ()
    weights: Sequence[tuple[HostArray, HostArray]] | None = None
    tables: Sequence[HostArray] = ()


@dataclass
class Outcome:
    """What became of a job.

    network   the trained model alone, of its own sizes
    history   as of a fit of this model alone; `seconds` are those of its stack's epochs
    error     why it ended early, with the weights of its last finite epoch; None if it did not diverge
    seconds   its share of its stack's time
    state     what the update rule keeps at the end, by name, (1, n_params): a Trainer with it goes on from there
    """

    network: Network
    history: History
    error: DivergenceError | None
    seconds: float
    state: Mapping[str, HostArray] = field(default_factory=dict)
