"""Training on rows that come pool by pool, for data that are larger than memory.

The blocks of the data are put in a random order; one behind the other they are a stream of rows, which is cut into
pools, and the rows of a pool are put in a random order of its own, of each model or of all. A pool has whole batches,
so that no batch crosses from pool to pool, and all are full but the last one of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gpumlp.backends.protocol import BatchSource
from gpumlp.data.limits import parse_size
from gpumlp.data.row_blocks import ArrayBlocks, Block, RowBlocks, row_blocks
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.network.network import Network
from gpumlp.network.targets import Targets, check_inputs, check_sample_weight
from gpumlp.randomness import feistel
from gpumlp.randomness.seeds import model_keys, shared_key
from gpumlp.randomness.streams import BLOCKS, pool_keys, shuffle_keys
from gpumlp.shapes import HostArray
from gpumlp.training.reading import Filled, ReadingAhead

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

DEFAULT_SIZE = "256MB"
PAGE = 4096  # bytes, on most machines; smaller than a page elsewhere


@dataclass(frozen=True)
class Pool:
    """How many rows are in memory at a time.

    size     rows of a pool; or the bytes of the two pools that are in memory, such as "256MB"
    blocks   how many blocks of an array make a pool: more of them mix better, fewer are read faster from a disk
    """

    size: int | str = DEFAULT_SIZE
    blocks: int = 16

    def __post_init__(self) -> None:
        if isinstance(self.size, str):
            parse_size(self.size, "pool")
        elif not (isinstance(self.size, int | np.integer) and self.size >= 1):
            raise ConfigurationError(f'pool={self.size!r}: expected a number of rows, or bytes such as "256MB"')
        if not (isinstance(self.blocks, int | np.integer) and self.blocks >= 1):
            raise ConfigurationError(f"blocks={self.blocks!r}: expected how many make a pool, at least 1")

    def rows(self, n_rows: int, row_bytes: int, batch: int) -> int:
        """Return the rows of a pool, which are whole batches unless they are all rows that there are.

        Raises   ConfigurationError if there is no room for one
        """
        rows = parse_size(self.size, "pool") // (2 * row_bytes) if isinstance(self.size, str) else int(self.size)
        if rows < batch:
            raise ConfigurationError(
                f"pool={self.size!r} has room for {rows} rows, a batch has {batch}; make the pool larger, or "
                "batch_size smaller"
            )
        return n_rows if rows >= n_rows else int(rows - rows % batch)


def as_pool(given: Any) -> Pool:
    """Return what a user gave as a Pool; of None, the default."""
    return given if isinstance(given, Pool) else Pool() if given is None else Pool(given)


class Turn(NamedTuple):
    """Steps of an epoch, from `begin` to before `end`, for which the source is ready; `room` is the most of a turn."""

    begin: int
    end: int
    room: int

    def factors(self, of_epoch: HostArray) -> HostArray:
        """Return the factors of these steps, in an array that is the same size in each turn."""
        if self.room == len(of_epoch):
            return of_epoch
        factors = np.zeros((self.room, of_epoch.shape[1]))
        factors[: self.end - self.begin] = of_epoch[self.begin : self.end]
        return factors


class Feed(Protocol):
    """What makes a source ready for the steps of an epoch.

    source            what the steps read
    n_rows, n_steps   of an epoch
    """

    source: BatchSource
    n_rows: int
    n_steps: int

    def watchers(self) -> list[Callable[[int], object]]:
        """Return what is to be called after each step with how many are done."""
        ...

    def turns(self, epochs: range, done: int) -> Iterator[Turn]:
        """Make the source ready for some steps after others of the first of these epochs, and yield which.

        epochs   that and those that will follow
        done     steps of it that are done already
        """
        ...

    def close(self) -> None:
        """Leave nothing under way."""
        ...


class Whole:
    """All rows are there at once."""

    def __init__(self, source: BatchSource) -> None:
        self.source, self.n_rows, self.n_steps = source, source.n_places, source.n_steps

    def watchers(self) -> list[Callable[[int], object]]:
        """Return nothing."""
        return []

    def turns(self, epochs: range, done: int) -> Iterator[Turn]:
        """Yield the one turn of an epoch."""
        yield Turn(0, self.n_steps, self.n_steps)

    def close(self) -> None:
        """Do nothing."""


class Survey(NamedTuple):
    """What one look at all rows tells.

    x_dtype   in which a pool holds X: its own where that is smaller than the network's, else that one
    targets   of the first rows, with what holds for all
    """

    n_rows: int
    n_features: int
    x_dtype: np.dtype[Any]
    targets: Targets


@dataclass(frozen=True)
class PooledSet:
    """Checked data that come by pools; see TrainingSet for its use.

    weights   (1 or n_models, n_rows) float64, or None
    rows      of a pool
    blocks    how many blocks can be put in any order
    key       of the order of the blocks
    """

    data: RowBlocks
    survey: Survey
    weights: HostArray | None
    rows: int
    blocks: int
    key: HostArray

    @property
    def targets(self) -> Targets:
        """What holds for all targets."""
        return self.survey.targets

    def take(self, models: HostArray, source: BatchSource) -> PooledSet:
        """Return what some models are trained on, by their places."""
        weights = self.weights if self.weights is None or len(self.weights) == 1 else self.weights[models]
        return replace(self, weights=weights, survey=self.survey._replace(targets=self.targets.take(models)))

    def arrays(self) -> dict[str, Any]:
        """Return what makes the data those that they are; values of blocks are taken at their word."""
        numbers = np.array([self.survey.n_rows, self.rows, self.blocks])
        return {"pools": numbers, "sample_weight": self.weights, **self.data.arrays()}

    def can_be_read_in_place(self, net: Network) -> bool:
        """Tell whether a processor's steps can read the rows where they are: a mapped file's lie in the page cache."""
        data, cost = self.data, net.architecture.cost
        if not isinstance(data, ArrayBlocks) or not _is_plain(data.X) or not _is_plain(data.Y):
            return False
        if self.targets.codes is not None:
            return data.Y.dtype == self.targets.Y.dtype
        return data.Y.dtype == net.dtype and cost.labels == (1.0, 0.0) and not cost.label_smoothing

    def feed(self, trainer: Trainer, batch: int | str, explicit: bool = False) -> tuple[BatchSource, Pools]:
        """Return the source that a step reads, and what fills it."""
        pools = Pools(self, trainer, int(batch))
        return pools.source, pools


def open_pools(trainer: Trainer, X: Any, Y: Any, sample_weight: Any, pool: Any) -> tuple[Any, Any, PooledSet | None]:
    """Return X, Y, and them as they are trained on pool by pool; None where one pool has room for all.

    Raises   ShapeError, DataError, ConfigurationError
    """
    net, data, size = trainer.net, row_blocks(X, Y), as_pool(pool)
    if not isinstance(trainer.batch_size, int | np.integer):
        raise ConfigurationError(
            f"batch_size={trainer.batch_size!r} needs all rows in memory; give a number of rows, or leave `pool` away"
        )
    survey = _survey(net, data)
    weights = None if sample_weight is None else check_sample_weight(sample_weight, survey.n_rows, net.n_models)
    of_row, dtypes = _shapes(survey, 0 if weights is None else len(weights), 1), _dtypes(survey)
    row_bytes = sum(prod(shape) * dtypes[name].itemsize for name, shape in of_row.items())
    rows = size.rows(survey.n_rows, row_bytes, min(trainer.batch_size, survey.n_rows))
    if rows == survey.n_rows:
        return (X, Y, None) if Y is not None else (*_gathered(data), None)
    blocks = data.cut(-(-rows // size.blocks))
    return X, Y, PooledSet(data, survey, weights, rows, blocks, shared_key(net.seeds[0]))


def _survey(net: Network, data: RowBlocks) -> Survey:
    """Look at all rows once; raise what is wrong with any of them."""
    n_rows, dtypes, kinds, first = 0, set(), set(), None
    counts_hits, zeros_mean_wrong = True, set()
    for block in data.survey():
        targets = _checked(net, block)
        first = first or targets
        n_rows += len(block.X)
        dtypes.add(block.X.dtype)
        kinds.add(targets.codes is None)
        counts_hits = counts_hits and targets.counts_hits
        if net.architecture.cost.labels != (1.0, 0.0):  # 0 and 1 stand for these where there is nothing else
            is_zero = block.Y == 0
            are_names = bool((is_zero | (block.Y == 1)).all())
            zeros_mean_wrong |= {are_names} if is_zero.any() or not are_names else set()
    if first is None:
        raise DataError("the blocks gave no rows; give at least one example")
    if len(kinds) > 1 or len(zeros_mean_wrong) > 1:
        raise DataError("some blocks hold targets of another kind than others; give labels in all, or numbers in all")
    x_dtype = kept_dtype(np.result_type(*dtypes), net.dtype)
    return Survey(n_rows, net.sizes[0], x_dtype, replace(first, counts_hits=counts_hits))


def _checked(net: Network, block: Block, are_known: bool = False) -> Targets:
    """Return a block's targets; raise what is wrong with its values.

    are_known   whether the features were checked before
    """
    of_rows = f" of the rows from {block.start} on"
    if not are_known:
        check_inputs(block.X, net.architecture, f"X{of_rows}")
    return net.check_targets(block.Y, len(block.X), f"Y{of_rows}")


def _gathered(data: RowBlocks) -> tuple[HostArray, HostArray]:
    blocks = list(data.survey())
    return np.concatenate([block.X for block in blocks]), np.concatenate([block.Y for block in blocks])


def kept_dtype(given: np.dtype[Any], of_network: np.dtype[Any]) -> np.dtype[Any]:
    """Return the smaller of two dtypes, so that a pool has room for more rows: what a batch has is the same."""
    native = given.newbyteorder("=")
    return native if native.itemsize < of_network.itemsize and native != np.float16 else of_network


def _is_plain(values: HostArray) -> bool:
    return values.flags.c_contiguous and values.dtype.isnative


def touch(rows: HostArray) -> None:
    """Read a value of each page, so that a mapped file's rows are in memory afterwards."""
    rows.reshape(-1).view(np.uint8)[::PAGE].max()


def _shapes(survey: Survey, n_weights: int, rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a pool's arrays."""
    targets = survey.targets.Y
    shapes: dict[str, tuple[int, ...]] = {"X": (1, rows, survey.n_features), "Y": (1, rows, *targets.shape[1:])}
    return shapes | ({"weights": (n_weights, rows)} if n_weights else {})


def _dtypes(survey: Survey) -> dict[str, np.dtype[Any]]:
    return {"X": survey.x_dtype, "Y": survey.targets.Y.dtype, "weights": np.dtype(np.float64)}


class Pools:
    """The pools of a `fit`, one after the other.

    source   what a step reads; its rows, keys and counts change from turn to turn
    """

    def __init__(self, data: PooledSet, trainer: Trainer, batch: int) -> None:
        net, survey, rows = trainer.net, data.survey, data.rows
        backend = net.backend
        self._data, self._net, self._backend, self._shuffles = data, net, backend, bool(trainer.shuffle)
        self.n_rows, self.n_steps, self._room = survey.n_rows, -(-survey.n_rows // batch), rows // batch
        self._in_place = backend.device == "cpu" and data.can_be_read_in_place(net)
        self._read = data.data.numbers if self._in_place and isinstance(data.data, ArrayBlocks) else data.data.read
        shapes = _shapes(survey, 0 if data.weights is None else len(data.weights), rows)
        dtypes = _dtypes(survey)
        if self._in_place:
            shapes, dtypes = {"rows": (1, rows)}, {"rows": np.dtype(np.int64)}
        self._ring = backend.ring(shapes, dtypes)
        self._keys = None
        if trainer.shuffle:
            is_shared = trainer.shuffle == "shared"
            keys = shared_key(net.seeds[0])[None] if is_shared else model_keys(net.seeds, net.model_ids)
            self._keys = backend.asarray(pool_keys(keys, -(-survey.n_rows // rows)))
        lines = self._ring.arrays["rows"] if self._in_place else backend.asarray(np.arange(2 * rows))
        self._rows = lines.reshape(2, 1, rows)  # of each half
        self.source = self._source(batch, mean=trainer.reduction == "mean")
        self._reading: ReadingAhead | None = None
        self._sent: Filled | None = None  # is on its way

    def _source(self, batch: int, mean: bool) -> BatchSource:
        backend, data, codes = self._backend, self._data, self._data.targets.codes
        if self._in_place:
            assert isinstance(data.data, ArrayBlocks)
            Y = data.data.Y
            X, Y, weights = data.data.X, Y if codes is not None else Y.reshape(len(Y), -1), data.weights
            if weights is not None and weights.shape[1] < len(X):
                weights = np.zeros((len(weights), len(X)))
                weights[:, data.data.kept] = data.weights
        else:
            arrays = self._ring.arrays
            X, Y, weights = arrays["X"][0], arrays["Y"][0], arrays.get("weights")
        source = BatchSource(
            X=X,
            Y=Y,
            codes=None if codes is None else backend.asarray(codes),
            sample_weight=weights,
            batch=batch,
            mean=mean,
            keys=None if self._keys is None else backend.empty(self._keys.shape[1:], self._keys.dtype),
            rows=backend.empty(self._rows.shape[1:], np.int64),
            counts=backend.empty((self._net.n_models,), np.int64),
        )
        backend.fill(source.rows, 0)
        backend.fill(source.counts, self._data.rows)
        return source

    # ---------------------------------------------------------------- in the thread that trains

    def watchers(self) -> list[Callable[[int], object]]:
        """Return what looks whether the next pool can be brought."""
        return [self._look_ahead]

    def turns(self, epochs: range, done: int) -> Iterator[Turn]:
        """Make the source ready for one pool after the other; of the epochs that will follow, pools are read ahead."""
        first = done // self._room
        if self._reading is None:
            self._reading = ReadingAhead(partial(self._fill, epochs, first))
        for pool in range(first, -(-self.n_steps // self._room)):
            # waits outside of any session: what reads may compute its blocks on the same device
            found = self._reading.take() if self._sent is None else None
            with self._backend.session():
                if found is not None:
                    self._send(found)
                filled, self._sent = self._sent, None
                assert filled is not None
                self._ring.receive(filled.half)
                self._set(pool, filled)
            yield Turn(pool * self._room, min((pool + 1) * self._room, self.n_steps), self._room)
            with self._backend.session():
                self._ring.release(filled.half)
            self._reading.give_back(filled.half)

    def close(self) -> None:
        """Stop reading; nothing is under way afterwards."""
        if self._reading is not None:
            self._reading.close()
        with self._backend.session():
            self._ring.close()

    def _set(self, pool: int, filled: Filled) -> None:
        """Let the source be that of a pool."""
        backend, source = self._backend, self.source
        backend.copy(self._rows[filled.half], source.rows)
        if self._keys is not None:
            backend.copy(self._keys[pool], source.keys)
        backend.fill(source.counts, filled.n)
        source.turn += 1

    def _look_ahead(self, done: int) -> None:
        """Begin to bring the next pool to the device as soon as it is read."""
        if self._sent is None and self._reading is not None and self._reading.has_next():
            self._send(self._reading.take())

    def _send(self, filled: Filled) -> None:
        self._sent = filled
        self._ring.send(*filled)

    # ---------------------------------------------------------------- in the thread that reads ahead

    def _fill(self, epochs: range, first_pool: int, free: Callable[[], int]) -> Iterator[Filled]:
        """Fill one half after the other; of the first epoch from its `first_pool` on."""
        for epoch in epochs:
            yield from self._fill_epoch(epoch, first_pool, free)
            first_pool = 0

    def _fill_epoch(self, epoch: int, first_pool: int, free: Callable[[], int]) -> Iterator[Filled]:
        rows, half, seen = self._data.rows, 0, 0
        for block in self._read(self._order(epoch)):
            done = max(0, first_pool * rows - seen)  # rows of this block, or more, that were trained on before
            while done < len(block.X) and seen + done < self.n_rows:
                at = (seen + done) % rows
                if at == 0:
                    half = free()
                end = min(len(block.X), done + rows - at)
                self._put(half, at, block.part(done, end))
                if at + end - done == rows:
                    yield Filled(half, rows)
                done = end
            seen += len(block.X)
        if seen != self.n_rows:
            raise DataError(f"the blocks gave {seen} rows, before they gave {self.n_rows}; give the same each time")
        if seen % rows:
            yield Filled(half, seen % rows)

    def _order(self, epoch: int) -> HostArray:
        """Return the order of the blocks."""
        numbers = np.arange(self._data.blocks)
        if not self._shuffles:
            return numbers
        return feistel.rows_at(numbers, shuffle_keys(self._data.key, epoch, BLOCKS), len(numbers))

    def _put(self, half: int, at: int, block: Block) -> None:
        """Write rows into a half from its row `at` on, cast; of arrays that are read in place, their numbers."""
        host, rows, data = self._ring.hosts[half], slice(at, at + len(block.X)), self._data.data
        if self._in_place and isinstance(data, ArrayBlocks):
            host["rows"][0, rows] = block.X
            touch(data.X[block.X[0] : block.X[-1] + 1])
            return
        is_known, is_label = data.is_fixed, self._data.targets.codes is not None
        Y = block.Y if is_known and is_label else _checked(self._net, block, is_known).Y
        np.copyto(host["X"][0, rows], block.X, casting="unsafe")
        np.copyto(host["Y"][0, rows], Y, casting="unsafe")
        if self._data.weights is not None:
            host["weights"][:, rows] = self._data.weights[:, block.start : block.start + len(block.X)]
