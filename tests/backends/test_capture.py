import numpy as np
import pytest

from gpumlp.backends.select import get_backend


def test_a_captured_list_of_calls_is_not_run_but_repeated(backend):
    b = get_backend(backend, dtype="float64")
    x, y = b.from_host(np.array([[1.0, 2.0]])), b.from_host(np.zeros((1, 2)))

    def step():
        b.copy(x, y)
        b.fill(x, 5.0)

    replay = b.capture(step)
    assert b.to_host(y).tolist() == [[0, 0]]
    replay()
    assert b.to_host(y).tolist() == [[1, 2]]
    replay()
    assert b.to_host(y).tolist() == [[5, 5]]
    b.fill(y, 7.0)
    assert b.to_host(y).tolist() == [[7, 7]]


def test_a_capture_that_fails_leaves_the_backend_as_it_was(backend):
    b = get_backend(backend)
    x = b.from_host(np.zeros((1, 2), np.float32))

    def step():
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        b.capture(step)
    b.fill(x, 3.0)
    assert b.to_host(x).tolist() == [[3, 3]]


def test_a_model_is_finite_if_every_one_of_its_numbers_is(backend):
    b = get_backend(backend)
    x = np.zeros((4, 5), np.float32)
    x[1, 2], x[2, 0], x[3, 4] = np.nan, np.inf, -np.inf
    assert b.finite_models(b.from_host(x)).tolist() == [True, False, False, False]


def test_arrays_come_from_the_host_in_rows_order(backend):
    b = get_backend(backend)
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    there = b.from_host(x, np.float32)
    assert np.array_equal(b.to_host(there), x)
    assert b.to_host(there).dtype == np.float32
    assert b.to_host(there).flags.c_contiguous
