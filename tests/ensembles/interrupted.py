"""A sweep that is killed again and again: a program that prints the keys of the rows in the order they were written.

    interrupted.py FOLDER SEED KILLS

Half of the kills come after a random time, half after a random number of epochs, so that they hit the middle of a run
however fast the machine is.
"""

import os
import random
import signal
import sys
import time

import numpy as np

from gpumlp.ensembles import Sweep, Watcher, executors

executors.MODELS_AT_A_TIME = 6  # several batches in a small sweep


def small_sweep():
    """Return a sweep whose models differ in all that may differ, and its data."""
    generator = np.random.default_rng(5)
    X = generator.normal(size=(60, 4))
    sweep = Sweep(
        {
            "hidden": [(), (5,), (7,), (6, 4)],
            "activation": ["tanh", "relu"],
            "learning_rate": [0.01, 0.05],
            "dropout": [0.0, 0.2],
            "epochs": [4, 6],
        },
        n=24,
        folds=3,
        patience=3,
        bootstrap=True,
        dtype="float64",
        backend="numpy",
    )
    return sweep, X, (X[:, 0] * X[:, 1] > 0).astype(int)


class Killer(Watcher):
    """Kills its own process after so many epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def epoch_ended(self, samples):
        self.epochs -= 1
        if self.epochs == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, delay, epochs):
    """Run the sweep in a child that is killed after `delay` seconds or by itself, and tell whether it was."""
    child = os.fork()
    if child == 0:
        sweep, X, y = small_sweep()
        sweep.run(X, y, folder, watcher=Killer(epochs))
        os._exit(0)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    folder, seed, kills = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    died = 0
    for i in range(kills):
        timed = i % 2
        died += killed(folder, chance.uniform(0, 0.1) if timed else None, 0 if timed else chance.randint(1, 40))
    print(died)
