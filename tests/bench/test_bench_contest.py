"""A case: who takes part, who is left out, and that the rounds of all visits are the same for everyone."""

import pytest

from gpumlp.backends.select import why_unavailable
from gpumlp.bench import contest, timing
from gpumlp.bench.contest import Contest, Entrant, Own, owns
from gpumlp.bench.statistics import ratio
from gpumlp.bench.timing import Runner
from gpumlp.errors import BackendUnavailable, ConfigurationError, UnknownName


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(timing, "settle", lambda: None)


def a_runner(checked=""):
    return Runner(lambda n: sum(range(100 * n)), checked=checked)


def a_contest(entrants, **more):
    work = ("steps", "a case", {"batch": 4}, "step", 4, 100)
    return Contest(*work, entrants, lambda place: (a_runner(), f"products at {place}"), **more)


def broken():
    raise MemoryError("no room")


def test_the_rounds_of_all_visits_are_added_up_in_every_contender():
    made = []

    def build(name):
        def make():
            made.append(name)
            return a_runner(f"checked {name}")

        return make

    case = a_contest(
        [Entrant("gpumlp numpy", "gpumlp", build("a")), Entrant("other", "peer", build("b"), stays=True)],
        limit=lambda seconds, place: seconds / 2,
    )
    for _ in range(3):
        case.visit(1e-4, 0.0, 2, 5)
    own, other, alone = case.cases()
    assert [len(c.seconds) for c in (own, other, alone)] == [6, 6, 6]
    assert [len(c.reference) for c in (own, other)] == [6, 6]
    assert made == ["a", "b", "a", "a"]  # what takes long to make is kept
    assert (own.checked, other.checked, alone.checked) == ("checked a", "checked b", "products at host")
    assert (alone.kind, alone.contender, alone.reference) == ("limit", "matrix products alone", None)
    assert own.limit_seconds == min(own.reference) / 2
    assert own.host_seconds is None
    assert ratio(own, other).median > 0


def test_a_first_visit_says_how_many_rounds_fit_into_the_budget():
    case = a_contest([Entrant("gpumlp numpy", "gpumlp", a_runner)])
    case.visit(1e-4, 1e9, 2, 5)
    case.visit(1e-4, 0.0, 2, 5)
    assert len(case.cases()[0].seconds) == 10


def test_who_cannot_take_part_is_left_out_with_the_reason():
    case = a_contest([Entrant("gpumlp numpy", "gpumlp", a_runner), Entrant("other", "peer", broken)])
    for _ in range(2):
        case.visit(1e-4, 0.0, 1, 1)
    assert [c.contender for c in case.cases()] == ["gpumlp numpy", "matrix products alone"]
    assert case.left_out == {"other": "MemoryError: no room"}


def test_who_fails_later_leaves_no_rounds_that_others_lack():
    fails = iter([False, True])

    def sometimes():
        return broken() if next(fails) else a_runner()

    case = a_contest([Entrant("gpumlp numpy", "gpumlp", a_runner), Entrant("gpumlp numba", "gpumlp", sometimes)])
    for _ in range(3):
        case.visit(1e-4, 0.0, 1, 1)
    assert [(c.contender, len(c.seconds)) for c in case.cases()] == [("gpumlp numpy", 3), ("matrix products alone", 3)]


def test_a_case_without_contenders_is_none():
    case = a_contest([Entrant("other", "peer", broken)])
    case.visit(1e-4, 0.0, 1, 1)
    assert case.cases() == []


def test_contenders_on_a_device_have_its_products_beside_them_and_host_times():
    device = Own("gpumlp cuda tf32", "cuda", "cuda:0", "tf32")
    assert (device.place, Own("gpumlp cuda", "cuda", "cuda:0").place) == ("cuda tf32", "cuda float32")
    case = a_contest(
        [Entrant("gpumlp numpy", "gpumlp", a_runner), Entrant(device.name, "gpumlp", a_runner, device.place)]
    )
    case.visit(1e-4, 0.0, 2, 2)
    found = {c.contender: c for c in case.cases()}
    assert set(found) == {
        "gpumlp numpy",
        "gpumlp cuda tf32",
        "matrix products alone",
        "matrix products alone, cuda tf32",
    }
    assert len(found["gpumlp cuda tf32"].host_seconds) == 2
    assert found["matrix products alone, cuda tf32"].checked == "products at cuda tf32"


def test_gpumlps_contenders_are_the_backends_that_work():
    names = [own.name for own in owns(None, "cpu")]
    assert names[0] == "gpumlp numpy"
    assert ("gpumlp numba" in names) == (not why_unavailable("numba"))
    assert not any("cuda" in name for name in names)
    assert [own.backend for own in owns(["numpy"], None)] == ["numpy"]


@pytest.mark.parametrize(
    ("backends", "device", "error", "told"),
    [
        (["numpi"], None, UnknownName, "numpy"),
        (["numpy"], "gpu", ConfigurationError, "gpu"),
        (["cuda"], "cpu", ConfigurationError, "cannot compute on device"),
        (["cuda"], "cuda:77", BackendUnavailable, "cuda"),
    ],
)
def test_a_backend_that_cannot_be_timed_is_refused(backends, device, error, told):
    with pytest.raises(error, match=told):
        owns(backends, device)


def test_an_emulated_device_is_not_timed():
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    if not contest.meter("cuda:0").emulated:
        pytest.skip("is about the emulated device")
    assert not any(own.backend == "cuda" for own in owns(None, None))
    for arguments in ((["cuda"], None), (None, "cuda:0")):
        with pytest.raises(BackendUnavailable, match="is emulated: its times mean nothing"):
            owns(*arguments)
