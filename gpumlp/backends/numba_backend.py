"""Fused loops on the processor: the products are the BLAS's, all else is compiled by Numba from the formulas.

It takes from NumpyBackend how arrays are held, and what it has no loop for. Each method says as stages what is to be
done; a captured step becomes one program of compiled calls, which runs without Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, zip_longest
from typing import Any

import numpy as np

from gpumlp.backends import numba_crew, threads
from gpumlp.backends.numba_batches import batch_stages
from gpumlp.backends.numba_blas import gemm_address, product_call
from gpumlp.backends.numba_embedding import embed_stage, embedding_gradient_stage
from gpumlp.backends.numba_joined import JoinedSteps, can_be_joined, thread_clock
from gpumlp.backends.numba_layout import (
    PIECE_UNITS,
    After,
    chunks_of_rows,
    flat,
    model_flat,
    row_ranges,
    rows_at_once,
    weight,
)
from gpumlp.backends.numba_normalisation import normalisation, normalised_delta_stages
from gpumlp.backends.numba_overlap import with_update
from gpumlp.backends.numba_program import OPERATION, Atoms, Call, Pieces, Program, Room, Runs, Stage, Together, bind
from gpumlp.backends.numba_source import Loop, loop, rule_loop
from gpumlp.backends.numpy_backend import NumpyBackend, product, transposed
from gpumlp.backends.numpy_shares import Launch
from gpumlp.backends.protocol import (
    PADDING,
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
from gpumlp.formulas.activations import SOFTMAX, Activation, reads_z, value_recording
from gpumlp.formulas.hidden_delta import dropout_recording, hidden_delta_recording
from gpumlp.formulas.normalisation import LAYER
from gpumlp.formulas.output_delta import OutputDelta, weighted_delta
from gpumlp.formulas.term import record
from gpumlp.randomness.streams import DROPOUT, dropout_threshold

PIECE_WORK = 200_000  # multiplications of a product that are worth a thread
FEW_UNITS = 12  # of an output layer, for which rows lie side by side
NORM_PIECE = 16384  # numbers of a gradient whose squares are summed together
MULTIPLICATION = 0.01  # nanoseconds of one of a product
MASK_OPERATIONS, HIT_OPERATIONS, UPDATE_OPERATIONS = 30, 20, 15

Item = Any  # a stage, or what only Python can do


class NotJoined(Exception):
    """Several steps cannot be one program."""


class NumbaBackend(NumpyBackend):
    """The BLAS's products and Numba's loops on the processor."""

    name = "numba"

    def __init__(self, dtype: Any = np.float32) -> None:
        super().__init__(dtype)
        self._items: list[Item] | None = None  # of the step that is being captured
        self._times = 1  # how often it is to be performed at once
        self._joined: JoinedSteps | None = None  # what that needs, once it is known

    # ---------------------------------------------------------------- batches

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        """Bring the rows of this step, their weights and the step's numbers."""
        if self._times > 1 and numbers is not None:
            if not can_be_joined(source, tally.values.shape[1]):
                raise NotJoined
            self._joined = JoinedSteps(self._times, source, clock, batch, tally, numbers)
            for stage in self._joined.stages:
                self._do(stage)
            return
        prepare, stages = batch_stages(source, clock, batch, tally, numbers, self._elementwise.block_size)
        self._launch(prepare)
        for stage in stages:
            self._do(stage)

    # ---------------------------------------------------------------- forward

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Do the work of all parts stage by stage, so that each thread can carry its models through all stages."""
        outer, items = self._items, []
        for work in works:
            self._items = []
            try:
                work()
                items.append(self._items)
            finally:
                self._items = outer
        for alike in zip_longest(*items):  # what only Python can do may come in more parts where a layer is smaller
            if len(alike) > 1 and all(is_stage(item) for item in alike):
                self._do(Runs(alike))
                continue
            for item in alike:
                if item is not None:
                    self._do(item) if is_stage(item) else self._launch(item)

    def embed(self, lookup: Lookup, rows: Array, tables: Array, a: Array) -> None:
        """Set a to the rows, with a table's line in place of each code."""
        self._do(embed_stage(lookup, rows, tables, a))

    def linear(self, a_in: Array, W: Array, z: Array) -> None:
        """Set z = a_in W^T."""
        self._product(a_in, transposed(W), z, by_rows=z.shape[2] < self._enough())

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
        if activation.row_wise:
            super().forward_layer(activation, a_in, W, b, z, a_out, dropout)
            return
        activate, operations = self._activation(activation, b, z, a_out, dropout)
        self._product(a_in, transposed(W), z, z.shape[2] < self._enough(), activate, operations)

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
        normalise, more = normalisation(norm, b, gamma, z, u)
        activate, operations = self._activation(activation, beta, u, a_out, dropout)

        def after(models: range, rows: slice, units: slice, room: Room) -> list[Call]:
            return [*normalise(models, rows, units, room), *activate(models, rows, units, room)]

        self._product(a_in, transposed(W), z, norm.kind == LAYER, after, operations + more)

    def _activation(
        self, activation: Activation, b: Array, z: Array, a_out: Array, dropout: Dropout | None
    ) -> tuple[After, int]:
        """Return what sets z <- z + b and a_out = f(z), and drops units, and its operations; z may be a_out itself."""
        formula = value_recording(activation)
        in_place = z is a_out
        run = loop("forward_in_place" if in_place else "forward", self.dtype, (("activation_value", formula),))
        batch, n = z.shape[1:]
        biases = flat(b)
        drop = None if dropout is None else self._drop_out(dropout, a_out)
        outputs = [a_out.reshape(-1)] if in_place else [z.reshape(-1), a_out.reshape(-1)]

        def activate(models: range, rows: slice, units: slice, room: Room) -> list[Call]:
            calls, n_units = [], units.stop - units.start
            repeated = room("biases", n_units * (rows_at_once(n) if n_units == n else 1), self.dtype)
            for first, last in row_ranges(models, rows, batch):
                place = (batch, n, first, last, units.start, units.stop)
                calls.append(bind(run, *biases, *place, repeated, *outputs))
                if drop is not None:
                    calls.append(drop(first, last, units, room))
            return calls

        return activate, z.size * (weight(formula) + (0 if dropout is None else MASK_OPERATIONS))

    def _drop_out(self, dropout: Dropout, a: Array) -> Callable[[int, int, slice, Room], Call]:
        """Return what drops units in rows from `first` to `last`, numbered through all models."""
        _, batch, n = a.shape
        assert dropout.mask is not None
        run, mask = loop("drop_out", self.dtype, (("drop", dropout_recording()),)), dropout.mask.reshape(-1)
        keys, clock_of, grow = dropout.keys.reshape(-1), self._clock_of(dropout.clock), 1 / (1 - dropout.rate)
        stream, threshold = (DROPOUT << 16) + dropout.layer, int(dropout_threshold(dropout.rate))

        def drop(first: int, last: int, units: slice, room: Room) -> Call:
            words = room("words", units.stop - units.start + 8, np.uint32)
            place = (dropout.first, batch, n, first, last, units.start, units.stop)
            drawn_from = (keys, clock_of(room), stream, threshold)
            return bind(run, *drawn_from, grow, *place, words, mask, a.reshape(-1))

        return drop

    def _clock_of(self, clock: Array) -> Callable[[Room], Array]:
        """Return what gives the clock of the step that a thread is performing."""
        return (lambda room: clock) if self._joined is None else thread_clock

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
        self._move_on(clock, 0, z.shape[1])

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
        rows_of_chunk, n_chunks = chunks_of_rows(n_rows, n)
        few = n <= FEW_UNITS
        run, operations = output_loop(formulas, activation, self.dtype, few)
        nothing = np.empty(0, self.dtype)
        costs, hits = (np.zeros(n_models * n_chunks, np.float64) for _ in range(2))
        partials = np.empty(n_models * n_chunks * n, self.dtype)
        targets, shares = model_flat(batch.y), model_flat(batch.row_weight)
        outputs = (z.reshape(-1), a.reshape(-1), costs, hits, partials, nothing if delta is None else delta.reshape(-1))
        place = (n_rows, n, rows_of_chunk, delta is not None, tally.counts_hits)
        by_threshold = (tally.threshold is not None, tally.threshold or 0) if few else ()  # which one output has alone
        kinds = 4 if few else 1  # of what is kept of a chunk

        def chunks(first: int, last: int, room: Room) -> Call:
            scratch = [room("terms", kinds * rows_of_chunk * n, self.dtype)]
            scratch += [room("sums", kinds * rows_of_chunk, self.dtype)]
            scratch += [room("totals", rows_of_chunk, np.float64)] * few
            given = (*flat(b), *targets, *shares, *place, *by_threshold)
            return bind(run, *given, first, last, *scratch, *outputs)

        operations += HIT_OPERATIONS * tally.counts_hits
        self._do(Atoms(n_models, n_chunks, z.size * operations * OPERATION, chunks))
        finish = loop("finish_output", self.dtype)
        clock_of = self._clock_of(np.zeros(3, np.int64) if clock is None else clock)
        sums: tuple[Any, ...] = (nothing, 0) if db is None else flat(db)
        scales = model_flat(batch.scale)

        def add_up(first: int, last: int, room: Room) -> Call:
            training = (clock_of(room), clock is not None, db is not None, n_models)
            return bind(
                finish,
                costs,
                hits,
                partials,
                n_chunks,
                n,
                *scales,
                *training,
                first,
                last,
                *sums,
                tally.values.reshape(-1),
            )

        self._do(Atoms(n_models, 1, n_models * n_chunks * n * 4 * OPERATION, add_up))

    def weight_gradient(self, delta: Array, a_in: Array, dW: Array) -> None:
        """Set dW = delta^T a_in (BP4)."""
        by_rows = dW.shape[1] >= self._enough()
        self._product(transposed(delta), a_in, dW, by_rows, touches=(delta, a_in, dW))

    def linear_delta(self, delta_next: Array, W_next: Array, delta: Array) -> None:
        """Set delta = delta_next W_next: BP2 where f is the identity."""
        by_rows = delta.shape[2] < self._enough()
        self._product(delta_next, W_next, delta, by_rows, touches=(delta_next, W_next, delta))

    def embedding_gradient(self, lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> None:
        """Set each line of the tables to the sum of delta over the rows with its code (BP4)."""
        self._do(replace(embedding_gradient_stage(lookup, rows, delta, dtables), touches=(rows, delta, dtables)))

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
        activation = of_all(activation)
        recording = hidden_delta_recording(activation, dropout is not None)
        _, batch, n = delta.shape
        zs, values = (z if reads_z(activation) else a).reshape(-1), a.reshape(-1)
        mask: tuple[Any, ...] = ()
        if dropout is None or dropout.mask is None:
            run = loop("hidden_delta", self.dtype, (("carry_back", recording),))
        else:
            run = loop("hidden_delta_dropped", self.dtype, (("carry_back_dropped", recording),))
            keep = 1 - dropout.rate
            mask = (dropout.mask.reshape(-1), 1 / keep, keep)
        outputs = (delta.reshape(-1), *flat(db))

        def carry_back(models: range, rows: slice, units: slice, room: Room) -> list[Call]:
            partial_sums = room("sums of units", (units.stop - units.start) * rows_at_once(n), self.dtype)
            place = (batch, n, models.start, models.stop, units.start, units.stop)
            return [bind(run, zs, values, *mask, *place, partial_sums, *outputs)]  # BP2, BP3

        touches = [delta_next, W_next, z, a, delta, db, *([] if dropout is None else [dropout.mask])]
        self._product(delta_next, W_next, delta, False, carry_back, delta.size * weight(recording), touches)

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
        of_norm = [x for x in (norm.mean, norm.variance, norm.row_weight, norm.count) if x is not None]
        for stage in normalised_delta_stages(norm, z, gamma, dbeta, delta, dgamma, db, n_threads()):
            self._do(replace(stage, touches=[*of_norm, z, gamma, dbeta, delta, dgamma, db]))

    # ---------------------------------------------------------------- update

    def gradient_norm(
        self, grad: Array, clip_norm: Any, numbers: StepNumbers, tensors: Sequence[Sequence[slice]] = ()
    ) -> None:
        """Set each model's number "clip" to min(1, clip_norm / norm of its gradient)."""
        n_models, n = grad.shape
        n_pieces = -(-n // NORM_PIECE)
        squares = np.empty(n_models * n_pieces, np.float64)
        clip = numbers.table[numbers.names.index("clip")]
        add, finish = loop("add_squares", self.dtype), loop("finish_norm", self.dtype, given=np.float64)
        values, most = flat(grad), np.asarray(clip_norm, np.float64).reshape(-1)

        def pieces(first: int, last: int, room: Room) -> Call:
            return bind(add, *values, n, NORM_PIECE, first, last, squares)

        def models(first: int, last: int, room: Room) -> Call:
            return bind(finish, squares, n_pieces, most, n_models, len(clip), first, last, clip.reshape(-1))

        self._do(Atoms(n_models, n_pieces, grad.size * 2 * OPERATION, pieces))
        self._do(Atoms(n_models, 1, n_models * n_pieces * OPERATION, models))

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
        block = PADDING if n_params % PADDING == 0 else 1  # a thread's part begins at a line of the cache

        def move(params: slice) -> Atoms:
            """Return what moves these parameters of each model: all of them where there are several models."""
            begin, n = params.start // block, (params.stop - params.start) // block

            def blocks(first: int, last: int, room: Room) -> Call:
                return bind(run, block * (begin + first), block * (begin + last), *sizes, *tables, *arrays)

            return Atoms(n_models, n, n_models * n * block * UPDATE_OPERATIONS * OPERATION, blocks)

        if self._items is not None and n_models == 1 and block > 1:
            self._items[:] = with_update(self._items, theta, grad, move)
        else:
            self._do(move(slice(0, n_params)))
        self._move_on(clock, 1, batch)

    def _move_on(self, clock: Array, steps: int, rows: int) -> None:
        """Count steps and rows; those of several steps at once are counted when all are done."""
        if self._joined is not None:
            return
        move = loop("move_on", np.float64)
        self._do(Atoms(1, 1, 10, lambda first, last, room: bind(move, steps, rows, clock)))

    # ---------------------------------------------------------------- division of work

    def _product(
        self,
        x: Array,
        y: Array,
        out: Array,
        by_rows: bool,
        after: After | None = None,
        operations: int = 0,
        touches: Sequence[Array] | None = None,
    ) -> None:
        """Launch out = x y for each model, and what is to be done with each part of it behind that.

        The size of one model's product decides how it is cut, so that a model's bits are the same in any stack.
        by_rows      whether rows of `out` are dealt out to the threads, or columns
        after        after(models, rows, columns, room) -> calls
        operations   of all of `after`
        touches      the arrays that all this reads or writes, if that is of use
        """
        n_models, n_rows, n_columns = out.shape
        size, inner = (n_rows if by_rows else n_columns), x.shape[2]
        work = n_rows * n_columns * inner
        n = max(1, min(n_threads(), work // PIECE_WORK, size // PIECE_UNITS))
        ends = [size * i // n // PIECE_UNITS * PIECE_UNITS for i in range(n)] + [size]
        compiled = gemm_address(self.dtype.name) != 0
        if not compiled:
            self._launch(product(x, y, out))

        def build(first: int, last: int, piece: int, room: Room) -> list[Call]:
            cut = slice(ends[piece], ends[piece + 1])
            rows, columns = (cut, slice(0, n_columns)) if by_rows else (slice(0, n_rows), cut)
            calls = [product_call(x[:, rows], y[..., columns], out[:, rows, columns], first, last)] if compiled else []
            return calls if after is None else [*calls, *after(range(first, last), rows, columns, room)]

        if compiled or after is not None:
            time = n_models * work * MULTIPLICATION * compiled + operations * OPERATION
            self._do(Pieces(n_models, n, time, build, touches))

    def _enough(self) -> int:
        """Return how many units of a layer can be dealt out to the threads."""
        return PIECE_UNITS * n_threads()

    def _do(self, stage: Stage) -> None:
        """Perform a stage, or let it be one of the step that is being captured."""
        if self._items is not None:
            self._items.append(stage)
        else:
            Program([stage], threads.count(), repeated=False)()

    def _launch(self, launch: Launch) -> None:
        if self._items is not None:
            self._items.append(launch)
        else:
            launch()

    # ---------------------------------------------------------------- capture

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        """Return a function that repeats what `step` asks for, as programs with what only Python can do between."""
        parts: list[Launch] = []
        joined: list[JoinedSteps | None] = []

        def replay() -> None:
            if times > 1 and not joined:
                joined.append(self._join(step, times))
            if joined and joined[0] is not None and joined[0]():
                return
            if not parts:
                parts.extend(self._recorded(step))
            for _ in range(times):
                for part in parts:
                    part()

        return replay

    def _join(self, step: Callable[[], None], times: int) -> JoinedSteps | None:
        """Return what performs several steps as one program; None where models have to wait for each other."""
        self._times = times
        try:
            items = self._asked_for(step)
            joined = self._joined
        except NotJoined:
            return None
        finally:
            self._times, self._joined = 1, None
        if joined is None or not all(is_stage(item) for item in items):
            return None
        return joined if joined.build(items) else None

    def _asked_for(self, step: Callable[[], None]) -> list[Item]:
        items: list[Item] = []
        self._items = items
        try:
            step()
        finally:
            self._items = None
        return items

    def _recorded(self, step: Callable[[], None]) -> list[Launch]:
        items = self._asked_for(step)
        parts: list[Launch] = []
        for is_native, group in groupby(items, is_stage):
            members = list(group)
            parts += [Program(members, threads.count())] if is_native else members
        return parts

    @contextmanager
    def session(self) -> Iterator[None]:
        """Compute alone; let the helpers rest at the end."""
        with super().session():
            try:
                yield
            finally:
                if threads.is_outermost():
                    numba_crew.send_home()


def is_stage(item: Item) -> bool:
    """Tell whether an item is a stage; else only Python can do it."""
    return isinstance(item, Atoms | Pieces | Runs | Together)


# ---------------------------------------------------------------- formulas


def is_elementwise_or_softmax(activation: Activation) -> bool:
    """Tell whether there is a loop for an output activation."""
    return not activation.row_wise or activation == SOFTMAX


def n_threads() -> int:
    """Return how many threads a product may be dealt out to."""
    return threads.count() if threads.divides_products() else 1


def output_loop(formulas: OutputDelta, activation: Activation, dtype: Any, few: bool) -> tuple[Loop, int]:
    """Return the loop of an output layer, and how many operations it needs for a unit.

    few   whether units are so few that the rows of each lie side by side
    """
    outer = formulas.outer or record(lambda s: s, "s")
    printed = [
        ("cost_term", formulas.term),
        ("cost_outer", outer),
        ("output_delta_value", weighted_delta(formulas.delta)),
    ]
    operations, kind = 40, "rows"
    if not activation.row_wise:
        value = value_recording(activation)
        printed.append(("activation_value", value))
        operations, kind = weight(formulas.term) + weight(value) + 4, "units"
    if few:
        return loop(
            "output_layer_of_few", dtype, tuple(printed), (("activate_by_unit", f"activate_few_{kind}"),)
        ), operations
    return loop("output_layer", dtype, tuple(printed), (("activate", f"activate_{kind}"),)), operations
