"""tune: which batch size and which backend train a network fastest on given data, measured.

Candidates are batch sizes in powers of two from 16, below which a step is mostly overhead, to 8192 or the rows of the
data, on each backend that works here. Larger batches make fewer updates of an epoch, so a larger one is only picked if
it is more than 10 % faster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from gpumlp.backends.protocol import BatchSource
from gpumlp.backends.select import BACKENDS, describe, device_number, why_unavailable
from gpumlp.errors import BackendUnavailable, ConfigurationError, DataError, OutOfMemory, unknown_name
from gpumlp.network.network import Network
from gpumlp.network.targets import check_inputs
from gpumlp.shapes import expect, is_on_device
from gpumlp.training.choice import Choice, choose
from gpumlp.training.data_set import TrainingSet, check_training_set
from gpumlp.training.steps import Steps
from gpumlp.training.trainer import Trainer
from gpumlp.training.trials import Trial, measure

log = logging.getLogger("gpumlp")

SMALLEST, LARGEST = 16, 8192
FASTEST_FIRST = ("cuda", "numba", "numpy")  # as far as one can guess: the fast one is looked at while there is time


def tune(
    net: Network,
    X: Any,
    Y: Any,
    seconds: float = 3.0,
    batch_sizes: Iterable[int] | None = None,
    backends: str | Iterable[str] | None = None,
    sample_weight: Any = None,
    **training: Any,
) -> Choice:
    """Return the batch size and the backend that train `net` fastest on these data, as measured here and now.

    Steps of training are timed on copies of the network, which learn at rate 0; the network itself and all that is
    random stay as they are. The smallest batch size within 10 % of the highest throughput is chosen. What it is, is
    logged in one line; `Choice.table()` shows all that was measured.

    X, Y, sample_weight   as of Trainer.fit; backends that cannot read arrays on a device are left out for such
    seconds               for all candidates together, beside what compiling takes; slow networks want more
    batch_sizes           None: powers of two from 16 to 8192, or to the rows of X
    backends              None: all that work here, whatever the network's own is; an emulated device is not timed
    training              of Trainer, what the time of a step may depend on: optimizer, clip_norm, shuffle and so on
    Raises                ConfigurationError, BackendUnavailable for what is asked for and cannot be timed; OutOfMemory
                          if there is no room for any candidate; ShapeError, DataError
    """
    if not (isinstance(seconds, int | float) and np.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(f"seconds={seconds!r}: expected a number above 0")
    if "batch_size" in training:
        raise ConfigurationError("batch_size is what tune looks for; name the sizes to compare in batch_sizes")
    sizes = _sizes(batch_sizes, _count_rows(X, net))
    arrays = [x for x in (X, Y, sample_weight) if x is not None]
    names, notes = _names(net, backends, on_device=any(is_on_device(x) for x in arrays))
    copies = _copies(net, names, notes, asked=backends is not None)
    places = [_Place(twin, (X, Y, sample_weight), training) for twin in copies]
    trials: list[Trial] = [_StepTrial(place, size) for place in places for size in sizes]
    choice = choose(measure(trials, seconds), notes)
    log.info("%s", choice)
    return choice


def backends_for(net: Network, stays: bool) -> tuple[str, ...] | None:
    """Return the backends that a trainer of this network may choose from, as an argument of `tune`.

    stays   whether its data hold it where it is
    """
    if stays:
        return (net.backend.name,)
    if len(net.alternatives) == len(BACKENDS):
        return None
    several = len(net.alternatives) > 1
    return tuple(name for name in net.alternatives if not (several and why_unavailable(name)))


# ---------------------------------------------------------------- candidates


def _count_rows(X: Any, net: Network) -> int:
    """Return the number of rows, of which there must be one; those on a device are looked at once they are brought."""
    if is_on_device(X):
        expect(X, "X", ("n_samples", net.sizes[0]))
        if len(X) == 0:
            raise DataError("X has no rows; give at least one example")
        return len(X)
    return len(check_inputs(X, net.architecture))


def _sizes(given: Iterable[int] | None, n_rows: int) -> list[int]:
    """Return the batch sizes to compare, each once, the smallest first."""
    if given is None:
        sizes = [2**i for i in range(14) if SMALLEST <= 2**i <= min(LARGEST, n_rows)]
        return sizes or [n_rows]
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not listed or not all(isinstance(n, int | np.integer) and 1 <= n <= n_rows for n in listed):
        raise ConfigurationError(f"batch_sizes={given!r}: expected numbers from 1 to {n_rows}, the rows of X")
    return sorted({int(n) for n in listed})


def _names(net: Network, given: str | Iterable[str] | None, on_device: bool) -> tuple[list[str], list[str]]:
    """Return the backends to compare, and notes on those left out; raise if one that is asked for cannot be timed."""
    if given is not None:
        return _asked([given] if isinstance(given, str) else list(dict.fromkeys(given)), net), []
    names, notes = [], []
    for name in FASTEST_FIRST:
        reason = _why_not_timed(net, name)
        if not reason and on_device and name != "cuda":
            reason = "does not read arrays that lie on a device"
        if reason:
            notes.append(f"{name} left out: it {reason}")
        else:
            names.append(name)
    return names, notes


def _asked(names: list[str], net: Network) -> list[str]:
    """Return the backends that are asked for, in the order in which they are looked at."""
    if not names:
        raise ConfigurationError(f"backends={names}: expected some of {', '.join(BACKENDS)}")
    for name in names:
        if name not in BACKENDS:
            raise unknown_name("backend", name, BACKENDS)
        reason = _why_not_timed(net, name)
        if reason:
            raise BackendUnavailable(f'backend "{name}" {reason}; leave it away')
    return sorted(names, key=FASTEST_FIRST.index)


def _why_not_timed(net: Network, name: str) -> str:
    """Return why a backend cannot be timed here, as the end of a sentence; "" if it can."""
    reason = why_unavailable(name, device_number(_device_of(net, name)))
    if reason or name != "cuda":
        return reason
    emulated = ", Emulated " in describe(name)  # one of the tests, which says so in its name
    return "computes on an emulated device, whose times mean nothing" if emulated else ""


def _device_of(net: Network, name: str) -> str | None:
    """Return the device of a copy: the network's own if the backend is."""
    return net.backend.device if name == net.backend.name == "cuda" else None


def _copies(net: Network, names: Sequence[str], notes: list[str], asked: bool) -> list[Network]:
    """Return a copy of the network on each backend, with a note on one that cannot hold it, if it is not asked for."""
    found = []
    for name in names:
        twin = _copy(net, name, notes if not asked else None)
        if twin is not None:
            found.append(twin)
    if not found:
        raise BackendUnavailable(f"no backend can be timed: {'; '.join(notes)}")
    return found


def _copy(net: Network, name: str, notes: list[str] | None) -> Network | None:
    """Return a network with the same parameters on another backend; nothing is drawn for it."""
    twin = copy(net)
    try:
        twin.move_to(name, _device_of(net, name))
    except (BackendUnavailable, ConfigurationError, OutOfMemory) as error:
        if notes is None:
            raise
        notes.append(f"{name} left out: {error}")
        return None
    return twin


# ---------------------------------------------------------------- trials


class _Place:
    """A copy of the network on one backend with the data, for all batch sizes there."""

    def __init__(self, net: Network, arrays: Sequence[Any], training: dict[str, Any]) -> None:
        self.net, self._arrays, self._training = net, arrays, training

    @cached_property
    def trainer(self) -> Trainer:
        """What builds the steps; at rate 0 nothing diverges, however long it is measured."""
        return Trainer(self.net, batch_size=1, **(self._training | {"learning_rate": 0.0, "micro_batch": None}))

    @cached_property
    def data(self) -> TrainingSet:
        """The data, checked."""
        return check_training_set(self.net, *self._arrays)

    @cached_property
    def source(self) -> BatchSource:
        """The data on the backend: they are brought once."""
        with self.net.backend.session():
            return self.data.source(self.trainer, 1)


class _StepTrial:
    """Steps of one batch size in one place."""

    def __init__(self, place: _Place, batch_size: int) -> None:
        self._place, self.backend, self.batch_size = place, place.net.backend.name, batch_size
        self._steps: Steps | None = None
        self._done = self._epochs = 0  # steps of the present epoch, epochs before
        self.launch, self.examples_per_step = 1, 0.0

    def open(self) -> None:
        place = self._place
        backend, trainer = place.net.backend, place.trainer
        source = replace(place.source, batch=self.batch_size)
        clock = backend.empty((3,), np.int64)
        backend.fill(clock, 0)
        numbers = trainer.build_numbers()
        self._steps = Steps(trainer, source, place.data.targets, clock, numbers)
        self.launch = min(trainer.steps_per_launch, source.n_steps)
        self.examples_per_step = source.n_rows / source.n_steps
        self._steps.begin_epoch()

    def run(self, n_steps: int) -> None:
        steps = self._steps
        assert steps is not None
        left = n_steps
        with steps.backend.session():
            while left:
                if self._done == steps.source.n_steps:
                    self._done, self._epochs = 0, self._epochs + 1
                    steps.end_epoch(self._epochs)
                    steps.begin_epoch()
                done = steps.step(min(left, steps.source.n_steps - self._done))
                self._done, left = self._done + done, left - done
            steps.backend.synchronize()

    def close(self) -> None:
        self._steps = None
