"""What a backend is: the textbook's equations as methods on given buffers.

A method writes its result into the arrays named last and returns nothing; in a training step nothing is allocated. All
that changes from one step to the next stands in tables (Clock, StepNumbers, Tally), so that a list of calls, once
captured, can be replayed for the whole training.

Axes, always in this order: n_models, batch, features. An array that all models share has n_models = 1 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gpumlp.formulas.activations import Activation
from gpumlp.formulas.output_delta import OutputDelta
from gpumlp.formulas.update_rules import UpdateRule, given_names

Array = Any  # an array of the backend's own kind

# rows of the clock: what has been done so far
STEP, EPOCH, POSITION = 0, 1, 2
# rows of a tally
COST, WEIGHT, HITS, FIRST_BAD = 0, 1, 2, 3
# rows of a lookup
COLUMN, CATEGORIES, FIRST, APART = 0, 1, 2, 3

PADDING = 32  # values: in a row of parameters each tensor begins at a multiple, of 128 bytes in float32


def padded(n: int) -> int:
    """Return the room of a tensor of n values in a row of parameters."""
    return -(-n // PADDING) * PADDING


@dataclass
class BatchSource:
    """The rows of a data set and the order in which they come.

    An epoch goes through places, in an order computed from keys or one after another; a row stands at each place. Where
    models have folds of their own, each goes through the places of its fold, as it would if these were all there are.

    X              (n_rows, in_features), any real dtype
    Y              (n_rows, n_out) targets, or (n_rows,) labels if `codes` is given
    codes          (n_classes, n_out) targets of each label, or (n_models, n_classes, n_out) with each model's own; None
    sample_weight  (1 or n_models, n_rows), or None for 1 everywhere
    batch          rows of a batch; the last one of an epoch may be short
    part           rows of a batch that are brought at a time, the Batch says which; None: all of them
    mean           whether a batch's weights are divided by their sum
    keys           (1 or n_models, 2) words: each epoch has the order computed from them; None: no such order
    rows           (n_folds, n_places) int64: the row at each place of a fold; None: there is a place for each row
    fold           (n_models,) int64: which line of `rows` each model has; there are keys for each, or none. None: all
                   models have one line
    counts         (n_models,) int64: how many places of its line each model has; None: all. Without `fold` all models
                   have equally many
    turn           how often keys, rows or counts were overwritten with those of other rows: what a backend has looked
                   ahead for is then computed anew
    kept           what a backend on the host knows of the order, for all parts of a batch
    """

    X: Array
    Y: Array
    codes: Array | None
    sample_weight: Array | None
    batch: int
    mean: bool
    keys: Any = None
    rows: Array | None = None
    fold: Array | None = None
    counts: Array | None = None
    turn: int = 0
    part: int | None = None
    kept: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def n_parts(self) -> int:
        """Number of parts of a batch; the last one may have rows that only fill it."""
        return -(-self.batch // (self.part or self.batch))

    @property
    def n_rows(self) -> int:
        """Number of rows of the data set."""
        return int(self.X.shape[0])

    @property
    def n_places(self) -> int:
        """Number of places of an epoch, of the largest fold."""
        return self.n_rows if self.rows is None else int(self.rows.shape[1])

    @property
    def n_steps(self) -> int:
        """Number of batches of an epoch."""
        return -(-self.n_places // self.batch)

    @property
    def n_orders(self) -> int:
        """In how many orders rows come: 1, or one for each model."""
        return len(self.fold) if self.fold is not None else 1 if self.keys is None else len(self.keys)

    @property
    def n_codes(self) -> int:
        """How many targets a label has: 1, or one for each model."""
        return 1 if self.codes is None or self.codes.ndim == 2 else len(self.codes)


@dataclass
class Batch:
    """The buffers of one batch, overwritten by `gather_batch`.

    a0           (1 or n_models, batch, in_features), as many as there are orders
    y            (1 or n_models, batch, n_out), as many as there are orders or codes of a label
    row_weight   (1 or n_models, batch): each example's share in the gradient, 0 for a row that only fills a short batch
    scale        (1 or n_models,) float64: what turns sums with row_weight into sums with the sample weights
    valid        for how many rows a backend on the host has made row_weight, while all rows have the same; those of
                 all models together, where each has its own
    first        which row of the step's batch is the first one here, where that is done part by part: weights and scale
                 are those of the whole batch, whose weight is added to the tally with the first part
    """

    a0: Array
    y: Array
    row_weight: Array
    scale: Array
    valid: int = -1
    first: int = 0


@dataclass
class Tally:
    """Sums over an epoch.

    values      (4, n_models) float64: COST, WEIGHT, HITS, and FIRST_BAD, the step (from 1) whose cost was not finite
    threshold   what an output must reach to be a hit on a target that reaches it; None with several outputs: the
                largest output must be the largest target
    counts_hits whether hits mean anything for these targets
    """

    values: Array
    counts_hits: bool = False
    threshold: float | None = None


@dataclass
class StepNumbers:
    """The numbers of a step: learning rate, the rule's own, penalties.

    rule      the update rule
    extras    which of "l2", "l1", "clip" act
    hyper     name -> (n_groups, n_models) float64 on the host; group 0 are weights, group 1, if there, biases
    names     the names of the rows of `table`
    table     (n_names, n_groups, n_models): this step's finished numbers, overwritten by `gather_batch`
    factors   (n_steps, 1 or n_models) float64 on the host: what the schedule multiplies the learning rate with in each
              step of this epoch
    skip      (n_models,) bool on the host: models that are no longer updated
    by_batch  whether l2 and l1 belong to a batch as a whole, so that its mean has them divided by its rows' weights
    copies    what a backend keeps of hyper, factors and skip, as of the last `bring_numbers`
    """

    rule: UpdateRule
    extras: frozenset[str]
    hyper: Mapping[str, Any]
    names: tuple[str, ...]
    table: Array
    factors: Any
    skip: Any
    by_batch: bool = False
    copies: Any = None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of hyper, in the order in which the rule's numbers are computed from them."""
        return given_names(self.rule)


@dataclass(frozen=True)
class PerModel:
    """The activations of a layer in which the models of a padded stack differ, and how many units each has there.

    definitions   the different activations
    kinds         (n_models,) int32: which of them each model has
    widths        (n_models,) int32: units of each model; those beyond are zero on the way forward, and backward
    """

    definitions: tuple[Activation, ...]
    kinds: Array
    widths: Array


LayerActivation = Activation | PerModel


def of_all(activation: LayerActivation) -> Activation:
    """Return the activation that all models have; a backend that does not pad is given no other."""
    if isinstance(activation, PerModel):
        raise TypeError("models of several kinds came to a backend that computes each kind by itself")
    return activation


@dataclass(frozen=True)
class Rates:
    """The dropout of a layer in which the models of a padded stack differ.

    thresholds   (n_models,) uint32: a unit stays if its random word reaches it, with 0 always
    scales       (n_models, 2): what units that stay grow by, 1 / (1 - rate), and the share that stays, 1 - rate
    """

    thresholds: Array
    scales: Array


@dataclass
class Dropout:
    """Dropout behind one hidden layer, while training.

    layer   number of the hidden layer, from 0
    rate    share of units that is dropped
    keys    (n_models, 2) words
    clock   names the step, of which the mask is a function
    mask    (n_models, batch, features) bool, where a backend keeps the mask for the way back; None: it is drawn again
    rates   where the models of a padded stack differ: of each; `rate` is then the highest
    first   as of Batch: a row's mask is that of its place in the whole batch
    """

    layer: int
    rate: float
    keys: Any
    clock: Array
    mask: Array | None = None
    rates: Rates | None = None
    first: int = 0


@dataclass(frozen=True)
class Lookup:
    """Where the numbers that the first layer reads come from, if some columns of a row are codes of categories.

    units    (4, n_embedded) int64, for each of these numbers: COLUMN of the row in which it, or its code, stands; how
             many CATEGORIES that column has, 0 if it holds no codes; FIRST, where in a model's line of tables the
             number of category 0 stands; and how far APART those of two neighbouring categories are
    firsts   (n_embeddings,) int64: the first of the numbers that each code becomes, which are neighbours
    categories   how many each of these columns has
    """

    units: Array
    firsts: Array
    categories: tuple[int, ...]


@dataclass
class Normalisation:
    """Normalisation of one hidden layer: of each row over its units, or of each unit over the rows of a batch.

    kind             "layer" or "batch"
    mean, variance   (n_models, batch) for "layer", (n_models, features) for "batch": what z is normalised with;
                     overwritten on the way forward, and read on the way back. Without row_weight those of a "batch" are
                     given, and only read
    row_weight       (1 or n_models, batch), of "batch" alone: rows that weigh more than 0 count, all of them alike
    count            (n_models,), of "batch" alone: how many rows count, overwritten on the way forward
    running          running mean and variance, (n_models, features) each, of "batch" alone: they follow those of this
                     batch, the variance as an estimate from its rows. None: nothing follows
    numbers          of the step: the running statistics of skipped models stay
    """

    kind: str
    mean: Array
    variance: Array
    row_weight: Array | None = None
    count: Array | None = None
    running: tuple[Array, Array] | None = None
    numbers: StepNumbers | None = None


class Ring(Protocol):
    """Room for two pools of rows, of which one is read by steps while the other one is filled.

    hosts    two of name -> (n_lines, n_rows, ...) on the host: what is filled
    arrays   name -> (n_lines, 2 n_rows, ...) on the backend: one pool behind the other
    """

    hosts: tuple[dict[str, Any], dict[str, Any]]
    arrays: dict[str, Array]

    def send(self, half: int, n: int) -> None:
        """Begin to bring the first n rows of a half to `arrays`, as soon as it is no longer read there."""
        ...

    def receive(self, half: int) -> None:
        """Let what is asked for from now on find there what was sent."""
        ...

    def release(self, half: int) -> None:
        """Promise that nothing asked for from now on reads this half; return when its host's part may be filled."""
        ...

    def close(self) -> None:
        """Wait until nothing is under way."""
        ...


class Backend(Protocol):
    """The methods that the rest of gpumlp computes with."""

    name: str
    device: str
    dtype: np.dtype[Any]
    precision: str
    keeps_masks: bool
    pads_models: bool  # whether models of different sizes are computed together, padded; else in runs of those alike

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        """Return a new array of any content; dtype None is the backend's own.

        what     its use, for the message if there is no room
        Raises   OutOfMemory
        """
        ...

    def ring(self, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Any]) -> Ring:
        """Return room for two pools.

        shapes   name -> (n_lines, n_rows, ...) of one pool
        Raises   OutOfMemory
        """
        ...

    def free_bytes(self) -> int | None:
        """Return how much memory is free for new arrays; None where that is not known."""
        ...

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        """Return an array of the host, or one that lies on this backend's device, as one of this backend in rows order.

        There is no copy where none is needed, and none through the host of what is on the device.
        Raises   OutOfMemory; DataError for an array on another device
        """
        ...

    def to_host(self, x: Array) -> Any:
        """Return an array of this backend as a NumPy array; it may be the same memory."""
        ...

    def copy(self, src: Array, out: Array) -> None:
        """Overwrite `out` with `src`, which broadcasts."""
        ...

    def fill(self, out: Array, value: float) -> None:
        """Overwrite every element of `out`."""
        ...

    def add(self, src: Array, out: Array) -> None:
        """Add `src` to `out`, which has its shape."""
        ...

    def finite_models(self, x: Array) -> Any:
        """Return on the host, (n_models,) bool, for which models every element of `x` (n_models, n) is finite."""
        ...

    def bring_numbers(self, numbers: StepNumbers) -> None:
        """Let the steps from now on use what `hyper`, `factors` and `skip` hold at present."""
        ...

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        """Bring the rows of this step, their weights and the step's numbers; add the rows' weights to the tally.

        Reads the whole clock, which `update` and `evaluate` move on; without `numbers` this is an evaluation.
        """
        ...

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Do the work of several parts of a stack, in which each calls the same methods in the same order.

        None of them needs what another one does. The models of a part are those behind the ones of the part before.
        """
        ...

    def embed(self, lookup: Lookup, rows: Array, tables: Array, a: Array) -> None:
        """Set a to the rows, in which a code's line of its table stands for the code, and zeros for what is no code.

        rows     (1 or n_models, batch, in_features)
        tables   (n_models, n): all tables of a model in a line
        a        (n_models, batch, n_embedded), overwritten
        """
        ...

    def linear(self, a_in: Array, W: Array, z: Array) -> None:
        """Set z = a_in W^T."""
        ...

    def forward_layer(
        self,
        activation: LayerActivation,
        a_in: Array,
        W: Array,
        b: Array,
        z: Array,
        a_out: Array,
        dropout: Dropout | None = None,
    ) -> None:
        """Set z = a_in W^T + b and a_out = f(z); z may be a_out itself, which then holds a."""
        ...

    def normalised_layer(
        self,
        activation: Activation,
        norm: Normalisation,
        a_in: Array,
        W: Array,
        b: Array,
        gamma: Array,
        beta: Array,
        z: Array,
        u: Array,
        a_out: Array,
        dropout: Dropout | None = None,
    ) -> None:
        """Set z = a_in W^T + b, u = gamma zhat + beta and a_out = f(u); u may be a_out itself, which then holds a.

        zhat = (z - mean) / sqrt(variance + epsilon). Where no row counts, mean is 0 and variance 1. A running mean
        stays where no row counts, a running variance where fewer than two do.
        """
        ...

    def output_delta(
        self,
        formulas: OutputDelta,
        activation: Activation,
        z: Array,
        b: Array,
        a: Array,
        batch: Batch,
        clock: Array,
        delta: Array,
        db: Array,
        tally: Tally,
    ) -> None:
        """Set delta = row_weight dC/dz (BP1), where a = f(z) and z = W a + b, db = its sum (BP3); add to the tally.

        z      (n_models, batch, n_out) W a of the output layer
        z, a   are room as well: a backend may leave both as they were where it has computed f(z) elsewhere
        """
        ...

    def weight_gradient(self, delta: Array, a_in: Array, dW: Array) -> None:
        """Set dW = delta^T a_in, summed over the batch (BP4)."""
        ...

    def linear_delta(self, delta_next: Array, W_next: Array, delta: Array) -> None:
        """Set delta = delta_next W_next: BP2 where f is the identity.

        W_next   (n_models, out_features, features): some columns of a layer's, side by side
        """
        ...

    def embedding_gradient(self, lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> None:
        """Set each line of the tables to the sum of delta over the rows with its code (BP4), in the rows' order.

        rows      as of `embed`
        delta     (n_models, batch, n), from the first to the last of the numbers that codes became
        dtables   (n_models, n) as the tables, overwritten
        """
        ...

    def hidden_delta(
        self,
        activation: LayerActivation,
        delta_next: Array,
        W_next: Array,
        z: Array,
        a: Array,
        delta: Array,
        db: Array,
        dropout: Dropout | None = None,
    ) -> None:
        """Set delta = (delta_next W_next) * f'(z) (BP2) and db = its sum over the batch (BP3)."""
        ...

    def normalised_delta(
        self,
        norm: Normalisation,
        z: Array,
        gamma: Array,
        dbeta: Array,
        delta: Array,
        dgamma: Array,
        db: Array,
    ) -> None:
        """Set dgamma = sum of delta zhat over the batch, delta = dC/dz, and db = its sum over the batch.

        dbeta   (n_models, features), the sum of delta over the batch, as `hidden_delta` has set it
        delta   (n_models, batch, features): dC/du, overwritten with dC/dz
        db      exactly 0 for "batch": the mean takes away whatever the bias adds
        """
        ...

    def gradient_norm(
        self, grad: Array, clip_norm: Any, numbers: StepNumbers, tensors: Sequence[Sequence[slice]] = ()
    ) -> None:
        """Set each model's number "clip" to min(1, clip_norm / norm of its gradient).

        grad        (n_models, n), a part of a row for each model
        clip_norm   (n_models,) float64
        tensors     where each model has its own numbers in it, tensor by tensor: NumPy sums these alone, so that the
                    bits are the same whatever room a stack has for a tensor; () for all that there is
        """
        ...

    def update(
        self,
        numbers: StepNumbers,
        theta: Array,
        grad: Array,
        state: Array,
        bounds: Sequence[int],
        clock: Array,
        batch: int,
    ) -> None:
        """Move all parameters of all models that are not skipped by one step of the rule, and the clock with them.

        theta, grad   (n_models, n_params), grad unchanged
        state         (n_states, n_models, n_params)
        bounds        where the groups of parameters begin and end: group g is bounds[g]:bounds[g + 1]
        """
        ...

    def evaluate(
        self,
        formulas: OutputDelta,
        activation: Activation,
        z: Array,
        b: Array,
        a: Array,
        batch: Batch,
        clock: Array,
        tally: Tally,
    ) -> None:
        """Do what `output_delta` does, without delta and db, and move the clock's position on by a batch."""
        ...

    def session(self) -> AbstractContextManager[None]:
        """Return the context in which a user's call computes: the device is current, its settings are made."""
        ...

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        """Return a function that does what `step` does, on the same buffers, at each call, with less and less ado.

        times   how often it does so in a call

        `step` is called a few times at most, and only calls methods of this backend.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        ...

    def ranges(self) -> Callable[[str], AbstractContextManager[None]] | str:
        """Return what opens a range of a name in the timeline of a profiler; or why there is no such thing here."""
        ...
