"""The words that a formula may use: one row a word, with its NumPy, CUDA, Numba and ONNX spelling and its derivative.

On arrays and numbers a word computes; on Terms it records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.formulas.term import Term

# partials(arguments, result) -> dresult/dargument for each argument; None stands for zero everywhere
Partials = Callable[[tuple[Any, ...], Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Word:
    """One word of the vocabulary.

    numpy      the function that computes it on arrays
    cuda       the C++ expression, {0} {1} {2} standing for the arguments
    partials   the derivative with respect to each argument
    onnx       the ONNX operators, the first on the arguments and each further one on what the one before gives; or the
               word in other words, where ONNX has none
    numba      the Python expression that Numba compiles; "": the word is a function of that name
    ulp        how far the C++ library may lie from NumPy, in units in the last place
    """

    name: str
    numpy: Callable[..., Any]
    cuda: str
    partials: Partials
    onnx: str | Callable[..., Any]
    numba: str = ""
    ulp: int = 4


def no_partials(x: tuple[Any, ...], y: Any) -> tuple[Any, ...]:
    """Return no derivative at all: comparisons are constant but for jumps."""
    return (None,) * len(x)


WORDS: dict[str, Word] = {
    word.name: word
    for word in (
        Word("add", np.add, "{0} + {1}", lambda x, y: (1, 1), "Add", "{0} + {1}"),
        Word("subtract", np.subtract, "{0} - {1}", lambda x, y: (1, -1), "Sub", "{0} - {1}"),
        Word("multiply", np.multiply, "{0} * {1}", lambda x, y: (x[1], x[0]), "Mul", "{0} * {1}"),
        Word("divide", np.divide, "{0} / {1}", lambda x, y: (1 / x[1], -y / x[1]), "Div", "{0} / {1}"),
        Word("negative", np.negative, "-{0}", lambda x, y: (-1,), "Neg", "-{0}"),
        Word(
            "power",
            np.power,
            "pow({0}, {1})",
            lambda x, y: (x[1] * power(x[0], x[1] - 1), log(x[0]) * y),
            "Pow",
            "{0} ** {1}",
        ),
        # at 0 the derivative from the right, as a formula takes it that says where(z < 0, ..., ...)
        Word("absolute", np.absolute, "fabs({0})", lambda x, y: (where(x[0] < 0, -1, 1),), "Abs", "abs({0})"),
        Word(
            "sign",  # keeps NaN, as NumPy's does
            np.sign,
            "({0} > real(0) ? real(1) : ({0} < real(0) ? real(-1) : {0}))",
            no_partials,
            "Sign",
            "(real(1) if {0} > real(0) else (real(-1) if {0} < real(0) else {0}))",
        ),
        Word("exp", np.exp, "exp({0})", lambda x, y: (y,), "Exp"),
        Word("expm1", np.expm1, "expm1({0})", lambda x, y: (y + 1,), lambda x: expm1_by_tanh(x)),
        Word("log", np.log, "log({0})", lambda x, y: (1 / x[0],), "Log"),
        Word("log1p", np.log1p, "log1p({0})", lambda x, y: (1 / (1 + x[0]),), lambda x: log1p_by_log(x)),
        Word("sqrt", np.sqrt, "sqrt({0})", lambda x, y: (0.5 / y,), "Sqrt"),
        Word("sin", np.sin, "sin({0})", lambda x, y: (cos(x[0]),), "Sin"),
        Word("cos", np.cos, "cos({0})", lambda x, y: (-sin(x[0]),), "Cos"),
        Word("tanh", np.tanh, "tanh({0})", lambda x, y: (1 - y * y,), "Tanh"),
        Word("less", np.less, "{0} < {1}", no_partials, "Less", "{0} < {1}"),
        Word("less_equal", np.less_equal, "{0} <= {1}", no_partials, "LessOrEqual", "{0} <= {1}"),
        Word("greater", np.greater, "{0} > {1}", no_partials, "Greater", "{0} > {1}"),
        Word("greater_equal", np.greater_equal, "{0} >= {1}", no_partials, "GreaterOrEqual", "{0} >= {1}"),
        Word("equal", np.equal, "{0} == {1}", no_partials, "Equal", "{0} == {1}"),
        Word("not_equal", np.not_equal, "{0} != {1}", no_partials, "Equal Not", "{0} != {1}"),
        Word(
            "where",
            np.where,
            "({0} ? {1} : {2})",
            lambda x, y: (None, where(x[0], 1, 0), where(x[0], 0, 1)),
            "Where",
            "({1} if {0} else {2})",
        ),
    )
}


def speak(word: str, *arguments: Any) -> Any:
    """Record the word if an argument is a Term, else compute it."""
    for argument in arguments:
        if isinstance(argument, Term):
            return argument.recorder.record(word, *arguments)
    return WORDS[word].numpy(*arguments)


def exp(x: Any) -> Any:
    """e to the x."""
    return speak("exp", x)


def expm1(x: Any) -> Any:
    """e to the x, less 1, exact for small x."""
    return speak("expm1", x)


def log(x: Any) -> Any:
    """Natural logarithm of x."""
    return speak("log", x)


def log1p(x: Any) -> Any:
    """Natural logarithm of 1 + x, exact for small x."""
    return speak("log1p", x)


def sqrt(x: Any) -> Any:
    """Square root of x."""
    return speak("sqrt", x)


def sin(x: Any) -> Any:
    """Sine of x."""
    return speak("sin", x)


def cos(x: Any) -> Any:
    """Cosine of x."""
    return speak("cos", x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent of x."""
    return speak("tanh", x)


def power(x: Any, y: Any) -> Any:
    """The y-th power of x."""
    return speak("power", x, y)


def absolute(x: Any) -> Any:
    """|x|."""
    return speak("absolute", x)


def sign(x: Any) -> Any:
    """-1, 0 or 1, and NaN for NaN."""
    return speak("sign", x)


def where(condition: Any, x: Any, y: Any) -> Any:
    """Choose x where the condition holds, else y; both are computed, so both must be harmless everywhere."""
    return speak("where", condition, x, y)


def at_least(x: Any, bound: Any) -> Any:
    """The larger of x and bound; NaN stays NaN, which a device's max would drop."""
    return where(x < bound, bound, x)


def at_most(x: Any, bound: Any) -> Any:
    """The smaller of x and bound; NaN stays NaN."""
    return where(x > bound, bound, x)


def expm1_by_tanh(x: Any) -> Any:
    """Return expm1 in other words: 2 t / (1 - t) with t = tanh(x / 2) where x is small, exp(x) - 1 elsewhere."""
    t = tanh(0.5 * x)
    return where(absolute(x) < 1, 2 * t / (1 - t), exp(x) - 1)


def log1p_by_log(x: Any) -> Any:
    """Return log1p in other words: what 1 + x loses of a small x is made good by a factor (Kahan)."""
    u = 1 + x
    kept = where(u == 1, 1, u - 1)
    return where(u == 1, x, where(absolute(x) < 1, log(u) * (x / kept), log(u)))
