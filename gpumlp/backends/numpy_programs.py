"""Programs for NumPy, one for each formula: what is read, what is written, and over what."""

from __future__ import annotations

from functools import cache
from typing import Any

from gpumlp.formulas.activations import Activation
from gpumlp.formulas.hidden_delta import dropout_recording, hidden_delta_recording
from gpumlp.formulas.output_delta import weighted_delta
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import NumpyProgram, numpy_program
from gpumlp.formulas.term import Recording, record
from gpumlp.formulas.update_rules import UpdateRule, rule_recording


@cache
def bias_program() -> NumpyProgram:
    """z + b."""
    return numpy_program(record(lambda z, b: z + b, "z", "b"), ("out",), {"out": "z"})


@cache
def activation_program(activation: Activation, keeps_z: bool) -> NumpyProgram:
    """z <- z + b, a = f(z)."""
    if keeps_z:
        both = record(lambda z, b: (z + b, activation.value(z + b)), "z", "b")
        return numpy_program(both, ("z_out", "a"), {"z_out": "z"})
    return numpy_program(record(lambda z, b: activation.value(z + b), "z", "b"), ("a",), {"a": "z"})


@cache
def output_program(activation: Activation, term: Recording) -> NumpyProgram:
    """z <- z + b, a = f(z), and what each unit adds to the cost."""

    def formula(z: Any, b: Any, y: Any) -> tuple[Any, Any, Any]:
        z = z + b
        a = activation.value(z)
        return z, a, play(term, z, a, y)

    return numpy_program(record(formula, "z", "b", "y"), ("z_out", "a", "terms"), {"z_out": "z"})


@cache
def term_program(term: Recording) -> NumpyProgram:
    """What each unit adds to the cost."""
    return numpy_program(term, ("terms",), {})


@cache
def outer_program(outer: Recording) -> NumpyProgram:
    """The cost of an example from the sum of its terms."""
    return numpy_program(outer, ("c",), {"c": "s"})


@cache
def delta_program(delta: Recording) -> NumpyProgram:
    """row_weight dC/dz."""
    return numpy_program(weighted_delta(delta), ("delta",), {})


@cache
def hidden_delta_program(activation: Activation, dropout: bool) -> NumpyProgram:
    """delta <- delta f'(z)."""
    return numpy_program(hidden_delta_recording(activation, dropout), ("delta",), {"delta": "d"})


@cache
def dropout_program() -> NumpyProgram:
    """a <- a mask / keep."""
    return numpy_program(dropout_recording(), ("out",), {"out": "a"})


def rule_program(rule: UpdateRule, names: tuple[str, ...], extras: frozenset[str]) -> NumpyProgram:
    """One step of all weights."""
    recording = rule_recording(rule, names, extras)
    outputs = ("w_out", *(f"{name}_out" for name in rule.state))
    over = {"w_out": "w", **{f"{name}_out": name for name in rule.state}}
    return numpy_program(recording, outputs, over, scalars=names)
