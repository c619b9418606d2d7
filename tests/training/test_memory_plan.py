"""What a plan says a training needs is what it takes, measured by tracemalloc and by the memory pool of a device."""

import gc
import json
import tracemalloc

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import numpy_shares, threads
from gpumlp.backends.hollow import Ledger, hollow_backend
from gpumlp.backends.select import why_unavailable
from gpumlp.cli import main
from gpumlp.errors import ConfigurationError, UnknownName
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

SHARE = 0.05  # of what is measured: so far a plan may be off
OBJECTS = 100_000  # bytes of Python's own objects, which no plan counts, on a processor

# sizes, batch, rows, rows to validate on, options of Network, options of Trainer
CASES = {
    "many parameters": ((300, 400, 10), 32, 300, 0, {}, {}),
    "a stack with a large batch": ((24, 128, 96, 5), 500, 1000, 0, {"n_models": 3}, {"optimizer": "sgd"}),
    "a full batch": ((32, 150, 4), "full", 2000, 0, {}, {}),
    "rows to validate on": ((40, 120, 10), 200, 1000, 1500, {}, {}),
    "dropout": ((24, 200, 100, 10), 400, 800, 0, {"dropout": 0.3}, {"optimizer": "momentum"}),
    "normalised over a batch": ((24, 200, 100, 10), 400, 800, 0, {"normalisation": "batch"}, {}),
    "normalised over units": ((24, 200, 100, 10), 400, 800, 0, {"normalisation": "layer", "n_models": 2}, {}),
    "f' reads z": ((24, 200, 100, 10), 400, 800, 0, {"activation": "gelu"}, {}),
    "double": ((24, 200, 100, 10), 400, 800, 0, {"dtype": "float64"}, {"clip_norm": 1.0}),
    "a wide output": ((20, 30, 60), 1000, 1000, 0, {"n_models": 3}, {"shuffle": False}),
    "parts of batches": ((24, 300, 10), 2000, 2000, 0, {"n_models": 2}, {"micro_batch": 700}),
    "embedded columns": (
        *((24, 200, 10), 400, 800, 500),
        {"n_models": 2, "embeddings": [gpumlp.Embedding(3, 900, 20), gpumlp.Embedding(8, 5, 3)]},
        {},
    ),
    "steps launched together": ((24, 300, 10), 500, 2000, 0, {"n_models": 2}, {"steps_per_launch": 3}),
}


class Watch(gpumlp.Monitor):
    """Notes what is there at the end of each epoch."""

    def __init__(self, measure):
        self.measure = measure

    def epoch_ended(self, report):
        gc.collect()
        self.found = self.measure()


def train(backend, case, measure, epochs=2, dtype=np.float32):
    """Train and return the network and what was there at the end, with data that are made within."""
    sizes, batch, n_rows, n_validation, of_network, of_trainer = CASES[case]

    def data(n):
        return np.zeros((n, sizes[0]), dtype), np.arange(n) % sizes[-1]

    net = gpumlp.Network(sizes, backend=backend, **of_network)
    trainer = gpumlp.Trainer(net, batch_size=batch, **of_trainer)
    watch = Watch(measure)
    validation = data(n_validation) if n_validation else None
    trainer.fit(*data(n_rows), epochs, validation, monitors=[watch])
    return net, watch.found


def plan_of(case, net, dtype="float32"):
    _, batch, n_rows, n_validation, _, of_trainer = CASES[case]
    return gpumlp.plan_memory(
        net, batch, n_rows=n_rows, n_validation=n_validation, data_dtype=dtype, kept=1, **of_trainer
    )


@pytest.mark.parametrize("case", CASES)
def test_a_plan_for_numpy_is_what_tracemalloc_finds(case):
    check_plan_for_numpy(case, "float32")


@pytest.mark.parametrize("case", CASES)
def test_a_plan_for_numpy_holds_where_rows_are_cast_and_work_is_dealt_out(case, monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 3)
    monkeypatch.setattr(threads, "divides_products", lambda: True)
    monkeypatch.setattr(numpy_shares, "LATE", 0)
    monkeypatch.setattr(numpy_shares, "LEAST", 1)
    check_plan_for_numpy(case, "float64")


def check_plan_for_numpy(case, dtype):
    train("numpy", case, lambda: 0, epochs=1, dtype=dtype)  # what is compiled and kept for good is not a training's
    tracemalloc.start()
    try:
        net, found = train("numpy", case, lambda: tracemalloc.get_traced_memory()[0], dtype=dtype)
    finally:
        tracemalloc.stop()
    plan = plan_of(case, net, dtype)
    assert plan.total == pytest.approx(found, rel=SHARE, abs=OBJECTS), plan.table()
    assert plan.total > 5 * OBJECTS  # else nothing would be tested


@pytest.mark.parametrize("case", CASES)
def test_a_plan_for_cuda_is_what_its_memory_pool_finds(case):
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    cupy = pytest.importorskip("cupy")
    gpumlp.Network((2, 2), backend="cuda")  # opens the device
    gc.collect()
    before = cupy.get_default_memory_pool().used_bytes()
    net, found = train("cuda", case, lambda: cupy.get_default_memory_pool().used_bytes() - before)
    plan = plan_of(case, net)
    assert plan.total - plan.parts["cuBLAS"] == pytest.approx(found, rel=SHARE), plan.table()


@pytest.mark.parametrize("name", ["numpy", "numba", "cuda"])
def test_a_plan_needs_no_memory_for_what_it_plans(name):
    huge = build_architecture((10**4, 2 * 10**4, 10**3), "relu", "softmax", "categorical_cross_entropy", "layer")
    tracemalloc.start()
    try:
        plan = gpumlp.plan_memory(huge, 10**4, n_rows=10**7, n_validation=10**5, backend=name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan.total > 5 * 10**9
    assert peak < 10**8


def test_each_part_is_what_its_arrays_take():
    net = gpumlp.Network((64, 32, 10), n_models=2, dropout=0.5, backend="numpy")
    parts = gpumlp.plan_memory(net, 100, n_rows=1000, n_validation=50).parts
    n_params = 4 * net.parameters.layout.n_params * 2
    assert (parts["parameters"], parts["gradients"]) == (n_params, n_params)
    assert parts["kept parameters"] == 2 * n_params
    assert parts["optimiser state"] == pytest.approx(2 * n_params, rel=0.01)
    assert parts["activations"] == 4 * 2 * 100 * (32 + 2 * 10)  # a alone of a hidden layer whose f' reads no z
    assert parts["deltas"] == 4 * 2 * 100 * (32 + 10)
    assert parts["dropout masks"] == 2 * 100 * 32
    assert parts["data set"] == pytest.approx(1000 * (4 * 64 + 8), rel=0.01)
    assert parts["batch"] == pytest.approx(4 * 2 * 100 * (64 + 10 + 1), rel=0.02)


def test_a_mixed_stack_has_room_for_its_largest_member():
    sizes = [(20, 30, 5), (20, 50, 5)]
    members = [
        Member(build_architecture(s, "relu", "softmax", "categorical_cross_entropy"), (0.0,), model_id=i)
        for i, s in enumerate(sizes)
    ]
    net = gpumlp.Network.mixed(members, backend="numpy")
    parts = gpumlp.plan_memory(members, 10).parts
    assert parts["parameters"] == net.parameters.theta.nbytes
    assert parts == gpumlp.plan_memory(net, 10).parts


@pytest.mark.parametrize("name", ["numpy", "cuda"])
def test_an_array_that_is_there_already_takes_nothing_more(name):
    ledger = Ledger()
    there = hollow_backend(name, "float32", ledger)
    x = there.asarray(np.ones((30, 4), np.float32))
    assert there.asarray(x) is x
    assert sum(ledger.bytes.values()) == {"numpy": 480, "cuda": 512}[name]


def test_what_cannot_be_planned_is_named():
    net = gpumlp.Network((4, 3), backend="numpy")
    with pytest.raises(ConfigurationError, match="is known once it is measured"):
        gpumlp.plan_memory(net, "tune")
    with pytest.raises(UnknownName, match="unknown backend 'abacus'"):
        gpumlp.plan_memory(net, backend="abacus")
    for wrong in ({"n_rows": 0}, {"n_rows": 2.5}, {"n_validation": -1}, {"kept": -1}):
        (name, value), *_ = wrong.items()
        with pytest.raises(ConfigurationError, match=f"{name}={value}: expected a whole number of at least"):
            gpumlp.plan_memory(net, **wrong)


# ---------------------------------------------------------------- the command line


def test_the_command_prints_each_part_and_the_sum(capsys):
    assert main(["plan", "--sizes", "784,128,10", "--batch-size", "64", "--rows", "60000", "--backend", "cuda"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["parameters", "gradients", "optimiser state"]
    assert lines[-1].split()[0] == "total"
    assert any(line.startswith("cuBLAS") and "32 MiB" in line for line in lines)


def test_the_command_gives_json_that_is_the_plan(capsys):
    argv = ["--sizes", "64,20,10", "--batch", "50", "--rows", "900", "--models", "3", "--dropout", "0.2", "--json"]
    assert main(["plan", *argv, "--backend", "numpy"]) == 0
    found = json.loads(capsys.readouterr().out)
    plan = gpumlp.plan_memory(gpumlp.Network((64, 20, 10), n_models=3, dropout=0.2, backend="numpy"), 50, n_rows=900)
    assert found == {"backend": "numpy", "parts": plan.parts, "total": plan.total}


def test_the_command_tells_what_parts_of_a_batch_spare(capsys):
    found = []
    for rows in ("none", "10"):
        argv = ["--sizes", "64,20,10", "--batch-size", "100", "--micro-batch", rows, "--json", "--backend", "cuda"]
        assert main(["plan", *argv]) == 0
        found.append(json.loads(capsys.readouterr().out)["parts"])
    whole, parts = found
    assert parts["activations"] < whole["activations"] / 4
    assert parts["gradients"] == 2 * whole["gradients"]


def test_the_command_refuses_sizes_that_are_none(capsys):
    assert main(["plan", "--sizes", "64,x"]) == 2
    assert "--sizes" in capsys.readouterr().err
