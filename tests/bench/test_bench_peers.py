"""The same steps elsewhere: the files are found, absence has a reason, and nobody who does something else is timed."""

import numpy as np
import pytest
from made_up_peers import Astray, Twin

from gpumlp.bench import peers, steps, timing
from gpumlp.bench.contest import Own
from gpumlp.bench.workloads import Workload
from gpumlp.errors import GpumlpError

ONE = Workload("one", (20, 16, 12, 5), 8, 1, 32)
ONE_MOMENTUM = Workload("one, momentum", (20, 16, 12, 5), 8, 1, 32, "momentum")
SEVERAL = Workload("several", (20, 16, 12, 5), 8, 3, 32)
SEVERAL_MOMENTUM = Workload("several, momentum", (20, 16, 5), 8, 3, 32, "momentum")
WORKLOADS = [ONE, ONE_MOMENTUM, SEVERAL, SEVERAL_MOMENTUM]
NUMPY = Own("gpumlp numpy", "numpy")


class Still(Twin):
    name = "still"

    def run(self, steps):
        pass


def test_the_files_of_all_libraries_are_found():
    folder = peers.peer_folder()
    assert all((folder / name).is_file() for name in peers.FILES.values())


def test_a_library_that_is_not_here_is_told_and_not_imported(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(peers, "load", lambda library: pytest.fail(f"{library} was loaded"))
    kinds, absent = peers.available("cpu")
    assert kinds == []
    assert absent == dict.fromkeys(peers.FILES, "is not installed")


def test_a_broken_library_is_no_peer(monkeypatch):
    def broken(library):
        raise ImportError("libsomething.so:\nno such file")

    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    monkeypatch.setattr(peers, "load", broken)
    assert peers.available("cpu", ["jax"]) == ([], {"jax": "ImportError: libsomething.so: no such file"})


def test_scikit_learn_is_on_the_cpu_alone():
    assert [kind.name for kind in peers.available("cpu", ["sklearn"])[0]] == ["scikit-learn"]
    assert peers.available("cuda:0", ["sklearn"]) == ([], {"sklearn": "computes on the CPU"})


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
@pytest.mark.parametrize("library", peers.FILES)
def test_peers_take_the_same_steps(library, workload):
    pytest.importorskip(library, reason=f"compares with {library}, which is not installed")
    initial, expected = steps.Right(workload)()
    kinds = [kind for kind in peers.available("cpu", [library])[0] if not kind.why_not(workload, "cpu")]
    assert kinds or (library == "sklearn" and workload.n_models > 1)
    for kind in kinds:
        if kind.name == "PyTorch compile":
            continue  # half a minute of compiling; `gpumlp bench` checks it before it is timed
        peer, told = peers.enter(kind, workload, "float32", "cpu", initial, expected)
        assert "of the way apart from gpumlp's after 3 steps" in told
        peer.tune()
        before = [W.copy() for W in peer.weights()]
        peer.run(2 * peer.launch + workload.n_steps)
        assert all(np.isfinite(W).all() for W in peer.weights())
        assert any((old != W).any() for W, old in zip(peer.weights(), before, strict=True))


def test_weights_that_went_elsewhere_or_nowhere_are_refused():
    initial, expected = steps.Right(ONE)()
    for kind in (Astray, Still):
        with pytest.raises(GpumlpError, match=r"of the way apart from gpumlp's after 3 steps, 0\.05 at most"):
            peers.enter(kind, ONE, "float32", "cpu", initial, expected)
    with pytest.raises(GpumlpError, match="nan of the way"):
        peers.check_agreement(initial, expected, [np.full_like(W, np.nan) for W in expected])


def test_a_peer_takes_part_in_whole_launches_after_it_was_checked(monkeypatch):
    monkeypatch.setattr(timing, "settle", lambda: None)
    made = []

    class Watched(Twin):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    contest = steps.contest(ONE, [NUMPY], [Watched, Astray])
    contest.visit(1e-3, 0.0, 2, 2)
    cases = {case.contender: case for case in contest.cases()}
    assert set(cases) == {"gpumlp numpy", "twin", "matrix products alone"}
    assert "of the way apart" in contest.left_out["astray"]
    assert cases["twin"].checked.endswith("after 3 steps; two steps at once")
    assert (cases["twin"].kind, cases["twin"].unit) == ("peer", "step")
    (peer,) = made
    assert peer.tuned
    assert peer.asked[0] == peers.CHECKED_STEPS
    assert all(steps % peer.launch == 0 for steps in peer.asked[1:])


def test_an_epoch_is_as_many_steps_of_a_peer_and_a_fit_of_ours(monkeypatch):
    monkeypatch.setattr(timing, "settle", lambda: None)
    contest = steps.contest(ONE, [NUMPY], [Twin], unit="epoch")
    contest.visit(1e-3, 0.0, 1, 1)
    own, twin, alone = contest.cases()
    assert {case.unit for case in (own, twin, alone)} == {"epoch"}
    assert (own.examples, own.flops) == (ONE.n_rows, ONE.flops * ONE.n_steps)
    asked = []
    monkeypatch.setattr(Twin, "run", lambda self, steps: asked.append(steps) or self.ready.run(steps))
    steps.peer_runner(ONE, Twin, "float32", "cpu", ONE.n_steps, steps.Right(ONE)).work(3)
    assert asked == [peers.CHECKED_STEPS, 3 * ONE.n_steps]


def test_a_stack_has_no_contender_that_is_for_one_model():
    assert [e.name for e in steps.contest(SEVERAL, [NUMPY], [Twin]).entrants] == ["gpumlp numpy"]


def test_our_own_backends_are_checked_too(backend):
    own = Own(f"gpumlp {backend}", backend, "cuda:0" if backend == "cuda" else "cpu")
    if backend == "cuda":
        pytest.skip("is timed on a real device alone")
    runner = steps.own_steps(SEVERAL, own, steps.Right(SEVERAL))
    runner.work(5)
    told = "what the others are compared with" if backend == "numpy" else "from NumPy's after 3 steps"
    assert told in runner.checked
