"""Products by compiled calls beside NumPy's, of every layout that the backend gives them."""

import ctypes
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpumlp.backends import numba_blas, threads
from gpumlp.backends.numba_blas import dots, gemm_address, is_small_and_of_rows, multiply, operand, product_call
from gpumlp.backends.numba_program import run_now
from gpumlp.backends.numba_source import dot_block
from gpumlp.backends.numpy_backend import transposed

if not gemm_address("float32"):
    pytest.skip("this BLAS cannot be reached by an address", allow_module_level=True)

SHAPES = [
    (1, 5, 4, 6),
    (3, 5, 4, 6),
    (3, 1, 1, 1),
    (2, 1, 7, 3),
    (5, 9, 1, 2),
    (2, 7, 130, 9),
    (3, 64, 784, 10),
    (1, 130, 40, 50),
]
GAP = 11.0


def operands(shape, dtype, shared, seed=0):
    """Return x, y as the three products of a layer have them, y being a view of a longer buffer, and the truth."""
    n_models, rows, inner, columns = shape
    random = np.random.default_rng(seed)
    x = random.standard_normal((1 if shared else n_models, rows, inner)).astype(dtype)
    theta = random.standard_normal((n_models, inner * columns + 13)).astype(dtype)
    part = theta[:, 5 : 5 + inner * columns]
    x_turned = transposed(np.ascontiguousarray(transposed(x)))
    yield x, part.reshape(n_models, inner, columns)  # g = delta W
    yield x, transposed(part.reshape(n_models, columns, inner))  # z = a W^T
    yield x_turned, part.reshape(n_models, inner, columns)  # dW = delta^T a


def check(call, shape, dtype, shared):
    n_models, rows, _, columns = shape
    limit = 2e-5 if dtype == "float32" else 1e-12
    for x, y in operands(shape, dtype, shared):
        buffer = np.full((n_models, rows, columns + 3), GAP, dtype)
        out = buffer[..., 1 : columns + 1]
        with threads.computing():
            run_now(call(x, y, out, 0, n_models))
        truth = x.astype(float) @ y.astype(float)
        assert np.abs(out - truth).max() <= limit * np.abs(truth).max()
        assert (buffer[..., 0] == GAP).all()
        assert (buffer[..., columns + 1 :] == GAP).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_of_any_layout(shape, dtype, shared):
    check(multiply, shape, dtype, shared)
    check(product_call, shape, dtype, shared)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(1, 6, 100, 4), (3, 7, 131, 9), (2, 64, 784, 10), (2, 13, 33, 130), (1, 9, 120, 200)], ids=str
)
def test_the_loop_of_sums_gives_the_products_of_rows_with_rows(shape, dtype, shared):
    def of_rows(x, y, out, first, last):
        return dots(x, transposed(np.ascontiguousarray(transposed(y))), out, first, last)

    n_models, rows, _, columns = shape
    x, y = next(operands(shape, dtype, shared))
    out = np.full((n_models, rows, columns), np.nan, dtype)
    run_now(of_rows(x, y, out, 0, n_models))
    truth = x.astype(float) @ y.astype(float)
    assert np.abs(out - truth).max() <= (2e-5 if dtype == "float32" else 1e-12) * np.abs(truth).max()


def test_sums_do_not_depend_on_how_rows_and_columns_are_cut():
    (x, y), *_ = list(operands((1, 61, 300, 37), "float32", False))[1:2]
    whole, cut = (np.empty((1, 61, 37), np.float32) for _ in range(2))
    run_now(dots(x, y, whole, 0, 1))
    for rows in (slice(0, 20), slice(20, 61)):
        for columns in (slice(0, 16), slice(16, 37)):
            run_now(dots(x[:, rows], y[..., columns], cut[:, rows, columns], 0, 1))
    assert whole.tobytes() == cut.tobytes()


def test_some_models_of_a_stack_leave_the_others_alone():
    for x, y in operands((5, 9, 120, 8), "float64", False):
        out = np.full((5, 9, 8), GAP)
        run_now(product_call(x, y, out, 2, 4))
        assert np.allclose(out[2:4], (x @ y)[2:4])
        assert (out[[0, 1, 4]] == GAP).all()


def test_values_that_are_not_finite_come_through():
    x, y = np.ones((1, 8, 200), np.float32), np.ones((1, 8, 200), np.float32)
    x[0, 2, 5], y[0, 3, 7] = np.nan, np.inf
    out = np.empty((1, 8, 8), np.float32)
    run_now(dots(x, transposed(y), out, 0, 1))
    assert np.isnan(out[0, 2]).all()
    assert np.isinf(out[0, [0, 1, 3, 4, 5, 6, 7], 3]).all()
    assert (out[0, 0, :3] == 200).all()


def test_the_loop_is_taken_for_small_products_of_rows_alone():
    n, m = dot_block()
    taken = {}
    for rows, inner, columns in [
        (64, 784, 128),
        (64, 784, 4000),
        (n, 200, m),
        (3000, 100, 32),
        (300, 784, 300),
        (128, 128, 128),
        (64, 10, 128),
        (1, 784, 9),
    ]:
        x, y = np.empty((1, rows, inner)), np.empty((1, columns, inner))
        out = np.empty((1, rows, columns))
        taken[rows, inner, columns] = is_small_and_of_rows(x, transposed(y), out)
        assert not is_small_and_of_rows(x, np.empty((1, inner, columns)), out)
    assert list(taken.values()) == [True, True, True, True, False, False, False, False]


def test_an_array_with_gaps_between_its_numbers_is_refused():
    with pytest.raises(TypeError, match="strides"):
        operand(np.empty((1, 6, 8))[:, ::2, ::2])


def test_the_address_is_that_of_numpys_own_blas():
    import scipy.linalg  # noqa: F401  # brings another one

    threads.look_for_blas_again()
    gemm_address.cache_clear()
    ours = [path for path in threads.blas_files() if threads.is_of_numpy(path)]
    if not ours:
        pytest.skip("NumPy has no BLAS of its own here")
    assert threads.blas_files()[:1] == ours
    library = ctypes.CDLL(ours[0])
    for dtype, letter in (("float32", "s"), ("float64", "d")):
        names = [symbol.format(letter) for symbol in numba_blas.SYMBOLS]
        function = next(getattr(library, name) for name in names if hasattr(library, name))
        assert gemm_address(dtype) == ctypes.cast(function, ctypes.c_void_p).value


def test_numpys_blas_comes_first_however_the_system_lists_them(monkeypatch):
    numpys = str(Path(np.__file__).parent.with_name("numpy.libs") / "libblas.so")
    others = ["/lib/scipy.libs/libblas.so", "/home/numpy/libblas.so"]
    for order in permutations([numpys, *others]):
        listed = SimpleNamespace(info=lambda order=order: [{"filepath": path} for path in order])
        monkeypatch.setattr(threads, "_blas", lambda listed=listed: listed)
        assert threads.blas_files()[0] == numpys
