"""The measurements run and have their shape; what they say on an emulated device means nothing."""

from itertools import pairwise

import numpy as np
import pytest

from gpumlp.bench.workloads import SMALL, WORKLOADS, ReadyStep
from gpumlp.doctor import speed

DEVICE = "cuda:0"


def check_times(table, first):
    """Each row has `first` columns that say what was measured, then median and quartiles in order."""
    assert table.rows
    for row in table.rows:
        assert len(row) == len(table.columns)
        middle, low, high = row[first : first + 3]
        assert 0 < low <= middle <= high


def test_seconds_are_taken_after_a_warm_up(meter):
    calls, prepared = [], []
    seconds = meter.seconds(lambda: calls.append(1), 4, 5, before=lambda: prepared.append(1))
    assert len(seconds) == 5
    assert min(seconds) > 0
    assert (len(calls), len(prepared)) == (6 * 4, 6)


def test_a_copy_moves_what_it_says(meter):
    copy = meter.copying(1000)
    assert len(meter.seconds(copy, 1, 2)) == 2


def test_node_times_are_of_graphs_with_as_many_nodes(meter, little):
    table = speed.node_times(meter, little, DEVICE)
    check_times(table, 2)
    assert [row[1] for row in table.rows] == [12, 12]
    assert table.rows[1][0] == "a product 4 x 5 x 6 x 12"


def test_bandwidth_is_that_of_a_copy_and_of_the_update(meter, little):
    table = speed.bandwidth(meter, little, DEVICE)
    assert [row[0] for row in table.rows] == ["copy", "update (adam)", "update / copy"]
    assert table.rows[1][1] == 28 * 1000
    assert table.rows[2][2] == pytest.approx(table.rows[1][2] / table.rows[0][2])


def test_the_timed_update_does_move_the_weights(meter):
    backend = ReadyStep(SMALL, "cuda", DEVICE).backend
    given = []
    update = type(backend).update

    def noting(self, numbers, theta, *more):
        given.append(theta)
        update(self, numbers, theta, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "update", noting)
        work = speed.adam_update(backend, 100)
        with backend.session():
            work()
    theta = backend.to_host(given[0])
    assert np.isfinite(theta).all()
    assert (theta != 0).all()


def test_products_have_a_rate_in_every_mode(meter, little):
    table = speed.product_rates(meter, little, DEVICE)
    check_times(table, 2)
    assert [row[1] for row in table.rows] == ["float32", "tf32", "float64"]


def test_training_steps_have_a_time_beside_what_is_predicted(meter, little):
    table = speed.step_times(meter, little, DEVICE)
    check_times(table, 4)
    assert [row[:4] for row in table.rows] == [[SMALL.name, m, n, 15] for m in ("float32", "tf32") for n in (1, 8)]
    assert table.columns[-1] == "predicted for an H100, us"
    assert "not measured" in table.note


def test_a_workload_that_finds_no_room_leaves_the_others_alone(meter, little, monkeypatch):
    build = speed.ReadyStep

    def sometimes(workload, backend, device, mode, per_launch):
        if mode == "tf32":
            raise MemoryError("no room")
        return build(workload, backend, device, mode, per_launch=per_launch)

    monkeypatch.setattr(speed, "ReadyStep", sometimes)
    rows = speed.step_times(meter, little, DEVICE).rows
    assert rows[0][4] > 0
    assert rows[2][2:] == [1, None, None, None, None, "MemoryError: no room", None]


def test_epilogues_are_asked_for_every_hidden_layer(meter):
    table = speed.epilogues(meter)
    assert len(table.rows) == 4 * 4 * 2  # epilogues, distinct shapes of four workloads, models
    assert len({tuple(row[:3]) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert all(isinstance(n, int) and 0 <= n <= 16 for n in row[3:]), row


def test_an_epilogue_that_is_not_supported_has_no_algorithm(meter):
    from gpumlp.backends.cuda.measure import FusedProduct

    refused = FusedProduct("DRELU_BGRAD", "float32", batch=64, inner=1, features=128)
    offered = FusedProduct("DRELU_BGRAD", "float32", batch=64, inner=10, features=128)
    counts = meter.algorithms([refused, offered])
    assert counts[1] > 0
    if meter.emulated:
        assert counts[0] == 0


def test_the_facts_name_device_and_libraries(meter):
    facts = meter.facts()
    assert facts["device"] == meter.name
    assert facts["memory_bytes"] > 0
    for library in ("cuda_driver", "cuda_runtime", "nvrtc", "cublas"):
        assert facts[library][0].isdigit()


@pytest.mark.parametrize("workload", [*WORKLOADS, SMALL], ids=lambda w: w.name)
def test_workloads_count_the_operations_of_their_products(workload):
    n, sizes = workload.batch, workload.sizes
    forward = sum(2 * n * i * o for i, o in pairwise(sizes))
    backward = sum(2 * n * i * o for i, o in pairwise(sizes[1:]))
    assert workload.flops == workload.n_models * (2 * forward + backward)


@pytest.mark.parametrize("per_launch", [1, 3])
def test_a_ready_step_trains_as_a_trainer_does(per_launch):
    import gpumlp

    ready = ReadyStep(SMALL, "numpy", shuffle=False, per_launch=per_launch)
    ready.run(2 * SMALL.n_steps)
    net = gpumlp.Network(SMALL.sizes, n_models=SMALL.n_models, backend="numpy")
    X, labels = SMALL.data()
    gpumlp.Trainer(net, "adam", 1e-3, SMALL.batch, shuffle=False).fit(X, labels, 2)
    for found, expected in zip(ready.net.weights, net.weights, strict=True):
        assert np.array_equal(found, expected)
