"""Matrix products as compiled calls: by the BLAS that NumPy has loaded, reached by the address of its own function.

A BLAS first copies its operands into the order in which it reads them. Where rows meet rows and there are few of them,
z = a W^T of a small batch, that takes longer than it saves, and a loop that reads them as they lie is faster.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.backends.numba_program import Call, bind
from gpumlp.backends.numba_source import dot_block, dot_loop, loop
from gpumlp.backends.numpy_backend import transposed
from gpumlp.backends.numpy_shares import address_of

log = logging.getLogger("gpumlp")
LETTERS = {"float32": "s", "float64": "d"}
# as the wheels of NumPy and SciPy name them; whole numbers of 64 and of 32 bits look alike where the low half is first
SYMBOLS = ("scipy_{}gemm_64_", "scipy_{}gemm_", "{}gemm_64_")


@cache
def gemm_address(dtype: str) -> int:
    """Return where the BLAS's product lies, 0 if it cannot be reached: NumPy's own BLAS, or else SciPy's."""
    if sys.byteorder != "little":
        return 0
    for path in threads.blas_files():
        library = ctypes.CDLL(path)
        for symbol in SYMBOLS:
            function = getattr(library, symbol.format(LETTERS[dtype]), None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p).value or 0
    return _address_in_scipy(dtype)


def _address_in_scipy(dtype: str) -> int:
    from numba.extending import get_cython_function_address

    try:
        address = int(get_cython_function_address("scipy.linalg.cython_blas", f"{LETTERS[dtype]}gemm"))
    except (ImportError, ValueError) as error:
        log.info("no compiled product is found (%r): NumPy's is called from Python", error)
        return 0
    threads.look_for_blas_again()
    return address


# (rows or columns at most, rows at most, length of a row at least) for which the loop is the faster, as measured
FASTER = ((32, 10**9, 100), (10**9, 128, 200))


def product_call(x: Any, y: Any, out: Any, first: int, last: int) -> Call:
    """Return out = x y for the models from `first` on: (1 or n_models, r, k), (1 or n_models, k, c), (n_models, r, c).

    Rows or columns of x and y have no gaps between their numbers, nor have the rows of out.
    """
    return (dots if is_small_and_of_rows(x, y, out) else multiply)(x, y, out, first, last)


def is_small_and_of_rows(x: Any, y: Any, out: Any) -> bool:
    """Tell whether the loop of sums is faster than the BLAS; by the sizes of one model alone."""
    (rows, columns), inner, size = out.shape[1:], x.shape[2], out.itemsize
    n, m = dot_block()
    if rows < n or columns < m or x.strides[2] != size or y.strides[1] != size:
        return False
    return any(min(rows, columns) <= few and rows <= most and inner >= least for few, most, least in FASTER)


def dots(x: Any, y: Any, out: Any, first: int, last: int) -> Call:
    """Return the call of the loop of sums."""
    _, rows, inner = x.shape
    matrices = [value for matrix in (x, transposed(y), out) for value in flat_matrices(matrix)]
    call = bind(dot_loop(out.dtype.name), rows, out.shape[2], inner, first, last, *matrices)
    return Call(call.address, call.cells, (*call.kept, x, y, out))


def flat_matrices(x: Any) -> tuple[Any, int, int]:
    """Return all numbers from the first to the last of x in a row, and how far apart rows and models are."""
    rows, models = (0 if n == 1 else s // x.itemsize for n, s in zip(x.shape[1::-1], x.strides[1::-1], strict=True))
    size = (len(x) - 1) * models + (x.shape[1] - 1) * rows + x.shape[2]
    return np.lib.stride_tricks.as_strided(x, (size,), (x.itemsize,)), rows, models


def multiply(x: Any, y: Any, out: Any, first: int, last: int) -> Call:
    """Return the call of the BLAS: in its column-major order, out^T = y^T x^T."""
    dtype = out.dtype
    (rows, columns), inner = out.shape[1:], x.shape[2]
    transpose_a, lda = operand(y)
    transpose_b, ldb = operand(x)
    numbers = np.array([ord(transpose_a), ord(transpose_b), columns, rows, inner, 0, lda, ldb, 0, 0], np.int64)
    numbers[9] = out.strides[1] // dtype.itemsize if rows > 1 else columns
    numbers[5:6].view(dtype)[0] = 1
    first_number = address_of(numbers)
    at = range(first_number, first_number + 8 * len(numbers), 8)
    matrices = [value for matrix in (y, x, out) for value in place(matrix, first)]
    call = bind(loop("multiply", np.float64), gemm_address(dtype.name), *at, last - first, *matrices)
    return Call(call.address, call.cells, (*call.kept, numbers, x, y, out))


def operand(x: Any) -> tuple[str, int]:
    """Return how the BLAS has to read each matrix of x, and how far apart its rows or columns are."""
    _, rows, columns = x.shape
    between_rows, between_columns = (stride // x.itemsize for stride in x.strides[1:])
    if between_columns == 1 or columns == 1:
        return "N", max(between_rows if rows > 1 else columns, columns)
    if between_rows == 1 or rows == 1:
        return "T", max(between_columns, rows)
    raise TypeError(f"a product takes no array of {x.shape} with strides {x.strides}")


def place(x: Any, first: int) -> tuple[int, int]:
    """Return where a model's matrix lies, and how many bytes from it to the next model's: 0 if all share it."""
    if len(x) == 1:
        return address_of(x), 0
    return address_of(x) + first * x.strides[0], int(x.strides[0])
