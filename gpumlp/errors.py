"""The errors that gpumlp raises: each says what came, what was expected and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any


class GpumlpError(Exception):
    """Any error that gpumlp raises on purpose."""


class ShapeError(GpumlpError, ValueError):
    """An array has the wrong shape, kind or layout."""


class FormulaError(GpumlpError, ValueError):
    """A formula cannot be recorded or printed, or two formulas do not go together."""


class ConfigurationError(GpumlpError, ValueError):
    """An argument has a value that means nothing, or two arguments contradict each other."""


class UnknownName(ConfigurationError):
    """A name is not in the registry that it was looked up in."""


class BackendUnavailable(GpumlpError, RuntimeError):
    """A backend was asked for that cannot work here."""


class DataError(GpumlpError, ValueError):
    """Data cannot be read, or hold values that cannot be trained on."""


class ModelFileError(GpumlpError, ValueError):
    """A file is not a model that this version can load."""


class TensorsFileError(GpumlpError, ValueError):
    """A file of tensors is damaged, or is none."""


class CheckpointError(GpumlpError, ValueError):
    """A checkpoint is damaged, or belongs to another training than the one that is to go on."""


class KernelCompileError(GpumlpError, RuntimeError):
    """A kernel does not compile: a defect of gpumlp, or of a formula of your own; the compiler's words say where."""


class OutOfMemory(GpumlpError, MemoryError):
    """There is no room for an array."""


class DivergenceError(GpumlpError, ArithmeticError):
    """Training reached a cost or weights that are not finite.

    model, epoch, step   the model's id, the epoch and the first bad step, counted from 1 since the last reset
    """

    def __init__(self, message: str, model: int, epoch: int, step: int) -> None:
        super().__init__(message)
        self.model, self.epoch, self.step = model, epoch, step

    def __reduce__(self) -> tuple[type[DivergenceError], tuple[str, int, int, int]]:
        return type(self), (str(self), self.model, self.epoch, self.step)


SMALLER = "take a smaller batch_size, fewer models or smaller layers"


def out_of_memory(what: str, shape: Sequence[int], dtype: Any, room: str, advice: str = SMALLER) -> OutOfMemory:
    """Build the error for an array that does not fit; `room` says how much there is."""
    n_bytes = prod(shape) * dtype.itemsize
    axes = " x ".join(str(n) for n in shape)
    return OutOfMemory(
        f"no room for {what}: {readable_bytes(n_bytes)} needed ({axes} values of {dtype.name}), {room}; {advice}"
    )


def readable_bytes(n: float) -> str:
    """Return a number of bytes as people write it: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """Build the error for a name that a registry does not hold, with the nearest that it does."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    told = printable(", ".join(names))
    hint = f"did you mean {near[0]!r}?" if near else f"known are {told}" if names else "none is known yet"
    return UnknownName(f"unknown {kind} {name!r}; {hint}")


def printable(text: str) -> str:
    """Spell a text in one line that does not command a terminal, which names in a file may do."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
