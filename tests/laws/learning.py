"""Small stacks, data for them, and what they are after training."""

import numpy as np

import gpumlp


def data(n=23, n_in=4, n_out=2, seed=0, labels=False):
    """Return X (n, n_in) and targets (n, n_out), or labels (n,), that X explains in part."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n_in))
    Y = np.tanh(X @ rng.standard_normal((n_in, n_out))) + 0.1 * rng.standard_normal((n, n_out))
    return (X, Y.argmax(axis=1)) if labels else (X, Y)


def network(sizes=(4, 6, 2), activation="tanh", output="identity", cost="quadratic", dtype="float64", **options):
    return gpumlp.Network(sizes, activation, output, cost, dtype=dtype, **options)


class StopTheSecond(gpumlp.Monitor):
    """Stops the second of three models after two epochs."""

    def epoch_ended(self, report):
        if report.epoch == 2:
            return gpumlp.Stop("enough", np.array([False, True, False]))
        return None


def kept(trainer):
    """Return copies of the update rule's state by name."""
    return {name: np.array(trainer.net.backend.to_host(buffer)) for name, buffer in trainer.state.items()}


def padding(net):
    """Return which values of a row of theta belong to no tensor."""
    layout = net.parameters.layout
    used = np.zeros(layout.n_params, bool)
    for start, shape in zip(layout.offsets, layout.shapes, strict=False):
        used[start : start + int(np.prod(shape))] = True
    return ~used
