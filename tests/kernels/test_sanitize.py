"""What compute-sanitizer is shown: every kernel. The tools themselves need a GPU."""

import subprocess
import sys
from pathlib import Path

import gates
import sanitize
from devices import cupy_on

cupy_on("emulated")


def test_every_kernel_is_launched(monkeypatch):
    import emulated_gpu

    monkeypatch.setenv("GPUMLP_CUDA_GRAPHS", "off")
    with emulated_gpu.counting() as counted:
        sanitize.train()
    assert set(gates.BUDGETS) <= set(counted["launches"])


def test_a_tool_that_does_not_exist_is_refused():
    command = [sys.executable, str(Path(sanitize.__file__)), "memchek"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no tool memchek: expected memcheck, racecheck" in ended.stderr
