"""Sums of many blocks: right wherever the work is divided, the same in any stack, and ready for the next."""

import numpy as np
import pytest
from cuda_cases import DTYPES, compute, draw, expect_agreement, layer, norm, opened, output

from gpumlp.backends.protocol import COST

GROUPS = [
    pytest.param(1, 1, id="one chunk"),
    pytest.param(5, 1, id="some chunks"),
    pytest.param(32, 1, id="a full group"),
    pytest.param(33, 2, id="a group and one chunk"),
    pytest.param(64, 2, id="two full groups"),
    pytest.param(71, 3, id="three groups, the last one short"),
]
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def tickets_are_zero_afterwards():
    yield
    found = []
    for dtype in DTYPES:
        b = opened("cuda", dtype)
        with b.session():
            found += [key for key, x in b._arena._scratch.items() if key[0].endswith("tickets") and x.get().any()]
    assert not found


def noted_launches(dtype, monkeypatch):
    """A list that is given each launch's kernel, blocks, threads and numbers of elements."""
    b, noted = opened("cuda", dtype), []
    launch = b._launch

    def noting(source, name, blocks, threads, **arguments):
        sizes = {k: x.size for k, x in arguments.items() if hasattr(x, "size")}
        noted.append({"name": name, "blocks": blocks, "threads": threads, **sizes})
        noted[-1]["long rows"] = "long rows" in source.name
        return launch(source, name, blocks, threads, **arguments)

    monkeypatch.setattr(b, "_launch", noting)
    return noted


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize(("n_out", "rows_at_a_time"), [(33, 4), (1028, 1)], ids=["rows of warps", "rows of blocks"])
@pytest.mark.parametrize(("n_chunks", "n_groups"), GROUPS)
def test_costs_hits_and_bias_gradients_of_any_number_of_chunks(
    n_chunks, n_groups, n_out, rows_at_a_time, n_models, dtype, monkeypatch
):
    noted = noted_launches(dtype, monkeypatch)
    batch = n_chunks * rows_at_a_time - rows_at_a_time // 2  # the last chunk is short
    expect_agreement(output("categorical_cross_entropy", "softmax", n_models, batch, n_out, hits=True, steps=2), dtype)
    expect_agreement(output("quadratic", "tanh", n_models, batch, n_out, hits=True, train=False, steps=2), dtype)
    assert [x["name"] for x in noted] == ["output_delta"] * 2 + ["evaluate"] * 2
    for launch in noted:
        assert launch["blocks"] == n_models * n_chunks
        assert launch["costs"] == n_models * (n_chunks + n_groups) * 2
        assert launch["tickets"] == n_models * (n_groups + 1)
        assert launch["long rows"] == (n_out == 1028)
    assert noted[0]["partials"] == n_models * (n_chunks + n_groups) * n_out


@both_dtypes
@pytest.mark.parametrize("n_out", [1024, 1025, 1027, 1028, 1030])
def test_rows_of_blocks_are_those_that_are_long_and_made_of_vectors(n_out, dtype, monkeypatch):
    noted = noted_launches(dtype, monkeypatch)
    for cost, activation in [("categorical_cross_entropy", "softmax"), ("cross_entropy", "sigmoid")]:
        expect_agreement(output(cost, activation, 2, 9, n_out, hits=True), dtype)
        expect_agreement(output(cost, activation, 2, 9, n_out, hits=True, train=False), dtype)
    long_rows = n_out > 1024 and n_out % {"float32": 4, "float64": 2}[dtype] == 0
    assert {x["long rows"] for x in noted} == {long_rows}
    assert {x["threads"] for x in noted} == {256 if long_rows else 128}


@both_dtypes
@pytest.mark.parametrize("train", [True, False])
def test_ties_and_nan_in_rows_of_blocks_are_hits_as_numpys_argmax_says(train, dtype):
    rng = np.random.default_rng(0)
    for values in ([0.0, 1.0], [0.0, np.nan], [-np.inf], [np.inf, -np.inf, np.nan, 0.0]):
        z, y = (rng.choice(values, (2, 12, 1028)).astype(np.float32) for _ in range(2))
        y[:, ::2] = z[:, ::2]
        case = output("quadratic", "identity", 2, 12, 1028, True, hits=True, train=train, z_values=z, y_values=y)
        with np.errstate(all="ignore"):
            expect_agreement(case, dtype)


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize(("n_chunks", "n_groups"), GROUPS)
def test_bias_gradients_of_a_hidden_layer_of_any_number_of_chunks(n_chunks, n_groups, n_models, dtype, monkeypatch):
    width = {"float32": 130, "float64": 65}[dtype]  # two tiles of 32 vectors, the second one nearly empty
    noted = noted_launches(dtype, monkeypatch)
    expect_agreement(layer("tanh", n_models, 8 * n_chunks, 1, width, 1, in_place=True), dtype)
    launch = noted[-1]
    assert launch["name"] == "hidden_delta"
    assert launch["blocks"] == n_models * 2 * n_chunks
    assert launch["tickets"] == n_models * 2 * (n_groups + 1)
    assert launch["partials"] == n_models * (n_chunks + n_groups) * width


@both_dtypes
@pytest.mark.parametrize("n", [4095, 4097, 300_000, 1_200_000])
def test_norms_of_any_number_of_chunks(n, dtype, monkeypatch):
    noted = noted_launches(dtype, monkeypatch)
    expect_agreement(norm(5 + draw(1, 1, n)), dtype)
    expect_agreement(norm(1e-6 * draw(1, 1, n)), dtype)
    assert {x["blocks"] for x in noted} == {-(-n * np.dtype(dtype).itemsize // 16384)}


@pytest.mark.parametrize("most", [2, 33, 40])
def test_chunks_grow_where_there_would_be_too_many(most, monkeypatch):
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_CHUNKS", most)
    noted = noted_launches("float32", monkeypatch)
    expect_agreement(output("quadratic", "tanh", 1, 397, 33, hits=True), "float32")
    expect_agreement(output("categorical_cross_entropy", "softmax", 1, 97, 1028, hits=True), "float32")
    expect_agreement(layer("tanh", 1, 997, 1, 16, 1, in_place=True), "float32")
    expect_agreement(norm(draw(1, 1, 300_000)), "float32")
    assert all(x["blocks"] <= most for x in noted if x["name"] in ("output_delta", "hidden_delta", "gradient_norm"))


@both_dtypes
@pytest.mark.parametrize(("n_out", "batch"), [(2, 9), (2, 2100), (33, 300), (1028, 40)])
def test_sums_of_a_model_have_the_same_bits_in_any_stack(n_out, batch, dtype):
    z, y = draw(1, 5, batch, n_out), np.abs(draw(2, 5, batch, n_out)) + 0.1
    y /= y.sum(axis=2, keepdims=True)
    options = {"per_model": True, "z_values": z, "y_values": y}
    for train in (True, False):
        stack, alone = (
            compute(
                output("categorical_cross_entropy", "softmax", n, batch, n_out, hits=True, train=train, **of),
                "cuda",
                dtype,
            )
            for n, of in ((5, options), (1, {**options, "z_values": z[:1], "y_values": y[:1]}))
        )
        assert stack["tally"][COST, 0] == alone["tally"][COST, 0]
        if train:
            assert stack["grad 0"][0].tobytes() == alone["grad 0"][0].tobytes()


@both_dtypes
@pytest.mark.parametrize("most_blocks", [4, 2048])
def test_the_norm_of_a_model_has_the_same_bits_in_any_stack(most_blocks, dtype, monkeypatch):
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_BLOCKS", most_blocks)
    gradient = draw(1, 3, 70016)
    clip_norm = np.full(3, 0.5)
    stack = compute(norm(gradient, clip_norm=clip_norm), "cuda", "float64")["table"][-1]
    alone = compute(norm(gradient[:1], clip_norm=clip_norm[:1]), "cuda", "float64")["table"][-1]
    assert stack[:, 0].tobytes() == alone[:, 0].tobytes()


@pytest.mark.parametrize("name", ["output_delta", "hidden_delta", "gradient_norm"])
def test_the_same_work_twice_gives_the_same_bits(name):
    """On a device whose blocks come in another order each time."""
    case = {
        "output_delta": output("categorical_cross_entropy", "softmax", 2, 100, 1028, hits=True),
        "hidden_delta": layer("tanh", 2, 300, 1, 130, 1, in_place=True),
        "gradient_norm": norm(draw(1, 2, 300_000)),
    }[name]
    first, *others = (compute(case, "cuda", "float32") for _ in range(3))
    for again in others:
        assert all(again[key].tobytes() == value.tobytes() for key, value in first.items())
