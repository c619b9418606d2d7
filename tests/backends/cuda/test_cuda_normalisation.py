"""A normalised layer gives on cuda what it gives on NumPy."""

import numpy as np
import pytest
from comparing import is_same_model
from cuda_cases import DTYPES, compute, expect_agreement
from normalised_layers import DEGENERATE, SIZES, WAYS, normalised

from gpumlp.formulas.activations import ACTIVATIONS

NAMES = [a.name for a in ACTIVATIONS.definitions() if not a.row_wise]
CHUNKS = [
    pytest.param(130, 300, id="chunks of rows, tiles"),
    pytest.param(132, 300, id="the same, aligned"),
    pytest.param(33, 517, id="chunks, unaligned"),
    pytest.param(16, 2051, id="chunks, narrow"),
    pytest.param(3, 4099, id="one lane"),
]
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_way = pytest.mark.parametrize("way", WAYS)


@both_dtypes
@every_way
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_normalised_layer_goes_forward_and_back(activation, rate, way, dtype):
    expect_agreement(normalised(way, activation, rate=rate), dtype)


@pytest.mark.parametrize("way", ["layer", "batch"])
@pytest.mark.parametrize("activation", NAMES)
def test_every_activation_behind_a_normalisation(activation, way):
    expect_agreement(normalised(way, activation), "float64")


@both_dtypes
@every_way
@pytest.mark.parametrize("sizes", [*SIZES, (1, 9, 2, 1028), (2, 6, 1, 8)], ids=str)
def test_a_normalised_layer_of_any_size(sizes, way, dtype):
    expect_agreement(normalised(way, "tanh", *sizes, rate=0.3), dtype)


@both_dtypes
@pytest.mark.parametrize("way", ["layer", "batch", "batch, weights of each model"])
@pytest.mark.parametrize(("width", "batch"), CHUNKS)
def test_statistics_and_gradients_over_several_chunks(width, batch, way, dtype):
    expect_agreement(normalised(way, "tanh", 2, batch, 2, width), dtype)


@pytest.mark.parametrize("way", ["layer", "batch"])
def test_statistics_of_a_far_offset_keep_their_digits(way):
    expect_agreement(normalised(way, "tanh", 2, 300, 2, 33, offset=100.0), "float32")


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("way", ["layer", "batch"])
def test_a_grid_smaller_than_the_work_does_all_of_it(way, most, monkeypatch):
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_BLOCKS", most)
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_CHUNKS", most)
    for width in (33, 132):
        expect_agreement(normalised(way, "gelu", batch=301, n_out=width, rate=0.3), "float64")


@every_way
@pytest.mark.parametrize("sizes", DEGENERATE, ids=str)
def test_what_cancels_in_a_normalised_layer_leaves_rounding_alone(sizes, way):
    found, wanted = (compute(normalised(way, "tanh", *sizes), name, "float64") for name in ("cuda", "numpy"))
    for name, value in wanted.items():
        assert np.allclose(found[name], value, rtol=1e-6, atol=1e-10), name


@pytest.mark.parametrize("way", ["layer", "batch"])
@pytest.mark.parametrize(("width", "batch"), CHUNKS)
def test_a_model_has_the_same_sums_in_any_stack(width, batch, way):
    stack = compute(normalised(way, "tanh", 3, batch, 1, width, skipped=()), "cuda", "float32")
    alone = compute(normalised(way, "tanh", 1, batch, 1, width, skipped=()), "cuda", "float32")
    for name, value in alone.items():  # the first model has the same draws in both
        assert is_same_model(value[0], stack[name][0], "cuda"), name
