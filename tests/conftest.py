"""What every test may ask for."""

import importlib
import json
import os
from pathlib import Path

import devices
import pytest

from gpumlp.backends.select import why_unavailable

SHARED = Path(__file__).parents[2] / "shared"
FIXTURES = Path(__file__).parent / "fixtures"

BACKENDS = [
    pytest.param("numpy"),
    pytest.param("numba"),
    pytest.param("cuda"),
]
DEVICE = pytest.StashKey[devices.Device]()


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the tests that take minutes, too")


def pytest_configure(config):
    """Settle the device before any test file imports CuPy, in each process of pytest-xdist for itself."""
    config.stash[DEVICE] = devices.in_use()
    # "auto" would choose the emulated device, on which a test that is not about devices takes minutes.
    os.environ.setdefault("GPUMLP_BACKEND", "numpy")


def pytest_report_header(config):
    return str(config.stash[DEVICE])


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and item.config.stash[DEVICE].kind != "real":
        pytest.skip(devices.why_skipped("real"))
    if item.get_closest_marker("soak") and not item.config.getoption("soak"):
        pytest.skip("takes minutes: make soak")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """The name of each backend in turn; skips with the reason where one cannot work."""
    reason = why_unavailable(request.param)
    if reason:
        pytest.skip(f"backend {request.param} {reason}")
    return request.param


@pytest.fixture
def cupy():
    """The module cupy, where there is a device."""
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    return importlib.import_module("cupy")


@pytest.fixture
def affordable_steps(backend, request):
    """How many training steps one test may take: the emulated device needs about a millisecond for the smallest."""
    emulated = backend == "cuda" and request.config.stash[DEVICE].kind == "emulated"
    return 4_000 if emulated else 10**9


@pytest.fixture
def long_training(affordable_steps):
    """For a test that takes many thousand steps, or large ones."""
    if affordable_steps < 10**9:
        pytest.skip("a training of this length would take the emulated device many minutes")


@pytest.fixture(scope="session")
def fixture_file():
    """fixture_file("b_toy"): the worked case of that name, as described in fixtures/README.md."""

    def load(name):
        return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))

    return load


@pytest.fixture(scope="session")
def shared_data():
    """The folder of data sets beside the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the data sets are not beside the repository (../shared/data)")
    return folder


@pytest.fixture
def measured(request):
    """measured(name, value): a share or an accuracy to be read at the end of the run, and in its XML."""

    def note(name, value):
        request.node.user_properties.append((name, value))

    return note


def pytest_terminal_summary(terminalreporter):
    """Print what was measured: a test asserts a band, the figure itself is news."""
    reports = [r for outcome in ("passed", "failed") for r in terminalreporter.stats.get(outcome, [])]
    lines = [f"{name}: {value}  ({r.nodeid})" for r in reports for name, value in r.user_properties]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
