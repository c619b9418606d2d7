"""What pools cost on a device: each row is copied once in an epoch, and the step stays one graph."""

import emulated_gpu
import numpy as np
import pytest
from devices import cupy_on

import gpumlp

cupy_on("emulated")

N_ROWS, EPOCHS = 430, 3


class Snapshots(gpumlp.Monitor):
    def training_began(self, run):
        self.seen = []

    def step_ended(self, step):
        self.seen.append(emulated_gpu.snapshot())


@pytest.fixture(scope="module")
def counted():
    """What happened in a training of nine pools an epoch, the last one short; and between its second and last epoch."""
    X, labels = np.random.default_rng(0).integers(0, 255, (N_ROWS, 16), np.uint8), np.arange(N_ROWS) % 3
    net, noted = gpumlp.Network((16, 8, 3), n_models=2, backend="cuda"), Snapshots()
    trainer = gpumlp.Trainer(net, batch_size=10)
    with emulated_gpu.counting() as found:
        trainer.fit(X, labels, EPOCHS, pool=gpumlp.Pool(50, blocks=2), monitors=[noted])
    begin, end = noted.seen[43], noted.seen[-1]
    later = {group: dict(keys - begin[group]) for group, keys in end.items() if keys - begin[group]}
    return found, later, EPOCHS * (X.nbytes + labels.nbytes)


def test_one_graph_serves_all_pools(counted):
    found, _, _ = counted
    assert found["graphs"]["instantiated"] == 1
    assert found["graphs"]["launches"] == EPOCHS * 43 - 1  # the first step is run kernel by kernel


def test_each_row_is_copied_to_the_device_once_in_an_epoch(counted):
    found, _, n_bytes = counted
    assert n_bytes <= found["memcpy_bytes"]["HostToDevice"] < n_bytes + 3_000  # tables of numbers besides


def test_nothing_is_allocated_once_the_first_epoch_is_done(counted):
    _, later, _ = counted
    assert "memory" not in later
