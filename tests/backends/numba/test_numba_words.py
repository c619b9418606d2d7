"""The polynomials behind exp and its kin, over the whole range of each dtype."""

import numpy as np
import pytest
from numba import njit

from gpumlp.backends import numba_math

WORDS = ["exp", "expm1", "log", "log1p", "tanh"]


def values(dtype):
    """Numbers of every magnitude, and many where the functions bend."""
    rng = np.random.default_rng(0)
    word = np.uint32 if dtype == "float32" else np.uint64
    any_bits = rng.integers(0, np.iinfo(word).max, 100_000, word, endpoint=True).view(dtype)
    info = np.finfo(dtype)
    edges = [0.0, -0.0, 1, -1, info.tiny, info.smallest_subnormal, info.max, np.log(info.max), np.log(info.tiny)]
    near = np.concatenate([rng.uniform(-n, n, 30_000) for n in (1e-3, 1, 3, 30, 120, 800)])
    with np.errstate(over="ignore"):
        edges = np.array(edges, dtype)
        about = np.concatenate([edges, -edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
        return np.concatenate([any_bits, near.astype(dtype), 1 + near[:60_000].astype(dtype), about])


def loop_of(word, dtype):
    function = getattr(getattr(numba_math, dtype), word)

    @njit(f"void({dtype}[::1], {dtype}[::1])", **numba_math.FLAGS)
    def run(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return run


@pytest.mark.parametrize("word", WORDS)
def test_a_word_lies_within_four_units_in_the_last_place_of_numpy(word, dtype):
    x = values(dtype)
    found = np.empty_like(x)
    loop_of(word, dtype)(x, found)
    with np.errstate(all="ignore"):
        wanted = getattr(np, word)(x)
    finite = np.isfinite(wanted)
    assert np.array_equal(found[~finite], wanted[~finite], equal_nan=True)
    ulps = np.abs(found[finite] - wanted[finite]) / np.spacing(np.abs(wanted[finite]))
    assert ulps.max() <= 4, x[finite][ulps.argmax()]


@pytest.mark.parametrize("word", WORDS)
def test_values_that_are_not_numbers_are_kept_and_a_zero_keeps_its_sign(word, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    found = np.empty_like(x)
    loop_of(word, dtype)(x, found)
    with np.errstate(all="ignore"):
        wanted = getattr(np, word)(x)
    assert np.array_equal(found, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(found[3:]), np.signbit(wanted[3:]))


@pytest.mark.parametrize("word", WORDS)
def test_a_value_has_the_same_bits_wherever_it_stands_in_a_loop(word, dtype):
    """Some values are computed several at once and some alone, in what is left at the end."""
    x = np.resize(values(dtype)[100_000:100_061], 61)
    run, whole = loop_of(word, dtype), np.empty(61, dtype)
    run(x, whole)
    for n in (1, 2, 5, 13, 33, 60):
        some = np.empty(n, dtype)
        run(x[:n], some)
        assert some.tobytes() == whole[:n].tobytes()


@pytest.mark.parametrize("word", WORDS)
def test_a_loop_computes_several_values_at_once(word, dtype):
    assembly = next(iter(loop_of(word, dtype).inspect_asm().values()))
    packed = ("mulps", "fmadd213ps", "fmadd231ps") if dtype == "float32" else ("mulpd", "fmadd213pd", "fmadd231pd")
    if "xmm" not in assembly:
        pytest.skip("no x86 processor, whose instructions this test knows")
    assert any(f"v{name}" in assembly or name in assembly for name in packed)
    assert "callq" not in assembly or f"{word}f" not in assembly  # of libm
