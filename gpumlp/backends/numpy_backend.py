"""The reference implementation of the protocol, on any machine.

Each method prepares a function that holds all views it needs, runs it, and hands it to `capture` if one is under way;
a captured step is a list of such functions, so that replaying it costs little more than what NumPy computes. Those that
are dealt out to the threads are joined where no thread needs what another one writes (`numpy_shares`).
Every product runs on one model's own matrices, so a model's bits do not depend on the stack that it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import inf, sqrt
from typing import Any

import numpy as np

from gpumlp.backends import memory, threads
from gpumlp.backends.host_ring import HostRing
from gpumlp.backends.numpy_batches import Gather
from gpumlp.backends.numpy_elementwise import Elementwise
from gpumlp.backends.numpy_embedding import embed_launch, embedding_gradient_launch
from gpumlp.backends.numpy_normalisation import (
    gamma_gradient_program,
    mean_launch,
    normalised_delta_program,
    of_rows,
    scaled_program,
    statistics_launches,
)
from gpumlp.backends.numpy_programs import (
    activation_program,
    bias_program,
    delta_program,
    dropout_program,
    hidden_delta_program,
    outer_program,
    output_program,
    term_program,
)
from gpumlp.backends.numpy_shares import Launch, Share, Shared, cuts, in_chains
from gpumlp.backends.numpy_update import Update
from gpumlp.backends.protocol import (
    COST,
    FIRST_BAD,
    HITS,
    POSITION,
    STEP,
    Array,
    Batch,
    BatchSource,
    Dropout,
    LayerActivation,
    Lookup,
    Normalisation,
    StepNumbers,
    Tally,
    of_all,
)
from gpumlp.errors import out_of_memory
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.normalisation import LAYER
from gpumlp.formulas.output_delta import OutputDelta
from gpumlp.randomness.streams import dropout_threshold, dropout_words

PRODUCT_WORK = 1_500_000  # multiplications of a product below which a second thread costs more than it gives


class NumpyBackend:
    """NumPy on the processor."""

    name = "numpy"
    device = "cpu"
    keeps_masks = True
    pads_models = False

    def __init__(self, dtype: Any = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.precision = self.dtype.name
        self._elementwise = Elementwise(self.dtype)
        self._captured: list[Launch] | None = None

    # ---------------------------------------------------------------- arrays

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        """Return a new array of any content."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        try:
            return np.empty(tuple(shape), dtype)
        except MemoryError as error:
            raise out_of_memory(what, tuple(shape), dtype, "this machine has no room for it") from error

    def ring(self, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Any]) -> HostRing:
        """Return room for two pools."""
        return HostRing(self.empty, shapes, dtypes)

    def free_bytes(self) -> int | None:
        """Return how much memory is free for new arrays."""
        return memory.free_bytes()

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        """Return `x` in rows order, the same memory where it is already so."""
        return np.ascontiguousarray(x, dtype=dtype)

    def to_host(self, x: Array) -> Any:
        """Return `x` itself."""
        return x

    def copy(self, src: Array, out: Array) -> None:
        """Overwrite `out` with `src`."""
        self._launch(lambda: np.copyto(out, src, casting="same_kind"))

    def fill(self, out: Array, value: float) -> None:
        """Overwrite every element of `out`."""
        self._launch(lambda: out.fill(value))

    def add(self, src: Array, out: Array) -> None:
        """Add `src` to `out`."""
        self._launch(lambda: np.add(out, src, out))

    def finite_models(self, x: Array) -> Any:
        """Return for which models every element is finite: NaN and infinity survive the extremes."""
        return np.isfinite(x.min(axis=1)) & np.isfinite(x.max(axis=1))

    # ---------------------------------------------------------------- batches

    def bring_numbers(self, numbers: StepNumbers) -> None:
        """Do nothing: each step reads the host's numbers."""

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        """Bring the rows of this step, their weights and the step's numbers."""
        self._launch(Gather(source, clock, batch, tally, numbers, self._elementwise.block_size))

    # ---------------------------------------------------------------- forward

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Do one after another."""
        for work in works:
            work()

    def embed(self, lookup: Lookup, rows: Array, tables: Array, a: Array) -> None:
        """Set a to the rows, with a table's line in place of each code."""
        self._launch(embed_launch(lookup, rows, tables, a))

    def linear(self, a_in: Array, W: Array, z: Array) -> None:
        """Set z = a_in W^T."""

        def share(rows: slice, units: slice, thread: int | None) -> Share:
            x, w, out = a_in[:, rows], W[:, units], z[:, rows, units]
            return Share([product(x, transposed(w), out, thread)], (x, w), (out,))

        self._deal_layer(z, W.shape[2], share)

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
        """Set z = a_in W^T + b and a_out = f(z); z may be a_out itself."""
        activation = of_all(activation)
        program = bias_program() if activation.row_wise else activation_program(activation, keeps_z=z is not a_out)

        def share(rows: slice, units: slice, thread: int | None) -> Share:
            x, w, zu, au = a_in[:, rows], W[:, units], z[:, rows, units], a_out[:, rows, units]
            outputs = [zu] if z is a_out or activation.row_wise else [zu, au]
            launches = [
                product(x, transposed(w), zu, thread),
                self._elementwise.plan(program, [zu, b[:, None, units]], outputs, thread),
            ]
            return Share(launches, (x, w, b), outputs)

        self._deal_layer(z, W.shape[2], share)
        if activation.row_wise:
            self._launch(lambda: np.copyto(a_out, activation.value(z)))
        self._drop(dropout, a_out)

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
        """Set z = a_in W^T + b, u = gamma zhat + beta and a_out = f(u); u may be a_out itself."""
        plan = self._elementwise.plan
        self.linear(a_in, W, z)
        self._launch(plan(bias_program(), [z, b[:, None]], [z]))
        for launch in statistics_launches(norm, z, u, self._elementwise):
            self._launch(launch)
        mean, variance = of_rows(norm)
        self._launch(plan(scaled_program(), [z, mean, variance, gamma[:, None]], [u]))
        program = activation_program(activation, keeps_z=u is not a_out)
        self._launch(plan(program, [u, beta[:, None]], [u] if u is a_out else [u, a_out]))
        self._drop(dropout, a_out)

    def _drop(self, dropout: Dropout | None, a: Array) -> None:
        """Draw a mask and drop units behind a layer, if there is dropout."""
        if dropout is not None:
            self._launch(draw_mask(dropout, self._elementwise.block_size))
            grow = self._number(1 / (1 - dropout.rate))
            self._launch(self._elementwise.plan(dropout_program(), [a, dropout.mask, grow], [a]))

    # ---------------------------------------------------------------- backward

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
        """Set delta = row_weight dC/dz (BP1) and db = its sum (BP3); add cost and hits to the tally."""
        costs = self._output_costs(formulas, activation, z, b, a, batch, tally, clock)
        rows = batch.row_weight[:, :, None]
        program = delta_program(formulas.delta)
        self._launch(self._elementwise.plan(program, [z, a, batch.y, costs[:, :, None], rows], [delta]))  # BP1
        self._launch(column_sums(delta, db))  # BP3

    def weight_gradient(self, delta: Array, a_in: Array, dW: Array) -> None:
        """Set dW = delta^T a_in (BP4)."""

        def share(units: slice, thread: int | None) -> Share:
            du, out = delta[..., units], dW[:, units]
            return Share([product(transposed(du), a_in, out, thread)], (du, a_in), (out,))

        self._deal(dW.shape[1], dW[0].size * delta.shape[1], share, dW)

    def linear_delta(self, delta_next: Array, W_next: Array, delta: Array) -> None:
        """Set delta = delta_next W_next: BP2 where f is the identity."""

        def share(rows: slice, units: slice, thread: int | None) -> Share:
            x, w, out = delta_next[:, rows], W_next[..., units], delta[:, rows, units]
            return Share([product(x, w, out, thread)], (x, w), (out,))

        self._deal_layer(delta, delta_next.shape[2], share)

    def embedding_gradient(self, lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> None:
        """Set each line of the tables to the sum of delta over the rows with its code (BP4)."""
        self._launch(embedding_gradient_launch(lookup, rows, delta, dtables))

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
        """Set delta = (delta_next W_next) * f'(z) (BP2) and db = its sum (BP3)."""
        program = hidden_delta_program(of_all(activation), dropout is not None)
        keep = 1.0 if dropout is None else 1 - dropout.rate
        numbers = [self._number(1 / keep), self._number(keep)]

        def share(units: slice, thread: int | None) -> Share:
            w, du, zu, au, sums = W_next[..., units], delta[..., units], z[..., units], a[..., units], db[:, units]
            dropped = [] if dropout is None or dropout.mask is None else [dropout.mask[..., units], *numbers]
            launches = [
                product(delta_next, w, du, thread),
                self._elementwise.plan(program, [du, zu, au, *dropped], [du], thread),  # BP2
                column_sums(du, sums),  # BP3; too small to be divided further
            ]
            return Share(launches, (delta_next, w, zu, au, *dropped), (du, sums))

        self._deal(delta.shape[2], delta[0].size * delta_next.shape[2], share)

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
        """Set dgamma, delta = dC/dz and db."""
        plan, is_layer = self._elementwise.plan, norm.kind == LAYER
        mean, variance = of_rows(norm)
        terms = self.empty(z.shape, what="scratch of a normalised layer")
        self._launch(plan(gamma_gradient_program(), [delta, z, mean, variance], [terms]))
        self._launch(column_sums(terms, dgamma))
        if is_layer:
            weight, shares = [], self._number(z.shape[2])
            means = [np.empty((*z.shape[:2], 1), self.dtype) for _ in range(2)]
            for x, total in zip((delta, terms), means, strict=True):
                self._launch(product(x, gamma[:, :, None], total))
                self._launch(mean_launch(total, shares, total))
        else:
            assert norm.row_weight is not None
            assert norm.count is not None
            weight, shares = [norm.row_weight[:, :, None]], norm.count[:, None, None]
            means = [np.empty((len(z), 1, z.shape[2]), self.dtype) for _ in range(2)]
            for total, out in zip((dbeta, dgamma), means, strict=True):
                self._launch(mean_launch(total[:, None], shares, out))
        inputs = [delta, z, mean, variance, gamma[:, None], *means, *weight]
        self._launch(plan(normalised_delta_program(norm.kind), inputs, [delta]))
        self._launch(column_sums(delta, db) if is_layer else lambda: db.fill(0))

    # ---------------------------------------------------------------- update

    def gradient_norm(
        self, grad: Array, clip_norm: Any, numbers: StepNumbers, tensors: Sequence[Sequence[slice]] = ()
    ) -> None:
        """Set each model's number "clip" to min(1, clip_norm / norm of its gradient)."""
        clip = numbers.table[numbers.names.index("clip")]
        size = self._elementwise.block_size
        blocks_of = [
            [x[start : start + size] for x in (line[tensor] for tensor in own) for start in range(0, len(x), size)]
            for line, own in zip(grad, tensors or [[slice(None)]] * len(grad), strict=True)
        ]

        def launch() -> None:
            for m, (bound, parts) in enumerate(zip(clip_norm.tolist(), blocks_of, strict=True)):
                square = sum(float(np.dot(part, part)) for part in parts)
                if square == inf:  # the squares overflow, which the norm need not
                    square = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
                clip[:, m] = min(1.0, bound / sqrt(square)) if square > 0 else 1.0

        self._launch(launch)

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
        """Move all parameters of all models that are not skipped, and the clock."""
        self._launch(Update(numbers, theta, grad, state, bounds, clock, batch, self._elementwise))

    # ---------------------------------------------------------------- evaluation

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
        """Add cost and hits of a batch to the tally; move the position on."""
        self._output_costs(formulas, activation, z, b, a, batch, tally, None)
        position, rows = clock[POSITION : POSITION + 1], z.shape[1]
        self._launch(lambda: np.add(position, rows, position))

    # ---------------------------------------------------------------- capture

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        """Return a function that repeats the calls that `step` makes, and has made none of them yet."""
        captured: list[Launch] = []
        self._captured = captured
        try:
            step()
        finally:
            self._captured = None
        launches = in_chains(captured)

        def replay() -> None:
            for _ in range(times):
                for launch in launches:
                    launch()

        return replay

    def synchronize(self) -> None:
        """Do nothing: work is done when a method returns."""

    def ranges(self) -> Callable[[str], AbstractContextManager[None]] | str:
        """Return that there are none."""
        return f"backend {self.name} computes on the processor, NVIDIA's profilers show what cuda does"

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compute alone, and do not warn of what diverges: it is found in the cost, by its step."""
        with threads.computing(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield

    def _launch(self, launch: Launch) -> None:
        if self._captured is not None:
            self._captured.append(launch)
        else:
            launch()

    def _deal_layer(self, out: Array, inner: int, share: Callable[[slice, slice, int | None], Share]) -> None:
        """Launch what a layer does with its units, dealt out to the threads by rows or by units.

        Each thread has to read all units' weights or all rows: it is the fewer of both.
        out     (n_models, rows, units)
        inner   length of the sums of the product
        share   share(rows, units, thread) -> what is to be done for these, as of `_deal`
        """
        _, n_rows, n_units = out.shape
        work = n_rows * n_units * inner
        if n_rows >= n_units:
            units = slice(0, n_units)
            self._deal(n_rows, work, lambda rows, thread: share(rows, units, thread))
        else:
            rows = slice(0, n_rows)
            self._deal(n_units, work, lambda units, thread: share(rows, units, thread))

    def _deal(
        self, n: int, work: int, share: Callable[[slice, int | None], Share], result: Array | None = None
    ) -> None:
        """Launch what is to be done for n units or rows, dealt out to the threads if that pays.

        work     multiplications of one model
        share    share(units, thread) -> what is to be done for these units. With a number, this thread does all of it
                 and uses its own scratch arrays; with None there is one share, and each call in it may divide itself
        result   what an update that comes behind moves by, if it is that
        """
        found = cuts(n, work)
        if len(found) > 1:
            self._launch(Shared(found, share, result))
            return
        for launch in share(slice(0, n), None).launches:
            self._launch(launch)

    def _number(self, value: float) -> Any:
        return np.full((1, 1, 1), value, self.dtype)

    def _output_costs(
        self,
        formulas: OutputDelta,
        activation: Activation,
        z: Array,
        b: Array,
        a: Array,
        batch: Batch,
        tally: Tally,
        clock: Array | None,
    ) -> Any:
        """Set z, a and the costs of the examples (n_models, batch), which are returned; add to the tally."""
        bias, terms = b[:, None, :], self.empty(z.shape, what="scratch of the output layer")
        costs = np.empty(z.shape[:2], self.dtype)
        if activation.row_wise:
            self._launch(self._elementwise.plan(bias_program(), [z, bias], [z]))
            self._launch(log_softmax(z, a))
            self._launch(self._elementwise.plan(term_program(formulas.term), [z, a, batch.y], [terms]))
        else:
            program = output_program(activation, formulas.term)
            self._launch(self._elementwise.plan(program, [z, bias, batch.y], [z, a, terms]))
        self._launch(lambda: np.add.reduce(terms, axis=2, out=costs))
        if formulas.outer is not None:
            self._launch(
                self._elementwise.plan(outer_program(formulas.outer), [costs[:, :, None]], [costs[:, :, None]])
            )
        self._launch(add_costs(costs, batch, tally, clock))
        if tally.counts_hits:
            self._launch(add_hits(a, batch, tally))
        return costs


# ---------------------------------------------------------------- products and sums


def transposed(x: Array) -> Any:
    """Return each model's matrix transposed, as a view."""
    return x.swapaxes(-1, -2)


def product(x: Array, y: Array, out: Array, thread: int | None = None) -> Launch:
    """Return out = x y, one product for each model; the models are dealt out to the threads unless one is named."""
    n_models, rows, columns = out.shape
    n = min(threads.count(), n_models) if thread is None and threads.divides_products() else 1
    if n == 1 or n_models * rows * columns * x.shape[-1] < PRODUCT_WORK:
        return plain_product(x, y, out)
    pieces = []
    for i in range(n):
        models = slice(n_models * i // n, n_models * (i + 1) // n)
        x_part, y_part = (v if len(v) == 1 else v[models] for v in (x, y))
        pieces.append(plain_product(x_part, y_part, out[models]))
    return lambda: threads.together(pieces)


def plain_product(x: Array, y: Array, out: Array) -> Launch:
    """Return out = x y in one call."""
    if len(out) == 1:
        x, y, out = x[0], y[0], out[0]  # a plain product has less to prepare
    matmul = np.matmul
    return lambda: matmul(x, y, out)


def column_sums(delta: Array, db: Array) -> Launch:
    """Return db = sum of delta over the batch, as a product with ones: blocked sums round less than running ones."""
    return product(np.ones((1, 1, delta.shape[1]), delta.dtype), delta, db[:, None, :])


def log_softmax(z: Array, a: Array) -> Launch:
    """Return a = softmax(z) and then z = log a, row by row."""
    extreme = np.empty((*z.shape[:2], 1), z.dtype)

    def launch() -> None:
        np.maximum.reduce(z, axis=2, keepdims=True, out=extreme)
        np.subtract(z, extreme, z)
        np.exp(z, a)
        np.add.reduce(a, axis=2, keepdims=True, out=extreme)
        np.divide(a, extreme, a)
        np.log(extreme, extreme)
        np.subtract(z, extreme, z)

    return launch


def add_costs(costs: Array, batch: Batch, tally: Tally, clock: Array | None) -> Launch:
    """Return the function that adds a batch's cost and notes the first step at which it is not finite."""
    shares, columns = batch.row_weight[:, None, :], costs[:, :, None]
    scale, total, first_bad = batch.scale, tally.values[COST], tally.values[FIRST_BAD]
    sums = np.empty((len(costs), 1, 1), costs.dtype)
    flat, added = sums.reshape(-1), np.empty(len(costs), np.float64)

    def launch() -> None:
        np.matmul(shares, columns, sums)
        np.multiply(flat, scale, added)
        np.add(total, added, total)
        if clock is not None and not np.isfinite(added).all():
            first_bad[~np.isfinite(added) & (first_bad == 0)] = clock[STEP] + 1

    return launch


def add_hits(a: Array, batch: Batch, tally: Tally) -> Launch:
    """Return the function that adds the weight of the examples whose outputs name the right class."""
    y, threshold, scale, total = batch.y, tally.threshold, batch.scale, tally.values[HITS]
    right = np.empty(a.shape[:2], np.bool_)
    hits = np.empty((len(a), 1, 1), a.dtype)
    shares, columns = batch.row_weight[:, None, :], np.empty((*right.shape, 1), a.dtype)
    given, wanted = np.empty(right.shape, np.intp), np.empty(y.shape[:2], np.intp)
    over, wanted_over = np.empty(right.shape, np.bool_), np.empty(y.shape[:2], np.bool_)

    def launch() -> None:
        if threshold is None:
            a.argmax(2, given)
            y.argmax(2, wanted)
            np.equal(given, wanted, right)
        else:
            np.greater_equal(a[:, :, 0], threshold, over)
            np.greater_equal(y[:, :, 0], threshold, wanted_over)
            np.equal(over, wanted_over, right)
        np.copyto(columns[:, :, 0], right)
        np.matmul(shares, columns, hits)
        np.add(total, hits[:, 0, 0] * scale, total)

    return launch


def draw_mask(dropout: Dropout, block_size: int) -> Launch:
    """Return the function that draws which units stay in this step."""
    mask = dropout.mask
    assert mask is not None
    n_models, batch, features = mask.shape
    threshold = np.uint32(dropout_threshold(dropout.rate))
    step = max(1, block_size // (16 * features))  # Philox holds several words of 64 bits for each unit
    pieces = [np.arange(start, min(start + step, batch)) for start in range(0, batch, step)]

    def launch() -> None:
        t = int(dropout.clock[STEP])
        for m in range(n_models):
            for rows in pieces:
                words = dropout_words(dropout.keys[m], dropout.first + rows, features, t, dropout.layer)
                np.greater_equal(words, threshold, mask[m, rows[0] : rows[-1] + 1])

    return launch
