"""From formulas and kernels/*.cu to the text of a module.

A source is pasted from: the type `real`, the rows of the tables, the formulas as device functions, common.cuh, and the
kernel's own file. `#line` marks let a compiler's message name the real file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.backends.protocol import (
    APART,
    CATEGORIES,
    COLUMN,
    COST,
    EPOCH,
    FIRST,
    FIRST_BAD,
    HITS,
    POSITION,
    STEP,
    WEIGHT,
)
from gpumlp.errors import BackendUnavailable, FormulaError
from gpumlp.formulas.activations import SOFTMAX, Activation, value_recording
from gpumlp.formulas.hidden_delta import dropout_recording, hidden_delta_recording
from gpumlp.formulas.normalisation import (
    delta_of_batch_recording,
    delta_of_rows_recording,
    gamma_gradient_recording,
    running_recording,
    scaled_recording,
)
from gpumlp.formulas.output_delta import OutputDelta, weighted_delta
from gpumlp.formulas.printers import cuda_choice, cuda_function
from gpumlp.formulas.term import record
from gpumlp.formulas.update_rules import (
    UpdateRule,
    finished_names,
    given_names,
    per_step_recording,
    rule_recording,
)

C_TYPES = {
    "bool": "unsigned char",
    "uint8": "unsigned char",
    "int8": "signed char",
    "uint16": "unsigned short",
    "int16": "short",
    "uint32": "unsigned int",
    "int32": "int",
    "uint64": "unsigned long long",
    "int64": "long long",
    "float32": "float",
    "float64": "double",
}
TABLE_ROWS = {
    "STEP": STEP,
    "EPOCH": EPOCH,
    "POSITION": POSITION,
    "COST": COST,
    "WEIGHT": WEIGHT,
    "HITS": HITS,
    "FIRST_BAD": FIRST_BAD,
}
LOOKUP_ROWS = {"COLUMN": COLUMN, "CATEGORIES": CATEGORIES, "FIRST": FIRST, "APART": APART}
HIT_KINDS = {"NO_HITS": 0, "BY_LARGEST": 1, "BY_THRESHOLD": 2}
CHUNKS_OF_GROUP = 32  # parts of a sum that one block adds: Chunks in common.cuh


@dataclass(frozen=True)
class Source:
    """The text of a module.

    name    kernel's file and what it is made for, such as "update adam float32"
    text    CUDA C++, complete
    real    name of the dtype that `real` stands for
    types   what else the text gives a type's name: "x_type" -> "uint8"
    """

    name: str
    text: str
    real: str
    types: tuple[tuple[str, str], ...] = ()


@lru_cache(maxsize=1)
def kernel_folder() -> Path:
    """Return where the .cu files are: in the installed package, or beside it in a clone."""
    package = Path(__file__).parents[2]
    places = (package / "_kernels", package.parent / "kernels")
    for place in places:
        if (place / "common.cuh").is_file():
            return place
    raise BackendUnavailable(
        f'misses its kernels, in {places[0]} and {places[1]}; install gpumlp anew: pip install "."'
    )


@lru_cache(maxsize=64)
def read_kernel(file: str) -> str:
    """Return the text of a kernel's file."""
    return (kernel_folder() / file).read_text(encoding="utf-8")


def head(real: str, defines: Sequence[tuple[str, int]] = (), types: Sequence[tuple[str, str]] = ()) -> str:
    """Return what every module begins with: the type `real`, the rows of the tables, and what NVRTC does not define."""
    lines = [f"using {name} = {C_TYPES[of]};" for name, of in (("real", real), *types)]
    numbers = {**TABLE_ROWS, **HIT_KINDS, "CHUNKS_OF_GROUP": CHUNKS_OF_GROUP, **dict(defines)}
    lines += [f"#define {name} {value}" for name, value in numbers.items()]
    lines += ["#ifndef INFINITY", "#define INFINITY (__int_as_float(0x7f800000))", "#endif"]
    lines += ["#ifndef NAN", "#define NAN (__int_as_float(0x7fffffff))", "#endif"]
    return "\n".join(lines) + "\n"


def paste(
    file: str,
    made_for: str,
    dtype: Any,
    functions: Sequence[str] = (),
    defines: Sequence[tuple[str, int]] = (),
    types: Sequence[tuple[str, str]] = (),
) -> Source:
    """Return the module of one kernel file, with what its text leaves open."""
    real = np.dtype(dtype).name
    parts = [
        head(real, defines, types),
        f'#line 1 "the formulas of {made_for}"\n' + "".join(functions),
        f'#line 1 "kernels/common.cuh"\n{read_kernel("common.cuh")}',
        f'#line 1 "kernels/{file}"\n{read_kernel(file)}',
    ]
    name = f"{Path(file).stem} {made_for} {real}".replace("  ", " ")
    return Source(name, "\n".join(parts), real, tuple(types))


# ---------------------------------------------------------------- one function for each file


@lru_cache(maxsize=512)
def bias_activation(
    kinds: tuple[Activation, ...], dtype: Any, keeps_z: bool, dropout: bool, mixed: bool = False, rates: bool = False
) -> Source:
    """Return the module of a layer's way forward.

    mixed   whether models differ in their widths, or in which of the kinds they have; else there is one kind
    rates   whether they differ in their dropout
    """
    functions = [cuda_choice([record(f.value, "z") for f in kinds], "activation_value"), *_dropping(dropout)]
    defines = [("KEEPS_Z", int(keeps_z)), *_mixing(dropout, mixed, rates)]
    made_for = _names(kinds, mixed) + " keeping z" * keeps_z + " dropout" * dropout + " rates" * rates
    return paste("bias_activation.cu", made_for, dtype, functions, defines)


def _mixing(dropout: bool, mixed: bool, rates: bool) -> list[tuple[str, int]]:
    return [("DROPOUT", int(dropout)), ("MIXED", int(mixed)), ("RATES", int(rates))]


def _names(kinds: tuple[Activation, ...], mixed: bool) -> str:
    """Return what a module of these kinds is called: by three of them at most, since files are named after it."""
    more = f" and {len(kinds) - 3} more" if len(kinds) > 3 else ""
    return "mixed " * mixed + " ".join(f.name for f in kinds[:3]) + more


def _dropping(dropout: bool) -> list[str]:
    return [cuda_function(dropout_recording(), "drop")] if dropout else []


def _activating(activation: Activation, dropout: bool) -> list[str]:
    """Return the functions of f and of dropout."""
    return [cuda_function(value_recording(activation), "activation_value"), *_dropping(dropout)]


@lru_cache(maxsize=512)
def normalise_rows(activation: Activation, dtype: Any, keeps_u: bool, dropout: bool, long_rows: bool = False) -> Source:
    """Return the module of the way forward of a layer that is normalised over units; long_rows as in output_delta."""
    functions = [cuda_function(scaled_recording(), "scaled"), *_activating(activation, dropout)]
    defines = [("KEEPS_U", int(keeps_u)), ("DROPOUT", int(dropout)), ("LONG_ROWS", int(long_rows))]
    made_for = activation.name + " keeping u" * keeps_u + " dropout" * dropout + " long rows" * long_rows
    return paste("normalise_rows.cu", made_for, dtype, functions, defines)


@lru_cache(maxsize=512)
def normalise_batch(activation: Activation, dtype: Any, keeps_u: bool, dropout: bool) -> Source:
    """Return the module of the way forward of a layer that is normalised over a batch."""
    functions = [cuda_function(scaled_recording(), "scaled"), *_activating(activation, dropout)]
    defines = [("KEEPS_U", int(keeps_u)), ("DROPOUT", int(dropout))]
    made_for = activation.name + " keeping u" * keeps_u + " dropout" * dropout
    return paste("normalise_batch.cu", made_for, dtype, functions, defines)


@lru_cache(maxsize=4)
def rows_delta(dtype: Any, long_rows: bool = False) -> Source:
    """Return the module of the way back of a layer that is normalised over units; long_rows as in output_delta."""
    functions = [
        cuda_function(gamma_gradient_recording(), "gamma_gradient"),
        cuda_function(delta_of_rows_recording(), "delta_of_row"),
    ]
    return paste("rows_delta.cu", "long rows" * long_rows, dtype, functions, [("LONG_ROWS", int(long_rows))])


@lru_cache(maxsize=2)
def batch_statistics(dtype: Any) -> Source:
    """Return the module of the statistics of a batch, and of the way back of a layer that is normalised with them."""
    functions = [
        cuda_function(gamma_gradient_recording(), "gamma_gradient"),
        cuda_function(delta_of_batch_recording(), "delta_of_batch"),
        cuda_function(running_recording(), "follow"),
    ]
    return paste("batch_statistics.cu", "", dtype, functions)


@lru_cache(maxsize=512)
def hidden_delta(
    kinds: tuple[Activation, ...], dtype: Any, dropout: bool, mixed: bool = False, rates: bool = False
) -> Source:
    """Return the module of a hidden layer's way back; kinds, mixed and rates as in bias_activation."""
    functions = [cuda_choice([hidden_delta_recording(f, dropout) for f in kinds], "carry_back")]
    made_for = _names(kinds, mixed) + " dropout" * dropout + " rates" * rates
    return paste("hidden_delta.cu", made_for, dtype, functions, _mixing(dropout, mixed, rates))


@lru_cache(maxsize=512)
def output_delta(formulas: OutputDelta, activation: Activation, dtype: Any, long_rows: bool = False) -> Source:
    """Return the module of the output layer with its cost; long_rows: a block shares a row, else lanes of a warp."""
    functions = [] if is_softmax(activation) else [cuda_function(value_recording(activation), "activation_value")]
    outer = formulas.outer or record(lambda s: s, "s")
    functions += [
        cuda_function(formulas.term, "cost_term"),
        cuda_function(outer, "cost_outer"),
        cuda_function(weighted_delta(formulas.delta), "output_delta_value"),
    ]
    made_for = f"{formulas.cost} {activation.name}" + " long rows" * long_rows
    defines = [("SOFTMAX", int(is_softmax(activation))), ("LONG_ROWS", int(long_rows))]
    return paste("output_delta.cu", made_for, dtype, functions, defines)


@lru_cache(maxsize=4)
def softmax(dtype: Any, long_rows: bool = False) -> Source:
    """Return the module of softmax alone; long_rows as in output_delta."""
    return paste("softmax.cu", "long rows" * long_rows, dtype, defines=[("LONG_ROWS", int(long_rows))])


def gather_batch(x_dtype: Any, y_dtype: Any, labels: bool, rule: UpdateRule | None, dtype: Any) -> Source:
    """Return the module that brings a batch, with the numbers of a step of `rule` unless it is None."""
    functions = []
    defines = [("LABELS", int(labels)), ("N_FINISHED", 0)]
    if rule is not None:
        given, finished = given_names(rule), finished_names(rule)
        outputs = tuple(f"{name}_out" for name in finished)
        functions.append(cuda_function(per_step_recording(rule), "rule_numbers", outputs, kind="double"))
        arguments = [f"h[{i}]" for i in range(len(given))] + [f"out[{i}]" for i in range(len(finished))]
        functions.append(
            adapter("void step_numbers(double t, const double* h, double* out)", "rule_numbers", "t", *arguments)
        )
        defines[1] = ("N_FINISHED", len(finished))
        defines += [("N_GIVEN", len(given)), *((name.upper(), given.index(name)) for name in ("eta", "l2", "l1"))]
    x_name, y_name = np.dtype(x_dtype).name, np.dtype(y_dtype).name
    made_for = f"{x_name} {'labels' if labels else 'targets'} {rule.name if rule else 'evaluation'}"
    return paste("gather_batch.cu", made_for, dtype, functions, defines, [("x_type", x_name), ("y_type", y_name)])


def update(rule: UpdateRule, extras: frozenset[str], dtype: Any) -> Source:
    """Return the module of an update rule with what acts besides it: clipping, penalties."""
    names = finished_names(rule)
    states = tuple(f"{name}_out" for name in rule.state)
    functions = [cuda_function(rule_recording(rule, names, extras), "rule_step", ("w_out", *states))]
    old, new = [f"s[{i}]" for i in range(len(states))], [f"s{i}" for i in range(len(states))]
    numbers = [f"h[{i}]" for i in range(len(names))]
    functions.append(
        "__device__ __forceinline__ void update_weight(real& w, real g, real* s, const real* h) {\n"
        f"    real {', '.join(['w_out', *new])};\n"
        f"    rule_step({', '.join(['w', 'g', *old, *numbers, 'w_out', *new])});\n"
        + "".join(f"    {a} = {b};\n" for a, b in zip(["w", *old], ["w_out", *new], strict=True))
        + "}\n"
    )
    made_for = " ".join([rule.name, *sorted(extras)])
    return paste("update.cu", made_for, dtype, functions, [("N_STATES", len(rule.state)), ("N_FINISHED", len(names))])


@lru_cache(maxsize=2)
def embed(dtype: Any) -> Source:
    """Return the module of embeddings, both ways."""
    return paste("embed.cu", "", dtype, defines=list(LOOKUP_ROWS.items()))


@lru_cache(maxsize=2)
def gradient_norm(dtype: Any) -> Source:
    """Return the module of clipping."""
    return paste("gradient_norm.cu", "", dtype)


@lru_cache(maxsize=2)
def finite_models(dtype: Any) -> Source:
    """Return the module that finds models that are not finite."""
    return paste("finite_models.cu", "", dtype)


def adapter(signature: str, function: str, *arguments: str) -> str:
    """Return a device function that calls another one with these arguments."""
    return f"__device__ __forceinline__ {signature} {{\n    {function}({', '.join(arguments)});\n}}\n"


def is_softmax(activation: Activation) -> bool:
    """Tell whether an activation is the one row-wise activation that has kernels; raise FormulaError for another."""
    if activation == SOFTMAX:
        return True
    if activation.row_wise:
        raise FormulaError(
            f"activation {activation.name} couples the units of a row, and softmax is the only such activation with a "
            'kernel; use backend="numpy"'
        )
    return False
