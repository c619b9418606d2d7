"""Hollow backends: they build what another backend builds, of arrays without memory, and write down what it would take.

So a plan follows from the code that allocates. Nothing is computed; a step may be captured, but not run usefully.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import numpy as np

from gpumlp.backends.cuda.arena import Arena
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.backends.protocol import Array, Backend, Batch, BatchSource, StepNumbers, Tally
from gpumlp.backends.select import check_dtype
from gpumlp.errors import ConfigurationError, unknown_name

MOST_BYTES = 1 << 60
CUDA_UNIT = 512  # bytes: CuPy's pool hands out multiples
SCRATCH = "scratch of a step"
NUMPYS = 389047  # numpy.lib.tracemalloc_domain, of the memory of its arrays


class Ledger:
    """Bytes by what they are for; `under` gives all that comes within it one name."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self._name = ""
        self._arrays: dict[int, Any] = {}  # by identity, which is theirs for as long as they are kept

    def add(self, what: str, n_bytes: int) -> None:
        """Write down some bytes."""
        self.bytes[self._name or what] += n_bytes

    def add_array(self, x: Any, what: str, unit: int = 1) -> Any:
        """Write an array of the backend down, in whole units of bytes, and return it."""
        self.add(what, -(-x.size * x.itemsize // unit) * unit)
        self._arrays[id(x)] = x
        return x

    def has(self, x: Any) -> bool:
        """Tell whether an array is written down already: to bring it to the backend takes nothing."""
        return id(x) in self._arrays

    @contextmanager
    def under(self, name: str) -> Iterator[None]:
        """Write all that comes within the block down under this name."""
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._name = before


def hollow(shape: Sequence[int], dtype: Any) -> Any:
    """Return an array of any shape all of whose elements are one number; raise ConfigurationError for one too large."""
    if prod(shape) * np.dtype(dtype).itemsize > MOST_BYTES:
        raise ConfigurationError(
            f"an array of {' x '.join(map(str, shape))} values came, expected one that some machine has room for; take "
            "smaller numbers"
        )
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), tuple(shape), (0,) * len(shape))


def is_hollow(x: Any) -> bool:
    """Tell whether an array comes from `hollow`."""
    return isinstance(x, np.ndarray) and x.size > 1 and not any(x.strides)


def hollow_backend(name: str, dtype: Any, ledger: Ledger, scratch: bool = True) -> Backend:
    """Return the hollow counterpart of a backend by its name.

    scratch   whether that of a step on numpy counts, whose building is traced for it: a second for a hundred different
              models. That of numba never does: it depends on how its loops are divided, and is little
    """
    if name == "cuda":
        return HollowCuda(check_dtype(dtype), ledger)
    if name not in ("numpy", "numba"):
        raise unknown_name("backend", name, ("numpy", "numba", "cuda"))
    return HollowNumpy(check_dtype(dtype), ledger, name, scratch and name == "numpy")


class HollowNumpy(NumpyBackend):
    """What NumPy takes. The scratch of a step is what it really allocates for that, measured while a step is built."""

    def __init__(self, dtype: Any, ledger: Ledger, name: str, scratch: bool) -> None:
        super().__init__(dtype)
        self.name, self._ledger, self._scratch = name, ledger, scratch

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        return self._ledger.add_array(hollow(shape, self.dtype if dtype is None else dtype), what)

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        out = x if is_hollow(x) else super().asarray(x, dtype, what)
        return out if self._ledger.has(out) else self._ledger.add_array(out, what)

    def copy(self, src: Array, out: Array) -> None:
        pass

    def fill(self, out: Array, value: float) -> None:
        pass

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        if self._scratch:
            with arrays_counted(self._ledger):
                kept = super().capture(step)
            del kept
        return lambda: None


@contextmanager
def arrays_counted(ledger: Ledger) -> Iterator[None]:
    """Write down the memory that NumPy's arrays take within the block, as far as it is kept."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        before = array_bytes()
        yield
        ledger.add(SCRATCH, array_bytes() - before)
    finally:
        if not was_tracing:
            tracemalloc.stop()


def array_bytes() -> int:
    """Return the bytes that NumPy's arrays hold at present, of those that are traced."""
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, NUMPYS)]).traces
    return sum(trace.size for trace in traces)


class HollowCuda(CudaBackend):
    """What a CUDA device has to hold, whether there is one or not."""

    def __init__(self, dtype: Any, ledger: Ledger) -> None:
        self.dtype, self.precision, self.device = dtype, dtype.name, "cuda"
        self._ledger, self._arena, self._gemm = ledger, HollowArena(ledger), NoProducts()  # type: ignore[assignment]

    def empty(self, shape: Sequence[int], dtype: Any = None, what: str = "an array") -> Array:
        return self._arena.empty(shape, self.dtype if dtype is None else dtype, what)

    def asarray(self, x: Any, dtype: Any = None, what: str = "an array") -> Array:
        if self._ledger.has(x):
            return x
        shape, given = np.shape(x), np.asarray(x).dtype if dtype is None else dtype
        return self._arena.empty(shape, given, what)

    def copy(self, src: Array, out: Array) -> None:
        pass

    def fill(self, out: Array, value: float) -> None:
        pass

    def add(self, src: Array, out: Array) -> None:
        pass

    def bring_numbers(self, numbers: StepNumbers) -> None:
        hyper = np.stack([numbers.hyper[name] for name in numbers.given])
        host = {"hyper": hyper, "factors": np.array(numbers.factors, np.float64), "skip": numbers.skip}
        numbers.copies = {name: (self.asarray(x), x) for name, x in host.items()}

    def gather_batch(
        self, source: BatchSource, clock: Array, batch: Batch, tally: Tally, numbers: StepNumbers | None
    ) -> None:
        pass

    def capture(self, step: Callable[[], None], times: int = 1) -> Callable[[], None]:
        return step  # a device takes its scratch when a step runs for the first time

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _launch(self, *positional: Any, **arguments: Any) -> None:
        pass

    def _note(self, *arrays: Any) -> None:
        pass


class HollowArena(Arena):
    """Writes down what would be allocated."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._scratch, self.recording = ledger, {}, None

    def empty(self, shape: Sequence[int], dtype: Any, what: str) -> Any:
        return self._ledger.add_array(hollow(shape, dtype), what, CUDA_UNIT)


class NoProducts:
    """The products of a CudaBackend, which take no memory beyond the workspace of cuBLAS."""

    def forward(self, *arrays: Any) -> None:
        """Do nothing."""

    weight_gradient = backward = forward
