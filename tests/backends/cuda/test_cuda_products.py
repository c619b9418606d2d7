"""The three products of a layer, on strided and shared operands."""

import numpy as np
import pytest
from cuda_cases import DTYPES, GAP, compute, draw, expect_agreement, opened, put, tensors, unset, whole

from gpumlp.backends.cuda.gemm import Gemm
from gpumlp.backends.select import get_backend

SIZES = [(1, 1, 1), (1, 3, 1), (5, 4, 6), (7, 33, 3), (33, 1, 130), (130, 7, 33), (64, 130, 8)]  # batch, in, out


def products(n_models, batch, n_in, n_out, shared, gap):
    """The case of all three products, with W and dW inside rows that `gap` makes longer."""

    def case(b):
        gemm = Gemm(b._device, b.dtype, b.precision) if b.name == "cuda" else None
        theta, (W, _) = tensors(b, n_models, [(n_out, n_in), (n_out,)], lambda *shape: draw(1, *shape), gap)
        grad, (dW, _) = tensors(b, n_models, [(n_out, n_in), (n_out,)], GAP, gap)
        a_in = put(b, draw(2, 1 if shared else n_models, batch, n_in))
        delta = put(b, draw(3, n_models, batch, n_out))
        z, back = unset(b, n_models, batch, n_out), unset(b, n_models, batch, n_in)
        b.linear(a_in, W, z)
        b.weight_gradient(delta, a_in, dW)
        if gemm is not None:
            gemm.backward(delta, W, back)
        else:
            np.matmul(delta, W, back)
        return {"z": z, "grad": grad, "back": back, "theta": theta, "a_in": a_in, "delta": delta}

    return case


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_products_of_a_layer(sizes, n_models, shared, dtype):
    for gap in (0, 5, 32):
        expect_agreement(products(n_models, *sizes, shared, gap), dtype)


@pytest.mark.parametrize("sizes", [(5, 33, 7), (64, 128, 32)], ids=str)
def test_tf32_rounds_the_factors_of_float32_and_nothing_else(sizes):
    tf32 = get_backend("cuda", dtype="float32", precision="tf32")
    case = products(3, *sizes, shared=True, gap=32)
    plain, exact = (compute(case, name, dtype) for name, dtype in (("cuda", "float32"), ("numpy", "float64")))
    with tf32.session():
        rounded = {name: whole(tf32, value) for name, value in case(tf32).items()}
    for name in ("z", "grad", "back"):
        assert rounded[name].dtype == np.float32
        assert np.abs(rounded[name] - exact[name]).max() < 1e-3 * np.abs(exact[name]).max()
        if sizes[0] == 64:  # a real cuBLAS may leave small and odd sizes in float32
            assert np.abs(rounded[name] - exact[name]).max() > 1e-6 * np.abs(exact[name]).max()
            assert not np.array_equal(rounded[name], plain[name])
    assert np.array_equal(rounded["theta"], plain["theta"])


def test_a_network_in_tf32_learns_as_in_float32_but_for_rounding():
    import gpumlp

    X, Y = draw(1, 128, 32), draw(2, 128, 16)
    found = {}
    for precision in (None, "float32", "tf32"):
        net = gpumlp.Network((32, 64, 16), "tanh", "identity", "quadratic", backend="cuda", precision=precision)
        gpumlp.Trainer(net, "sgd", 0.01, batch_size=32).fit(X, Y, 3)
        found[precision] = net.predict(X)
    assert np.array_equal(found[None], found["float32"])
    assert not np.array_equal(found["tf32"], found["float32"])
    assert np.abs(found["tf32"] - found["float32"]).max() < 1e-2


def gemm_and_arrays():
    b = opened("cuda", "float32")
    return Gemm(b._device, b.dtype, "float32"), b, put(b, draw(1, 3, 5, 4)), put(b, draw(2, 3, 6, 4)), unset(b, 3, 5, 6)


@pytest.mark.parametrize("wrong", ["dtype", "axes", "models", "strides"])
def test_an_array_that_a_product_cannot_take_is_refused(wrong):
    gemm, b, a_in, W, z = gemm_and_arrays()
    bad = {
        "dtype": lambda: b.asarray(draw(1, 3, 5, 4), np.float64),
        "axes": lambda: a_in[0],
        "models": lambda: a_in[:2],
        "strides": lambda: put(b, draw(1, 3, 5, 8))[:, :, ::2],
    }[wrong]()
    with pytest.raises(TypeError, match="a product takes no array of"):
        gemm.forward(bad, W, z)
