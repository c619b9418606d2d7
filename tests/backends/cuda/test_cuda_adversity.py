"""Trainings give the same bits whatever the order of threads, blocks and streams, and touch no memory but their own."""

import numpy as np
import pytest
from cuda_runs import TRAININGS, everything, everything_elsewhere, expect_same_bits, train
from devices import cupy_on

cupy_on("emulated")


@pytest.fixture(scope="module")
def undisturbed():
    return everything()


@pytest.mark.parametrize("name", list(TRAININGS))
def test_a_training_gives_what_numpy_gives(name, undisturbed):
    wanted = train("numpy", **TRAININGS[name])
    tolerance = 1e-11 if TRAININGS[name].get("dtype") == "float64" else 1e-4
    for key, value in wanted.items():
        found = undisturbed[f"{name}: {key}"]
        assert np.array_equal(np.isnan(found), np.isnan(value)), key  # what a history has of models that have stopped
        difference, largest = np.nanmax(np.abs(found - value)), np.nanmax(np.abs(value))
        assert difference <= tolerance * max(largest, 1e-3), key
        assert not key.startswith("start") or np.array_equal(found, value)


@pytest.mark.parametrize("seed", ["0", "2", "3", "4"])
def test_the_order_of_threads_and_blocks_changes_no_bit(seed, undisturbed, tmp_path):
    expect_same_bits(everything_elsewhere(tmp_path, EMULATED_GPU_SEED=seed), undisturbed)


def test_work_that_waits_as_long_as_it_may_changes_no_bit(undisturbed, tmp_path):
    expect_same_bits(everything_elsewhere(tmp_path, EMULATED_GPU_MODE="lazy"), undisturbed)


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_no_kernel_leaves_its_arrays(mode, undisturbed, tmp_path):
    settings = {"EMULATED_GPU_ALIGN": "16", "EMULATED_GPU_MODE": mode, "EMULATED_GPU_SEED": "5"}
    expect_same_bits(everything_elsewhere(tmp_path, "memcheck", **settings), undisturbed)


def test_without_graphs_the_bits_are_the_same(undisturbed, tmp_path):
    expect_same_bits(everything_elsewhere(tmp_path, GPUMLP_CUDA_GRAPHS="off"), undisturbed)


def test_memory_that_was_zero_before_changes_no_bit(undisturbed, tmp_path):
    expect_same_bits(everything_elsewhere(tmp_path, EMULATED_GPU_POISON="0"), undisturbed)
