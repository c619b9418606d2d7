"""Bringing a batch on the CPU: which rows, their values cast to the network's dtype, their weights."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpumlp.backends.numpy_shares import Follower, Launch, Share, Shared
from gpumlp.backends.protocol import EPOCH, POSITION, STEP, WEIGHT, Batch, BatchSource, StepNumbers, Tally
from gpumlp.randomness import feistel, streams

PIECE = 8192  # positions or numbers computed at a time: no temporary is longer
Taker = Callable[[Any, int], object]  # taker(rows, at): bring those rows of a window that begin at `at`


class RowWindow:
    """The row numbers of the next batches, computed some thousand at a time."""

    def __init__(self, source: BatchSource, n_orders: int) -> None:
        self.source = source
        steps = max(1, min(source.n_steps, PIECE // (source.batch * n_orders)))
        self.size = steps * source.batch
        beyond = source.n_parts * (source.part or source.batch) - source.batch  # of the last part of the last batch
        self.rows = np.empty((n_orders, self.size + beyond), np.int64)
        self.key: tuple[int, int, int] | None = None  # turn, epoch and first position of what the window holds

    def rows_at(self, epoch: int, position: int) -> tuple[Any, int]:
        """Return the window's rows (n_orders, at least size) and where in it `position` stands."""
        first = position - position % self.size
        if self.key != (self.source.turn, epoch, first):
            self._fill(epoch, first)
            self.key = (self.source.turn, epoch, first)
        return self.rows, position - first

    def _fill(self, epoch: int, first: int) -> None:
        """Compute the rows from position `first` on; beyond the last one it is repeated, with weight 0."""
        source, piece = self.source, max(1, PIECE // len(self.rows))
        keys = None if source.keys is None else streams.shuffle_keys(source.keys, epoch)
        counts = np.full(1, source.n_places) if source.counts is None else source.counts
        sizes = np.unique(counts)  # places, and which orders have so many
        orders_of = [(int(n), slice(None) if len(sizes) == 1 else np.flatnonzero(counts == n)) for n in sizes]
        for start in range(0, self.rows.shape[1], piece):
            stop = min(start + piece, self.rows.shape[1])
            positions, part = np.arange(first + start, first + stop), self.rows[:, start:stop]
            for n, orders in orders_of:
                places = np.minimum(positions, n - 1)
                part[orders] = places if keys is None else feistel.rows_at(places, keys[orders], n)
            if source.rows is not None:
                part[:] = source.rows[0 if source.fold is None else source.fold[:, None], part]


def window_of(kind: type[RowWindow], source: BatchSource, n_orders: int) -> RowWindow:
    """Return the window of a source, which all parts of its batches share."""
    if source.part is None:
        return kind(source, n_orders)
    if "window" not in source.kept:
        source.kept["window"] = kind(source, n_orders)
    found: RowWindow = source.kept["window"]
    return found


class Gather(Follower):
    """The launch that fills the buffers of a batch with the rows of the step that the clock names."""

    def __init__(
        self,
        source: BatchSource,
        clock: Any,
        batch: Batch,
        tally: Tally,
        numbers: StepNumbers | None,
        block_size: int,
    ) -> None:
        self._source, self._clock, self._batch = source, clock, batch
        self._set = [
            batch.y,
            batch.row_weight,
            batch.scale,
            tally.values,
            *([] if numbers is None else [numbers.table]),
        ]
        self._staging = staging_of(source.X, batch.a0, block_size)
        self._window = window_of(RowWindow, source, len(batch.a0))
        self._take = take_launch(source.X, batch.a0, self._staging)
        self._take_targets = target_launch(source, batch.y)
        self._weigh = weight_launch(source, batch, tally)
        self._set_numbers = None if numbers is None else numbers_launch(numbers, source, clock)
        self._position, self._at, self._rows = 0, 0, self._window.rows

    def __call__(self) -> None:
        """Fill a0, y and what the rows weigh; set the step's numbers."""
        self._find()
        self._take(self._rows, self._at)
        self._finish()

    def before(self, shared: Shared) -> tuple[Launch, Shared] | None:
        """Return how the rows are found, and how each thread brings its own where rows are dealt out."""
        a0 = self._batch.a0
        if shared.cuts[-1].stop != a0.shape[1]:
            return None

        def share(rows: slice, thread: int) -> Share:
            take = take_launch(self._source.X, a0[:, rows], self._share_of_staging(rows))
            launches: list[Launch] = [lambda: take(self._rows, self._at + rows.start)]
            if thread > 0:
                return Share(launches, (), (a0[:, rows],))
            return Share([*launches, self._finish], (self._clock,), (a0[:, rows], *self._set))

        return self._find, Shared(shared.cuts, share)

    def _share_of_staging(self, rows: slice) -> Any:
        """Return the room for some rows before they are cast that no other ones have."""
        if self._staging is None:
            return None
        n, size = len(self._staging), self._batch.a0.shape[1]
        share = self._staging[n * rows.start // size : n * rows.stop // size]
        return share if len(share) else np.empty_like(self._staging[:1])

    def _find(self) -> None:
        self._position = int(self._clock[POSITION])
        self._rows, at = self._window.rows_at(int(self._clock[EPOCH]), self._position)
        self._at = at + self._batch.first

    def _finish(self) -> None:
        self._take_targets(self._rows, self._at)
        at = self._at - self._batch.first
        self._weigh(self._rows[:, at : at + self._source.batch], valid_rows(self._source, self._position))
        if self._set_numbers is not None:
            self._set_numbers()


def staging_of(x: Any, out: Any, block_size: int) -> Any:
    """Return room for some rows of `x` on their way into `out` (n_orders, batch, n); None if they are not cast."""
    _, size, n = out.shape
    return None if x.dtype == out.dtype else np.empty((min(max(1, block_size // max(1, n)), size), n), x.dtype)


def take_launch(x: Any, out: Any, staging: Any) -> Taker:
    """Return the taker that copies rows of `x` into `out` (n_orders, batch, n), casting them if need be.

    staging   room of `staging_of`, or a part of it
    """
    n_orders, size, _ = out.shape
    if staging is None:

        def take(rows: Any, at: int) -> None:
            for order in range(n_orders):
                x.take(rows[order, at : at + size], 0, out[order], "clip")

        return take
    step = len(staging)

    def take_and_cast(rows: Any, at: int) -> None:
        for order in range(n_orders):
            for start in range(0, size, step):
                part = staging[: min(step, size - start)]
                x.take(rows[order, at + start : at + min(start + step, size)], 0, part, "clip")
                np.copyto(out[order, start : start + step], part, casting="unsafe")

    return take_and_cast


def target_launch(source: BatchSource, y: Any) -> Taker:
    """Return the taker that writes the targets of rows into y: rows of Y, or labels' codes.

    y   (n_orders, batch, n_out), or with codes for each model (n_models, batch, n_out)
    """
    size, labels = y.shape[1], np.empty(y.shape[1], source.Y.dtype)
    codes = None if source.codes is None else source.codes.reshape(source.n_codes, -1, y.shape[2])

    def take(rows: Any, at: int) -> None:
        for m, out in enumerate(y):
            these = rows[m % len(rows), at : at + size]
            if codes is None:
                source.Y.take(these, 0, out, "clip")
            else:
                source.Y.take(these, 0, labels, "clip")
                codes[m % len(codes)].take(labels, 0, out, "clip")

    return take


def valid_rows(source: BatchSource, position: int) -> Any:
    """Return how many rows of the batch at a position count: a number, or (n_models,) where models have folds."""
    if source.counts is None or source.fold is None:
        n_places = source.n_places if source.counts is None else int(source.counts[0])
        return min(source.batch, n_places - position)
    return np.clip(source.counts - position, 0, source.batch)


def weight_launch(source: BatchSource, batch: Batch, tally: Tally) -> Callable[[Any, Any], None]:
    """Return a function (rows, valid) -> None that sets row_weight and scale and adds to the tally's WEIGHT."""
    row_weight, scale, total = batch.row_weight, batch.scale, tally.values[WEIGHT]
    sample_weight = source.sample_weight
    if sample_weight is None:

        def equal(rows: Any, valid: Any) -> None:
            equal_weights(batch, valid, source.mean)
            if batch.first == 0:
                np.add(total, valid, total)

        return equal
    n_weights = len(sample_weight)
    weights = np.empty((len(row_weight), source.batch), np.float64)
    mine = weights[:, batch.first : batch.first + row_weight.shape[1]]
    sums, places = np.empty(len(row_weight), np.float64), np.arange(source.batch)

    def given(rows: Any, valid: Any) -> None:
        for m in range(len(row_weight)):
            sample_weight[m % n_weights].take(rows[m % len(rows)], 0, weights[m], "clip")
        np.copyto(weights, 0, where=places >= np.reshape(valid, (-1, 1)))
        np.add.reduce(weights, axis=1, out=sums)
        if batch.first == 0:
            np.add(total, sums, total)
        if source.mean:
            scale[:] = sums
            np.divide(weights, np.where(sums > 0, sums, 1)[:, None], weights)  # a batch without weight moves nothing
        else:
            scale[:] = 1
        np.copyto(row_weight[:, : mine.shape[1]], mine, casting="same_kind")
        row_weight[:, mine.shape[1] :] = 0

    return given


def equal_weights(batch: Batch, valid: Any, mean: bool) -> None:
    """Give the first rows of a batch the same weight, and none to the others; `valid` as of valid_rows."""
    together = valid if isinstance(valid, int) else int(valid.sum())  # falls from batch to batch of an epoch, if at all
    if together != batch.valid:
        n = np.reshape(valid, (-1, 1))
        counting = batch.first + np.arange(batch.row_weight.shape[1]) < n
        batch.row_weight[:] = counting / np.maximum(n, 1) if mean else counting
        batch.scale[:] = n[:, 0] if mean else 1
        batch.valid = together


def ahead_of(numbers: StepNumbers) -> Any:
    """Return room for the numbers of some steps."""
    return np.empty((max(1, min(64, PIECE // numbers.table.size)), *numbers.table.shape), numbers.table.dtype)


def numbers_launch(numbers: StepNumbers, source: BatchSource, clock: Any) -> Launch:
    """Return the function that writes this step's numbers into their table.

    They are computed for some steps at a time, in double, and looked up after that; anew in each epoch.
    """
    ahead = ahead_of(numbers)
    begin = end = epoch_began = -1

    def launch() -> None:
        nonlocal begin, end, epoch_began
        step = int(clock[POSITION]) // source.batch
        if epoch_began != clock[STEP] - step or not begin <= step < end:
            begin, end, epoch_began = step, min(step + len(ahead), source.n_steps), int(clock[STEP]) - step
            compute_numbers(numbers, source, int(clock[EPOCH]), int(clock[STEP]), range(begin, end), ahead)
        np.copyto(numbers.table, ahead[step - begin])

    return launch


def compute_numbers(
    numbers: StepNumbers, source: BatchSource, epoch: int, steps_done: int, steps: range, out: Any
) -> None:
    """Set out[i] to the table of the i-th of `steps` of an epoch, `steps_done` being done before the first of them.

    Under reduction "sum" the penalties are multiplied by the batch's rows, as the sum over its rows is; those of
    a batch as a whole are divided by the weight of its rows, as the mean over them is.
    """
    n = len(steps)
    t = np.arange(steps_done + 1, steps_done + 1 + n, dtype=np.float64)[:, None, None]
    h = SimpleNamespace(**{name: values[None] for name, values in numbers.hyper.items()})
    h.eta = h.eta * numbers.factors[steps.start : steps.stop, None]
    if numbers.by_batch == source.mean:
        weight = _weights_of_batches(source, epoch, steps) if numbers.by_batch else _rows_of_batches(source, steps)
        factor = np.divide(1, weight, out=np.zeros_like(weight), where=weight > 0) if numbers.by_batch else weight
        h.l2, h.l1 = h.l2 * factor[:, None], h.l1 * factor[:, None]
    finished = {**vars(h), "clip": np.ones((1, 1, 1)), **numbers.rule.per_step(t, h)}
    for i, name in enumerate(numbers.names):
        out[:n, i] = finished[name]


def _rows_of_batches(source: BatchSource, steps: range) -> Any:
    """Return how many rows each of these batches has, (n_steps, 1 or n_models)."""
    return np.array([np.atleast_1d(valid_rows(source, s * source.batch)) for s in steps], np.float64)


def _weights_of_batches(source: BatchSource, epoch: int, steps: range) -> Any:
    """Return the weight of the rows of each of these batches, (n_steps, 1 or n_models)."""
    rows = _rows_of_batches(source, steps)
    if source.sample_weight is None:
        return rows
    window = RowWindow(source, source.n_orders)
    n = max(len(source.sample_weight), len(window.rows))
    total = np.empty((len(steps), n))
    for i, (step, valid) in enumerate(zip(steps, rows.astype(int), strict=True)):
        order, at = window.rows_at(epoch, step * source.batch)
        for m in range(n):
            given = source.sample_weight[m % len(source.sample_weight)]
            total[i, m] = given[order[m % len(order), at : at + valid[m % len(valid)]]].sum()
    return total
