"""A training on the command line that is broken off, by whatever, and goes on."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_process import ENVIRONMENT, POSIX, START

import gpumlp as package

KILLS, MANY_KILLS = 4, 50
SHORT = ("--epochs", 3, "--batch-size", 8)
# everything that a step may depend on, in steps that are short; a checkpoint is written each few of them
LONG = (
    *("--hidden", "7,5", "--dropout", "0.2", "--normalisation", "batch,layer", "--batch-size", 4, "--epochs", 80),
    *("--early-stopping", 70, "--schedule", "cosine(warmup=2)", "--clip-norm", 0.5, "--l2", 0.001, "--quiet"),
)


@pytest.fixture
def path(flowers):
    return flowers[0]


def command(program, *argv):
    return [sys.executable, "-c", program, *map(str, argv)]


def start(program, *argv):
    return subprocess.Popen(
        command(program, *argv), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def newest(folder):
    return max((entry.name for entry in folder.glob("step-*")), default="") if folder.is_dir() else ""


def wait_for_more(folder, process, before):
    """Return whether another checkpoint appeared before the process ended."""
    deadline = time.monotonic() + 120
    while newest(folder) <= before:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return True


def killed_until_it_ends(program, path, folder, kills, options, every="3steps"):
    """Kill a training at random instants, let it go on each time, and return how often it was killed."""
    instants, count = random.Random(5), 0
    argv = ("train", path, *options, "--checkpoint", folder / "c", "--every", every, "--resume")
    files = ("--save", folder / "model", "--log", folder / "log.csv")
    while True:
        before = newest(folder / "c")
        process = start(program, *argv, *files)
        if count < kills and wait_for_more(folder / "c", process, before):
            time.sleep(instants.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            count += 1
            continue
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.startswith("test accuracy")
        return count


def undisturbed(program, path, folder, options):
    argv = ("train", path, *options, "--save", folder / "model", "--log", folder / "log.csv")
    subprocess.run(command(program, *argv), env=ENVIRONMENT, check=True, capture_output=True)


def expect_same_results(one, other):
    """Compare model and log, which hold the weights and the history, bit for bit but for the seconds."""
    networks = [package.load(folder / "model.npz", "numpy").network for folder in (one, other)]
    for arrays in zip(*((*net.weights, *net.biases) for net in networks), strict=True):
        assert arrays[0].tobytes() == arrays[1].tobytes()
    for of_layers in zip(*(net.normalising for net in networks), strict=True):
        assert all(np.array_equal(of_layers[0][name], of_layers[1][name]) for name in of_layers[0])
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (one, other)]
    assert [line.split(",")[:-2] for line in logs[0]] == [line.split(",")[:-2] for line in logs[1]]


def expect_killing_changes_nothing(program, path, tmp_path, kills, options, **more):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    undisturbed(program, path, one, options)
    assert killed_until_it_ends(program, path, other, kills, options, **more) == kills
    expect_same_results(one, other)


@POSIX
def test_a_training_that_is_killed_at_any_instant_ends_with_the_same_weights(path, tmp_path):
    expect_killing_changes_nothing(START, path, tmp_path, KILLS, LONG)


@POSIX
@pytest.mark.soak
def test_fifty_kills_change_nothing(path, tmp_path):
    options = (*LONG, "--epochs", 1500, "--early-stopping", 1400)
    expect_killing_changes_nothing(START, path, tmp_path, MANY_KILLS, options)


@POSIX
@pytest.mark.soak
def test_kills_change_nothing_on_the_emulated_device(path, tmp_path):
    import devices

    if devices.in_use().kind != "emulated":
        pytest.skip(devices.why_skipped("emulated"))
    tests = Path(__file__).parents[1]
    program = f"import sys; sys.path.insert(0, {str(tests)!r}); import emulated_gpu; emulated_gpu.install()\n{START}"
    options = (*LONG, "--epochs", 20, "--backend", "cuda")
    expect_killing_changes_nothing(program, path, tmp_path, KILLS, options, every="2steps")


@POSIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_tells_the_command_to_go_on(number, status, path, tmp_path):
    folder, log = tmp_path / "with a space", tmp_path / "log.csv"
    argv = ["train", path, *SHORT[2:], "--epochs", 20000, "--checkpoint", folder, "--every", "1h", "--quiet"]
    process = start(START, *argv, "--log", log)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    (line,) = err.splitlines()
    assert line.startswith("interrupted; go on with: gpumlp train ")
    written = newest(folder)
    assert written
    again = shlex.split(line.partition(": ")[2])[1:]
    assert again[-1] == "--resume"
    assert again[:-1] == [*map(str, argv), "--log", str(log)]
    process = start(START, *again)
    assert wait_for_log(log, log.read_text(), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.splitlines() == [line]  # --resume stands in it once
    assert newest(folder) > written


def wait_for_log(log, before, process):
    while log.read_text() == before:
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def test_going_on_says_from_where(gpumlp, path, tmp_path):
    argv = ("train", path, *SHORT, "--checkpoint", tmp_path / "c")
    first = gpumlp(*argv, "--resume")
    assert first.status == 0
    assert f"training begins; its checkpoints come to {tmp_path / 'c'}" in first.err
    again = gpumlp(*argv, "--resume")
    assert f"goes on from {tmp_path / 'c' / newest(tmp_path / 'c')}: 3 epochs and 18 steps are done" in again.err
    assert again.out.split(")")[0] == first.out.split(")")[0]  # the same scores


def test_signals_are_as_before_when_it_has_ended(gpumlp, path, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    gpumlp("train", path, *SHORT, "--checkpoint", tmp_path / "c")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_damaged_checkpoint_is_told_in_one_line(gpumlp, path, tmp_path):
    argv = ("train", path, *SHORT, "--checkpoint", tmp_path / "c", "--every", "1epoch")
    whole = gpumlp(*argv)
    last = tmp_path / "c" / newest(tmp_path / "c")
    last.write_bytes(last.read_bytes()[:-7])
    again = gpumlp(*argv, "--resume")
    assert again.status == 0
    (told,) = [line for line in again.err.splitlines() if "is damaged" in line]
    assert f"checkpoint {last.name} is damaged, the one before it is taken" in told
    assert again.out.split(")")[0] == whole.out.split(")")[0]


REFUSED = {
    "resume without a folder": (("--resume",), "--resume: needs --checkpoint DIR"),
    "a distance": (("--checkpoint", "c", "--every", "often"), "every='often': expected a number and its unit"),
    "another option": (("--checkpoint", "c", "--resume", "--lr", "0.5"), "learning_rate is 0.001 in the checkpoint"),
    "other rows": (("--checkpoint", "c", "--resume", "--seed", "9"), "the network differs: seed is 0"),
    "no resume": (("--checkpoint", "c"), "holds checkpoints already"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_go_on_is_refused_in_one_line(options, message, gpumlp, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gpumlp("train", path, *SHORT, "--checkpoint", "c").status == 0
    ended = gpumlp("train", path, *SHORT, *options, "--quiet")
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert message in line


def test_a_full_disk_is_one_line_and_training_ends_well(gpumlp, path, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ended = gpumlp("train", path, *SHORT, "--checkpoint", tmp_path / "c", "--every", "1h")
    assert ended.status == 0
    told = [line for line in ended.err.splitlines() if "No space left on device" in line]
    assert len(told) == 1
    assert "training goes on" in told[0]
    assert list((tmp_path / "c").iterdir()) == []
