"""Matrix products: strided-batched GEMMs on the device's own cuBLAS handle. The only file that names cuBLAS.

cuBLAS is column-major: a row-major (r, c) array is a column-major (c, r) one, so z = a W^T is asked for as W a.
Nothing is copied: transposes are flags, strides reach W inside theta, and stride 0 shares an operand among the models.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from gpumlp.backends.cuda.device import Device
from gpumlp.backends.cuda.modules import row_stride, rows_are_dense

PRECISIONS = {"float32": "COMPUTE_32F", "tf32": "COMPUTE_32F_FAST_TF32", "float64": "COMPUTE_64F"}


class Gemm:
    """The three products of a layer, for one dtype and precision."""

    def __init__(self, device: Device, dtype: np.dtype[Any], precision: str) -> None:
        self._cublas: Any = import_module("nvmath.bindings.cublas")
        types: Any = import_module("nvmath").CudaDataType
        self._handle = device.cublas
        self._type = int(types.CUDA_R_32F if dtype == np.float32 else types.CUDA_R_64F)
        self._compute = int(getattr(self._cublas.ComputeType, PRECISIONS[precision]))
        self._default_algorithm = int(self._cublas.GemmAlgo.DEFAULT)
        self._one, self._zero = np.ones(1, dtype), np.zeros(1, dtype)  # read by each call, so they stay
        self._dtype = dtype

    def forward(self, a_in: Any, W: Any, z: Any) -> None:
        """Set z = a_in W^T: (1 or n_models, batch, in), (n_models, out, in) -> (n_models, batch, out)."""
        n_models, batch, n_out = z.shape
        self._multiply("T", "N", n_out, batch, W.shape[2], n_models, W, a_in, z)

    def weight_gradient(self, delta: Any, a_in: Any, dW: Any) -> None:
        """Set dW = delta^T a_in: (n_models, batch, out), (1 or n_models, batch, in) -> (n_models, out, in)."""
        n_models, n_out, n_in = dW.shape
        self._multiply("N", "T", n_in, n_out, delta.shape[1], n_models, a_in, delta, dW)

    def backward(self, delta_next: Any, W_next: Any, out: Any) -> None:
        """Set out = delta_next W_next: (n_models, batch, out), (n_models, out, in) -> (n_models, batch, in).

        W_next may be some columns of a layer's, side by side.
        """
        n_models, batch, n_in = out.shape
        self._multiply("N", "N", n_in, batch, W_next.shape[1], n_models, W_next, delta_next, out)

    def _multiply(
        self, transa: str, transb: str, m: int, n: int, k: int, n_models: int, a: Any, b: Any, c: Any
    ) -> None:
        """Set c = op(a) op(b) for each model, in column-major terms: op(a) is (m, k), op(b) is (k, n)."""
        for x in (a, b, c):
            self._check(x, n_models)
        operation = self._cublas.Operation
        self._cublas.gemm_strided_batched_ex(
            self._handle, int(operation[transa]), int(operation[transb]), m, n, k,
            self._one.ctypes.data, a.data.ptr, self._type, between_rows(a), row_stride(a),
            b.data.ptr, self._type, between_rows(b), row_stride(b),
            self._zero.ctypes.data, c.data.ptr, self._type, between_rows(c), row_stride(c),
            n_models, self._compute, self._default_algorithm,
        )  # fmt: skip

    def _check(self, x: Any, n_models: int) -> None:
        are_matrices = x.dtype == self._dtype and x.ndim == 3 and x.shape[0] in (1, n_models)
        if not are_matrices or not rows_are_dense(x[0]) or between_rows(x) < x.shape[2]:
            raise TypeError(f"a product takes no array of {x.dtype} {x.shape} with strides {x.strides}")


def between_rows(x: Any) -> int:
    """Return how many elements lie from one row of each matrix to the next."""
    return int(x.strides[1]) // int(x.itemsize) if x.shape[1] > 1 else int(x.shape[2])
