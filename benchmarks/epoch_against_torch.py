"""One epoch of MNIST, 784-128-10, mini-batches of 64, Adam, float32: gpumlp beside PyTorch eager on the same CPU.

    python benchmarks/epoch_against_torch.py --data FOLDER [--epochs 15] [--backend numpy]
        [--torch-python PYTHON]

Each library has a process of its own; the two take turns, epoch by epoch, so that both meet the same machine. Both hold
the data in memory and index a permuted batch; PyTorch runs its defaults, and beside them its fused Adam.
FOLDER holds train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz; without it, random data of that size are used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from gpumlp.data import read_table


def mnist(folder: str | None):
    if folder is None:
        source = np.random.default_rng(0)
        return source.random((60000, 784), np.float32), source.integers(0, 10, 60000)
    table = read_table(Path(folder) / "train-images-idx3-ubyte.gz")
    return table.X.astype(np.float32) / 255, table.y.astype(np.int64)


def gpumlp_epochs(folder, backend):
    import gpumlp

    X, Y = mnist(folder)
    trainer = gpumlp.Trainer(gpumlp.Network((784, 128, 10), backend=backend), batch_size=64)
    trainer.fit(X[:640], Y[:640], epochs=1)
    while True:
        history = trainer.fit(X, Y, epochs=1)
        yield history.seconds[-1], float(history["cost"][-1, 0])


def torch_epochs(folder, fused):
    import torch

    X, Y = (torch.from_numpy(x) for x in mnist(folder))
    net = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused or None)
    cost = torch.nn.CrossEntropyLoss()
    while True:
        began = perf_counter()
        order = torch.randperm(len(X))
        for i in range(0, len(X), 64):
            rows = order[i : i + 64]
            optimizer.zero_grad()
            loss = cost(net(X[rows]), Y[rows])
            loss.backward()
            optimizer.step()
        total = loss.item()
        yield perf_counter() - began, total


def serve(library: str, folder: str | None, backend: str) -> None:
    """Run one epoch for each line on stdin."""
    epochs = gpumlp_epochs(folder, backend) if library == "gpumlp" else torch_epochs(folder, library == "torch fused")
    for _ in sys.stdin:
        print(json.dumps(next(epochs)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--backend", default="numpy", help="of gpumlp")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has PyTorch")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.data, given.backend)
        return
    libraries = ("gpumlp", "torch", "torch fused")
    processes = {}
    for name in libraries:
        python = sys.executable if name == "gpumlp" else given.torch_python
        command = [python, __file__, "--serve", name, "--backend", given.backend]
        command += ["--data", given.data] if given.data else []
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for epoch in range(given.epochs + 2):  # two to warm up
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            took, cost = json.loads(process.stdout.readline())
            assert np.isfinite(cost)
            if epoch >= 2:
                seconds[name].append(took)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {given.epochs} epochs in turns")
    for name, times in seconds.items():
        low, median, high = np.percentile(times, [25, 50, 75])
        print(f"{name:12} {median:.3f} s  (quartiles {low:.3f} to {high:.3f})  {60000 / median:9,.0f} samples/s")
    for name in libraries[1:]:
        ratios = np.array(seconds["gpumlp"]) / np.array(seconds[name])
        low, median, high = np.percentile(ratios, [25, 50, 75])
        print(f"gpumlp / {name:12} {median:.2f}  (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
