"""cuBLAS on the emulated device, as CuPy and nvmath.bindings call it."""

import devices
import emulated_gpu
import numpy as np
import pytest
from gpu_code import cp, fault, new_stream, raw, rng, runtime

cublas = pytest.importorskip("nvmath.bindings.cublas")
N, T = cublas.Operation.N, cublas.Operation.T
TF32 = cublas.ComputeType.COMPUTE_32F_FAST_TF32
WORKSPACE = cp.empty(1 << 16, "b")
FLOAT32, FLOAT64 = (cublas.ComputeType.COMPUTE_32F, 0, "f"), (cublas.ComputeType.COMPUTE_64F, 1, "d")


@pytest.fixture(scope="module")
def handle():
    handle = cublas.create()
    yield handle
    cublas.destroy(handle)


def product(handle, a, b, c, transa=False, transb=False, alpha=1, beta=0, compute=None):
    """c = alpha op(a) op(b) + beta c for each matrix [batch, rows, columns] of row-major arrays, with one call.

    What cuBLAS calls column-major is the transposed matrix, so a and b change places. A batch stride of 0 shares one.
    """
    usual, kind, scalar = FLOAT64 if c.dtype == "d" else FLOAT32
    scalars = [np.array(v, scalar) for v in (alpha, beta)]

    def where(x):
        return x.data.ptr, kind, x.strides[1] // x.itemsize, x.strides[0] // x.itemsize

    m, k = a.shape[-2:][::-1] if transa else a.shape[-2:]
    cublas.set_stream(handle, cp.cuda.get_current_stream().ptr)  # forgets the workspace
    cublas.set_workspace(handle, WORKSPACE.data.ptr, WORKSPACE.nbytes)
    cublas.gemm_strided_batched_ex(
        handle,
        T if transb else N,
        T if transa else N,
        c.shape[2],
        m,
        k,
        scalars[0].ctypes.data,
        *where(b),
        *where(a),
        scalars[1].ctypes.data,
        *where(c),
        c.shape[0],
        compute or usual,
        cublas.GemmAlgo.DEFAULT,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("e", 1e-1), ("f", 1e-4), ("d", 1e-12), ("F", 1e-4), ("D", 1e-12)])
def test_matmul(dtype, tolerance):
    a, b = rng(70, 300).astype(dtype), rng(300, 41).astype(dtype)
    x, y = cp.asarray(a), cp.asarray(b)
    np.testing.assert_allclose((x @ y).get(), a @ b, atol=tolerance)
    np.testing.assert_allclose((y.T @ x.T).get(), (a @ b).T, atol=tolerance)
    np.testing.assert_allclose((x @ y[:, 0].copy()).get(), a @ b[:, 0], atol=tolerance)


@pytest.mark.parametrize("dtype", ["e", "f", "d"])
def test_batched_matmul_out(dtype):
    a, b = rng(4, 30, 20).astype(dtype), rng(4, 20, 10).astype(dtype)
    out = cp.empty((4, 30, 10), dtype)
    with emulated_gpu.counting() as counted:
        assert cp.matmul(cp.asarray(a), cp.asarray(b), out=out) is out
    np.testing.assert_allclose(out.get(), np.matmul(a, b), atol=5e-2 if dtype == "e" else 1e-4)
    assert any("batch=4" in k for k in counted["gemm"])


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_gemm_alpha_beta(dtype):
    from cupy import cublas

    a, b, c = rng(8, 5, dtype=dtype), rng(5, 6, dtype=dtype), rng(8, 6, dtype=dtype)
    out = cp.asarray(c, order="F")
    cublas.gemm("N", "N", cp.asarray(a, order="F"), cp.asarray(b, order="F"), out=out, alpha=2.0, beta=0.5)
    np.testing.assert_allclose(out.get(), 2 * a @ b + 0.5 * c, rtol=1e-4, atol=1e-5)
    cublas.gemm("T", "N", cp.asarray(a.T, order="F"), cp.asarray(b, order="F"), out=out)
    np.testing.assert_allclose(out.get(), a @ b, rtol=1e-4, atol=1e-5)


def test_beta_zero_ignores_nan():
    out = cp.full((4, 4), cp.nan, "f")
    cp.matmul(cp.ones((4, 3), "f"), cp.ones((3, 4), "f"), out=out)
    assert (out.get() == 3).all()


def test_gemm_ex_float16_and_bfloat16():
    from cupy_backends.cuda.libs import cublas

    a, b = rng(16, 8).astype("e"), rng(8, 4).astype("e")
    c, one, zero = cp.empty((16, 4), "f", order="F"), np.array(1, "f"), np.array(0, "f")
    h = cp.cuda.Device().cublas_handle

    def gemm_ex(kind, x, y):
        x, y = cp.asarray(x, order="F"), cp.asarray(y, order="F")
        matrices = x.data.ptr, kind, 16, y.data.ptr, kind, 8, zero.ctypes.data, c.data.ptr, 0, 16
        cublas.gemmEx(h, 0, 0, 16, 4, 8, one.ctypes.data, *matrices, cublas.CUBLAS_COMPUTE_32F, -1)
        return c.get()

    np.testing.assert_allclose(gemm_ex(runtime.CUDA_R_16F, a, b), a.astype("f") @ b.astype("f"), atol=1e-5)
    bits = [(v.astype("f").view("u4") >> 16).astype("u2") for v in (a, b)]
    x, y = ((v.astype("u4") << 16).view("f") for v in bits)
    np.testing.assert_allclose(gemm_ex(runtime.CUDA_R_16BF, *bits), x @ y, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("transa", [False, True])
@pytest.mark.parametrize("transb", [False, True])
@pytest.mark.parametrize("shared", ["", "a", "b", "ab"])
def test_strided_batches_of_any_stride(handle, dtype, transa, transb, shared):
    a, b, c = (rng(3, *shape, dtype=dtype) for shape in ((5, 5), (5, 5), (5, 5)))
    x, y, z = (cp.asarray(v) for v in (a, b, c))
    if "a" in shared:
        a, x = a[:1], cp.broadcast_to(x[0], x.shape)
    if "b" in shared:
        b, y = b[:1], cp.broadcast_to(y[0], y.shape)
    product(handle, x, y, z, transa, transb, alpha=2, beta=0.5)
    ops = [v.swapaxes(1, 2) if t else v for v, t in ((a, transa), (b, transb))]
    np.testing.assert_allclose(z.get(), 2 * np.matmul(*ops) + 0.5 * c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_products_are_captured_and_replayed(handle, mode):
    """Also in TF32, and with one matrix shared by the batch (its stride is 0)."""
    emulated_gpu.set_mode(mode)
    a, b = rng(1, 12, 8), rng(3, 8, 10)
    x, y, fast, exact = cp.broadcast_to(cp.asarray(a[0]), (3, 12, 8)), cp.asarray(b), *cp.zeros((2, 3, 12, 10), "f")
    cp.cuda.Device().synchronize()
    with new_stream() as stream:
        stream.begin_capture()
        product(handle, x, y, fast, compute=TF32)
        product(handle, x, y, exact)
        graph = stream.end_capture()
        assert not fast.any()
        for factor in (1, -2):
            y.set(factor * b)
            with emulated_gpu.counting() as counted:
                graph.launch(stream)
            assert counted["graph_nodes"] == {"GemmStridedBatchedEx": 2}
            assert not counted["cublas"]
            expected = factor * np.matmul(a.astype("d"), b)
            np.testing.assert_allclose(exact.get(), expected, rtol=1e-5, atol=1e-5)
            assert 1e-4 < abs(fast.get() - expected).max() < 2e-2
    assert devices.node_kinds(graph) == {"KERNEL": 2}
    with emulated_gpu.counting() as counted:
        product(handle, x, y, exact)
    assert counted["cublas"] == {"GemmStridedBatchedEx": 1}
    assert counted["gemm"] == {"GemmStridedBatchedEx float32 NN m=10 n=12 k=8 batch=3": 1}


def test_a_product_without_a_workspace_may_allocate_in_the_graph(handle, monkeypatch):
    """Which cuBLAS documents; setting the stream takes the user's workspace away."""
    a, b, c = (cp.ones((1, 8, 8), "f") for _ in "abc")
    with new_stream() as stream:
        monkeypatch.setattr(cublas, "set_workspace", lambda *arguments: None)
        stream.begin_capture()
        product(handle, a, b, c)
        graph = stream.end_capture()
        assert devices.node_kinds(graph) == {"MEM_ALLOC": 1, "KERNEL": 1, "MEM_FREE": 1}
        graph.launch(stream)
        assert (c.get() == 8).all()


@pytest.mark.parametrize("beyond", [0, 4])
@pytest.mark.parametrize("matrix", ["A", "B", "C"])
def test_a_matrix_beyond_its_allocation(handle, matrix, beyond, capfd):
    """By one element: far less than the page behind which a fault would show by itself."""
    start = {name: 1 if name == matrix and beyond else 0 for name in "ABC"}
    b, a, c = (raw(3 * 32 * 32 * 4 + 400)[100 + start[name] :][: 3 * 32 * 32] for name in "ABC")
    # an allocation ends where its size says, not where the next multiple of 256 is
    a, b, c = (cp.ndarray((3, 32, 32), "f", x.data) for x in (a, b, c))
    if not beyond:
        product(handle, a, b, c)
        return
    with fault("IllegalAddress"):
        product(handle, a, b, c)
    said = capfd.readouterr().err
    assert f"matrix {matrix}: 4 bytes lie past the end of the 12688-byte allocation" in said


def test_a_matrix_in_host_memory_or_freed(handle, capfd):
    a, b, c = (cp.ones((1, 8, 8), "f") for _ in "abc")
    host = np.ones((1, 8, 8), "f")
    on_host = cp.ndarray(
        (1, 8, 8), "f", cp.cuda.MemoryPointer(cp.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0), 0)
    )
    with fault("IllegalAddress"):
        product(handle, a, on_host, c)
    freed = cp.ndarray((1, 8, 8), "f", raw(256).data)
    pointer = freed.data.ptr
    del freed
    gone = cp.ndarray((1, 8, 8), "f", cp.cuda.MemoryPointer(cp.cuda.UnownedMemory(pointer, 256, None, 0), 0))
    with fault("IllegalAddress"):
        product(handle, a, b, gone)
    said = capfd.readouterr().err
    assert "is not device memory" in said
    assert "matrix C" in said
    assert "freed" in said


@pytest.mark.parametrize("case", ["c is a", "c is b", "c over the end of a", "c shared", "c too close"])
def test_an_output_that_overlaps(handle, case, capfd):
    """What the real cuBLAS computes then is undefined, and it does not tell."""
    memory = cp.zeros(4000, "f")
    a, b, c = (memory[i * 1000 :][: 3 * 64].reshape(3, 8, 8) for i in range(3))
    if case == "c is a":
        c = a
    elif case == "c is b":
        c = b
    elif case == "c over the end of a":
        c = memory[3 * 64 - 1 :][: 3 * 64].reshape(3, 8, 8)
    elif case == "c shared":
        c = cp.broadcast_to(c[0], c.shape)
    else:
        c = cp.ndarray((3, 8, 8), "f", c.data, strides=(4 * 63, 32, 4))
    with fault("LaunchFailure"):
        product(handle, a, b, c)
    said = capfd.readouterr().err
    assert "matrix C overlaps matrix" in said if "c is" in case or "over" in case else "C of the batch overlap" in said


def test_matrices_that_lie_between_each_other(handle):
    """Columns of one array, as weights and activations of many models in one allocation are: no false alarm."""
    memory = cp.asarray(rng(3, 8, 24))
    a, b, c = memory[..., :8], memory[..., 8:16], memory[..., 16:]
    before = memory.get()
    product(handle, a, b, c)
    after = memory.get()
    np.testing.assert_allclose(after[..., 16:], np.matmul(before[..., :8], before[..., 8:16]), rtol=1e-5, atol=1e-5)
    assert (after[..., :16] == before[..., :16]).all()


def test_a_misaligned_matrix(handle, capfd):
    memory = cp.zeros(4000, "b")
    a, b = memory[1:257].view(), memory[256:512].view("f").reshape(1, 8, 8)
    a = cp.ndarray((1, 8, 8), "f", a.data)
    with fault("MisalignedAddress"):
        product(handle, a, b, memory[512:768].view("f").reshape(1, 8, 8))
    assert "matrix B is not aligned" in capfd.readouterr().err
