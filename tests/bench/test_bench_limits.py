"""The products alone are those of a step, whatever their form; bytes and bandwidth are what they are said to be."""

from itertools import pairwise

import numpy as np
import pytest

from gpumlp.bench import limits
from gpumlp.bench.contest import HOST
from gpumlp.bench.workloads import SMALL, Workload

WORKLOADS = [SMALL, Workload("one", (9, 7, 6, 4), 5, 1, 20), Workload("flat", (9, 4), 5, 3, 20, "momentum")]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_the_products_have_the_shapes_and_operations_of_a_step(workload, folded):
    m, n, sizes = workload.n_models, workload.batch, workload.sizes
    products = limits.step_products(workload, folded)
    assert sum(2 * out.size * x.shape[-1] for x, _, out in products) == workload.flops
    layers = len(sizes) - 1
    assert [out.size for _, _, out in products[:layers]] == [m * n * o for o in sizes[1:]]  # z
    backward = products[layers:]
    gradients = [out for x, y, out in backward if out.size in {m * i * o for i, o in pairwise(sizes)}]
    assert len(gradients) >= layers
    assert len(backward) == 2 * layers - 1


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_the_products_are_right_and_stay_finite(workload, folded):
    products = limits.step_products(workload, folded)
    limits.product_runner(products).work(3)
    assert all(np.isfinite(out).all() for _, _, out in products)
    x, y, out = products[0]  # nothing that it reads is overwritten later
    assert np.allclose(out, np.matmul(x.astype(np.float64), y), atol=1e-4)


@pytest.mark.parametrize("workload", WORKLOADS[:1], ids=lambda w: w.name)
def test_the_folded_first_layer_computes_what_the_stack_does(workload):
    stacked, folded = (limits.step_products(workload, f) for f in (False, True))
    m, n, (i, o) = workload.n_models, workload.batch, workload.sizes[:2]
    a0, W = stacked[0][0], stacked[0][1]
    folded[0][0][...] = a0[0]
    folded[0][1][...] = W.swapaxes(1, 2).reshape(m * o, i).T
    for products in (stacked, folded):
        limits.product_runner(products[:1]).work(1)
    z = folded[0][2].reshape(n, m, o).swapaxes(0, 1)
    assert np.allclose(z, stacked[0][2], atol=1e-5)
    assert np.shares_memory(folded[0][2], folded[1][0])  # the next layer reads what the first wrote


def test_a_stack_says_in_which_form_its_products_are():
    assert limits.products_alone(WORKLOADS[1], "cpu", HOST)[1] == "np.matmul"
    assert limits.products_alone(SMALL, "cpu", HOST)[1] in (
        "np.matmul, a product for each model",
        "np.matmul, the first layer of all models as one",
    )


def test_the_recursions_products_lead_from_the_last_layer_to_the_first():
    products = limits.delta_products(4, 6, 5)
    assert [out.shape for _, _, out in products] == [(1, 5, 6)] * 3
    assert products[1][0] is products[0][2]


def test_the_bytes_of_a_step_are_counted():
    adam, momentum = (Workload("", (9, 7, 4), 5, 3, 20, rule) for rule in ("adam", "momentum"))
    n_params = 3 * (9 * 7 + 7 + 7 * 4 + 4)
    assert limits.step_bytes(adam) == 4 * 5 * 9 + 24 * n_params
    assert limits.step_bytes(momentum) == 4 * 5 * 9 + 16 * n_params


def test_the_bandwidth_is_that_of_arrays_as_large(monkeypatch):
    asked = []
    monkeypatch.setattr(limits, "_copy_rate", lambda n: asked.append(n) or 1e9)
    assert limits.bandwidth(5) == 1e9
    limits.bandwidth(2**20 + 1)
    limits.bandwidth(10**12)
    assert asked == [2**20, 2**22, limits.largest()]
    assert limits.limit(2_000, "cpu", 0.5, HOST) == 0.5 + 2e-6
    assert limits.largest() >= 4 * limits._last_level_cache()


def test_a_copy_has_a_rate():
    assert limits._copy_rate(2**16) > 0
