import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dying import deadly_sweep
from interrupted import small_sweep
from test_sweep import timeless

import gpumlp
from gpumlp.backends import threads
from gpumlp.ensembles import OnRay, Sweep, Watcher, executors
from gpumlp.ensembles.executors import batches_of
from gpumlp.ensembles.lone import run_alone
from gpumlp.ensembles.ray_executor import Piece, connected, contiguous, n_slots, placed, spread
from gpumlp.errors import BackendUnavailable, ConfigurationError, OutOfMemory

ROOT, HERE = Path(gpumlp.__file__).parents[1], Path(__file__).parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
DEADLY = 11  # the number of a configuration whose stack it shares with others
LATE = 7  # of one whose stack is the second of its task


@pytest.fixture(scope="module")
def found():
    """The whole sweep that nothing disturbed, in this process."""
    sweep, X, y = small_sweep()
    return sweep.run(X, y)


@pytest.fixture(scope="module", autouse=True)
def environment():
    """What Ray reads when it is imported: a token of its own, else it leaves one in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))  # of the workers
        yield


@pytest.fixture(autouse=True)
def three_batches(monkeypatch):
    """8 configurations on 3 folds in each batch of the small sweep."""
    monkeypatch.setattr(executors, "MODELS_AT_A_TIME", 24)


@pytest.fixture(scope="module")
def sigterm():
    """What SIGTERM did before this process was connected to Ray."""
    return signal.getsignal(signal.SIGTERM)


@pytest.fixture(scope="module")
def cluster(environment, sigterm):
    """The address of a Ray of two processors, to which this process is connected once for all tests, as OnRay connects.

    A process that leaves Ray and is connected again may stand still: a reply of the first connection that comes late
    reads what is freed (Ray 2.60).
    """
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    command = [sys.executable, str(HERE / "ray_cluster.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        assert address, "Ray does not start here"
        with connected(address, 1):
            yield address
        process.communicate(timeout=30)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def expect_each_once(folder, found):
    """Assert that the ledger has exactly one row of each configuration, equal to that of the undisturbed sweep."""
    lines = lines_of(folder)
    assert len(lines) == len({line["key"] for line in lines}) == len(found.rows)
    by_key = {line["key"]: line for line in lines}
    assert timeless([by_key[row["key"]] for row in found.rows]) == timeless(found.rows)


# ---------------------------------------------------------------- rows


def test_a_sweep_on_ray_finds_what_one_in_this_process_finds(cluster, found, tmp_path):
    sweep, X, y = small_sweep()
    result = sweep.run(np.asfortranarray(X)[::-1][::-1], y, tmp_path, executor=OnRay(cluster))
    expect_each_once(tmp_path, found)
    assert timeless(result.rows) == timeless(found.rows)


class Looking(Watcher):
    """Notes what SIGTERM does while the sweep runs, and what it is told."""

    def __init__(self):
        self.handlers, self.samples, self.rows = set(), 0, 0

    def epoch_ended(self, samples):
        self.samples += samples

    def row_added(self, row):
        self.rows += 1
        self.handlers.add(signal.getsignal(signal.SIGTERM))


def test_a_sweep_on_ray_tells_of_its_samples_and_leaves_sigterm_alone(cluster, sigterm):
    sweep, X, y = small_sweep()
    watcher = Looking()
    result = sweep.run(X, y, executor=OnRay(cluster), watcher=watcher)
    assert watcher.samples == sum(row["samples"] for row in result.rows) > 0
    assert watcher.handlers == {sigterm, signal.getsignal(signal.SIGTERM)} == {sigterm}


@POSIX
def test_a_worker_that_is_killed_costs_one_task_which_is_run_again(cluster, found, tmp_path, caplog):
    sweep, X, y = deadly_sweep({DEADLY: "killed"}, tmp_path / "mark")
    result = sweep.run(X, y, tmp_path, executor=OnRay(cluster))
    assert (tmp_path / "mark").exists()
    assert [record.levelname for record in caplog.records if "worker died" in record.message] == ["WARNING"]
    expect_each_once(tmp_path, found)
    assert result.lost == []


@POSIX
def test_a_configuration_that_kills_its_worker_has_a_row_that_says_so_and_all_others_have_theirs(
    cluster, found, tmp_path
):
    sweep, X, y = deadly_sweep({DEADLY: "exit", LATE: "killed"})
    watcher = Looking()
    result = sweep.run(X, y, tmp_path, executor=OnRay(cluster), watcher=watcher)
    assert watcher.rows == 24
    keys = [row["key"] for row in found.rows]
    assert [row["key"] for row in result.rows] == keys
    assert sorted(line["key"] for line in lines_of(tmp_path)) == sorted(keys)
    exits, killed = result.rows[DEADLY], result.rows[LATE]
    assert result.lost == [killed, exits]
    assert (exits["exit_status"], exits["error"]) == (13, "its process ended with exit status 13")
    assert killed["exit_status"] == -signal.SIGKILL
    assert "killed by SIGKILL" in killed["error"]
    assert exits["accuracy"] is exits["cost"] is exits["deviation"] is None
    others = [i for i in range(24) if i not in (DEADLY, LATE)]
    assert timeless([result.rows[i] for i in others]) == timeless([found.rows[i] for i in others])
    assert len(result.ranked) == 22
    again = small_sweep()[0].run(X, y, tmp_path)
    assert again.rows == result.rows


@POSIX
def test_a_driver_that_is_killed_goes_on_when_it_is_run_again(cluster, found, tmp_path):
    command = [sys.executable, str(HERE / "driver.py"), str(tmp_path), cluster]
    for rows in (3, 30):
        ended = subprocess.run([*command, str(rows)], capture_output=True, text=True, timeout=60)
        if rows == 3:
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            assert len(lines_of(tmp_path)) == 3
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    expect_each_once(tmp_path, found)


def test_the_command_runs_on_a_cluster_and_stdout_holds_the_result_alone(cluster, tmp_path):
    space = tmp_path / "space.toml"
    space.write_text("hidden = [[4], [6]]\nlearning_rate = [0.01, 0.1]\nepochs = 3\n")
    command = [sys.executable, "-m", "gpumlp", "sweep", str(space), "iris", "--out", str(tmp_path), "--json", "--quiet"]
    options = ["--backend", "numpy", "--executor", "ray", "--address", cluster, "--cpus", "2"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    result = json.loads(ended.stdout)
    assert (result["configurations"], result["missing"], result["lost"]) == (4, 0, 0)


def test_an_error_of_a_task_is_raised_as_it_is(cluster):
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(OutOfMemory, match="1 bytes may be used") as caught:
        Sweep({"epochs": [1]}, backend="numpy", memory=1).run(X, X[:, 0], executor=OnRay(cluster))
    assert type(caught.value) is OutOfMemory


# ---------------------------------------------------------------- pieces


def trials():
    sweep, X, y = small_sweep()
    return sweep.task(X, y).trials(sweep.configurations)


def test_trials_of_which_two_workers_died_are_halved_until_one_is_alone():
    piece = Piece(tuple(trials()[:5]))
    (again,) = piece.after_death()
    assert again.trials == piece.trials
    first, second = again.after_death()
    assert first.trials + second.trials == piece.trials
    assert not first.is_alone
    one, _ = first.after_death()
    assert one.is_alone
    assert [part.trials for part in one.after_death()] == [one.trials]


def test_batches_are_divided_until_all_processors_have_one():
    batches = batches_of(trials(), 3)
    for slots in (1, 3, 4, 20, 500):
        parts = spread(batches, slots)
        assert [trial for part in parts for trial in part] == [trial for batch in batches for trial in batch]
        assert all(parts)
        assert len(parts) >= min(slots, 24)


def test_data_are_sent_as_networks_read_them():
    sweep, X, y = small_sweep()
    sweep.dtype = "float32"
    task = contiguous(sweep.task(X[:, ::-1], y))
    assert task.X.flags.c_contiguous
    assert task.X.dtype == np.float32


# ---------------------------------------------------------------- a trial alone


@POSIX
@pytest.mark.parametrize(
    ("end", "status", "words"), [("exit", 13, "exit status 13"), ("segfault", -11, "Segmentation fault")]
)
def test_a_trial_that_ends_its_process_leaves_a_row_with_the_status_and_the_last_words(monkeypatch, end, status, words):
    monkeypatch.syspath_prepend(HERE)
    sweep, X, y = deadly_sweep({DEADLY: end})
    task = sweep.task(X, y)
    row = run_alone(task, task.trials(sweep.configurations)[DEADLY])
    assert row["exit_status"] == status
    assert words in row["error"]
    json.dumps(row, allow_nan=False)


def test_a_trial_that_ends_well_has_its_row_from_a_process_of_its_own_too(found):
    sweep, X, y = small_sweep()
    task = sweep.task(X, y)
    assert timeless([run_alone(task, task.trials(sweep.configurations)[3])]) == timeless([found.rows[3]])


def test_a_trial_whose_parent_has_died_ends_and_leaves_nothing(tmp_path):
    sweep = Sweep({"epochs": 10**9, "hidden": [()]}, backend="numpy")
    task = sweep.task(np.eye(9), np.arange(9) % 2)
    folder = tmp_path / "gpumlp-alone"
    folder.mkdir()
    (folder / "question").write_bytes(pickle.dumps((task, task.trials(sweep.configurations)[0])))
    program = f"from gpumlp.ensembles.lone import reply; reply({str(folder)!r})"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(60) == 1
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- where

CPUS, GPUS = {"CPU": 8.0}, {"CPU": 6.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "backend", "device", "expected"),
    [
        ([CPUS], "auto", None, ("auto", "cpu", 0)),
        ([CPUS, GPUS], "auto", None, ("cuda", "cuda", 1)),
        ([CPUS, GPUS], "auto", "cpu", ("auto", "cpu", 0)),
        ([CPUS, GPUS], "numpy", None, ("numpy", "cpu", 0)),
        ([GPUS], "auto", "cuda", ("cuda", "cuda", 1)),
        ([GPUS], "cuda", None, ("cuda", "cuda", 1)),
    ],
)
def test_a_task_has_a_gpu_where_it_is_asked_for_or_where_there_is_one(nodes, backend, device, expected):
    sweep, X, y = small_sweep()
    sweep.backend, sweep.device = backend, device
    task, gpus = placed(sweep.task(X, y), nodes)
    assert (task.backend, task.device, gpus) == expected


def test_a_gpu_that_is_not_there_is_refused_by_name():
    sweep, X, y = small_sweep()
    for backend, device in (("cuda", None), ("auto", "cuda")):
        sweep.backend, sweep.device = backend, device
        with pytest.raises(BackendUnavailable, match="no node of the Ray cluster has a GPU"):
            placed(sweep.task(X, y), [CPUS])
    sweep.device = "cuda:1"
    with pytest.raises(ConfigurationError, match=r'ask for "cuda"'):
        placed(sweep.task(X, y), [GPUS])


def test_as_many_tasks_run_at_once_as_have_their_processors_and_their_gpu():
    assert n_slots([CPUS, GPUS], 3, 0) == 4
    assert n_slots([CPUS, GPUS], 1, 1) == 4
    assert n_slots([CPUS, GPUS], 3, 1) == 2
    with pytest.raises(ConfigurationError, match="9 CPUs; one has 8 CPUs at most"):
        n_slots([CPUS, GPUS], 9, 0)


def test_ray_that_is_not_installed_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    sweep, X, y = small_sweep()
    with pytest.raises(BackendUnavailable, match=r"gpumlp\[ray\]"):
        sweep.run(X, y, executor="ray")


def test_an_address_without_a_cluster_is_told(monkeypatch):
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever the other tests are connected to
    sweep, X, y = small_sweep()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(BackendUnavailable, match=f"no Ray cluster at address='{address}'"):
            sweep.run(X, y, executor=OnRay(address))


def test_ray_that_finds_no_cluster_is_told(monkeypatch):
    def init(address, **options):
        raise ConnectionError("Could not find any running Ray instance.")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, exceptions=SimpleNamespace(RayError=KeyError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    sweep, X, y = small_sweep()
    with pytest.raises(BackendUnavailable, match=r"address='auto' \(Could not find any running Ray instance.\)"):
        sweep.run(X, y, executor=OnRay("auto"))


def test_what_means_nothing_is_refused():
    for address, message in (("ray://head:10001", "Ray Client"), ("head:", "host:port"), ("head:ray", "host:port")):
        with pytest.raises(ConfigurationError, match=message):
            OnRay(address)
    for cpus in (0, 1.5, "2"):
        with pytest.raises(ConfigurationError, match="cpus="):
            OnRay(cpus=cpus)


def test_a_block_computes_with_as_many_threads_as_it_is_given(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 8)
    monkeypatch.delenv("GPUMLP_NUM_THREADS", raising=False)
    before = threads.count()
    with threads.at_most(3):
        assert threads.count() == 3
        with threads.at_most(1):
            assert threads.count() == 1
        assert threads.count() == 3
    assert threads.count() == before
