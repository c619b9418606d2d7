"""cuBLASLt on the emulated device, called from Python through nvmath.bindings.cublasLt."""

import emulated_gpu
import numpy as np
import pytest
from gpu_code import cp, fault, new_stream, raw

cublas = pytest.importorskip("nvmath.bindings.cublas")
lt = pytest.importorskip("nvmath.bindings.cublasLt")

E = lt.Epilogue
F32, F64, TF32 = (
    cublas.ComputeType.COMPUTE_32F,
    cublas.ComputeType.COMPUTE_64F,
    cublas.ComputeType.COMPUTE_32F_FAST_TF32,
)
TYPE = {"f": 0, "d": 1, "e": 2, "H": 14}  # cudaDataType; uint16 holds bfloat16
handle = lt.create()
generator = np.random.default_rng(0)


def set_attributes(kind, handle, attributes, values):
    for name, value in values.items():
        value = np.array(value, getattr(lt, f"get_{kind}_attribute_dtype")(attributes[name]))
        getattr(lt, f"{kind}_set_attribute")(handle, attributes[name], value.ctypes.data, value.nbytes)


class Matmul:
    """D = epilogue(alpha op(A) op(B) + beta C): planned once, run often, also while a stream is captured.

    CuPy's row-major arrays [batch,] rows, columns are what cuBLASLt calls column-major matrices with the
    two last axes exchanged: an array x of shape (r, c) is the matrix x.T of c rows and r columns. A batch
    stride of 0 (np.broadcast_to) shares one matrix. With row_major=True they are matrices as NumPy has them.
    aux is an array of uint8 for ReLU masks, one bit per element, and of D's type for GELU.
    """

    def __init__(
        self,
        a,
        b,
        d,
        transa=False,
        transb=False,
        epilogue=E.DEFAULT,
        bias=None,
        aux=None,
        c=None,
        alpha=1,
        beta=0,
        compute=None,
        row_major=False,
        workspace=0,
        alignment=256,
        aux_ld=None,
        device_scalars=None,
        layouts=None,
        **attributes,
    ):
        self.arrays, self.kept = (a, b, d if c is None else c, d), (bias, aux)
        scale = "d" if d.dtype == "d" else "f"
        self.desc = lt.matmul_desc_create(compute or (F64 if scale == "d" else F32), TYPE[scale])
        self.scalars = device_scalars or (np.array(alpha, scale), np.array(beta, scale))
        values = dict(
            attributes,
            transa=int(transa),
            transb=int(transb),
            epilogue=epilogue,
            pointer_mode=int(device_scalars is not None),
        )
        if bias is not None:
            values.update(
                bias_pointer=bias.data.ptr, bias_batch_stride=bias.strides[0] // bias.itemsize if bias.ndim > 1 else 0
            )
        if aux is not None:
            per_item = 8 if aux.dtype == np.uint8 else 1  # the mask is measured in bits
            values.update(
                epilogue_aux_pointer=aux.data.ptr,
                epilogue_aux_ld=aux_ld or aux.strides[-2] // aux.itemsize * per_item,
                epilogue_aux_batch_stride=aux.strides[0] // aux.itemsize * per_item if aux.ndim > 2 else 0,
            )
        set_attributes(
            "matmul_desc", self.desc, lt.MatmulDescAttribute, {name.upper(): value for name, value in values.items()}
        )
        self.layouts = [
            self.layout(x, row_major, (layouts or {}).get(name, {}))
            for name, x in zip("abcd", self.arrays, strict=True)
        ]
        self.found, count = lt.MatmulHeuristicResult(4), np.zeros(1, np.int32)
        preference = lt.matmul_preference_create()
        set_attributes(
            "matmul_preference",
            preference,
            lt.MatmulPreferenceAttribute,
            {"MAX_WORKSPACE_BYTES": workspace, **{f"MIN_ALIGNMENT_{x}_BYTES": alignment for x in "ABCD"}},
        )
        try:
            lt.matmul_algo_get_heuristic(
                handle, self.desc, *self.layouts, preference, 4, self.found.ptr, count.ctypes.data
            )
        finally:
            lt.matmul_preference_destroy(preference)
        self.count, self.algo = int(count[0]), self.found.ptr  # that of the first and fastest result
        self.workspace = cp.empty(int(self.found.workspace_size[0]), np.uint8)

    def __del__(self):
        lt.matmul_desc_destroy(self.desc)
        for layout in self.layouts:
            lt.matrix_layout_destroy(layout)

    @staticmethod
    def layout(x, row_major, changes):
        rows, cols = x.shape[-2:] if row_major else x.shape[:-3:-1]
        layout = lt.matrix_layout_create(TYPE[x.dtype.char], rows, cols, x.strides[-2] // x.itemsize)
        values = {"ORDER": int(row_major), **changes}
        if x.ndim > 2:
            values = {"BATCH_COUNT": x.shape[0], "STRIDED_BATCH_OFFSET": x.strides[0] // x.itemsize, **values}
        set_attributes("matrix_layout", layout, lt.MatrixLayoutAttribute, values)
        return layout

    def __call__(self, workspace=None, algo=None):
        alpha, beta = (s.data.ptr if isinstance(s, cp.ndarray) else s.ctypes.data for s in self.scalars)
        a, b, c, d = ((x.data.ptr, layout) for x, layout in zip(self.arrays, self.layouts, strict=True))
        work, algo = self.workspace if workspace is None else workspace, self.algo if algo is None else algo
        lt.matmul(
            handle,
            self.desc,
            alpha,
            *a,
            *b,
            beta,
            *c,
            *d,
            algo,
            work.data.ptr,
            work.nbytes,
            cp.cuda.get_current_stream().ptr,
        )


def T(x):
    return np.swapaxes(np.asarray(x.get() if isinstance(x, cp.ndarray) else x, np.float64), -1, -2)


def unpack(mask, rows):  # uint8 (..., columns, bytes) to bool (..., columns, rows)
    return np.unpackbits(mask.get(), axis=-1, bitorder="little")[..., :rows].astype(bool)


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def random(*shape, dtype="f"):
    return cp.asarray(generator.standard_normal(shape).astype(dtype))


@pytest.mark.parametrize("dtype", "fde")
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("epilogue", list(E), ids=lambda e: e.name)
def test_epilogues(epilogue, batch, dtype):
    m, n, k, name = 70, 9, 5, epilogue.name
    relu, backward, transb = "RELU" in name, name[:2] in ("DR", "DG"), name == "BGRADB"
    a, b, c = (random(*batch, *s, dtype=dtype) for s in ((k, m), (k, n) if transb else (n, k), (n, m)))
    d, bias = cp.full((*batch, n, m), np.nan, dtype), random(*batch, n if transb else m, dtype=dtype)
    aux = cp.full((*batch, n, 16), 0xFF, np.uint8) if relu else random(*batch, n, 72, dtype=dtype)
    if relu and backward:
        aux[...] = cp.asarray(np.random.default_rng(5).integers(0, 256, aux.shape, np.uint8))
    A, B = T(a), T(T(b)) if transb else T(b)
    x = 0.5 * A @ B - 2 * T(c)
    before = x + bias.get().astype("d")[..., None] if name.endswith("BIAS") else x
    if backward:
        z, h = T(aux)[..., :m, :], 1e-5
        expected = x * (T(unpack(aux, m)) if relu else (gelu(z + h) - gelu(z - h)) / (2 * h))
    else:
        expected = np.maximum(before, 0) if relu else gelu(before) if "GELU" in name else before
    more = {
        "bias": bias if "BIAS" in name or "BGRAD" in name else None,
        "aux": aux if "_AUX" in name or backward else None,
    }
    with emulated_gpu.counting() as counted:
        Matmul(a, b, d, transb=transb, epilogue=epilogue, c=c, alpha=0.5, beta=-2, **more)()
    close = dict.fromkeys(("rtol", "atol"), {"d": 1e-8, "f": 1e-4, "e": 2e-2}[dtype])
    np.testing.assert_allclose(T(d), expected, **close)
    if "_AUX" in name and relu:  # rows beyond m stay as they were
        assert (T(unpack(aux, m)) == (T(d) > 0)).all()
        assert unpack(aux, 128)[..., m:].all()
    elif "_AUX" in name:
        np.testing.assert_allclose(T(aux)[..., :m, :], before, **close)
    if "BGRAD" in name:
        np.testing.assert_allclose(
            bias.get(), A.sum(-1) if name == "BGRADA" else B.sum(-2) if transb else expected.sum(-1), **close
        )
    kind = {"f": "float32", "d": "float64", "e": "float16"}[dtype] + (" NT" if transb else " NN")
    assert counted["gemm"] == {f"LtMatmul {name} {kind} m=70 n=9 k=5 batch={3 if batch else 1}": 1}


@pytest.mark.parametrize("transa", [False, True])
@pytest.mark.parametrize("transb", [False, True])
@pytest.mark.parametrize("row_major", [False, True])
def test_transposes_and_orders(transa, transb, row_major):
    m, n, k = 6, 7, 300
    shapes = (k, m) if transa else (m, k), (n, k) if transb else (k, n), (m, n)
    a, b, d = (random(*(s if row_major else s[::-1])) for s in shapes)
    Matmul(a, b, d, transa, transb, E.RELU, row_major=row_major)()
    a, b, d = (T(T(x)) if row_major else T(x) for x in (a, b, d))
    np.testing.assert_allclose(d, np.maximum((a.T if transa else a) @ (b.T if transb else b), 0), rtol=1e-4, atol=1e-4)


def test_a_population_of_networks_in_a_graph():
    """Forward and backward through a ReLU layer, weights in rows of one array, inputs shared: no copies."""
    count, n, i, o = 3, 10, 8, 40
    theta, x, delta = random(count, 512), random(n, i), random(count, n, 4)
    w, bias = theta[:, : o * i].reshape(count, o, i), theta[:, o * i : o * i + o]
    w2, delta = theta[:, 384 : 384 + o * 2].reshape(count, 2, o), delta[..., :2]  # a slice: its leading dimension is 4
    mask, y = cp.zeros((count, n, 16), np.uint8), cp.zeros((count, n, o), "f")
    g, db = cp.zeros((count, n, o), "f"), cp.zeros((count, o), "f")
    shared = cp.broadcast_to(x, (count, n, i))
    forward = Matmul(w, shared, y, transa=True, epilogue=E.RELU_AUX_BIAS, bias=bias, aux=mask, alignment=16)
    backward = Matmul(w2, delta, g, epilogue=E.DRELU_BGRAD, bias=db, aux=mask, alignment=16)
    cp.cuda.Device().synchronize()
    with new_stream() as stream:
        stream.begin_capture()
        forward()
        backward()
        graph = stream.end_capture()
        for _ in range(2):
            x *= -1
            graph.launch(stream)
            z = np.einsum("ni,poi->pno", x.get(), w.get()) + bias.get()[:, None]
            np.testing.assert_allclose(y.get(), np.maximum(z, 0), rtol=1e-5, atol=1e-5)
            assert (unpack(mask, o) == (z > 0)).all()
            expected = delta.get() @ w2.get() * (z > 0)
            np.testing.assert_allclose(g.get(), expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(db.get(), expected.sum(1), rtol=1e-4, atol=1e-4)


def test_bfloat16():
    a, b = random(7, 6), random(5, 7)
    bits, wide, narrow = [(x.view("I") >> 16).astype("H") for x in (a, b)], cp.zeros((5, 6), "f"), cp.zeros((5, 6), "H")
    a, b = [(x.astype("I") << 16).view("f") for x in bits]
    Matmul(*bits, wide)()
    Matmul(*bits, narrow)()
    np.testing.assert_allclose(T(wide), T(a) @ T(b), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(T((narrow.astype("I") << 16).view("f")), T(wide), rtol=2**-8)


def test_scalars_tf32_broadcast_and_workspace():
    a, b, d = random(64, 32), random(16, 64), cp.zeros((16, 32), "f")
    exact, scalars = T(a) @ T(b), (cp.asarray(2, "f"), cp.asarray(0, "f"))
    on_device = Matmul(a, b, d, device_scalars=scalars)
    with new_stream() as stream:
        stream.begin_capture()
        on_device()
        graph = stream.end_capture()
        scalars[0][...] = 3  # read when it runs
        graph.launch(stream)
        stream.synchronize()
    np.testing.assert_allclose(T(d), 3 * exact, rtol=1e-5, atol=1e-4)
    Matmul(a, b, d, compute=TF32)()
    assert 1e-4 < abs(T(d) - exact).max() < 5e-2
    c = random(1, 32)  # leading dimension 0: the same column for all
    Matmul(a, b, d, c=cp.broadcast_to(c, (16, 32)), beta=1)()
    np.testing.assert_allclose(T(d), exact + T(c), rtol=1e-5, atol=1e-4)
    split = Matmul(a, b, d, workspace=4096)
    assert (split.count, Matmul(a, b, d, workspace=4095).count) == (2, 1)
    assert split.workspace.nbytes == 4096
    split()
    np.testing.assert_allclose(T(d), exact, rtol=1e-5, atol=1e-4)
    with pytest.raises(lt.cuBLASLtError, match="INVALID_VALUE"):
        split(split.workspace[:4095])


def test_refusals(capfd):
    def attempt(run=False, shape=(32, 16, 64), abd=None, **options):
        m, n, k = shape
        planned = Matmul(*abd or (random(k, m), random(n, k), cp.zeros((n, m), "f")), **options)
        if run:
            planned()

    mask, batches, square = cp.zeros((16, 16), "B"), [random(2, 8, 8) for _ in "abd"], [random(8, 8) for _ in "abd"]
    for options in (
        {"epilogue": E.RELU_AUX},  # no aux pointer
        {"epilogue": E.RELU_AUX, "aux": cp.zeros((16, 32), "B"), "aux_ld": 136},  # not a multiple of 128 bits
        {"epilogue": E.RELU_AUX, "aux": mask, "shape": (200, 16, 8)},  # less than the rows of D
        {"epilogue": E.GELU_AUX, "aux": cp.zeros((16, 36), "f")},  # not a multiple of 8
        {"epilogue": E.RELU_AUX, "aux": mask, "epilogue_aux_data_type": 0},
        {"epilogue": E.BIAS, "bias": square[0], "bias_data_type": 2},
        {"epilogue": 3},
        {"epilogue": E.BIAS, "run": True},
        {"d_scale_pointer": 1},
        {"amax_d_pointer": 1},
        {"layouts": {"a": {"LD": 31}}},
        {"layouts": {"b": {"COLS": 17}}},
        {"layouts": {"c": {"TYPE": 2}}},
        {"abd": (batches[0], batches[1][:1], batches[2])},
        {"abd": (*batches[:2], cp.broadcast_to(square[0], (2, 8, 8)))},
        # gradients overlap
        {"abd": batches, "epilogue": E.DRELU_BGRAD, "bias": cp.zeros(8, "f"), "aux": cp.zeros((2, 8, 16), "B")},
        {"run": True, "device_scalars": (np.ones(1, "f"), np.ones(1, "f"))},
        {"run": True, "abd": (*square[:2], square[0])},
    ):
        with pytest.raises(lt.cuBLASLtError, match="INVALID_VALUE"):
            attempt(**options)
    for options in (
        {"epilogue": E.DRELU, "aux": mask, "shape": (32, 16, 1)},
        {"epilogue": E.BGRADB, "bias": square[0]},
        {"compute": F64},
        {"abd": square, "row_major": True, "epilogue": E.BIAS, "bias": square[0]},
        {"abd": (random(9, 8)[1:], *square[1:]), "run": True},  # less aligned than promised
    ):
        with pytest.raises(lt.cuBLASLtError, match="NOT_SUPPORTED"):
            attempt(**options)
    said = capfd.readouterr().err
    assert "EPILOGUE_AUX_LD 136 must be a multiple of 128 and at least 32" in said
    assert "BGRADB needs B of order COL, transposed" in said
    with pytest.raises(lt.cuBLASLtError, match="NOT_SUPPORTED"):  # what is missing says so
        lt.matrix_transform_desc_create(0)
    with pytest.raises(cublas.cuBLASError, match="NOT_SUPPORTED"):
        cublas.ssymm(0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1)
    assert "cublasSsymm_v2 is not emulated" in capfd.readouterr().err


def test_descriptors_and_algorithms():
    assert lt.get_version() == lt.get_property(0) * 10000 + lt.get_property(1) * 100
    assert cublas.get_property(0) == lt.get_property(0)
    desc, value, size = lt.matmul_desc_create(68, 0), np.zeros(2, np.int32), np.zeros(1, np.uint64)
    lt.matmul_desc_get_attribute(desc, lt.MatmulDescAttribute.BIAS_DATA_TYPE, value.ctypes.data, 4, size.ctypes.data)
    assert value[0] == -1
    assert size[0] == 4
    with pytest.raises(lt.cuBLASLtError):
        lt.matmul_desc_set_attribute(desc, lt.MatmulDescAttribute.EPILOGUE, value.ctypes.data, 8)
    a, b, d = random(64, 32), random(16, 64), cp.zeros((16, 32), "f")
    plan, algo = Matmul(a, b, d), lt.MatmulAlgo()
    lt.matmul_algo_init(handle, 68, 0, 0, 0, 0, 0, 0, algo.ptr)
    lt.matmul_algo_check(handle, plan.desc, *plan.layouts, algo.ptr, lt.MatmulHeuristicResult().ptr)
    plan(algo=algo.ptr)
    plan(algo=0)
    np.testing.assert_allclose(T(d), T(a) @ T(b), rtol=1e-5, atol=1e-4)
    with pytest.raises(lt.cuBLASLtError, match="NOT_INITIALIZED"):
        lt.destroy(np.zeros(8, np.int64).ctypes.data)


def test_a_matrix_beyond_its_allocation(capfd):
    a, b, d = raw(32 * 16 * 4), raw(16 * 32 * 4), raw(16 * 16 * 4)
    a, b = (cp.ndarray((16, 32), "f", x.data) for x in (a, b))
    plan = Matmul(a, b, cp.ndarray((16, 16), "f", d.data), transa=True)
    plan()
    short = Matmul(a, b, cp.ndarray((16, 16), "f", raw(16 * 16 * 4 - 4).data), transa=True)
    with fault("IllegalAddress"):
        short()
    assert "matrix D: 4 bytes lie past the end of the 1020-byte allocation" in capfd.readouterr().err
