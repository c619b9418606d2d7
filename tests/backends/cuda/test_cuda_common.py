"""The device functions that all kernels share, on numbers that no small network reaches."""

import numpy as np
import pytest
from cuda_cases import DTYPES, opened, put

from gpumlp.backends.cuda.sources import Source, head, read_kernel
from gpumlp.randomness.feistel import half_bits, rows_at
from gpumlp.randomness.philox import philox4x32
from gpumlp.randomness.streams import shuffle_keys

KERNELS = r"""
extern "C" __global__ void quotients(
    const long long* __restrict__ n, const long long* __restrict__ d, long long count, long long* found)
{
    GRID_STRIDE(i, count) found[i] = divide(n[i], d[i]);
}

extern "C" __global__ void random_words(const unsigned* __restrict__ counters, long long count, unsigned* words)
{
    GRID_STRIDE(i, count) {
        const unsigned* c = counters + 6 * i;
        const Words found = philox({c[0], c[1], c[2], c[3]}, c[4], c[5]);
        words[4 * i] = found.w0, words[4 * i + 1] = found.w1, words[4 * i + 2] = found.w2, words[4 * i + 3] = found.w3;
    }
}

extern "C" __global__ void rows_of(
    const unsigned* __restrict__ positions, const unsigned* __restrict__ keys, unsigned epoch, unsigned last,
    int half_bits, long long count, unsigned* rows)
{
    unsigned round_keys[8];
    shuffle_keys(keys, epoch, round_keys);
    GRID_STRIDE(i, count) rows[i] = row_at(positions[i], round_keys, last, half_bits);
}

extern "C" __global__ void shifted(const real* __restrict__ x, long long begin, long long n, real* to)
{
    GRID_STRIDE(i, (n + VEC - 1) / VEC) store(to, i * VEC, n, load_anywhere(x + begin, i * VEC, n));
}
"""


def launch(name, dtype="float32", **arguments):
    b, text = opened("cuda", "float32"), f"{head(dtype)}{read_kernel('common.cuh')}\n{KERNELS}"
    with b.session():
        b._modules.kernel(Source("common", text, dtype), name)(3, 64, arguments)


def test_quotients_of_numbers_beyond_32_bits():
    rng = np.random.default_rng(0)
    n = np.concatenate([rng.integers(0, 2**bits, 50) for bits in (8, 31, 32, 33, 62)] * 2)
    d = np.concatenate([rng.integers(1, 2**bits, 250) for bits in (12, 40)])
    edges = np.array([2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40])
    n, d = (np.append(x, part) for x, part in zip((n, d), np.meshgrid(edges, edges), strict=True))
    b = opened("cuda", "float32")
    found = b.asarray(np.zeros_like(n))
    launch("quotients", n=b.asarray(n), d=b.asarray(d), count=len(n), found=found)
    assert np.array_equal(b.to_host(found), n // d)


def test_random_words_are_those_of_the_published_generator_and_of_the_host():
    counters = np.random.default_rng(0).integers(0, 2**32, (500, 6), np.uint32)
    counters[0], counters[1] = 0, 0xFFFFFFFF
    b = opened("cuda", "float32")
    words = b.asarray(np.zeros((500, 4), np.uint32))
    launch("random_words", counters=b.asarray(counters), count=500, words=words)
    found = b.to_host(words)
    assert [f"{w:08x}" for w in found[0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert [f"{w:08x}" for w in found[1]] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    wanted = philox4x32(tuple(counters.T[:4]), tuple(counters.T[4:]))
    assert np.array_equal(found, np.stack(wanted, axis=1))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 2**16, 2**16 + 1, 10**7, 2**31, 2**31 + 1, 2**32 - 1, 2**32])
def test_orders_of_any_number_of_rows_are_the_hosts(n_rows):
    rng = np.random.default_rng(0)
    positions = np.unique(np.append(rng.integers(0, n_rows, 200), [0, n_rows - 1])).astype(np.uint32)
    keys = rng.integers(0, 2**32, 2, np.uint32)
    b = opened("cuda", "float32")
    for epoch in (0, 7, 2**32 - 1):
        rows = b.asarray(np.zeros(len(positions), np.uint32))
        launch(
            "rows_of",
            positions=b.asarray(positions),
            keys=b.asarray(keys),
            epoch=epoch,
            last=n_rows - 1,
            half_bits=half_bits(n_rows),
            count=len(positions),
            rows=rows,
        )
        wanted = rows_at(positions, shuffle_keys(keys, epoch), n_rows)
        assert np.array_equal(b.to_host(rows), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_are_loaded_wherever_they_begin_and_stored_up_to_the_end(dtype):
    b = opened("cuda", dtype)
    x = np.arange(1.0, 60)
    for begin in range(9):
        for n in (1, 2, 3, 4, 5, 31, 48):
            to = put(b, np.zeros(60))
            launch("shifted", dtype, x=put(b, x), begin=begin, n=n, to=to)
            found = b.to_host(to)
            assert np.array_equal(found[:n], x[begin : begin + n])
            assert not found[n:].any()
