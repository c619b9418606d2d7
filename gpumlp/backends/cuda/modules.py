"""Compiling modules, and launching kernels with arguments that are checked against their signature.

CuPy passes what it is given: a Python float as a double, an array as its pointer, whatever its dtype and strides. Here
each argument goes by name and becomes what the kernel's text says, or is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.backends.cuda.device import Device
from gpumlp.backends.cuda.sources import C_TYPES, Source
from gpumlp.errors import KernelCompileError

OPTIONS = ("-std=c++17",)
SCALARS = {
    "long long": np.int64,
    "int": np.int32,
    "unsigned": np.uint32,
    "double": np.float64,
}
# what kernels read or write 16 bytes at a time
VECTORS = frozenset(("z", "u", "a", "a0", "y", "delta", "grad", "theta", "state", "x"))
SIGNATURE = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)')


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its name, the dtype of the number or of what the pointer leads to."""

    name: str
    dtype: Any
    is_pointer: bool


def parse_signatures(source: Source) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every kernel in a source."""
    text = re.sub(r"//[^\n]*", "", source.text)
    return {
        name: tuple(_parse(p, source) for p in parameters.split(",")) for name, parameters in SIGNATURE.findall(text)
    }


def _parse(text: str, source: Source) -> Parameter:
    words = text.replace("*", " * ").split()
    name = words[-1]
    kind = " ".join(w for w in words[:-1] if w not in ("const", "*", "__restrict__"))
    named = {"real": source.real, **dict(source.types)}
    stored: dict[str, Any] = {spelling: dtype for dtype, spelling in C_TYPES.items() if dtype != "bool"}
    dtypes = {**stored, **SCALARS, **named}
    return Parameter(name, as_stored(dtypes[kind]), "*" in words)


def as_stored(dtype: Any) -> Any:
    """Return the dtype of the bytes: a bool is one of 0 or 1."""
    found: Any = np.dtype(dtype)
    return np.dtype(np.uint8) if found == np.bool_ else found


class Kernel:
    """A compiled kernel with its signature."""

    def __init__(self, name: str, parameters: tuple[Parameter, ...], function: Any, cupy: Any) -> None:
        self.name, self.parameters, self._function, self._cupy = name, parameters, function, cupy

    def __call__(self, blocks: int, threads: int, arguments: Mapping[str, Any]) -> None:
        """Launch on the current stream.

        arguments   by name; for an array x whose rows are not neighbours the kernel has a parameter x_stride, which is
                    filled in here; None is a null pointer
        Raises      TypeError if names, dtypes or layouts are not the kernel's: a defect of gpumlp
        """
        given = dict(arguments)
        for parameter in self.parameters:
            base = parameter.name.removesuffix("_stride")
            if base != parameter.name and parameter.name not in given and given.get(base) is not None:
                given[parameter.name] = row_stride(given[base])
        strided = {p.name.removesuffix("_stride") for p in self.parameters if p.name.endswith("_stride")}
        if set(given) != {p.name for p in self.parameters}:
            wrong = set(given) ^ {p.name for p in self.parameters}
            raise TypeError(f"kernel {self.name}: missing or unknown arguments {sorted(wrong)}")
        typed = [self._typed(p, given[p.name], p.name in strided) for p in self.parameters]
        self._function((blocks, 1, 1), (threads, 1, 1), typed)

    def _typed(self, parameter: Parameter, value: Any, is_strided: bool) -> Any:
        if parameter.is_pointer:
            return self._pointer(parameter, value, is_strided)
        if parameter.dtype.kind == "f":
            if not isinstance(value, Real):
                raise self._refusal(parameter, value, "a number")
            return parameter.dtype.type(value)
        try:
            number = index(value)
        except TypeError:
            raise self._refusal(parameter, value, "a whole number") from None
        limits = np.iinfo(parameter.dtype)
        if not limits.min <= number <= limits.max:
            raise TypeError(f"kernel {self.name}: {parameter.name}={number} does not fit {parameter.dtype}")
        return parameter.dtype.type(number)

    def _pointer(self, parameter: Parameter, value: Any, is_strided: bool) -> Any:
        if value is None:
            return np.uintp(0)
        wanted = parameter.dtype
        if not isinstance(value, self._cupy.ndarray):
            raise self._refusal(parameter, value, "an array on the device")
        if as_stored(value.dtype) != wanted:
            raise TypeError(f"kernel {self.name}: {parameter.name} has dtype {value.dtype}, expected {wanted}")
        if not (rows_are_dense(value) if is_strided else value.flags.c_contiguous):
            raise TypeError(f"kernel {self.name}: {parameter.name} has strides {value.strides}, which it does not take")
        if parameter.name in VECTORS and value.data.ptr % 16:
            raise TypeError(f"kernel {self.name}: {parameter.name} does not begin at a multiple of 16 bytes")
        return value

    def _refusal(self, parameter: Parameter, value: Any, expected: str) -> TypeError:
        return TypeError(f"kernel {self.name}: {parameter.name} is {type(value).__name__}, expected {expected}")


def row_stride(x: Any) -> int:
    """Return how many elements lie between the rows of the first axis; 0 if it has one row that serves all models."""
    if x.shape[0] == 1:
        return 0
    return int(x.strides[0]) // int(x.itemsize)


def rows_are_dense(x: Any) -> bool:
    """Tell whether the elements of each row of the first axis lie side by side."""
    return bool(x[0].flags.c_contiguous) if len(x) else True


class Modules:
    """The modules of a device, compiled when first asked for."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kernels: dict[str, dict[str, Kernel]] = {}  # text -> name -> kernel

    def kernel(self, source: Source, name: str) -> Kernel:
        """Return a kernel of a module; raise KernelCompileError if it does not compile."""
        if source.text not in self._kernels:
            self._kernels[source.text] = self._compile(source)
        return self._kernels[source.text][name]

    def _compile(self, source: Source) -> dict[str, Kernel]:
        dump(source)
        cupy = self._device.cupy
        module = cupy.RawModule(code=source.text, options=OPTIONS)
        try:
            signatures = parse_signatures(source)
            return {
                name: Kernel(name, parameters, module.get_function(name), cupy)
                for name, parameters in signatures.items()
            }
        except cupy.cuda.compiler.CompileException as error:
            raise KernelCompileError(
                f"kernel module {source.name!r} does not compile:\n{error}\nIf a formula of your own is in it, look at "
                "that; else report it with the text that GPUMLP_DUMP_SOURCE=FOLDER writes"
            ) from error


def dump(source: Source) -> None:
    """Write a source into the folder that GPUMLP_DUMP_SOURCE names, if it does."""
    folder = os.environ.get("GPUMLP_DUMP_SOURCE")
    if folder:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / (re.sub(r"\W+", "_", source.name) + ".cu")).write_text(source.text, encoding="utf-8")
