"""`gpumlp doctor`: its files, its exit status, and what it says where there is nothing to examine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import devices
import pytest

import gpumlp as package
from gpumlp.backends.select import why_unavailable
from gpumlp.bench.workloads import SMALL
from gpumlp.doctor.report import Check

ROOT = Path(package.__file__).parents[1]
TIME = re.compile(r"\b(seconds?|[mun]s|GB/s|TFLOP/s)\b")
CHECK_KEYS = {"name", "passed", "summary", "facts", "cases", "error"}


@pytest.fixture
def device():
    """The kind of the device in use; skips where there is none."""
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    return devices.in_use().kind


@pytest.fixture
def only(device, monkeypatch):
    """only(name, work, ...): let the examination consist of these checks."""

    def choose(*named):
        monkeypatch.setattr("gpumlp.doctor.examine.checks", lambda meter, device: list(named))

    return choose


def good():
    return Check("good", True, "as it should be")


def bad():
    raise RuntimeError("the kernel is lost")


def test_the_whole_examination_passes_on_the_emulated_device_and_times_nothing(gpumlp, device, tmp_path):
    if device != "emulated":
        pytest.skip("is about the emulated device")
    ended = gpumlp("doctor", "--out", tmp_path)
    assert ended.status == 0, ended.out
    report = json.loads((tmp_path / "doctor.json").read_text())
    text = (tmp_path / "doctor.md").read_text()
    assert set(report) == {"format", "passed", "device", "emulated", "environment", "checks", "measurements"}
    assert (report["format"], report["passed"], report["emulated"], report["measurements"]) == (1, True, True, [])
    assert all(set(check) == CHECK_KEYS for check in report["checks"])
    names = [check["name"] for check in report["checks"]]
    for part in ("activations", "costs with outputs", "update rules", "training options", "models that differ"):
        assert {f"{part}, float32", f"{part}, float64"} <= set(names)
    assert {"device", "compute_capability", "cuda_driver", "cublas", "nvrtc", "gpumlp"} <= set(report["environment"])
    for written in (json.dumps(report), text, ended.out):
        assert not TIME.search(written), TIME.search(written)
    assert "emulated device" in text
    assert "emulated device" in ended.out
    assert f"all {len(names)} checks pass" in ended.out


@pytest.mark.gpu
def test_the_whole_examination_passes_on_a_real_device(gpumlp, tmp_path):
    ended = gpumlp("doctor", "--out", tmp_path)
    assert ended.status == 0, ended.out
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert [table["error"] for table in report["measurements"]] == [""] * len(report["measurements"])


def test_a_failed_check_is_recorded_and_the_rest_goes_on(gpumlp, only, tmp_path):
    only(("bad", bad), ("good", good))
    ended = gpumlp("doctor", "--out", tmp_path, "--json")
    assert ended.status == 1
    report = json.loads(ended.out)
    assert report == json.loads((tmp_path / "doctor.json").read_text())
    assert [(c["name"], c["passed"], c["error"]) for c in report["checks"]] == [
        ("bad", False, "RuntimeError: the kernel is lost"),
        ("good", True, ""),
    ]
    assert "FAILED" in (tmp_path / "doctor.md").read_text()
    ended = gpumlp("doctor", "--out", tmp_path)
    assert "FAILED  bad: RuntimeError: the kernel is lost" in ended.out
    assert "1 of 2 checks FAIL" in ended.out


def test_a_wrong_kernel_is_found(gpumlp, only, tmp_path, monkeypatch):
    from gpumlp.backends.cuda.backend import CudaBackend
    from gpumlp.doctor import agreement
    from gpumlp.formulas.activations import ACTIVATIONS

    right = CudaBackend.hidden_delta

    def wrong(self, activation, delta_next, W_next, z, a, delta, *more):
        right(self, activation, delta_next, W_next, z, a, delta, *more)
        delta *= 1.001

    monkeypatch.setattr(CudaBackend, "hidden_delta", wrong)
    only(("tanh", lambda: agreement.activations("float32", "cuda:0", [ACTIVATIONS.get("tanh")])))
    ended = gpumlp("doctor", "--out", tmp_path)
    assert ended.status == 1
    assert "FAILED  activations, float32: 0 of 1 within 2e-05; the worst is tanh" in ended.out
    assert "| activations, float32 | tanh | gradients " in (tmp_path / "doctor.md").read_text()


def test_existing_reports_are_kept(gpumlp, only, tmp_path):
    only(("good", good))
    (tmp_path / "doctor.md").write_text("mine")
    for expected in ("doctor-2", "doctor-3"):
        ended = gpumlp("doctor", "--out", tmp_path)
        assert ended.status == 0
        assert f"{expected}.md" in ended.err
    assert (tmp_path / "doctor.md").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "doctor-2.json",
        "doctor-2.md",
        "doctor-3.json",
        "doctor-3.md",
        "doctor.md",
    ]


def test_on_a_real_device_measurements_follow_the_checks(gpumlp, only, tmp_path, monkeypatch):
    from gpumlp.backends.cuda.measure import Meter
    from gpumlp.doctor import comparison, examine, speed

    little = speed.Effort(8, (4, 6, 5), 0.01, 500, 8, 2, 1, (SMALL,))
    monkeypatch.setattr(Meter, "emulated", False)
    monkeypatch.setattr(examine, "Effort", lambda: little)
    monkeypatch.setattr(
        comparison, "contenders", lambda device: ([], dict.fromkeys(("torch", "jax"), "is not installed"))
    )
    monkeypatch.setattr(speed, "bandwidth", bad_table)
    only(("good", good))
    ended = gpumlp("doctor", "--out", tmp_path)
    assert ended.status == 0  # what cannot be measured is no wrong result
    report = json.loads((tmp_path / "doctor.json").read_text())
    tables = {table["name"]: table for table in report["measurements"]}
    assert list(tables) == ["Time of a node", "bandwidth", "Products", "cuBLASLt epilogues", "Training steps"]
    assert tables["bandwidth"]["error"] == "RuntimeError: no room"
    assert report["environment"]["torch"] == "is not installed: not compared"
    assert ended.out.count(f"time    {SMALL.name}") == 4
    assert "not done bandwidth: RuntimeError: no room" in ended.out
    assert "| predicted for an H100, us |" in (tmp_path / "doctor.md").read_text()


def bad_table(*arguments):
    raise RuntimeError("no room")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "cpu"), "'cpu'"),
        (("--out", "there-is-no-such-folder"), "there is no folder"),
    ],
)
def test_wrong_options_end_with_status_2(gpumlp, device, options, told):
    ended = gpumlp("doctor", *options)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err


def test_a_device_that_is_not_there_is_named(gpumlp, device):
    ended = gpumlp("doctor", "--device", "cuda:77")
    assert ended.status == 1
    assert "finds no device cuda:77" in ended.out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_without_a_device_one_sentence_says_what_is_missing(tmp_path, options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "CUDA_VISIBLE_DEVICES": "-1"}
    ended = subprocess.run(
        [sys.executable, "-m", "gpumlp", "doctor", *options],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert len(ended.stdout.splitlines()) == 1
    sentence = json.loads(ended.stdout)["unavailable"] if options else ended.stdout
    assert sentence.startswith('backend "cuda" ')
    assert not list(tmp_path.iterdir())
