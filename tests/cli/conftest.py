import signal
from dataclasses import dataclass

import numpy as np
import pytest
from csv_text import as_csv

from gpumlp.cli import main


@dataclass
class Ended:
    """How a command line ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def gpumlp(capsys, monkeypatch):
    """Run a command line in this process."""
    monkeypatch.delenv("GPUMLP_DEBUG", raising=False)

    def run(*argv):
        status = main([str(a) for a in argv])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def in_a_terminal():
    """Let Ctrl-C do what it does there: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def flowers(tmp_path):
    """Two kinds of flowers that any network can tell apart, with a header and text labels; X and labels beside it."""
    random = np.random.default_rng(3)
    labels = np.array(["lily", "rose"])[np.arange(60) % 2]
    X = random.normal(size=(60, 3)) + 3 * (labels == "rose")[:, None]
    path = tmp_path / "flowers.csv"
    path.write_text(as_csv(("tall", "wide", "red", "kind"), [*X.T, labels]))
    return path, X, labels
