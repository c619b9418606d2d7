import numpy as np
import pytest

from gpumlp.backends.select import get_backend


def test_a_captured_step_does_at_each_call_what_the_step_does(backend):
    b = get_backend(backend, dtype="float64")
    x, y = b.asarray(np.array([[1.0, 2.0]])), b.asarray(np.zeros((1, 2)))

    def step():
        b.copy(x, y)
        b.fill(x, 5.0)

    with b.session():
        captured = b.capture(step)
        assert b.to_host(y).tolist() == [[0, 0]]
        captured()
        assert b.to_host(y).tolist() == [[1, 2]]
        for _ in range(3):
            b.fill(y, 0.0)
            captured()
            assert b.to_host(y).tolist() == [[5, 5]]
        b.fill(y, 7.0)
    assert b.to_host(y).tolist() == [[7, 7]]


@pytest.mark.parametrize("n_good", [0, 1])
def test_a_capture_that_fails_leaves_the_backend_as_it_was(n_good, backend):
    b = get_backend(backend)
    x = b.asarray(np.zeros((1, 2), np.float32))
    calls = []

    def step():
        calls.append(1)
        b.fill(x, 1.0)
        if len(calls) > n_good:
            raise RuntimeError("stop")

    def until_it_fails():
        with b.session():
            captured = b.capture(step)
            captured()
            captured()
            raise RuntimeError("stop")  # a backend that needs the step only once

    with pytest.raises(RuntimeError, match="stop"):
        until_it_fails()
    b.fill(x, 3.0)
    assert b.to_host(x).tolist() == [[3, 3]]


def test_a_model_is_finite_if_every_one_of_its_numbers_is(backend):
    b = get_backend(backend)
    x = np.zeros((4, 5), np.float32)
    x[1, 2], x[2, 0], x[3, 4] = np.nan, np.inf, -np.inf
    assert b.finite_models(b.asarray(x)).tolist() == [True, False, False, False]


def test_arrays_come_from_the_host_in_rows_order(backend):
    b = get_backend(backend)
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    there = b.asarray(x, np.float32)
    assert np.array_equal(b.to_host(there), x)
    assert b.to_host(there).dtype == np.float32
    assert b.to_host(there).flags.c_contiguous
