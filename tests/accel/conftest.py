"""Acceleration in this process, and programs that run under it in one of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpumlp
from gpumlp.accel.installation import install, uninstall
from gpumlp.accel.ledger import LEDGER

ROOT = Path(gpumlp.__file__).parents[1]


@pytest.fixture
def accelerated():
    """Let scikit-learn's names stand for the accelerated classes, on NumPy, and count from nothing."""
    install("numpy")
    yield
    uninstall()
    LEDGER.close()


@pytest.fixture
def run_program(tmp_path):
    """run_program("-m", "gpumlp.accel", ...): what Python made of it in a folder of its own."""

    def run(*arguments, cwd=tmp_path, **environment):
        given = {"PYTHONPATH": str(ROOT), "GPUMLP_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1", **environment}
        return subprocess.run(
            [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **given}
        )

    return run


@pytest.fixture
def write(tmp_path):
    """write("name.py", text): the path of a file with that text."""

    def written(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written
