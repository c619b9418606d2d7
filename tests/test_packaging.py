"""What is installed: every package of the tree, and the kernels as its data."""

from pathlib import Path

import pytest

import gpumlp
from gpumlp.bench.peers import FILES

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None

ROOT = Path(gpumlp.__file__).parents[1]


@pytest.fixture
def setuptools_table():
    if tomllib is None:
        pytest.skip("tomllib came with Python 3.11")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the package is installed without its pyproject.toml")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_package_of_the_tree_is_installed(setuptools_table):
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "gpumlp").rglob("__init__.py")}
    assert set(setuptools_table["packages"]) == there | {"gpumlp._kernels", "gpumlp._peers"}


def test_the_peers_of_the_benchmark_are_installed(setuptools_table):
    folder = ROOT / setuptools_table["package-dir"]["gpumlp._peers"]
    assert {path.name for path in folder.glob("*.py")} >= {"__init__.py", *FILES.values()}


def test_every_kernel_is_installed(setuptools_table):
    folder = ROOT / setuptools_table["package-dir"]["gpumlp._kernels"]
    patterns = setuptools_table["package-data"]["gpumlp._kernels"]
    sources = {path.name for path in folder.iterdir() if path.suffix in (".cu", ".cuh")}
    assert {path.name for pattern in patterns for path in folder.glob(pattern)} == sources
    assert {"common.cuh", "update.cu"} <= sources
