"""The networks that times are taken on: their data, what they count, and that their steps are a training."""

import gc
from itertools import pairwise

import numpy as np
import pytest

import gpumlp
from gpumlp.bench import workloads
from gpumlp.bench.workloads import ON_CPU, ON_CUDA, SMALL, ReadyStep, Workload, whole_batches

MOMENTUM = Workload("several", (9, 7, 4), 8, 3, 40, "momentum", "tanh")


def test_data_are_made_once_and_kept_only_while_they_are_used():
    X, labels = SMALL.data()
    assert SMALL.data()[0] is X
    assert SMALL.data()[1] is labels
    assert X.shape == (SMALL.n_rows, SMALL.sizes[0])
    assert set(labels) <= set(range(SMALL.sizes[-1]))
    before = X[0].copy()
    del X, labels
    gc.collect()
    assert not [key for key in workloads._in_use if key[1] == SMALL.n_rows]
    assert np.array_equal(SMALL.data()[0][0], before)


def test_every_batch_is_full():
    for workload in (*ON_CPU, *ON_CUDA, SMALL):
        assert workload.n_rows == workload.n_steps * workload.batch
    assert [whole_batches(n, 64) for n in (1, 64, 130)] == [64, 64, 128]


@pytest.mark.parametrize("workload", [*ON_CPU, *ON_CUDA, SMALL], ids=lambda w: w.name)
def test_operations_and_parameters_are_counted(workload):
    n, sizes = workload.batch, workload.sizes
    forward = sum(2 * n * i * o for i, o in pairwise(sizes))
    backward = sum(2 * n * i * o for i, o in pairwise(sizes[1:]))
    assert workload.flops == workload.n_models * (2 * forward + backward)
    assert workload.n_params == workload.n_models * sum(o * (i + 1) for i, o in pairwise(sizes))


@pytest.mark.parametrize("workload", [SMALL, MOMENTUM], ids=lambda w: w.name)
@pytest.mark.parametrize("per_launch", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_ready_step_trains_as_a_trainer_does(backend, workload, per_launch, shuffle):
    ready = ReadyStep(workload, backend, shuffle=shuffle, per_launch=per_launch)
    for steps in (1, workload.n_steps, workload.n_steps - 1):  # over the end of an epoch
        ready.run(steps)
    net = gpumlp.Network(workload.sizes, workload.activation, n_models=workload.n_models, backend=backend)
    order = "shared" if shuffle else False
    gpumlp.Trainer(net, workload.rule, 1e-3, workload.batch, shuffle=order).fit(*workload.data(), 2)
    for found, expected in zip(ready.net.weights, net.weights, strict=True):
        assert np.array_equal(found, expected)
