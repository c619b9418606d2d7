"""A benchmark run that was never measured: times made up from operations, bytes and calls, with noise."""

from itertools import pairwise

import numpy as np

from gpumlp.bench.results import Case, Run

ENVIRONMENT = {
    "date": "2000-01-01T00:00:00+00:00",
    "cpu": "Made Up Processor 9000",
    "cores": 2,
    "threads": 2,
    "blas": "MadeUpBLAS 1.0",
    "blas_kernels": "Imaginary",
    "versions": {"gpumlp": "0", "numpy": "0.0", "numba": "0.0"},
    "device": "",
    "python": "3.0",
}
# contender -> kind, seconds of a call, seconds of an operation, seconds of a parameter; none of it was measured
SPEEDS = {
    "gpumlp numba": ("gpumlp", 20e-6, 8e-12, 0.2e-9),
    "gpumlp numpy": ("gpumlp", 60e-6, 8.5e-12, 0.5e-9),
    "gpumlp cuda tf32": ("gpumlp", 45e-6, 2e-13, 0.01e-9),
    "PyTorch eager": ("peer", 400e-6, 9e-12, 0.6e-9),
    "PyTorch compiled": ("peer", 250e-6, 9e-12, 0.5e-9),
    "JAX jit": ("peer", 120e-6, 9e-12, 0.5e-9),
    "scikit-learn": ("peer", 300e-6, 10e-12, 0.8e-9),
    "matrix products alone": ("limit", 5e-6, 7.5e-12, 0.0),
}
STEPS = (
    ("784-128-10, batch 64, adam", (784, 128, 10), 64, 1),
    ("784-1024-1024-10, batch 256, adam", (784, 1024, 1024, 10), 256, 1),
    ("2048 x 4, batch 1024, adam", (2048,) * 5, 1024, 1),
    ("100 models of 784-128-10, batch 64, adam", (784, 128, 10), 64, 100),
)
GROWTH = {
    "batch": [((256, 256, 10), batch, 1, 4096) for batch in (16, 64, 256, 1024)],
    "width": [((256, width, 10), 64, 1, 4096) for width in (32, 128, 512, 2048)],
    "depth": [((256, *([256] * (depth - 1)), 10), 64, 1, 4096) for depth in (2, 3, 5, 9)],
    "n_models": [((64, 32, 10), 64, n_models, 4096) for n_models in (1, 10, 100)],
    "rows": [((256, 256, 10), 64, 1, rows) for rows in (1024, 4096, 16384)],
}


def made_up_run(seed=0, rounds=9, suites=("recursion", "steps", "growth"), without=(), slower=1.0):
    """Return a run; `without` names contenders that are left out, `slower` makes gpumlp's side so many times slower."""
    random = np.random.default_rng(seed)
    build = {"recursion": recursion, "steps": steps, "growth": growth}
    cases = [case for suite in suites for case in build[suite](random, rounds, slower) if case.contender not in without]
    return Run(ENVIRONMENT, {"quick": True, "suites": list(suites), "dtype": "float32"}, cases)


def steps(random, rounds, slower):
    for name, sizes, batch, n_models in STEPS:
        parameters = {"sizes": sizes, "batch": batch, "n_models": n_models, "activation": "relu", "rule": "adam"}
        yield from contenders(random, rounds, slower, SPEEDS, "steps", name, parameters, "step", batch * n_models)


def growth(random, rounds, slower):
    chosen = {name: SPEEDS[name] for name in ("gpumlp numba", "gpumlp numpy", "PyTorch eager")}
    for vary, points in GROWTH.items():
        for sizes, batch, n_models, rows in points:
            name = f"{vary}: {'-'.join(map(str, sizes))}, batch {batch}, {n_models} models, {rows} rows"
            parameters = {"sizes": sizes, "batch": batch, "n_models": n_models, "rows": rows, "rule": "adam"}
            parameters |= {"activation": "relu", "vary": vary}
            unit, examples = ("epoch", rows * n_models) if vary == "rows" else ("step", batch * n_models)
            yield from contenders(random, rounds, slower, chosen, "growth", name, parameters, unit, examples)


def recursion(random, rounds, slower):
    chosen = {name: SPEEDS[name] for name in SPEEDS if SPEEDS[name][0] == "gpumlp"}
    for width in (32, 128, 512):
        for batch in (1, 8, 64, 512, 4096):
            sizes = (64, width, 10)
            parameters = {"sizes": sizes, "batch": batch, "n_models": 1, "activation": "sigmoid", "vary": "batch"}
            name = f"64-{width}-10, sigmoid, batch {batch}"
            yield from contenders(random, rounds, slower, chosen, "recursion", name, parameters, "recursion", batch)
            if width < 512:
                slow = {"per-sample loops": ("baseline", 30e-6 * batch, 1e-11, 0)}
                slow["forward mode"] = ("baseline", 1e-5 * batch * width, 1e-8, 0)
                yield from contenders(random, rounds, 1, slow, "recursion", name, parameters, "recursion", batch)


def contenders(random, rounds, slower, speeds, suite, name, parameters, unit, examples):
    """Yield a case for each contender; all meet the same drift of the machine in the same round."""
    sizes, n_models = parameters["sizes"], parameters["n_models"]
    weights = n_models * sum(i * o for i, o in pairwise(sizes))
    repeats = examples // (parameters["batch"] * n_models)
    flops = int(6 * weights * parameters["batch"] * repeats)
    products = 7.5e-12 * flops + 5e-6 * repeats
    drift = np.exp(random.normal(0, 0.05, rounds))
    for contender, (kind, call, operation, parameter) in speeds.items():
        seconds = repeats * (call + parameter * weights) + operation * flops
        noise = np.exp(random.normal(0, 0.02, (2, rounds)))
        times = drift * noise[0] * seconds * (slower if kind == "gpumlp" else 1)
        yield Case(
            suite=suite,
            case=name,
            parameters=parameters,
            contender=contender,
            kind=kind,
            unit=unit,
            examples=examples,
            flops=flops,
            seconds=times.tolist(),
            reference=(drift * noise[1] * (0.9 * (seconds if "cuda" in contender else products))).tolist(),
            host_seconds=(0.2 * times).tolist() if "cuda" in contender else None,
            limit_seconds=0.9 * products if kind != "baseline" and "cuda" not in contender else None,
            checked="made up, so never checked",
        )
