"""exp, log and their kin as polynomials without a branch, so that LLVM computes several of them at once in a loop.

Numba's own call libm for each value. Here the argument is reduced by bits - x = n ln 2 + r, or x = 2^k m - and what is
left is a short series; the errors stay below 4 units in the last place of what NumPy gives. NaN stays NaN, infinities
and numbers below the normal ones come out as NumPy's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Function = Callable[..., Any]

FLAGS = {"error_model": "numpy", "fastmath": {"contract"}}  # the other flags would assume that there is no NaN
inline = njit(forceinline=True, **FLAGS)
inline_reordered = njit(forceinline=True, error_model="numpy", fastmath={"contract", "reassoc"})  # sums in any order


class _Layout:
    """How numbers of a dtype are stored: bits of the mantissa, bias of the exponent, and a number too large to have
    binary places, whose last bits are therefore the integer that was added to it.
    """

    def __init__(self, dtype: Any) -> None:
        info = np.finfo(dtype)
        self.dtype = info.dtype.type
        self.word = np.int32 if info.bits == 32 else np.int64
        self.llvm_word = ir.IntType(info.bits)
        self.mantissa, self.bias = int(info.nmant), int(info.maxexp) - 1
        self.shifter = self.dtype(1.5 * 2.0**info.nmant)

    def bits(self, value: Any) -> Any:
        """Return the word that stores a value, as a constant of LLVM."""
        return self.llvm_word(int(np.asarray(value, self.dtype).view(self.word)))


SINGLE, DOUBLE = _Layout(np.float32), _Layout(np.float64)


def layout_of(kind: Any) -> _Layout:
    """Return the layout of a type of Numba."""
    return SINGLE if kind == types.float32 else DOUBLE


def series(coefficients: Sequence[float]) -> Function:
    """Return the function c0 + x (c1 + x (c2 + ...)), unrolled."""

    def typed(typingctx: Any, x: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = arguments[0].type
            total = kind(coefficients[-1])
            for c in reversed(coefficients[:-1]):
                product = builder.fmul(total, arguments[0], flags=("contract",))
                total = builder.fadd(product, kind(c), flags=("contract",))
            return total

        return x(x), build

    function: Function = intrinsic(typed)
    return function


def _whole(builder: Any, layout: _Layout, shifted: Any) -> Any:
    """Return the integer n of a number `shifter` + n."""
    return builder.sub(builder.bitcast(shifted, layout.llvm_word), layout.bits(layout.shifter))


def _power_of_two(builder: Any, layout: _Layout, n: Any, kind: Any) -> Any:
    """Return 2^n as a number, for an n between the exponents of normal numbers."""
    biased = builder.add(n, layout.llvm_word(layout.bias))
    return builder.bitcast(builder.shl(biased, layout.llvm_word(layout.mantissa)), kind)


def _scaled(typingctx: Any, x: Any, shifted: Any) -> Any:
    """x 2^n, n + `shifter` being given; in two steps, for 2^n itself may be too large or too small a number."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        layout, kind = layout_of(x), arguments[0].type
        n = _whole(builder, layout, arguments[1])
        half = builder.ashr(n, layout.llvm_word(1))
        first = builder.fmul(arguments[0], _power_of_two(builder, layout, half, kind))
        return builder.fmul(first, _power_of_two(builder, layout, builder.sub(n, half), kind))

    return x(x, shifted), build


def _half_power(typingctx: Any, shifted: Any) -> Any:
    """2^(n - 1), n + `shifter` being given."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        layout = layout_of(shifted)
        n = builder.sub(_whole(builder, layout, arguments[0]), layout.llvm_word(1))
        return _power_of_two(builder, layout, n, arguments[0].type)

    return shifted(shifted), build


def _exponent_bits(builder: Any, layout: _Layout, bits: Any) -> Any:
    """Return k of x = 2^k m with m between sqrt(1/2) and sqrt(2)."""
    return builder.ashr(builder.sub(bits, layout.bits(math.sqrt(0.5))), layout.llvm_word(layout.mantissa))


def _exponent(typingctx: Any, x: Any) -> Any:
    """k as a number, plus `shifter`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        layout = layout_of(x)
        k = _exponent_bits(builder, layout, builder.bitcast(arguments[0], layout.llvm_word))
        return builder.bitcast(builder.add(k, layout.bits(layout.shifter)), arguments[0].type)

    return x(x), build


def _significand(typingctx: Any, x: Any) -> Any:
    """m of x = 2^k m."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        layout = layout_of(x)
        bits = builder.bitcast(arguments[0], layout.llvm_word)
        k = _exponent_bits(builder, layout, bits)
        m = builder.sub(bits, builder.shl(k, layout.llvm_word(layout.mantissa)))
        return builder.bitcast(m, arguments[0].type)

    return x(x), build


scaled, half_power = intrinsic(_scaled), intrinsic(_half_power)
exponent, significand = intrinsic(_exponent), intrinsic(_significand)


def build_words(
    layout: _Layout,
    exp_terms: int,
    log_terms: int,
    ln2: tuple[float, float],
    exp_range: tuple[float, float],
    least_expm1: float,
    largest_tanh: float,
) -> SimpleNamespace:
    """Return the functions for numbers of one dtype.

    exp_terms, log_terms   of exp(r), |r| <= ln(2) / 2, and of 2 artanh(s), s^2 < 0.0295
    ln2                    in two parts, the first with so few bits that a multiple by an exponent is exact
    exp_range              below it exp is 0, above it infinite
    least_expm1            below it expm1 is -1
    largest_tanh           above it tanh is 1
    """
    real, info = layout.dtype, np.finfo(layout.dtype)
    shifter, log2e = layout.shifter, real(1 / math.log(2))
    ln2_high, ln2_low = real(ln2[0]), real(ln2[1])
    exp_least, exp_most = real(exp_range[0]), real(exp_range[1])
    expm1_least, tanh_most = real(least_expm1), real(largest_tanh)
    zero, half, one, two, infinity, nan = (real(x) for x in (0, 0.5, 1, 2, np.inf, np.nan))
    least_normal, lift, lifted = info.tiny, real(2.0 ** (info.nmant + 2)), real(info.nmant + 2)
    tiny = real(2.0 ** (-info.nmant - 6))
    exp_series = series([1 / math.factorial(i) for i in range(exp_terms)])
    expm1_rest = series([1 / math.factorial(i) for i in range(2, exp_terms + 1)])
    artanh_rest = series([2 / (2 * i + 3) for i in range(log_terms)])

    def exp(x: Any) -> Any:
        x = exp_least if x < exp_least else x
        x = exp_most if x > exp_most else x
        shifted = x * log2e + shifter
        n = shifted - shifter
        r = (x - n * ln2_high) - n * ln2_low
        return scaled(exp_series(r), shifted)

    def expm1(x: Any) -> Any:
        y = expm1_least if x < expm1_least else x
        y = exp_most if y > exp_most else y
        shifted = y * log2e + shifter
        n = shifted - shifter
        r = (y - n * ln2_high) - n * ln2_low
        p = r + r * r * expm1_rest(r)
        power = half_power(shifted)
        result = two * (p * power + (power - half))  # 2^n p + 2^n - 1, where 2^n may be infinite
        return x if abs(x) < tiny else result

    def tanh(x: Any) -> Any:
        y = abs(x)
        y = tanh_most if y > tanh_most else y
        t = expm1_of(y + y)
        result = t / (t + two)
        result = -result if x < zero else result
        return x if abs(x) < tiny else result

    def assembled(k: Any, f: Any, c: Any) -> Any:
        """k ln 2 + ln(1 + f) + c: with s = f / (2 + f), ln(1 + f) = 2 artanh s = f - s (f - rest of the series)."""
        s = f / (two + f)
        square = s * s
        half_square = half * f * f
        rest = s * (half_square + square * artanh_rest(square))
        return k * ln2_high - ((half_square - (rest + (k * ln2_low + c))) - f)

    def log(x: Any) -> Any:
        below = x < least_normal
        y = x * lift if below else x
        k = exponent(y) - shifter
        k = k - lifted if below else k
        result = assembled_of(k, significand(y) - one, zero)
        result = result if x < infinity else x
        result = -infinity if x == zero else result
        return nan if x < zero else result

    def log1p(x: Any) -> Any:
        u = one + x
        lost = one - (u - x) if x >= one else x - (u - one)  # what 1 + x has rounded away
        k = exponent(u) - shifter
        result = assembled_of(k, significand(u) - one, lost / u)
        result = result if x < infinity else x
        result = -infinity if u == zero else result
        result = nan if x < -one else result
        return x if abs(x) < tiny else result

    expm1_of, assembled_of = inline(expm1), inline(assembled)
    return SimpleNamespace(
        real=real, exp=inline(exp), expm1=expm1_of, tanh=inline(tanh), log=inline(log), log1p=inline(log1p)
    )


float32 = build_words(SINGLE, 8, 5, (0.693359375, -2.1219444005469057e-4), (-104.0, 89.0), -20.0, 10.0)
float64 = build_words(DOUBLE, 14, 10, (0.6931471803691238, 1.9082149292705877e-10), (-746.0, 710.0), -40.0, 22.0)
