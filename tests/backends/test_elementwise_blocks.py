import itertools

import numpy as np
import pytest

from gpumlp.backends.numpy_elementwise import Elementwise, blocks, simplify, view
from gpumlp.formulas.printers import numpy_program
from gpumlp.formulas.term import record
from gpumlp.formulas.vocabulary import exp, where

SHAPES = [(1, 1, 1), (3, 5, 7), (1, 5, 1), (4, 1, 9), (2, 11, 3), (7, 1, 1), (1, 1, 100)]


@pytest.mark.parametrize("size", [1, 2, 7, 20, 105, 1000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_meet_each_element_once_and_none_is_larger_than_the_size(shape, size):
    met = np.zeros(shape, int)
    for block in blocks(shape, size):
        met[block] += 1
        assert met[block].size <= size
    assert (met == 1).all()


def test_blocks_keep_whole_models_together_where_they_fit():
    assert list(blocks((4, 3, 5), 30)) == [
        (slice(0, 2), slice(0, 3), slice(0, 5)),
        (slice(2, 4), slice(0, 3), slice(0, 5)),
    ]


def test_a_view_of_a_shared_axis_is_all_of_it():
    x = np.zeros((1, 5, 1))
    assert view(x, (slice(3, 4), slice(1, 3), slice(0, 9))).shape == (1, 2, 1)


def test_views_become_as_flat_as_they_can():
    whole, number, row = np.zeros((2, 3, 4)), np.zeros((1, 1, 1)), np.zeros((1, 1, 4))
    assert [v.shape for v in simplify([whole, number, whole])] == [(24,), (), (24,)]
    assert [v.shape for v in simplify([whole, row, whole])] == [(2, 3, 4), (1, 1, 4), (2, 3, 4)]
    assert [v.shape for v in simplify([whole[:, :, :2], whole[:, :, 2:]])] == [(2, 3, 2), (2, 3, 2)]


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("block_size", [1, 3, 10, 64, 100000])
def test_a_plan_computes_every_element_whatever_the_blocks(threads, block_size, monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", threads)
    monkeypatch.setattr("gpumlp.backends.numpy_elementwise.THREAD_WORK", 1)
    program = numpy_program(
        record(lambda x, b, h: (x + b, where(x * h > b, exp(-x * x), b + h)), "x", "b", "h"), ("s", "t"), {"s": "x"}
    )
    rng = np.random.default_rng(0)
    for shape, axes in itertools.product(SHAPES, itertools.product([False, True], repeat=3)):
        elementwise = Elementwise(np.float64)
        elementwise.block_size = block_size
        x, b = (
            rng.standard_normal(shape),
            rng.standard_normal([1 if one else n for n, one in zip(shape, axes, strict=True)]),
        )
        h = np.full((1, 1, 1), 0.7)
        wanted = x + b, np.where(x * 0.7 > b, np.exp(-x * x), b + 0.7)
        out = np.empty(shape)
        elementwise.plan(program, [x, b, h], [x, out])()
        assert np.array_equal(x, wanted[0])
        assert np.allclose(out, wanted[1], rtol=1e-15)


def test_plans_of_one_backend_share_their_scratch():
    elementwise = Elementwise(np.float32)
    program = numpy_program(record(lambda x: exp(x) * (x + 1) / (exp(-x) + 2), "x"), ("out",), {})
    arrays = [np.linspace(0, 1, n, dtype=np.float32).reshape(1, 1, n) for n in (5, 50, 7)]
    outputs = [np.empty_like(x) for x in arrays]
    plans = [elementwise.plan(program, [x], [out]) for x, out in zip(arrays, outputs, strict=True)]
    for plan in (*plans, *reversed(plans)):
        plan()
    for x, out in zip(arrays, outputs, strict=True):
        assert np.allclose(out, np.exp(x) * (x + 1) / (np.exp(-x) + 2), rtol=1e-6)
