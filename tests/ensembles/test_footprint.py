"""The estimate of a stack's memory."""

import tracemalloc

from fleet import data, mixed_jobs, with_monitors

from gpumlp.ensembles import plan, train


def peak_of(jobs, X, Y, stacks):
    tracemalloc.start()
    train(jobs, X, Y, backend="numpy", stacks=stacks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_training_a_stack_takes_what_was_estimated():
    X, Y = data(300)
    jobs = mixed_jobs(12, len(X), hidden=(150, 70))
    (stack,) = plan(jobs, X, Y, backend="numpy").stacks
    peak_of([with_monitors(one) for one in jobs[:2]], X, Y, None)  # so that what is imported and compiled is there
    peak = peak_of([with_monitors(one) for one in jobs], X, Y, None)
    assert 0.7 * peak < stack.bytes < 1.4 * peak
