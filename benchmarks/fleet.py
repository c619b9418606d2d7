"""Many configurations at once beside the same fits one after another, by gpumlp and by a loop over PyTorch modules.

    python benchmarks/fleet.py            64 configurations x 5 folds, hidden widths 8 to 64, 2,000 x 20 data, 30 epochs
    python benchmarks/fleet.py --quick    8 configurations, 3 epochs, to see that it works

Every fit is evaluated on its held-out fold after each epoch. All take turns in one run; the table has medians and
their ratios. PyTorch trains one fold of each configuration, times the number of folds: a loop takes equally long for
each. Writes benchmarks/results/fleet.json and .md unless --out names another folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gpumlp.backends import threads
from gpumlp.bench.environment import describe
from gpumlp.bench.timing import settle
from gpumlp.ensembles import Job, plan, train
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

N_ROWS, N_FEATURES, N_CLASSES, N_FOLDS, BATCH = 2_000, 20, 3, 5, 32


def data() -> tuple[Any, Any]:
    """Return rows whose classes a small network can learn in part."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((N_ROWS, N_FEATURES)).astype(np.float32)
    scores = np.tanh(X @ draw.standard_normal((N_FEATURES, 8))) @ draw.standard_normal((8, N_CLASSES))
    return X, (scores + 0.5 * draw.standard_normal(scores.shape)).argmax(axis=1)


def configurations(n: int, n_layers: int) -> list[dict[str, Any]]:
    """Return random widths, activations and learning rates."""
    draw = np.random.default_rng(1)
    return [
        {
            "hidden": tuple(int(w) for w in draw.integers(8, 65, n_layers)),
            "activation": ("relu", "tanh")[i % 2],
            "learning_rate": float(10 ** draw.uniform(-3.5, -2)),
        }
        for i in range(n)
    ]


def folds() -> list[tuple[Any, Any]]:
    """Return which rows are trained on, and which held out."""
    rows = np.arange(N_ROWS)
    return [(np.flatnonzero(rows % N_FOLDS != f), np.flatnonzero(rows % N_FOLDS == f)) for f in range(N_FOLDS)]


def jobs_of(found: list[dict[str, Any]], epochs: int) -> list[Job]:
    """Return a job for each configuration and fold."""
    return [
        Job(
            Member(
                build_architecture(
                    (N_FEATURES, *c["hidden"], N_CLASSES), c["activation"], "softmax", "categorical_cross_entropy"
                ),
                (0.0,) * len(c["hidden"]),
                seed=i,
                model_id=f,
            ),
            epochs=epochs,
            learning_rate=c["learning_rate"],
            batch_size=BATCH,
            rows=own,
            validation_rows=held,
        )
        for i, c in enumerate(found)
        for f, (own, held) in enumerate(folds())
    ]


def torch_loop(found: list[dict[str, Any]], X: Any, Y: Any, epochs: int) -> Callable[[], None]:
    """Return the fits of the first fold of each configuration in PyTorch, tuned as its performance guide says."""
    import torch

    torch.set_num_threads(threads.count())
    activations = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
    own, held = folds()[0]
    X_own, Y_own, X_held, Y_held = (torch.from_numpy(a) for a in (X[own], Y[own], X[held], Y[held]))

    def fit(c: dict[str, Any]) -> None:
        sizes, f = (N_FEATURES, *c["hidden"]), activations[c["activation"]]
        layers = [module for n, k in pairwise(sizes) for module in (torch.nn.Linear(n, k), f())]
        net = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], N_CLASSES))
        optimizer = torch.optim.Adam(net.parameters(), lr=c["learning_rate"], fused=True)
        cost = torch.nn.functional.cross_entropy
        for _ in range(epochs):
            order = torch.randperm(len(X_own))
            for rows in order.split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                cost(net(X_own[rows]), Y_own[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                cost(net(X_held), Y_held).item()

    def loop() -> None:
        for c in found:
            fit(c)

    return loop


def measure(works: dict[str, tuple[Callable[[], Any], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each work, times its factor, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, factor) in works.items():
            settle()
            began = perf_counter()
            work()
            seconds[name].append((perf_counter() - began) * factor)
            print(f"  {name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def compare(n_layers: int, n: int, epochs: int, rounds: int) -> dict[str, Any]:
    """Return what was measured with so many hidden layers."""
    X, Y = data()
    found = configurations(n, n_layers)
    jobs = jobs_of(found, epochs)

    def one_after_another() -> None:
        for job in jobs:
            train([job], X, Y, backend="numba")

    stacks = plan(jobs, X, Y, backend="numba")
    print(f"{n_layers} hidden layers\n{stacks}")
    works: dict[str, tuple[Callable[[], Any], float]] = {
        "at once": (lambda: train(jobs, X, Y, backend="numba"), 1.0),
        "one after another": (one_after_another, 1.0),
    }
    if find_spec("torch"):
        works["PyTorch loop"] = (torch_loop(found, X, Y, epochs), float(N_FOLDS))
    train(jobs[:10], X, Y, backend="numba")  # compiles
    seconds = measure(works, rounds)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "hidden layers": n_layers,
        "fits": len(jobs),
        "epochs": epochs,
        "plan": str(stacks),
        "seconds": seconds,
        "ratios": {name: value / medians["at once"] for name, value in medians.items() if name != "at once"},
    }


def table(found: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = ["| hidden layers | fits | at once | one after another | PyTorch loop |", "|---|---|---|---|---|"]
    for one in found:
        cells = [str(one["hidden layers"]), str(one["fits"]), f"{np.median(one['seconds']['at once']):.2f} s"]
        for name in ("one after another", "PyTorch loop"):
            ratio = one["ratios"].get(name)
            cells.append("not installed" if ratio is None else f"{np.median(one['seconds'][name]):.1f} s, {ratio:.1f}x")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    n, epochs, rounds = (8, 3, 1) if given.quick else (64, 30, 3)
    found = [compare(n_layers, n, epochs, rounds) for n_layers in (1, 2)]
    given.out.mkdir(parents=True, exist_ok=True)
    place = given.out / "fleet"
    content = {"environment": describe(), "found": found}
    place.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    heading = "# Many configurations at once\n\n`python benchmarks/fleet.py`\n\n"
    place.with_suffix(".md").write_text(heading + table(found) + "\n", encoding="utf-8")
    print(f"\n{table(found)}\n\n{place}.json, .md")


if __name__ == "__main__":
    main()
