"""A whole training step beside its matrix products alone, on the CPU.

    python benchmarks/step_against_products.py [--sizes 784,1024,1024,10] [--batch 256] [--optimizer adam] [--rounds 15]
        [--backend numpy]

The products are those of the step - forward, weight gradients, deltas - on arrays of the same shapes, by NumPy with the
threads that its BLAS takes by itself. Steps and products take turns in one process, some at a time.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from time import perf_counter

import numpy as np

import gpumlp


def products(sizes: list[int], batch: int):
    """Return a function that performs the products of one step."""
    source = np.random.default_rng(0)
    a = [source.random((batch, n), np.float32) for n in sizes]
    delta = [source.random((batch, n), np.float32) for n in sizes]
    W = [source.random((o, i), np.float32) / i for i, o in pairwise(sizes)]
    dW = [np.empty_like(w) for w in W]

    def run() -> None:
        for layer in range(len(W)):
            np.matmul(a[layer], W[layer].T, out=a[layer + 1])
        for layer in reversed(range(len(W))):
            np.matmul(delta[layer + 1].T, a[layer], out=dW[layer])
            if layer > 0:
                np.matmul(delta[layer + 1], W[layer], out=delta[layer])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="784,1024,1024,10")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40, help="steps of a round")
    given = parser.parse_args()
    sizes = [int(n) for n in given.sizes.split(",")]
    source = np.random.default_rng(0)
    rows = given.batch * given.steps
    X, Y = source.random((rows, sizes[0]), np.float32), source.integers(0, sizes[-1], rows)
    net = gpumlp.Network(sizes, backend=given.backend)
    trainer = gpumlp.Trainer(net, given.optimizer, batch_size=given.batch)
    run = products(sizes, given.batch)
    steps, alone = [], []
    for number in range(given.rounds + 2):  # two to warm up
        seconds = trainer.fit(X, Y, epochs=2).seconds[1] / given.steps  # the first epoch of a fit prepares
        run()
        began = perf_counter()
        for _ in range(given.steps):
            run()
        if number >= 2:
            alone.append((perf_counter() - began) / given.steps)
            steps.append(seconds)
    for name, values in (("step", steps), ("products", alone)):
        low, median, high = np.percentile(np.array(values) * 1e3, [25, 50, 75])
        print(f"{name:9} {median:7.3f} ms  (quartiles {low:.3f} to {high:.3f})")
    low, median, high = np.percentile(np.array(steps) / np.array(alone), [25, 50, 75])
    print(
        f"{given.sizes} batch {given.batch} {given.optimizer}: step / products {median:.2f}  ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
