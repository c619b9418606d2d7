"""How well `gpumlp bench compare` tells runs apart here: runs as they are, and runs in which gpumlp is made slower.

    python benchmarks/comparisons.py                 21 runs as they are, 20 slower ones in turns; about 11 minutes
    python benchmarks/comparisons.py --pairs 2       to see that it works

Each is `gpumlp bench --quick --suite steps --backend numba --backend numpy --no-peers` in a process of its own, of six
samples a case; the slower ones wait for a tenth of each sample's time. Told are the share of all pairs in which
something is found slower, where something is and where nothing is, by the runs themselves and by two of them taken as
one, which have the samples of a whole run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path
from time import perf_counter
from typing import Any

from gpumlp.bench import steps, suites
from gpumlp.bench.compare import compare
from gpumlp.bench.results import Run, load

SLOWER = 0.1


def measure(path: Path, slower: float) -> None:
    """Write a run in which each sample of gpumlp lasts so much longer."""
    build = steps.own_steps

    def built(*arguments: Any) -> Any:
        runner = build(*arguments)

        def work(n: int) -> None:
            began = perf_counter()
            runner.work(n)
            end = perf_counter() + slower * (perf_counter() - began)
            while perf_counter() < end:
                continue

        return replace(runner, work=work) if slower else runner

    steps.own_steps = built
    suites.run_suites(("steps",), ["numba", "numpy"], "cpu", quick=True, with_peers=False).save(path)


def measured(slower: float, folder: Path, name: str) -> Run:
    """Return a run that a process of its own has measured."""
    path = folder / f"{name}.json"
    subprocess.run([sys.executable, __file__, "--measure", str(path), "--slower", str(slower)], check=True)
    return load(path)


def as_one(a: Run, b: Run) -> Run:
    """Return two runs as one, with the samples of both."""
    cases = []
    for one, other in zip(a.cases, b.cases, strict=True):
        if one.reference is not None and other.reference is not None:
            waited = None if one.waited is None or other.waited is None else (*one.waited, *other.waited)
            seconds, reference = (*one.seconds, *other.seconds), (*one.reference, *other.reference)
            cases.append(replace(one, seconds=seconds, reference=reference, host_seconds=None, waited=waited))
    return replace(a, cases=tuple(cases))


def share_found(pairs: Sequence[tuple[Run, Run]]) -> str:
    """Say in how many pairs the second is found slower."""
    found = sum(not compare(old, new).passed for old, new in pairs)
    return f"{found} of {len(pairs)} ({found / max(1, len(pairs)):.1%})"


def main() -> None:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--slower", type=float, default=0.0)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure, options.slower)
    else:
        compare_pairs(options.pairs)


def compare_pairs(n: int) -> None:
    """Measure n pairs in turns and print what is told of them."""
    equal, slow = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n):
            equal.append(measured(0.0, Path(folder), f"equal-{i}"))
            slow.append(measured(SLOWER, Path(folder), f"slow-{i}"))
            print(f"{i + 1} of {n}", flush=True)
        equal.append(measured(0.0, Path(folder), "equal"))
    twice, twice_slow = ([as_one(*pair) for pair in zip(r[::2], r[1::2], strict=False)] for r in (equal, slow))
    for what, runs, slower_runs in (("a run each", equal, slow), ("two runs each", twice, twice_slow)):
        print(f"{what}: found slower where gpumlp is {SLOWER:.0%} slower: {share_found([*product(runs, slower_runs)])}")
        print(f"{what}: found slower where nothing is: {share_found([*permutations(runs, 2)])}")
        in_a_row = [*zip(runs, slower_runs, strict=False)], [*pairwise(runs)]
        print(f"{what}, one after another: {share_found(in_a_row[0])}, {share_found(in_a_row[1])}")


if __name__ == "__main__":
    main()
