"""Fused loops on the processor: the products are NumPy's, all else is compiled by Numba from the formulas.

It takes from NumpyBackend what a launch is, how work is divided, and each product on one model's own matrices; so a
model's bits do not depend on the stack that it is in here, either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.numba_source import GIVEN_DTYPES, loop, rule_loop
from gpumlp.backends.numpy_backend import Launch, NumpyBackend, product, transposed
from gpumlp.backends.numpy_batches import RowWindow, Taker, gather_launch, take_launch, target_launch
from gpumlp.backends.protocol import (
    POSITION,
    STEP,
    Array,
    Batch,
    BatchSource,
    Dropout,
    StepNumbers,
    Tally,
)
from gpumlp.formulas.activations import SOFTMAX, Activation, reads_z
from gpumlp.formulas.hidden_delta import dropout_recording, hidden_delta_recording
from gpumlp.formulas.output_delta import OutputDelta, weighted_delta
from gpumlp.formulas.term import Recording, record
from gpumlp.randomness import feistel, streams
from gpumlp.randomness.streams import DROPOUT, dropout_threshold

THREAD_WORK = 1_000_000  # values times operations below which a second thread costs more than it gives
CHUNK, CHUNK_ROWS = 4096, 256  # values and rows of an output layer that are worked on, and summed, together
NORM_PIECE = 16384  # numbers of a gradient whose squares are summed together
WEIGHTS = {"exp": 12, "expm1": 14, "tanh": 16, "log": 14, "log1p": 16, "sin": 100, "cos": 100, "power": 200}


class NumbaBackend(NumpyBackend):
    """NumPy's products and Numba's loops on the processor."""

    name = "numba"
    # ---------------------------------------------------------------- batches

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        """Bring the rows of this step, their weights and the step's numbers."""
        window = NumbaRowWindow(source, len(batch.a0))
        takers = [self._inputs_taker(source, batch), self._targets_taker(source, batch)]
        self._launch(gather_launch(source, clock, batch, tally, numbers, window, takers))

    def _inputs_taker(self, source: BatchSource, batch: Batch) -> Taker:
        if source.X.dtype.name not in GIVEN_DTYPES:
            return take_launch(source.X, batch.a0, self._elementwise.block_size)
        return self._rows_taker(source.X, batch.a0)

    def _targets_taker(self, source: BatchSource, batch: Batch) -> Taker:
        y, codes = batch.y, source.codes
        if codes is None:
            return self._rows_taker(source.Y, y) if source.Y.dtype.name in GIVEN_DTYPES else target_launch(source, y)
        if source.Y.dtype != np.int64:
            return target_launch(source, y)
        take = loop("take_codes", self.dtype, given=codes.dtype)
        return self._taker(take, [read_only(source.Y), read_only(codes), y.shape[2]], y)

    def _rows_taker(self, x: Array, out: Array) -> Taker:
        return self._taker(loop("take_rows", self.dtype, given=x.dtype), [read_only(x), out.shape[2]], out)

    def _taker(self, take: Any, given: list[Any], out: Array) -> Taker:
        """Return the function (rows, at) -> None that fills `out` (n_orders, batch, n), dealt out to the threads."""
        n_orders, batch, n = out.shape
        total, flat_out = n_orders * batch, out.reshape(-1)
        n_threads = min(threads.count(), total) if total * n * 4 >= THREAD_WORK else 1
        ends = [total * i // n_threads for i in range(n_threads + 1)]

        def taker(rows: Any, at: int) -> None:
            shared = (*given, rows.reshape(-1), rows.shape[1], at, batch)
            if n_threads == 1:
                take(*shared, 0, total, flat_out)
            else:
                threads.together([partial(take, *shared, ends[i], ends[i + 1], flat_out) for i in range(n_threads)])

        return taker

    # ---------------------------------------------------------------- forward

    def forward_layer(
        self,
        activation: Activation,
        a_in: Array,
        W: Array,
        b: Array,
        z: Array,
        a_out: Array,
        dropout: Dropout | None = None,
    ) -> None:
        """Set z = a_in W^T + b and a_out = f(z); z may be a_out itself."""
        if activation.row_wise:
            super().forward_layer(activation, a_in, W, b, z, a_out, dropout)
            return
        formula = record(activation.value, "z")
        in_place = z is a_out
        run = loop("forward_in_place" if in_place else "forward", self.dtype, (("activation_value", formula),))
        _, batch, n = z.shape
        biases = flat(b)
        outputs = [a_out.reshape(-1)] if in_place else [z.reshape(-1), a_out.reshape(-1)]

        def work(units: slice, thread: int | None) -> list[Launch]:
            def rows(first: int, last: int) -> Launch:
                return partial(run, *biases, batch, n, first, last, units.start, units.stop, *outputs)

            launches = [
                product(a_in, transposed(W[:, units]), z[..., units], thread),
                self._dealt(z.shape[0] * batch, (units.stop - units.start) * weight(formula), rows, thread),
            ]
            return launches if dropout is None else [*launches, self._drop_out(dropout, a_out, units, thread)]

        self._by_units(z, W.shape[2], work)

    def _drop_out(self, dropout: Dropout, a: Array, units: slice, thread: int | None) -> Launch:
        n_models, batch, n = a.shape
        assert dropout.mask is not None
        run, mask = loop("drop_out", self.dtype, (("drop", dropout_recording()),)), dropout.mask.reshape(-1)
        drawn_from = mask_arguments(dropout)
        grow = self.dtype.type(1 / (1 - dropout.rate))
        width = units.stop - units.start

        def rows(first: int, last: int) -> Launch:
            place = (batch, n, first, last, units.start, units.stop)
            return partial(run, *drawn_from, grow, *place, np.empty(width + 8, np.uint32), mask, a.reshape(-1))

        return self._dealt(n_models * batch, width * 30, rows, thread)

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
        if is_elementwise_or_softmax(activation):
            self._output_layer(formulas, activation, z, b, a, batch, tally, clock, delta, db)
        else:
            super().output_delta(formulas, activation, z, b, a, batch, clock, delta, db, tally)

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
        if not is_elementwise_or_softmax(activation):
            super().evaluate(formulas, activation, z, b, a, batch, clock, tally)
            return
        self._output_layer(formulas, activation, z, b, a, batch, tally)
        position, rows = clock[POSITION : POSITION + 1], z.shape[1]
        self._launch(lambda: np.add(position, rows, position))

    def _output_layer(
        self,
        formulas: OutputDelta,
        activation: Activation,
        z: Array,
        b: Array,
        a: Array,
        batch: Batch,
        tally: Tally,
        clock: Array | None = None,
        delta: Array | None = None,
        db: Array | None = None,
    ) -> None:
        """Do what `output_delta` does; without delta and db, what `evaluate` does."""
        n_models, n_rows, n = z.shape
        rows_of_chunk = max(1, min(CHUNK_ROWS, CHUNK // n, n_rows))
        n_chunks = -(-n_rows // rows_of_chunk)
        run, operations = output_loop(formulas, activation, self.dtype)
        nothing = np.empty(0, self.dtype)
        costs, hits = np.empty(n_models * n_chunks, np.float64), np.zeros(n_models, np.float64)
        partials = np.empty(n_models * n_chunks * n, self.dtype)
        targets, shares = model_flat(batch.y), model_flat(batch.row_weight)
        outputs = (z.reshape(-1), a.reshape(-1), costs, partials, nothing if delta is None else delta.reshape(-1))

        def chunks(first: int, last: int) -> Launch:
            scratch = np.empty(rows_of_chunk * n, self.dtype), np.empty(rows_of_chunk, self.dtype)
            place = (n_rows, n, rows_of_chunk, delta is not None, first, last)
            return partial(run, *flat(b), *targets, *shares, *place, *scratch, *outputs)

        self._launch(self._dealt(n_models * n_chunks, rows_of_chunk * n * operations, chunks))
        if tally.counts_hits:
            count = loop("count_hits", self.dtype)
            how = (tally.threshold is not None, self.dtype.type(tally.threshold or 0))

            def models(first: int, last: int) -> Launch:
                return partial(count, a.reshape(-1), *targets, *shares, n_rows, n, *how, first, last, hits)

            self._launch(self._dealt(n_models, n_rows * n * 20, models))
        finish = loop("finish_output", self.dtype)
        training = (np.zeros(3, np.int64), False) if clock is None else (clock, True)
        sums = (False, n_models, nothing, 0) if db is None else (True, n_models, *flat(db))
        place = (n_chunks, n, *model_flat(batch.scale), *training, *sums)
        self._launch(partial(finish, costs, hits, partials, *place, tally.values.reshape(-1)))

    def hidden_delta(
        self,
        activation: Activation,
        delta_next: Array,
        W_next: Array,
        z: Array,
        a: Array,
        delta: Array,
        db: Array,
        dropout: Dropout | None = None,
    ) -> None:
        """Set delta = (delta_next W_next) * f'(z) (BP2) and db = its sum (BP3)."""
        recording = hidden_delta_recording(activation, dropout is not None)
        n_models, batch, n = delta.shape
        zs, values = (z if reads_z(activation) else a).reshape(-1), a.reshape(-1)
        mask: tuple[Any, ...] = ()
        if dropout is None or dropout.mask is None:
            run = loop("hidden_delta", self.dtype, (("carry_back", recording),))
        else:
            run = loop("hidden_delta_dropped", self.dtype, (("carry_back_dropped", recording),))
            keep = 1 - dropout.rate
            mask = (dropout.mask.reshape(-1), self.dtype.type(1 / keep), self.dtype.type(keep))
        outputs = (delta.reshape(-1), *flat(db))

        def work(units: slice, thread: int | None) -> list[Launch]:
            width = units.stop - units.start

            def models(first: int, last: int) -> Launch:
                place = (batch, n, first, last, units.start, units.stop)
                return partial(run, zs, values, *mask, *place, np.zeros(width, self.dtype), *outputs)

            return [
                product(delta_next, W_next[..., units], delta[..., units], thread),
                self._dealt(n_models, batch * width * weight(recording), models, thread),  # BP2, BP3
            ]

        self._by_units(delta, delta_next.shape[2], work)

    # ---------------------------------------------------------------- update

    def gradient_norm(self, grad: Array, clip_norm: Any, numbers: StepNumbers) -> None:
        """Set each model's number "clip" to min(1, clip_norm / norm of its gradient)."""
        n_models, n = grad.shape
        n_pieces = -(-n // NORM_PIECE)
        squares = np.empty(n_models * n_pieces, np.float64)
        clip = numbers.table[numbers.names.index("clip")]
        add, finish = loop("add_squares", self.dtype), loop("finish_norm", self.dtype, given=np.float64)
        values, most = flat(grad), read_only(np.asarray(clip_norm, np.float64))

        def pieces(first: int, last: int) -> Launch:
            return partial(add, *values, n, NORM_PIECE, first, last, squares)

        self._launch(self._dealt(n_models * n_pieces, min(n, NORM_PIECE) * 2, pieces))
        self._launch(partial(finish, squares, n_pieces, most, n_models, len(clip), clip.reshape(-1)))

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
        run = rule_loop(numbers.rule, numbers.names, numbers.extras, self.dtype)
        _, n_groups, n_models = numbers.table.shape
        n_params = theta.shape[1]
        sizes = (n_params, n_groups, n_models)
        tables = (numbers.table.reshape(-1), numbers.skip, np.asarray(bounds, np.int64))
        arrays = [x.reshape(-1) for x in (grad, theta, *state)]
        total = n_models * n_params
        n_blocks = -(-total // 64)  # a piece begins at a vector

        def blocks(first: int, last: int) -> Launch:
            return partial(run, 64 * first, min(64 * last, total), *sizes, *tables, *arrays)

        self._launch(self._dealt(n_blocks, 64 * 15, blocks))
        step, position = clock[STEP : STEP + 1], clock[POSITION : POSITION + 1]

        def move_on() -> None:
            np.add(step, 1, step)
            np.add(position, batch, position)

        self._launch(move_on)

    # ---------------------------------------------------------------- division of work

    def _dealt(self, n: int, operations: int, part: Callable[[int, int], Launch], thread: int | None = None) -> Launch:
        """Return the function that does all of range(n), dealt out to the threads unless one is named.

        operations   of each of the n
        part         part(first, last) -> what does these
        """
        n_threads = min(threads.count(), n) if thread is None and n * operations >= THREAD_WORK else 1
        pieces = [part(n * i // n_threads, n * (i + 1) // n_threads) for i in range(n_threads)]
        return pieces[0] if n_threads == 1 else partial(threads.together, pieces)


class NumbaRowWindow(RowWindow):
    """The row numbers of the next batches, computed by a loop."""

    def _fill(self, epoch: int, first: int) -> None:
        source = self.source
        if source.keys is None:
            super()._fill(epoch, first)
            return
        feistel.check_size(source.n_rows)
        keys = streams.shuffle_keys(source.keys, epoch).reshape(-1)
        half = np.uint32(feistel.half_bits(source.n_rows))
        n_orders = len(self.rows)
        loop("order_rows", np.float32)(keys, half, source.n_rows, first, self.size, n_orders, self.rows.reshape(-1))


# ---------------------------------------------------------------- arrays as the loops take them


def flat(x: Array) -> tuple[Any, int]:
    """Return all that lies between the first and the last number of x (n_models, n), and the stride of its models.

    The numbers of a model have to lie side by side; between two models there may be others.
    """
    stride = x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]
    size = (len(x) - 1) * stride + x.shape[1]
    return np.lib.stride_tricks.as_strided(x, (size,), (x.itemsize,)), stride


def model_flat(x: Array) -> tuple[Any, int]:
    """Return an array (1 or n_models, ...) flat, and the stride of its models: 0 where all share one."""
    return x.reshape(-1), 0 if len(x) == 1 else x.size // len(x)


def read_only(x: Array) -> Any:
    """Return an array flat, to be read alone, as what a user gives may be."""
    view = x.reshape(-1)
    view.flags.writeable = False
    return view


def mask_arguments(dropout: Dropout) -> tuple[Any, ...]:
    """Return what a loop draws a mask from."""
    stream = (DROPOUT << 16) + dropout.layer
    threshold = np.uint32(dropout_threshold(dropout.rate))
    return dropout.keys.reshape(-1), dropout.clock, stream, threshold


# ---------------------------------------------------------------- formulas


def is_elementwise_or_softmax(activation: Activation) -> bool:
    """Tell whether there is a loop for an output activation."""
    return not activation.row_wise or activation == SOFTMAX


@cache
def weight(recording: Recording) -> int:
    """Return about how many simple operations a recording is, with what it reads and writes."""
    return 4 + sum(WEIGHTS.get(recording.operations[i].word, 1) for i in recording.live())


def output_loop(formulas: OutputDelta, activation: Activation, dtype: Any) -> tuple[Any, int]:
    """Return the loop of an output layer, and how many operations it needs for a unit."""
    outer = formulas.outer or record(lambda s: s, "s")
    printed = [
        ("cost_term", formulas.term),
        ("cost_outer", outer),
        ("output_delta_value", weighted_delta(formulas.delta)),
    ]
    if activation.row_wise:
        return loop("output_layer", dtype, tuple(printed), (("activate", "activate_rows"),)), 40
    value = record(activation.value, "z")
    printed.append(("activation_value", value))
    run = loop("output_layer", dtype, tuple(printed), (("activate", "activate_units"),))
    return run, weight(formulas.term) + weight(value) + 4
