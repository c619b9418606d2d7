"""What only a real process can show."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpumlp as package

ROOT = Path(package.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")

# a process that was started in the background ignores Ctrl-C, and so would its children
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from gpumlp.cli import main
sys.exit(main())
"""


def run(*argv, **more):
    command = [sys.executable, "-m", "gpumlp", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False, **more)


def test_the_demo_runs_as_a_program():
    ended = run("train", "digits", "--hidden", "64,32", "--epochs", "5", "--standardise", "--seed", "0")
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    assert ended.stdout.startswith("test accuracy ")
    assert "epoch 5/5" in ended.stderr


def test_a_wrong_word_ends_with_status_2_and_one_line():
    ended = run("train", "digts")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1


def test_importing_the_package_imports_neither_typer_nor_rich():
    code = "import gpumlp, sys; sys.exit(any(name in sys.modules for name in ('typer', 'rich', 'click')))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=60, check=False).returncode == 0


@POSIX
def test_ctrl_c_saves_the_best_weights_and_ends_with_130(tmp_path):
    model, log = tmp_path / "m.npz", tmp_path / "l.csv"
    options = ["--epochs", "1000000", "--save", str(model), "--log", str(log)]
    process = subprocess.Popen(
        [sys.executable, "-c", START, "train", "iris", *options],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "interrupted; the weights of epoch" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert package.load(model).network.sizes == (4, 100, 3)


@POSIX
@pytest.mark.parametrize(("command", "statuses"), [("info", {141}), ("--help", {1, 141})])
def test_a_reader_of_stdout_that_has_left_is_no_error(command, statuses):
    reading, writing = os.pipe()
    os.close(reading)
    process = [sys.executable, "-m", "gpumlp", command]
    ended = subprocess.run(process, stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False)
    os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode in statuses  # rich, which prints the help, ends the process with 1


def wait_for(condition, process):
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
