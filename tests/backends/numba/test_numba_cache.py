"""What is compiled is kept: another process compiles nothing, and where nothing can be kept all works the same."""

import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import numba_source
from gpumlp.backends.numba_program import bind, run_now
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.term import record

PROGRAM = """
import logging, numpy as np
from numba.core import event
logging.basicConfig(level=logging.INFO, format="%(message)s")
with event.install_recorder("numba:compile") as compiled:
    import gpumlp
    X = np.linspace(0, 1, 64, dtype=np.float32).reshape(16, 4)
    net = gpumlp.Network((4, 3, 2), "tanh", backend="numba")
    gpumlp.Trainer(net, "sgd", batch_size=4).fit(X, np.arange(16) % 2, 2)
print(sum(e.is_start for _, e in compiled.buffer), net.predict(X).sum())
"""


def train_in_a_process(folder):
    environment = {**os.environ, "GPUMLP_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    count, result = done.stdout.split()
    return int(count), result, done.stderr


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A cache folder, and what the process that has filled it did."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, *train_in_a_process(folder)


def test_a_second_process_compiles_nothing(first):
    folder, count, result, said = first
    assert count > 0
    assert said.count("numba compiles") == 1
    assert str(folder) in said
    count, again, said = train_in_a_process(folder)
    assert (count, again) == (0, result)
    assert "numba compiles" not in said


def test_a_folder_that_cannot_be_written_changes_nothing(first, tmp_path):
    (tmp_path / "file").write_text("no folder")
    count, result, said = train_in_a_process(tmp_path / "file")
    assert count > 0
    assert "memory alone" in said
    assert result == first[2]


def test_a_broken_file_in_the_cache_is_done_without(first, tmp_path):
    shutil.copytree(first[0], tmp_path / "copy")
    for file in (tmp_path / "copy" / "numba" / "__pycache__").glob("*.nb[ic]"):
        file.write_bytes(b"broken")
    assert train_in_a_process(tmp_path / "copy")[1] == first[2]


def one_loop(slope):
    f = ACTIVATIONS.get(f"leaky_relu(slope={slope})")
    return numba_source.loop("forward_in_place", np.float64, (("activation_value", record(f.value, "z")),))


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUMLP_CACHE_DIR", str(tmp_path))
    return tmp_path / "numba"


def test_sources_can_be_read_and_are_written_once(cache_folder):
    one_loop(0.125)
    (source,) = cache_folder.glob("forward_in_place_*.py")
    assert "real(0.125)" in source.read_text(encoding="utf-8")
    assert not list(cache_folder.glob("*.tmp"))


def test_a_cache_that_is_full_is_done_without(cache_folder, monkeypatch, caplog):
    def full(path, text):
        raise OSError("no space left")

    monkeypatch.setattr(numba_source, "_write", full)
    with caplog.at_level(logging.INFO, logger="gpumlp"):
        run = one_loop(0.375)
    a = np.array([-8.0, 8.0])
    run_now(bind(run, np.zeros(1), 0, 2, 1, 0, 2, 0, 1, np.zeros(1), a))
    assert a.tolist() == [-3, 8]
    assert any("no space left" in r.getMessage() for r in caplog.records)


def test_a_user_without_a_home_computes_in_memory(monkeypatch):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.delenv("GPUMLP_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba_source.Path, "home", no_home)
    assert numba_source.cache_folder() is None


def test_a_definition_of_the_users_own_is_compiled(dtype):
    own = gpumlp.Activation("cubic", value=lambda z: z * z * z / 3)
    nets = [gpumlp.Network((3, 5, 2), own, backend=b, dtype=dtype, seed=1) for b in ("numba", "numpy")]
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    for net in nets:
        gpumlp.Trainer(net, batch_size=5).fit(X, y, 3)
    assert np.allclose(nets[0].predict(X), nets[1].predict(X), rtol=1e-4 if dtype == "float32" else 1e-10)
