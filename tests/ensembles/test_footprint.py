"""The estimate of a stack's memory."""

import tracemalloc

import numpy as np
from fleet import data, job, mixed_jobs, with_monitors

import gpumlp
from gpumlp.ensembles import plan, train
from gpumlp.ensembles.footprint import bytes_of
from gpumlp.ensembles.plan import shape_of


def peak_of(jobs, X, Y, stacks):
    tracemalloc.start()
    train(jobs, X, Y, backend="numpy", stacks=stacks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_training_a_stack_takes_what_was_estimated():
    X, Y = data(300)
    jobs = [with_monitors(one) for one in mixed_jobs(12, len(X), hidden=(150, 70))]
    (stack,) = plan(jobs, X, Y, backend="numpy").stacks
    peak_of(
        [with_monitors(one) for one in mixed_jobs(2, len(X))], X, Y, None
    )  # so that what is imported and compiled is there
    peak = peak_of(jobs, X, Y, None)
    assert 0.7 * peak < stack.bytes < 1.4 * peak


class OnProcessor:
    """Stands in for a backend whose scratch no plan counts."""

    name, device, dtype = "numba", "cpu", np.dtype("float32")


def test_a_job_alone_takes_what_the_plan_of_its_training_says_but_for_the_data():
    X, Y = data(300)
    alone = job(hidden=(20,), dropout=0.5, monitors=[gpumlp.KeepBest("cost")])
    whole = gpumlp.plan_memory([alone.member], 16, n_rows=300, backend="numba", data_dtype=X.dtype)
    assert bytes_of([alone], shape_of(X, Y), OnProcessor()) == whole.total - X.nbytes - Y.nbytes


def test_rows_count_once_however_many_jobs_have_them():
    X, Y = data(300)
    rows, held_out = np.arange(300), np.arange(100)
    shared = [job(seed=i, rows=rows, validation_rows=held_out) for i in range(5)]
    apart = [job(seed=i, rows=rows.copy(), validation_rows=held_out.copy()) for i in range(5)]
    more = bytes_of(apart, shape_of(X, Y), OnProcessor()) - bytes_of(shared, shape_of(X, Y), OnProcessor())
    assert more >= 4 * 8 * (300 + 100)
