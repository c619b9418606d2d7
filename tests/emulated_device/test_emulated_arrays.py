"""CuPy's own kernels on the emulated device."""

import emulated_gpu
import numpy as np
import pytest
from gpu_code import cp, rng, runtime


def test_device():
    assert runtime.getDeviceCount() == 1
    p = runtime.getDeviceProperties(0)
    assert (p["major"], p["minor"], p["multiProcessorCount"], p["warpSize"]) == (9, 0, 132, 32)
    assert (p["sharedMemPerBlock"], p["sharedMemPerBlockOptin"]) == (49152, 232448)
    assert cp.cuda.Device().compute_capability == "90"


@pytest.mark.parametrize("dtype", ["e", "f", "d", "i", "q", "?", "F"])
def test_elementwise(dtype):
    a, b = (rng(5, 1, 7) * 3).astype(dtype), (rng(4, 7) + 1).astype(dtype)
    x, y = cp.asarray(a), cp.asarray(b)
    np.testing.assert_array_equal((x + y).get(), a + b)
    np.testing.assert_array_equal((x * y).get(), a * b)
    if dtype != "?":
        np.testing.assert_allclose(cp.exp(x * 0.1).get(), np.exp(a * 0.1), rtol=2e-3)
    assert (x + 1.5).dtype == (a + 1.5).dtype
    assert (x + np.float32(1.5)).dtype == (a + np.float32(1.5)).dtype


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_reductions(axis, dtype):
    a = rng(20, 33, 5, dtype=dtype)
    x = cp.asarray(a)
    for f in ("sum", "mean", "max", "min", "std"):
        np.testing.assert_allclose(getattr(x, f)(axis=axis).get(), getattr(a, f)(axis=axis), rtol=1e-4, atol=1e-5)
    if not isinstance(axis, tuple):
        np.testing.assert_array_equal(x.argmax(axis=axis).get(), a.argmax(axis=axis))


def test_indexing():
    a = rng(10, 6)
    x = cp.asarray(a)
    i = np.array([3, 0, 9, 3])
    np.testing.assert_array_equal(x.take(cp.asarray(i), axis=0).get(), a.take(i, axis=0))
    np.testing.assert_array_equal(x[cp.asarray(i), 1:4].get(), a[i, 1:4])
    np.testing.assert_array_equal(x[x > 0].get(), a[a > 0])
    np.testing.assert_allclose(cp.cumsum(x, axis=1).get(), np.cumsum(a, axis=1, dtype="f"), rtol=1e-5, atol=1e-6)
    y = cp.zeros(6, "f")
    cp.add.at(y, cp.asarray([1, 1, 5]), cp.ones(3, "f"))
    assert y.get().tolist() == [0, 2, 0, 0, 0, 1]


def test_views_that_begin_anywhere():
    """Aligned to their elements, not to vectors: no kernel of CuPy may be taken for one with misaligned accesses."""
    for dtype in "efdFi?":
        a = (rng(7, 33) * 9).astype(dtype)
        x, y = cp.asarray(a)[1:, 3::2], cp.zeros((7, 33), dtype)
        np.testing.assert_array_equal((x == x).get(), True)
        y[1:, 1:15] = x[:, 1:]
        np.testing.assert_array_equal(cp.ascontiguousarray(y[1:, 1:15].T).get(), a[1:, 5:33:2].T)
        np.testing.assert_allclose(x.sum(axis=0).get(), a[1:, 3::2].sum(axis=0), rtol=2e-2)
        np.testing.assert_array_equal(cp.concatenate([x[:, 1:], x[1:, 1:]]).get(), np.r_[a[1:, 5::2], a[2:, 5::2]])
        np.testing.assert_array_equal(cp.sort(x[:, 1]).get(), np.sort(a[1:, 5]))


def test_sorting():
    a = rng(3, 50)
    np.testing.assert_array_equal(cp.sort(cp.asarray(a)).get(), np.sort(a))
    np.testing.assert_array_equal(cp.argsort(cp.asarray(a), axis=0).get(), np.argsort(a, axis=0))
    i = np.random.default_rng(1).integers(0, 9, (2, 40))
    np.testing.assert_array_equal(cp.lexsort(cp.asarray(i)).get(), np.lexsort(i))
    np.testing.assert_array_equal(cp.unique(cp.asarray(i)).get(), np.unique(i))
    np.testing.assert_array_equal(cp.searchsorted(cp.arange(9), cp.asarray(i)).get(), np.searchsorted(np.arange(9), i))


def test_random():
    cp.random.seed(1)
    x = cp.random.rand(10000)
    assert 0.48 < float(x.mean()) < 0.52
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert 0.95 < float(cp.random.randn(10000).std()) < 1.05
    cp.random.seed(1)
    assert bool((cp.random.rand(10000) == x).all())
    g = cp.random.default_rng(3)
    assert 0.48 < float(g.random(10000).mean()) < 0.52
    assert set(g.integers(0, 3, 100).get()) == {0, 1, 2}
    assert 0.95 < float(g.standard_normal(10000, dtype="f").std()) < 1.05


def test_what_is_not_emulated_is_an_error(capfd):
    with pytest.raises(Exception, match="operation not supported"):
        cp.random.default_rng(1).gamma(1.0, size=4).get()
    emulated_gpu.reset_device()
    with pytest.raises(Exception, match="NOT_SUPPORTED"):
        cp.fft.fft(cp.ones(4))
    assert "cufftCreate is not emulated" in capfd.readouterr().err


def test_memory_pool():
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        x = cp.zeros(1000, "f")
        assert (pool.used_bytes(), pool.total_bytes()) == (4096, 4096)
        del x
        assert (pool.used_bytes(), pool.n_free_blocks()) == (0, 1)
        with emulated_gpu.counting() as counted:
            x = cp.zeros(1000, "f")
        assert not counted["memory"]
        del x
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
    free, total = runtime.memGetInfo()
    assert 0 < free <= total


def test_async_pool():
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        assert cp.arange(10).sum() == 45


def test_out_of_memory():
    with pytest.raises(cp.cuda.memory.OutOfMemoryError):
        cp.empty(1 << 42, "b")
