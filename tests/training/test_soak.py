"""The steps of a training leave no trace: memory, open files and threads stay as they are once it is under way."""

import gc
import os
from pathlib import Path

import pytest
from devices import in_use, why_skipped
from small import classifier, labelled

import gpumlp

MEGABYTE = 2**20
BATCH = 4
PROCESS = Path("/proc/self")
LINUX = pytest.mark.skipif(not PROCESS.exists(), reason="/proc tells of memory, files and threads on Linux alone")


def resident():
    """Return the bytes of memory that the process holds."""
    return int((PROCESS / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir(PROCESS / "fd"))


def threads():
    return len(os.listdir(PROCESS / "task"))


class Gauge(gpumlp.Monitor):
    """Reads off what the process and the device hold at the end of each epoch."""

    def __init__(self, **more):
        self.measures = {"resident": resident, "open files": open_files, "threads": threads} | more
        self.readings = {name: [] for name in self.measures}

    def epoch_ended(self, report):
        gc.collect()
        for name, measure in self.measures.items():
            self.readings[name].append(measure())


def train(backend, folder, steps, epochs, **more):
    """Train with all that is kept going beside the steps, and return what was read off behind each epoch."""
    X, y = labelled(BATCH * (steps // epochs))
    net = classifier(dropout=0.2, backend=backend, dtype="float32")
    gauge = Gauge(**more)
    gpumlp.Trainer(net, "adam", batch_size=BATCH, schedule="cosine").fit(
        X,
        y,
        epochs,
        validation=labelled(30, seed=1),
        monitors=[gpumlp.EarlyStopping("validation_cost", epochs), gpumlp.CsvLog(folder / "log.csv"), gauge],
        checkpoints=gpumlp.Checkpoints(folder / "checkpoints", every=f"{steps // (3 * epochs)}steps"),
    )
    assert len(gauge.readings["resident"]) == epochs
    return gauge.readings


def expect_constant(readings):
    """Compare what was there after a quarter of the training with what is there from then on."""
    for name, values in readings.items():
        under_way = values[len(values) // 4 :]
        if name == "resident":
            assert under_way[-1] - under_way[0] < MEGABYTE
        else:
            assert set(under_way) == {under_way[0]}, name


@LINUX
def test_thousands_of_steps_leave_no_trace(tmp_path):
    expect_constant(train("numpy", tmp_path, 4_000, 8))


@LINUX
@pytest.mark.soak
def test_two_hundred_thousand_steps_leave_no_trace(tmp_path):
    expect_constant(train("numpy", tmp_path, 200_000, 100))


@LINUX
@pytest.mark.soak
def test_steps_on_an_emulated_device_leave_no_trace(tmp_path):
    if in_use().kind != "emulated":
        pytest.skip(why_skipped("emulated"))
    import cupy
    import emulated_gpu

    pool, before = cupy.get_default_memory_pool(), emulated_gpu.mode()
    emulated_gpu.set_mode("eager")
    try:
        readings = train("cuda", tmp_path, 8_000, 40, used=pool.used_bytes, held=pool.total_bytes)
    finally:
        emulated_gpu.set_mode(before)
    expect_constant(readings)
