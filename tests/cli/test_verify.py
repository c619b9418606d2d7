"""`gpumlp verify`: how far two backends drift apart, and the verdict."""

import json

import numpy as np
import pytest

from gpumlp.backends.select import why_unavailable
from gpumlp.verify import Drift, LayerDrift, verify


@pytest.fixture
def cuda():
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    from gpumlp.backends.cuda.backend import CudaBackend

    return CudaBackend


def test_a_backend_does_not_drift_from_itself(gpumlp):
    ended = gpumlp("verify", "--backends", "numpy,numpy", "--steps", 7, "--sizes", "6,5,3")
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "within tolerance: largest 0, 0.0001 allowed (6-5-3, float32)"


def test_each_step_looked_at_has_a_row_for_each_layer():
    drift = verify(("numpy", "numpy"), (6, 5, 4, 3), steps=12)
    assert [(row.step, row.layer) for row in drift.layers] == [(s, l) for s in (1, 2, 5, 10, 12) for l in range(3)]
    assert drift.within


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_device_stays_near_numpy_for_100_steps(cuda, dtype, tolerance, optimizer):
    drift = verify(dtype=dtype, optimizer=optimizer)
    assert (drift.tolerance, drift.within) == (tolerance, True)
    assert 0 < drift.largest <= tolerance / 10
    assert drift.layers[-1].step == 100


def test_the_drift_as_json_is_that_of_the_table(gpumlp, cuda):
    arguments = ("verify", "--steps", 3, "--activation", "relu", "--seed", 4, "--dtype", "float64")
    found = json.loads(gpumlp(*arguments, "--json").out)
    assert found["backends"] == ["numpy", "cuda"]
    assert (found["within"], found["dtype"], found["sizes"]) == (True, "float64", [20, 32, 16, 3])
    assert [row["step"] for row in found["layers"]] == [1] * 3 + [2] * 3 + [3] * 3
    assert set(found["layers"][0]) == {"step", "layer", "weights", "gradient", "delta"}
    table = gpumlp(*arguments).out
    assert f"{found['layers'][0]['gradient']:.1e}" in table


def test_a_backend_that_is_wrong_is_told_by_the_exit_status(gpumlp, cuda, monkeypatch):
    right = cuda.weight_gradient

    def wrong(self, delta, a_in, dW):
        right(self, delta, a_in, dW)
        dW *= 1.01

    monkeypatch.setattr(cuda, "weight_gradient", wrong)
    ended = gpumlp("verify", "--steps", 2)
    assert ended.status == 1
    assert ended.out.splitlines()[-1].startswith("NOT within tolerance: largest 0.01")


def test_what_is_not_finite_is_never_within(gpumlp, monkeypatch):
    drift = Drift(("a", "b"), (2, 1), "float32", "sgd", 1e-4, (LayerDrift(1, 0, 0.0, np.nan, 0.0),))
    assert not drift.within
    monkeypatch.setattr("gpumlp.cli.verify.measure", lambda *arguments: drift)
    ended = gpumlp("verify", "--json")
    assert ended.status == 1
    assert json.loads(ended.out)["layers"][0]["gradient"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backends", "numpy"), "name two"),
        (("--backends", "numpy,nunpy"), "unknown backend"),
        (("--sizes", "20,many"), "--sizes"),
        (("--backends", "numpy,numpy", "--optimizer", "adamm"), "did you mean"),
        (("--backends", "numpy,numpy", "--dtype", "float16"), "float16"),
        (("--backends", "numpy,numpy", "--sizes", "20,1"), "sizes=(20, 1): expected two outputs or more"),
        (("--steps", "0"), "--steps"),
    ],
)
def test_wrong_options_of_verify_end_with_status_2(gpumlp, options, told):
    ended = gpumlp("verify", *options)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
