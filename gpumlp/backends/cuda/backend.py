"""The protocol on a CUDA device: each method is one product, one kernel, or one of each.

All work goes to one stream, in order. Nothing is allocated and nothing waits once the first step has run, so a step is
captured as one graph; whatever differs from step to step stands in device tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends.cuda import sources
from gpumlp.backends.cuda.arena import Arena
from gpumlp.backends.cuda.device import Device, open_device
from gpumlp.backends.cuda.gemm import Gemm
from gpumlp.backends.cuda.graph import CapturedStep
from gpumlp.backends.cuda.modules import Modules
from gpumlp.backends.cuda.ring import CudaRing
from gpumlp.backends.cuda.sources import C_TYPES, CHUNKS_OF_GROUP, HIT_KINDS, Source
from gpumlp.backends.protocol import (
    Array,
    Batch,
    BatchSource,
    Dropout,
    LayerActivation,
    Lookup,
    Normalisation,
    PerModel,
    StepNumbers,
    Tally,
)
from gpumlp.errors import DataError
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.normalisation import LAYER
from gpumlp.formulas.output_delta import OutputDelta
from gpumlp.randomness.streams import DROPOUT, dropout_threshold
from gpumlp.shapes import is_on_device

THREADS = 256
ROW_THREADS = 128  # of kernels that go row by row, unless a block of THREADS shares a row
LONG_ROW = 1024  # a row of more units, if it consists of vectors of 16 bytes, is a block's, not a warp's
MAX_BLOCKS = 2048  # of kernels that walk over their range: some waves on the largest devices
MAX_CHUNKS = 1024  # parts of a model's sum, each a block's: enough for the largest devices
VECTORS_OF_CHUNK = 4  # of 16 bytes, which a thread of gradient_norm adds at least, where there are that many
TIMES_ROWS, BY_WEIGHT = 1, 2  # what becomes of penalties, as kernels/gather_batch.cu says
CODES_OF_TILE = 8  # categories of a table of which a block sums the gradients: a warp each
ROWS_OF_CODES = 256  # rows at least in which a warp looks for its code
ENOUGH_BLOCKS = 256  # some for each multiprocessor; where there are fewer, a block takes fewer rows


@lru_cache(maxsize=8)
def modules_of(device_number: int) -> Modules:
    """Return the modules of a device, which all its backends share."""
    return Modules(open_device(device_number))


class CudaBackend:
    """One CUDA device."""

    name = "cuda"
    keeps_masks = False
    pads_models = True

    def __init__(self, dtype: Any = np.float32, precision: str | None = None, device: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self.precision = precision or self.dtype.name
        self._device: Device = open_device(device)
        self.device = f"cuda:{device}"
        self._modules = modules_of(device)
        self._arena = Arena(self._device)
        with self._device.session():
            self._gemm = Gemm(self._device, self.dtype, self.precision)

    # ---------------------------------------------------------------- arrays

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        """Return a new array of any content."""
        with self._device.session():
            return self._arena.empty(shape, self.dtype if dtype is None else dtype, what)

    def ring(self, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Any]) -> CudaRing:
        """Return room for two pools."""
        with self._device.session():
            return CudaRing(self._device, self._arena, shapes, dtypes)

    def free_bytes(self) -> int | None:
        """Return how much of the device's memory is free for new arrays."""
        with self._device.session():
            return int(self._device.free_bytes()[0])

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        """Return `x` in rows order on this device: the same memory where it is already so."""
        with self._device.session():
            if is_on_device(x):
                return self._adopt(x, dtype, what)
            host = np.ascontiguousarray(x, dtype=dtype)
            host = host.astype(readable(host.dtype), copy=False)
            out = self._arena.empty(host.shape, host.dtype, what)
            out.set(host)
            self._device.stream.synchronize()  # the host's memory may be pinned, and change as soon as this returns
            return out

    def to_host(self, x: Array) -> Any:
        """Return a copy of `x`, once all that was asked for before is done."""
        with self._device.session():
            return x.get()

    def copy(self, src: Array, out: Array) -> None:
        """Overwrite `out` with `src`."""
        with self._device.session():
            self._note(src, out)
            out[...] = src

    def fill(self, out: Array, value: float) -> None:
        """Overwrite every element of `out`."""
        with self._device.session():
            self._note(out)
            out.fill(value)

    def add(self, src: Array, out: Array) -> None:
        """Add `src` to `out`."""
        with self._device.session():
            self._note(src, out)
            self._device.cupy.add(out, src, out)

    def finite_models(self, x: Array) -> Any:
        """Return for which models every element is finite."""
        n_models, n = x.shape
        with self._device.session():
            found = self._arena.scratch("finite_models", n_models, np.bool_)
            found.fill(0)
            blocks = self._blocks_of_model(n, n_models)
            self._launch(
                sources.finite_models(self.dtype),
                "finite_models",
                n_models * blocks,
                THREADS,
                x=x,
                n=n,
                blocks_of_model=blocks,
                not_finite=found,
            )
            return ~found.get()

    # ---------------------------------------------------------------- batches

    def bring_numbers(self, numbers: StepNumbers) -> None:
        """Copy what has changed of the host's numbers to the device, into the same arrays as before."""
        hyper = np.stack([numbers.hyper[name] for name in numbers.given])
        host = {"hyper": hyper, "factors": np.array(numbers.factors, np.float64), "skip": numbers.skip.copy()}
        if numbers.copies is None:
            numbers.copies = {}
        with self._device.session():
            for name, values in host.items():
                there, known = numbers.copies.get(name, (None, np.empty(0)))
                if known.shape != values.shape:
                    there = self._arena.empty(values.shape, values.dtype, name)
                elif np.array_equal(known, values):
                    continue
                there.set(values)
                numbers.copies[name] = there, values

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        """Bring the rows of this step, their weights and the step's numbers."""
        n_orders, n_rows_of_batch, in_features = batch.a0.shape
        n_weights, n_models = batch.row_weight.shape[0], tally.values.shape[1]
        X, Y, labels = source.X, source.Y, source.codes is not None
        module = sources.gather_batch(X.dtype, Y.dtype, labels, None if numbers is None else numbers.rule, self.dtype)
        chunk = 16 // min(X.dtype.itemsize, self.dtype.itemsize)
        aligned = in_features % chunk == 0 and X.data.ptr % 16 == 0
        group = power_of_two(in_features // chunk if aligned else in_features, 32)
        copy_blocks = min(ceil_div(n_rows_of_batch, THREADS // group), MAX_BLOCKS)
        n_groups = 1 if numbers is None else numbers.table.shape[1]
        number_blocks = 0 if numbers is None else ceil_div(n_groups * n_models, THREADS)
        tables = {} if numbers is None else {name: there for name, (there, _) in numbers.copies.items()}
        self._launch(
            module,
            "gather_batch",
            copy_blocks * n_orders + n_weights + number_blocks,
            THREADS,
            X=X,
            Y=Y,
            codes=source.codes,
            sample_weight=source.sample_weight,
            keys=source.keys,
            rows=source.rows,
            fold=source.fold,
            counts=source.counts,
            clock=clock,
            hyper=tables.get("hyper"),
            factors=tables.get("factors"),
            x_aligned=int(aligned),
            group=group,
            mean=int(source.mean),
            penalties=_penalties(source, numbers),
            copy_blocks=copy_blocks,
            n_rows=source.n_rows,
            n_places=source.n_places,
            in_features=in_features,
            n_out=batch.y.shape[2],
            batch=n_rows_of_batch,
            first=batch.first,
            whole=source.batch,
            n_orders=n_orders,
            n_targets=len(batch.y),
            n_codes=source.n_codes,
            n_classes=0 if source.codes is None else source.codes.shape[-2],
            n_weights=n_weights,
            n_sample_weights=1 if source.sample_weight is None else len(source.sample_weight),
            n_factors=1 if numbers is None else numbers.factors.shape[1],
            n_models=n_models,
            n_groups=n_groups,
            a0=batch.a0,
            y=batch.y,
            row_weight=batch.row_weight,
            scale=batch.scale,
            tally=tally.values,
            table=None if numbers is None else numbers.table,
        )

    # ---------------------------------------------------------------- forward

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Do one after another: there is one, since models of different sizes are padded."""
        for work in works:
            work()

    def embed(self, lookup: Lookup, rows: Array, tables: Array, a: Array) -> None:
        """Set a to the rows, with a table's line in place of each code."""
        n_models, batch, n = a.shape
        self._launch(
            sources.embed(self.dtype),
            "embed",
            self._blocks_of_vectors(a),
            THREADS,
            units=lookup.units,
            rows=rows,
            tables=tables,
            n_models=n_models,
            batch=batch,
            n_columns=rows.shape[2],
            n=n,
            a=a,
        )

    def linear(self, a_in: Array, W: Array, z: Array) -> None:
        """Set z = a_in W^T."""
        self._note(a_in, W, z)
        self._gemm.forward(a_in, W, z)

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
        self.linear(a_in, W, z)
        n_models, batch, features = z.shape
        shape = {"n_models": n_models, "batch": batch}
        mixing = Mixing.of(activation, dropout)
        if sources.is_softmax(mixing.kinds[0]):
            threads, group, long_rows = self._row_shape(features)
            blocks = min(ceil_div(n_models * batch, threads // group), MAX_BLOCKS)
            module = sources.softmax(self.dtype, long_rows)
            self._launch(module, "softmax", blocks, threads, b=b, **shape, n_out=features, group=group, z=z, a=a_out)
            return
        module = sources.bias_activation(
            mixing.kinds, self.dtype, z is not a_out, dropout is not None, mixing.mixed, mixing.rates
        )
        self._launch(
            module,
            "bias_activation",
            self._blocks_of_vectors(z),
            THREADS,
            b=b,
            **shape,
            features=features,
            **self._mask_forward(dropout),
            **mixing.tables,
            z=z,
            a=a_out,
        )

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
        self.linear(a_in, W, z)
        n_models, batch, features = z.shape
        made_for = (activation, self.dtype, u is not a_out, dropout is not None)
        arguments = {
            "b": b,
            "gamma": gamma,
            "beta": beta,
            "n_models": n_models,
            "batch": batch,
            "features": features,
            **self._mask_forward(dropout),
            "z": z,
            "u": u,
            "a": a_out,
            "mean": norm.mean,
            "variance": norm.variance,
        }
        if norm.kind == LAYER:
            threads, group, long_rows = self._vector_row_shape(features)
            blocks = min(ceil_div(n_models * batch, threads // group), MAX_BLOCKS)
            module = sources.normalise_rows(*made_for, long_rows)
            self._launch(module, "normalise_rows", blocks, threads, group=group, **arguments)
            return
        if norm.row_weight is not None:
            self._measure(norm, b, z)
        module = sources.normalise_batch(*made_for)
        self._launch(module, "normalise_batch", self._blocks_of_vectors(z), THREADS, **arguments)

    def _measure(self, norm: Normalisation, b: Array, z: Array) -> None:
        """Set mean and variance of a batch, and let the running ones follow."""
        n_models, batch, features = z.shape
        running_mean, running_variance = norm.running or (None, None)
        tiles = self._tiles(batch, features)
        copies = {} if norm.numbers is None else norm.numbers.copies
        of_sums = self._sums_of_tiles("batch_statistics", n_models, features, tiles, values=3)
        self._launch(
            sources.batch_statistics(self.dtype),
            "batch_statistics",
            n_models * tiles.n_chunks * tiles.n_tiles,
            THREADS,
            b=b,
            z=z,
            row_weight=norm.row_weight,
            skip=copies["skip"][0] if copies else None,
            batch=batch,
            features=features,
            rows_of_chunk=tiles.rows_of_chunk,
            lanes=tiles.lanes,
            **of_sums,
            mean=norm.mean,
            variance=norm.variance,
            count=norm.count,
            **_with_stride(running_mean=running_mean, running_variance=running_variance),
        )

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
        n_models, rows, n_out = z.shape
        _, n_chunks = self._chunks_of_rows(rows, n_out)
        partials = self._arena.scratch("output_delta sums", n_models * rows_of_sums(n_chunks) * n_out, self.dtype)
        self._output_layer(
            "output_delta",
            formulas,
            activation,
            z,
            a,
            batch,
            tally,
            b=b,
            clock=clock,
            partials=partials,
            delta=delta,
            db=db,
        )

    def weight_gradient(self, delta: Array, a_in: Array, dW: Array) -> None:
        """Set dW = delta^T a_in (BP4)."""
        self._note(delta, a_in, dW)
        self._gemm.weight_gradient(delta, a_in, dW)

    def linear_delta(self, delta_next: Array, W_next: Array, delta: Array) -> None:
        """Set delta = delta_next W_next: BP2 where f is the identity."""
        self._note(delta_next, W_next, delta)
        self._gemm.backward(delta_next, W_next, delta)

    def embedding_gradient(self, lookup: Lookup, rows: Array, delta: Array, dtables: Array) -> None:
        """Set each line of the tables to the sum of delta over the rows with its code (BP4)."""
        (n_models, batch, n_deltas), n_line = delta.shape, dtables.shape[1]
        n_tiles = sum(ceil_div(n, CODES_OF_TILE) for n in lookup.categories)
        # by the sizes of a model alone, so that its sums are the same in any stack
        n_chunks = min(ceil_div(batch, ROWS_OF_CODES), ceil_div(ENOUGH_BLOCKS, n_tiles))
        rows_of_chunk = ceil_div(batch, n_chunks)
        n_chunks = ceil_div(batch, rows_of_chunk)
        scratch: dict[str, Any] = {"partials": None, "tickets": None}
        if n_chunks > 1:
            n_sums, n_tickets = rows_of_sums(n_chunks) * n_line, n_tiles * tickets_of_sum(n_chunks)
            scratch = {
                "partials": self._arena.scratch("sum_by_code sums", n_models * n_sums, self.dtype),
                "tickets": self._arena.scratch("sum_by_code tickets", n_models * n_tickets, np.uint32, zeroed=True),
            }
        self._launch(
            sources.embed(self.dtype),
            "sum_by_code",
            n_models * n_chunks * n_tiles,
            THREADS,
            units=lookup.units,
            firsts=lookup.firsts,
            rows=rows,
            delta=delta,
            batch=batch,
            n_columns=rows.shape[2],
            n=lookup.units.shape[1],
            n_deltas=n_deltas,
            n_line=n_line,
            n_tiles=n_tiles,
            rows_of_chunk=rows_of_chunk,
            **scratch,
            dtables=dtables,
        )

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
        self.linear_delta(delta_next, W_next, delta)
        n_models, batch, features = delta.shape
        tiles, mixing = self._tiles(batch, features), Mixing.of(activation, dropout)
        self._launch(
            sources.hidden_delta(mixing.kinds, self.dtype, dropout is not None, mixing.mixed, mixing.rates),
            "hidden_delta",
            n_models * tiles.n_chunks * tiles.n_tiles,
            THREADS,
            z=z,
            a=a,
            batch=batch,
            features=features,
            rows_of_chunk=tiles.rows_of_chunk,
            lanes=tiles.lanes,
            **self._mask(dropout),
            **mixing.tables,
            **self._sums_of_tiles("hidden_delta", n_models, features, tiles),
            delta=delta,
            db=db,
        )

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
        (n_models, batch, features), of_all = z.shape, {"z": z, "mean": norm.mean, "variance": norm.variance}
        of_all |= {"batch": batch, "features": features, "delta": delta, "dgamma": dgamma}
        if norm.kind == LAYER:
            self._rows_delta(n_models, gamma=gamma, db=db, **of_all)
            return
        tiles, module = self._tiles(batch, features), sources.batch_statistics(self.dtype)
        self._launch(
            module,
            "gamma_gradients",
            n_models * tiles.n_chunks * tiles.n_tiles,
            THREADS,
            rows_of_chunk=tiles.rows_of_chunk,
            lanes=tiles.lanes,
            **self._sums_of_tiles("gamma_gradients", n_models, features, tiles),
            **of_all,
        )
        self._launch(
            module,
            "batch_delta",
            self._blocks_of_vectors(z),
            THREADS,
            row_weight=norm.row_weight,
            count=norm.count,
            gamma=gamma,
            dbeta=dbeta,
            n_models=n_models,
            db=db,
            **of_all,
        )

    def _rows_delta(self, n_models: int, *, batch: int, features: int, **arguments: Any) -> None:
        """Launch the way back of a layer that is normalised over units."""
        threads, group, long_rows = self._vector_row_shape(features)
        slots = threads // group
        # by the sizes of a model alone, so that its sums are the same in any stack
        rows_of_chunk = min(max(ceil_div(batch, ENOUGH_BLOCKS), slots), 16 * slots)
        rows_of_chunk = max(rows_of_chunk, ceil_div(batch, MAX_CHUNKS))
        n_chunks = ceil_div(batch, rows_of_chunk)
        n_sums, n_tickets = n_models * rows_of_sums(n_chunks) * 2 * features, n_models * tickets_of_sum(n_chunks)
        self._launch(
            sources.rows_delta(self.dtype, long_rows),
            "rows_delta",
            n_models * n_chunks,
            threads,
            batch=batch,
            features=features,
            rows_of_chunk=rows_of_chunk,
            group=group,
            partials=self._arena.scratch("rows_delta sums", n_sums, self.dtype),
            tickets=self._arena.scratch("rows_delta tickets", n_tickets, np.uint32, zeroed=True),
            **arguments,
        )

    # ---------------------------------------------------------------- update

    def gradient_norm(
        self, grad: Array, clip_norm: Any, numbers: StepNumbers, tensors: Sequence[Sequence[slice]] = ()
    ) -> None:
        """Set each model's number "clip" to min(1, clip_norm / norm of its gradient)."""
        n_models, n = grad.shape
        # by the size of a model alone, so that its norm is the same in any stack
        wanted = ceil_div(n * self.dtype.itemsize, 16 * THREADS * VECTORS_OF_CHUNK)
        n_chunks = min(wanted, MAX_CHUNKS)
        self._launch(
            sources.gradient_norm(self.dtype),
            "gradient_norm",
            n_models * n_chunks,
            THREADS,
            grad=grad,
            clip_norm=clip_norm,
            n=n,
            n_chunks=n_chunks,
            n_models=n_models,
            n_groups=numbers.table.shape[1],
            partials=self._arena.scratch("gradient_norm sums", n_models * n_chunks, np.float64),
            tickets=self._arena.scratch("gradient_norm tickets", n_models, np.uint32, zeroed=True),
            clip=numbers.table[numbers.names.index("clip")],
        )

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
        n_models, n_params = theta.shape
        begin, middle = bounds[:2]
        blocks = self._blocks_of_model(bounds[-1] - begin, n_models)
        self._launch(
            sources.update(numbers.rule, numbers.extras, self.dtype),
            "update",
            n_models * blocks,
            THREADS,
            grad=grad,
            table=numbers.table,
            skip=numbers.copies["skip"][0],
            n_models=n_models,
            n_params=n_params,
            n_groups=len(bounds) - 1,
            begin=begin,
            middle=middle,
            end=bounds[-1],
            blocks_of_model=blocks,
            batch=batch,
            theta=theta,
            state=state,
            clock=clock,
        )

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
        self._output_layer("evaluate", formulas, activation, z, a, batch, tally, b=b, clock=clock)

    # ---------------------------------------------------------------- capture

    def session(self) -> AbstractContextManager[None]:
        """Compute on this device's stream; see Device.session."""
        return self._device.session()

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        """Return a function that runs `step` so often, and from then on launches all of that as one graph."""
        kept: list[Any] = []

        def noted() -> None:
            self._arena.recording = kept if self._device.stream.is_capturing() else None
            try:
                for _ in range(times):
                    step()
            finally:
                self._arena.recording = None

        return CapturedStep(self._device, noted, kept)

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        with self._device.session():
            self._device.stream.synchronize()

    def ranges(self) -> Callable[[str], AbstractContextManager[None]] | str:
        """Return CuPy's NVTX ranges."""
        nvtx = import_module("cupy.cuda.nvtx")
        if not nvtx.available:
            return "this CuPy is built without NVTX"

        @contextmanager
        def opened(name: str) -> Iterator[None]:
            nvtx.RangePush(name)
            try:
                yield
            finally:
                nvtx.RangePop()

        return opened

    # ---------------------------------------------------------------- launching

    def _launch(self, source: Source, name: str, blocks: int, threads: int, **arguments: Any) -> None:
        kernel = self._modules.kernel(source, name)
        self._note(*arguments.values())
        kernel(blocks, threads, arguments)

    def _note(self, *arrays: Any) -> None:
        """Keep the arrays for as long as the graph that is being captured, if one is."""
        if self._arena.recording is not None:
            self._arena.recording.extend(x for x in arrays if isinstance(x, self._device.cupy.ndarray))

    def _adopt(self, x: Any, dtype: Any, what: str) -> Any:
        """Return an array that lies on this device as CuPy's, without a copy where none is needed."""
        cupy = self._device.cupy
        array = x
        if not isinstance(x, cupy.ndarray):
            array = cupy.from_dlpack(x) if hasattr(x, "__dlpack__") else cupy.asarray(x)
        if array.size and array.device.id != self._device.number:
            raise DataError(
                f"{what} lies on cuda:{array.device.id}, but this network computes on {self.device}; make it with "
                f'device="cuda:{array.device.id}", or copy the array there'
            )
        if dtype is None and array.dtype == np.float16:
            dtype = readable(array.dtype)
        with self._arena.room_for(array.shape, array.dtype if dtype is None else dtype, what):
            return cupy.ascontiguousarray(array, dtype=dtype)

    def _blocks_of_model(self, n: int, n_models: int) -> int:
        """Return how many blocks walk over n values of each model."""
        wanted = ceil_div(n * self.dtype.itemsize, 16 * THREADS)
        return max(1, min(wanted, MAX_BLOCKS // n_models))

    def _mask(self, dropout: Dropout | None) -> dict[str, Any]:
        """Return the arguments of a kernel that draws a mask."""
        if dropout is None:
            return {"keys": None, "clock": None, "threshold": 0, "stream": 0, "first_row": 0, "grow": 1.0, "keep": 1.0}
        keep = 1 - dropout.rate
        return {
            "keys": dropout.keys,
            "clock": dropout.clock,
            "threshold": dropout_threshold(dropout.rate),
            "stream": (DROPOUT << 16) + dropout.layer,
            "first_row": dropout.first,
            "grow": 1 / keep,
            "keep": keep,
        }

    def _mask_forward(self, dropout: Dropout | None) -> dict[str, Any]:
        """Return the same of a kernel that does not undo the growth of what stays."""
        drawn = self._mask(dropout)
        del drawn["keep"]
        return drawn

    def _blocks_of_vectors(self, x: Array) -> int:
        """Return how many blocks walk over an array in vectors of 16 bytes."""
        return min(ceil_div(ceil_div(x.size * self.dtype.itemsize, 16), THREADS), MAX_BLOCKS)

    def _tiles(self, batch: int, features: int) -> Tiles:
        """Return how the sums over a batch are divided: by the sizes of a model alone, so that they are the same in any
        stack.
        """
        width = 16 // self.dtype.itemsize
        lanes = power_of_two(ceil_div(features, width), 32)
        n_tiles, strands = ceil_div(features, lanes * width), THREADS // lanes
        rows_of_chunk = min(max(ceil_div(batch * n_tiles, ENOUGH_BLOCKS), strands), 16 * strands)
        rows_of_chunk = max(rows_of_chunk, ceil_div(batch, MAX_CHUNKS))
        return Tiles(lanes, n_tiles, rows_of_chunk, ceil_div(batch, rows_of_chunk))

    def _sums_of_tiles(
        self, kernel: str, n_models: int, features: int, tiles: Tiles, values: int = 1
    ) -> dict[str, Any]:
        """Return the scratch of a kernel that sums over a batch some values for each unit."""
        n_sums = n_models * rows_of_sums(tiles.n_chunks) * values * features
        n_tickets = n_models * tiles.n_tiles * tickets_of_sum(tiles.n_chunks)
        return {
            "partials": self._arena.scratch(f"{kernel} sums", n_sums, self.dtype),
            "tickets": self._arena.scratch(f"{kernel} tickets", n_tickets, np.uint32, zeroed=True),
        }

    def _vector_row_shape(self, n: int) -> tuple[int, int, bool]:
        """Return what _row_shape does, for lanes that take 16 bytes at a time where rows consist of them."""
        threads, group, long_rows = self._row_shape(n)
        is_aligned = n * self.dtype.itemsize % 16 == 0
        if long_rows or not is_aligned:
            return threads, group, long_rows
        return threads, power_of_two(n * self.dtype.itemsize // 16, 32), False

    def _row_shape(self, n: int) -> tuple[int, int, bool]:
        """Return a block's threads, how many of them share a row of n, and whether all do."""
        if n > LONG_ROW and n * self.dtype.itemsize % 16 == 0:
            return THREADS, THREADS, True
        return ROW_THREADS, power_of_two(n, 32), False

    def _chunks_of_rows(self, rows: int, n_out: int) -> tuple[int, int]:
        """Return how many rows of the output layer a block takes, and how many blocks a model has.

        By the sizes of a model alone, so that its sums are the same in any stack.
        """
        threads, group, _ = self._row_shape(n_out)
        rows_of_chunk = max(threads // group, ceil_div(rows, MAX_CHUNKS))
        return rows_of_chunk, ceil_div(rows, rows_of_chunk)

    def _output_layer(
        self,
        name: str,
        formulas: OutputDelta,
        activation: Activation,
        z: Array,
        a: Array,
        batch: Batch,
        tally: Tally,
        **arguments: Any,
    ) -> None:
        """Launch output_delta or evaluate, with the arguments that only one has, too."""
        n_models, rows, n_out = z.shape
        threads, group, long_rows = self._row_shape(n_out)
        rows_of_chunk, n_chunks = self._chunks_of_rows(rows, n_out)
        n_sums, n_tickets = n_models * rows_of_sums(n_chunks), n_models * tickets_of_sum(n_chunks)
        kind = "NO_HITS" if not tally.counts_hits else "BY_LARGEST" if tally.threshold is None else "BY_THRESHOLD"
        self._launch(
            sources.output_delta(formulas, activation, self.dtype, long_rows),
            name,
            n_models * n_chunks,
            threads,
            y=batch.y,
            row_weight=batch.row_weight,
            scale=batch.scale,
            n_models=n_models,
            batch=rows,
            n_out=n_out,
            rows_of_chunk=rows_of_chunk,
            group=group,
            counts=HIT_KINDS[kind],
            threshold=tally.threshold or 0.0,
            costs=self._arena.scratch(f"{name} costs", n_sums * 2, np.float64),
            tickets=self._arena.scratch(f"{name} tickets", n_tickets, np.uint32, zeroed=True),
            z=z,
            a=a,
            tally=tally.values,
            **arguments,
        )


class Mixing(NamedTuple):
    """In what the models of a layer differ.

    kinds    their activations
    mixed    whether widths or activations differ; rates: whether dropout does
    tables   arguments of a kernel, null where there is nothing to be told
    """

    kinds: tuple[Activation, ...]
    mixed: bool
    rates: bool
    tables: dict[str, Any]

    @classmethod
    def of(cls, activation: LayerActivation, dropout: Dropout | None) -> Mixing:
        """Return what these say."""
        mixed, rates = isinstance(activation, PerModel), None if dropout is None else dropout.rates
        kinds = activation.definitions if isinstance(activation, PerModel) else (activation,)
        tables = {
            "kinds": activation.kinds if isinstance(activation, PerModel) else None,
            "widths": activation.widths if isinstance(activation, PerModel) else None,
            "thresholds": None if rates is None else rates.thresholds,
            "scales": None if rates is None else rates.scales,
        }
        return cls(kinds, mixed, rates is not None, tables)


class Tiles(NamedTuple):
    """How a sum over a batch is divided: blocks take tiles of columns, and of these chunks of rows."""

    lanes: int
    n_tiles: int
    rows_of_chunk: int
    n_chunks: int


def _with_stride(**arrays: Array | None) -> dict[str, Any]:
    """Return arguments of a kernel that may be null: there is then no stride to be filled in."""
    return {**arrays, **{f"{name}_stride": 0 for name, x in arrays.items() if x is None}}


def _penalties(source: BatchSource, numbers: StepNumbers | None) -> int:
    """Return what becomes of a step's penalties."""
    if numbers is None or numbers.by_batch != source.mean:
        return 0
    return BY_WEIGHT if numbers.by_batch else TIMES_ROWS


def rows_of_sums(n_chunks: int) -> int:
    """Return how many rows of scratch the sums of chunks, and of groups of them, take; see Chunks in common.cuh."""
    return n_chunks + ceil_div(n_chunks, CHUNKS_OF_GROUP)


def tickets_of_sum(n_chunks: int) -> int:
    """Return how many tickets tell the last block of each group, and the last group."""
    return ceil_div(n_chunks, CHUNKS_OF_GROUP) + 1


def readable(dtype: Any) -> Any:
    """Return the nearest dtype that kernels can read: of halves, float32; of what is longer than double, float64."""
    native = np.dtype(dtype).newbyteorder("=")
    if native.name in C_TYPES or native.kind != "f":
        return native
    return np.dtype(np.float32 if native == np.float16 else np.float64)


def ceil_div(n: int, d: int) -> int:
    """Return n / d, rounded up."""
    return -(-n // d)


def power_of_two(n: int, most: int) -> int:
    """Return the smallest power of two that is at least n, and at most `most`."""
    return min(1 << max(0, n - 1).bit_length(), most)
