"""What training by pools costs: its rate beside that in memory, and the anonymous memory that it takes.

    python benchmarks/streaming.py [--backend numba] [--megabytes 480] [--rounds 9]

A file of random rows is made in the temporary folder, and deleted. Rates are those of epochs that take turns, of which
the median of the ratios is told; memory is that of a process of its own, for a sixteenth, a quarter and all of the
file, under a limit (RLIMIT_DATA) of a tenth of the file beyond what the process had before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import gpumlp
from gpumlp.data.row_blocks import ArrayBlocks

N_FEATURES, BATCH = 784, 64


def trainer_of(backend: str) -> gpumlp.Trainer:
    """Return a trainer of 784-100-10."""
    net = gpumlp.Network((N_FEATURES, 100, 10), output="softmax", cost="categorical_cross_entropy", backend=backend)
    return gpumlp.Trainer(net, batch_size=BATCH)


def make(folder: Path, megabytes: int) -> None:
    """Write X.npy and y.npy."""
    n, rng = megabytes * 10**6 // (4 * N_FEATURES), np.random.default_rng(0)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n, N_FEATURES))
    for start in range(0, n, 8192):
        X[start : start + 8192] = rng.standard_normal((len(X[start : start + 8192]), N_FEATURES), np.float32)
    X.flush()
    np.save(folder / "y.npy", rng.integers(0, 10, n))


def mapped(folder: Path) -> tuple[Any, Any]:
    """Return both, mapped."""
    return np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")


class Blocks:
    """The same rows as blocks that are copied into pools."""

    def __init__(self, X: Any, y: Any) -> None:
        self.X, self.y = X, y

    def __len__(self) -> int:
        return -(-len(self.X) // 1024)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        rows = slice(1024 * number, 1024 * (number + 1))
        return self.X[rows], self.y[rows]


def rates(folder: Path, backend: str, rounds: int, pool: str) -> None:
    """Print how fast epochs by pools are beside those in memory."""
    X, y = mapped(folder)
    ways = {
        "in memory": ((np.array(X), np.array(y)), None),
        "pools of a mapped file": ((X, y), pool),
        "the same, a row in 50 left out": ((ArrayBlocks(X, y, np.arange(0, len(X), 50)), None), pool),
        "pools of blocks, copied": ((Blocks(X, y), None), pool),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    trainers = {way: trainer_of(backend) for way in ways}
    for _ in range(rounds + 1):
        for way, (data, size) in ways.items():
            history = trainers[way].fit(*data, 1, pool=size)
            found[way].append(float(history.samples_per_second[0]))
    base = np.array(found["in memory"][1:])
    for way, values in found.items():
        own = np.array(values[1:])
        print(f"{backend:6} {way:30} {np.median(own):10,.0f} rows/s, {np.median(own / base):.2f} of that in memory")


def memory(folder: Path, backend: str, share: float, pool: str, how: str) -> None:
    """Train under a limit and print the peak of anonymous memory."""
    import resource

    class Peak(gpumlp.Monitor):
        most = 0

        def step_ended(self, step: int) -> None:
            if step % 50 == 0:
                self.most = max(self.most, taken("RssAnon"))

    X, y = mapped(folder)
    limit = X.nbytes // 10
    n = int(share * len(X))
    trainer, peak = trainer_of(backend), Peak()
    trainer.fit(np.array(X[:2000]), np.array(y[:2000]), 20, pool=1024)  # every thread has its BLAS buffer then
    resource.setrlimit(resource.RLIMIT_DATA, (taken("VmData") + limit,) * 2)
    before = taken("RssAnon")
    data = (X[:n], y[:n]) if how == "mapped" else (Blocks(X[:n], y[:n]), None)
    trainer.fit(*data, 2, pool=pool, monitors=[peak])
    grown, allowed = (peak.most - before) / 1e6, limit / 1e6
    print(f"{backend:6} {how:8} {X[:n].nbytes / 1e6:6.0f} MB: {grown:5.1f} MB more (limit {allowed:.0f} MB)")


def taken(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--megabytes", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pool", default="24MB")
    parser.add_argument("--memory", nargs=3, metavar=("FOLDER", "SHARE", "HOW"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        folder, share, how = given.memory
        memory(Path(folder), given.backend, float(share), given.pool, how)
        return
    with TemporaryDirectory() as name:
        make(Path(name), given.megabytes)
        for how in ("mapped", "blocks"):
            for share in ("0.0625", "0.25", "1"):
                command = [sys.executable, __file__, "--backend", given.backend, "--pool", given.pool]
                subprocess.run([*command, "--memory", name, share, how], check=True)
        rates(Path(name), given.backend, given.rounds, given.pool)


if __name__ == "__main__":
    main()
