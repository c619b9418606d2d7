"""The same steps elsewhere: checked first, then timed in turns."""

import made_up_peers
import pytest

from gpumlp.bench import peers
from gpumlp.bench.workloads import Workload
from gpumlp.doctor import comparison

ONE = Workload("one", (20, 16, 12, 5), 8, 1, 32)
SEVERAL = Workload("several", (20, 16, 12, 5), 8, 3, 32)


class Twin(made_up_peers.Twin):
    @classmethod
    def why_not(cls, workload, device):
        return ""


class Astray(made_up_peers.Astray):
    why_not = Twin.why_not


class Absent(Twin):
    name = "absent"

    def __init__(self, *arguments):
        raise MemoryError("no room")


class Other(Twin):
    name = "for others"

    @classmethod
    def why_not(cls, workload, device):
        return "is for other workloads"


def test_contenders_that_agree_are_timed_and_others_named(little):
    table = comparison.comparison(little, "cpu", [Twin, Astray, Absent, Other])
    assert all(len(row) == len(table.columns) for row in table.rows)
    rows = {row[2].partition(":")[0]: row for row in table.rows}
    assert set(rows) == {"gpumlp", "gpumlp, 8 steps in a graph", "twin", "astray", "absent"}
    assert rows["gpumlp"][-1] == 1
    assert rows["twin"][-1] > 0
    assert rows["gpumlp, 8 steps in a graph"][-1] > 0
    assert "of the way apart" in rows["astray"][2]
    assert rows["astray"][3] is None
    assert rows["absent"][2] == "absent: MemoryError: no room"


def test_a_workload_for_which_gpumlp_has_no_room_leaves_the_others_alone(little, monkeypatch):
    monkeypatch.setattr(comparison, "ready_step", Absent)
    rows = comparison.comparison(little, "cpu", [Twin]).rows
    assert [row[2] for row in rows] == ["gpumlp: MemoryError: no room"] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("workload", [ONE, SEVERAL], ids=lambda w: w.name)
def test_peers_take_the_same_steps_on_the_device(workload):
    kinds, absent = comparison.contenders("cuda:0")
    if not kinds:
        pytest.skip(f"no other library sees the device: {absent}")
    own = comparison.ready_step(workload, "float32", "cuda:0")
    initial = peers.initial_weights(own)
    own.run(peers.CHECKED_STEPS)
    for kind in kinds:
        if not kind.why_not(workload, "cuda:0"):
            assert peers.enter(kind, workload, "float32", "cuda:0", initial, own.net.weights)[1]


def test_a_library_that_is_not_here_is_told(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert comparison.contenders("cuda:0") == ([], {"torch": "is not installed", "jax": "is not installed"})
