"""The suites: what is in them, in which order they are visited, and what a result says about itself."""

import json

import pytest

from gpumlp.bench import environment, steps, suites
from gpumlp.bench.contest import Own
from gpumlp.bench.results import SUITES, Run
from gpumlp.bench.series import AXES, sweeps
from gpumlp.bench.suites import Effort
from gpumlp.errors import ConfigurationError, UnknownName

NUMPY = Own("gpumlp numpy", "numpy")


class Visited:
    """A contest that notes its visits."""

    def __init__(self, name, log):
        self.suite, self.case, self.log = "steps", name, log

    def visit(self, *effort):
        self.log.append(self.case)

    def close(self):
        self.log.append(f"{self.case} closed")


def test_every_case_is_visited_in_every_pass_and_closed_after_the_last():
    log, told = [], []
    every = [Visited(name, log) for name in "ab"]
    suites.visit(every, Effort(2, 0.1, 1.0, 1, 1), 0.1, lambda *what: told.append(what))
    assert log == ["a", "b", "a", "a closed", "b", "b closed"]
    assert told[0] == (0, 4, "steps: a")
    assert told[-1] == (4, 4, "done")


def test_suites_are_taken_once_and_in_order():
    assert suites.check_suites(()) == SUITES
    assert suites.check_suites(("growth", "recursion", "growth")) == ("recursion", "growth")
    with pytest.raises(UnknownName, match="steps"):
        suites.check_suites(("step",))


@pytest.mark.parametrize("seconds", [0, -1, 61, float("nan")])
def test_samples_last_some_time(seconds):
    with pytest.raises(ConfigurationError, match="seconds"):
        suites.run_suites(("steps",), ["numpy"], seconds=seconds)


@pytest.mark.parametrize("quick", [False, True])
def test_no_case_occurs_twice(quick):
    keys = [(c.suite, c.case) for c in suites.contests(SUITES, quick, [NUMPY], [])]
    assert len(set(keys)) == len(keys)
    assert {suite for suite, _ in keys} == set(SUITES)


@pytest.mark.parametrize("quick", [False, True])
def test_growth_varies_one_size_at_a_time(quick):
    contests = steps.growth(quick, [NUMPY], [])
    cases = [c._build("gpumlp numpy", "gpumlp", [1.0]) for c in contests]
    for vary in ("batch", "width", "depth", "n_models") if quick else AXES:
        some = [case for case in cases if case.parameters.get("vary", vary) == vary]
        (sweep,) = sweeps(some, vary)
        assert len(sweep.values) >= 2, vary
    assert {c.unit for c in contests if c.parameters.get("vary") == "rows"} <= {"epoch"}
    assert "vary" not in contests[0].parameters  # the centre


def test_the_workloads_of_a_cpu_are_stepped_and_one_is_an_epoch():
    whole = steps.contests(False, [NUMPY], [])
    assert [c.unit for c in whole] == ["step"] * 5 + ["epoch"]
    assert whole[-1].examples == whole[0].examples * 937  # whole batches of 60,000 rows
    quick = steps.contests(True, [NUMPY], [])
    assert {c.case for c in quick} < {c.case for c in whole}
    assert all(c.parameters["rows"] <= steps.QUICK_ROWS for c in quick)


def test_a_cpu_is_spared_the_largest_workload_of_a_device():
    cuda = Own("gpumlp cuda", "cuda", "cuda:0")
    every = {c.case: [e.name for e in c.entrants] for c in steps.contests(False, [NUMPY, cuda], [])}
    assert every["4096 x 4, batch 4096, adam"] == ["gpumlp cuda"]
    assert every["784-128-10, batch 64, adam"] == ["gpumlp numpy", "gpumlp cuda"]


def test_a_run_is_a_result_that_can_be_kept(monkeypatch):
    few = steps.contests(True, [NUMPY], [])[-1:]
    monkeypatch.setattr(suites, "contests", lambda *arguments: few)
    monkeypatch.setattr(suites, "QUICK", Effort(2, 1e-3, 0.0, 1, 1))
    run = suites.run_suites(("steps",), ["numpy"], "cpu", quick=True, with_peers=False)
    assert Run.from_json(run.as_json(), "bench.json") == run
    assert [case.contender for case in run.cases] == ["gpumlp numpy", "matrix products alone"]
    assert [len(case.seconds) for case in run.cases] == [2, 2]
    assert run.options["suites"] == ["steps"]
    assert run.options["left_out"] == {}
    assert run.environment["memory_bandwidth"] > 0


def test_the_environment_says_what_a_result_depends_on(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "")
    monkeypatch.setenv("SOMETHING_ELSE", "7")
    facts = json.loads(json.dumps(environment.describe()))
    assert {"date", "cpu", "cores", "threads", "blas", "blas_kernels", "python", "platform"} <= set(facts)
    assert {"gpumlp", "numpy", "scikit-learn"} <= set(facts["versions"])
    assert facts["variables"]["OPENBLAS_NUM_THREADS"] == "1"
    assert not {"SOMETHING_ELSE", "GPUMLP_NUM_THREADS"} & set(facts["variables"])


def test_outside_a_clone_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.commit() == ""
    assert "commit" not in environment.describe()


def test_a_package_that_is_not_here_has_no_version():
    assert set(environment.versions(("numpy", "there-is-no-such-package"))) == {"numpy"}


def test_an_interrupted_measurement_keeps_what_it_has(monkeypatch):
    visits = []

    def visit(contest, *effort):
        visits.append(contest)
        real(contest, *effort)
        if len(visits) == 2:
            raise KeyboardInterrupt

    from gpumlp.bench.contest import Contest

    real = Contest.visit
    monkeypatch.setattr(Contest, "visit", visit)
    run = suites.run_suites(("steps",), ["numpy"], "cpu", quick=True, with_peers=False, seconds=0.001)
    assert "interrupted" in run.options["ended"]
    assert {case.case for case in run.cases} == {contest.case for contest in visits}
    assert all(len(case.seconds) >= 1 for case in run.cases)
