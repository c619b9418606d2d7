"""The same steps elsewhere: checked first, then timed in turns."""

import numpy as np
import pytest

from gpumlp.doctor import peers
from gpumlp.doctor.workloads import Workload

ONE = Workload("one", (20, 16, 12, 5), 8, 1, 4)
SEVERAL = Workload("several", (20, 16, 12, 5), 8, 3, 4)


class Twin(peers.Gpumlp):
    """gpumlp once more, as if it were another."""

    name = "twin"


class Astray(Twin):
    name = "astray"

    def weights(self):
        return [W + 0.01 * np.sign(W) for W in super().weights()]


class Absent(Twin):
    name = "absent"

    def __init__(self, *arguments):
        raise MemoryError("no room")


def test_contenders_that_agree_are_timed_and_others_named(little):
    table = peers.comparison(little, "cpu", [Twin, Astray, Absent])
    assert all(len(row) == len(table.columns) for row in table.rows)
    rows = {row[2].partition(":")[0]: row for row in table.rows}
    assert rows["gpumlp"][-1] == 1
    assert rows["twin"][-1] > 0
    assert rows["gpumlp, 8 steps in a graph"][-1] > 0
    assert "of the way apart" in rows["astray"][2]
    assert rows["astray"][3] is None
    assert rows["absent"][2] == "absent: MemoryError: no room"


def test_a_workload_for_which_gpumlp_has_no_room_leaves_the_others_alone(little, monkeypatch):
    monkeypatch.setattr(peers, "Gpumlp", Absent)
    rows = peers.comparison(little, "cpu", [Twin]).rows
    assert [row[2] for row in rows] == ["gpumlp: MemoryError: no room"] * 2


@pytest.mark.parametrize("workload", [ONE, SEVERAL], ids=lambda w: w.name)
@pytest.mark.parametrize(("library", "kind"), [("torch", peers.TorchEager), ("jax", peers.Jax)])
def test_peers_take_the_same_steps(library, kind, workload):
    pytest.importorskip(library)
    own = peers.Gpumlp(workload, "float32", "cpu")
    other = kind(workload, "float32", "cpu", own.initial)
    for contender in (own, other):
        contender.run(peers.CHECKED_STEPS)
    for found, expected in zip(other.weights(), own.weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("workload", [ONE, SEVERAL], ids=lambda w: w.name)
@pytest.mark.parametrize("kind", [k for kinds in peers.PEERS.values() for k in kinds], ids=lambda k: k.name)
def test_peers_take_the_same_steps_on_the_device(kind, workload):
    absent = peers.available("cuda:0")["jax" if kind is peers.Jax else "torch"]
    if absent:
        pytest.skip(absent)
    own = peers.Gpumlp(workload, "float32", "cuda:0")
    other = kind(workload, "float32", "cuda:0", own.initial)
    for contender in (own, other):
        contender.run(peers.CHECKED_STEPS)
    peers.check_agreement(own, other)


def test_a_library_that_is_not_here_is_told(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert peers.available("cuda:0") == {"torch": "is not installed", "jax": "is not installed"}
