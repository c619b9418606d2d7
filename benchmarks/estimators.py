"""gpumlp's estimators beside scikit-learn's, with the same parameters: how accurate they are, and how long they take.

    python benchmarks/estimators.py accuracy    six data sets, ten seeds each, paired t of the differences
    python benchmarks/estimators.py speed       MNIST, batch 200, Adam, five epochs; ratios within one run
    python benchmarks/estimators.py --quick ... two seeds and fewer rows, to see that it works

Both write benchmarks/results/estimators-*.json and .md unless --out names another folder. MNIST (idx files) and the
wheat seeds (wheat-seeds.csv) are looked for in --data; what is not there is left out and said.
"""

from __future__ import annotations

import argparse
import gzip
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp.bench.environment import describe
from gpumlp.bench.timing import settle

SEEDS = 10
TEST_SHARE = 0.25
MNIST_ROWS = 20_000
SPEED_ROWS, SPEED_EPOCHS, SPEED_ROUNDS = 60_000, 5, 3
Set = tuple[Any, Any, bool]  # X, y, whether y names classes


@dataclass(frozen=True)
class Accuracy:
    """The scores of one data set, seed by seed, and what they say.

    t   of the paired differences gpumlp - scikit-learn; 0 where all are alike
    """

    name: str
    rows: int
    score: str
    gpumlp: list[float]
    scikit_learn: list[float]

    @property
    def difference(self) -> float:
        """The mean difference."""
        return float(np.mean(np.subtract(self.gpumlp, self.scikit_learn)))

    @property
    def t(self) -> float:
        """Student's t of the paired differences."""
        found = np.subtract(self.gpumlp, self.scikit_learn)
        spread = found.std(ddof=1) / np.sqrt(len(found))
        return 0.0 if spread == 0 else float(found.mean() / spread)


@dataclass(frozen=True)
class Speed:
    """The seconds of each round of one network, by who trains it."""

    hidden: tuple[int, ...]
    seconds: dict[str, list[float]]

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Return how often `name` trains while scikit-learn trains once: median, least and most of the rounds."""
        found = np.divide(self.seconds["scikit-learn"], self.seconds[name])
        return float(np.median(found)), float(found.min()), float(found.max())


# ---------------------------------------------------------------- data


def load_sets(folder: Path, n_rows: int) -> dict[str, Callable[[], Set]]:
    """Return name -> what loads it, for all sets that are there."""
    found: dict[str, Callable[[], Set]] = {
        "digits": lambda: (*datasets.load_digits(return_X_y=True), True),
        "breast_cancer": lambda: (*datasets.load_breast_cancer(return_X_y=True), True),
        "wine": lambda: (*datasets.load_wine(return_X_y=True), True),
        "diabetes": lambda: (*datasets.load_diabetes(return_X_y=True), False),
    }
    seeds = folder / "wheat-seeds.csv"
    if seeds.is_file():
        found["wheat seeds"] = lambda: _wheat(seeds)
    else:
        print(f"left out: wheat seeds, as {seeds} is not there")
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        found[f"MNIST, {n_rows} rows"] = lambda: (*mnist(folder, n_rows), True)
    else:
        print(f"left out: MNIST, as its idx files are not in {folder}")
    return found


def _wheat(path: Path) -> Set:
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int), True


def mnist(folder: Path, n_rows: int) -> tuple[Any, Any]:
    """Return the first rows of the training set, pixels from 0 to 1 in float32."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return (pixels[:n_rows] / np.float32(255)).astype(np.float32), labels[:n_rows].astype(np.int64)


# ---------------------------------------------------------------- accuracy


def compare_accuracy(name: str, load: Callable[[], Set], seeds: int, options: dict[str, Any]) -> Accuracy:
    """Return the scores of both on the same splits with the same parameters, standardised by the training part."""
    X, y, classes = load()
    scores: dict[Any, list[float]] = {gpumlp: [], neural_network: []}
    for seed in range(seeds):
        X_fit, X_test, y_fit, y_test = train_test_split(
            X, y, test_size=TEST_SHARE, random_state=seed, stratify=y if classes else None
        )
        if "MNIST" not in name:
            X_fit, X_test = standardised(X_fit, X_test)
        if not classes:
            y_fit, y_test = (y[:, 0] for y in standardised(y_fit[:, None], y_test[:, None]))
        for library, found in scores.items():
            net = (library.MLPClassifier if classes else library.MLPRegressor)(random_state=seed, **options)
            net.fit(X_fit, y_fit)
            predicted = net.predict(X_test)
            found.append(float(np.mean(predicted == y_test) if classes else r2_score(y_test, predicted)))
    score = "accuracy" if classes else "R2"
    result = Accuracy(name, len(X), score, scores[gpumlp], scores[neural_network])
    print(f"{name}: difference {result.difference:+.5f}, t {result.t:+.2f}", flush=True)
    return result


def standardised(fitted: Any, other: Any) -> tuple[Any, Any]:
    """Return both in standard deviations of the first."""
    scaler = StandardScaler().fit(fitted)
    return scaler.transform(fitted), scaler.transform(other)


def accuracy_table(found: list[Accuracy]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| data set | rows | score | gpumlp | scikit-learn | mean difference | paired t |",
        "|---|---|---|---|---|---|---|",
    ]
    for a in found:
        ours, theirs = np.mean(a.gpumlp), np.mean(a.scikit_learn)
        lines.append(
            f"| {a.name} | {a.rows} | {a.score} | {ours:.4f} | {theirs:.4f} | {a.difference:+.4f} | {a.t:+.2f} |"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- speed


def compare_speed(hidden: tuple[int, ...], X: Any, y: Any, epochs: int, rounds: int) -> Speed:
    """Return the seconds of `fit`, in turns, after a short one that does not count."""
    options = {"hidden_layer_sizes": hidden, "batch_size": 200, "random_state": 0, "tol": 0.0}
    makers: dict[str, Callable[..., Any]] = {"scikit-learn": neural_network.MLPClassifier}
    for backend in ("numba", "numpy"):
        makers[f"gpumlp {backend}"] = lambda backend=backend, **kw: gpumlp.MLPClassifier(backend=backend, **kw)
    for make in makers.values():
        make(max_iter=1, **options).fit(X[:2_000], y[:2_000])
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(rounds):
        names = list(makers)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            net = makers[name](max_iter=epochs, **options)
            settle()
            began = perf_counter()
            net.fit(X, y)
            seconds[name].append(perf_counter() - began)
        print(hidden, {name: round(found[-1], 2) for name, found in seconds.items()}, flush=True)
    return Speed(hidden, seconds)


def speed_table(found: list[Speed]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| hidden layers | who | seconds of fit | times as fast as scikit-learn, least to most |",
        "|---|---|---|---|",
    ]
    for s in found:
        hidden = ", ".join(map(str, s.hidden))
        for name, seconds in s.seconds.items():
            middle, least, most = s.ratio(name)
            lines.append(f"| {hidden} | {name} | {np.median(seconds):.2f} | {middle:.2f} ({least:.2f} to {most:.2f}) |")
    return "\n".join(lines)


# ---------------------------------------------------------------- command


def main() -> None:
    """Measure what was asked for, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed"))
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1].parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    found: list[Any]
    if given.what == "accuracy":
        sets = load_sets(given.data, 2_000 if given.quick else MNIST_ROWS)
        found = [
            compare_accuracy(name, load, 2 if given.quick else SEEDS, {"max_iter": 15} if "MNIST" in name else {})
            for name, load in sets.items()
        ]
        table = accuracy_table(found)
    else:
        X, y = mnist(given.data, 4_000 if given.quick else SPEED_ROWS)
        found = [
            compare_speed(hidden, X, y, SPEED_EPOCHS, 1 if given.quick else SPEED_ROUNDS)
            for hidden in ((128,), (512, 512))
        ]
        table = speed_table(found)
    given.out.mkdir(parents=True, exist_ok=True)
    place = given.out / f"estimators-{given.what}"
    content = {"environment": describe(), "found": [asdict(one) for one in found]}
    place.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    heading = f"# Estimators beside scikit-learn: {given.what}\n\n`python benchmarks/estimators.py {given.what}`\n\n"
    place.with_suffix(".md").write_text(heading + table + "\n", encoding="utf-8")
    print(f"\n{table}\n\n{place}.json, .md")


if __name__ == "__main__":
    main()
