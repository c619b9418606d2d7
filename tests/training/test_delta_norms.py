import numpy as np
import pytest
from small import classifier, data, labelled, network

import gpumlp
from gpumlp import DeltaNorms


def test_the_norms_of_deltas_are_those_of_a_pass_back_after_the_epoch(backend):
    net, (X, Y) = network(n_models=3, backend=backend), data()
    history = gpumlp.Trainer(net).fit(X, Y, 2, monitors=[DeltaNorms(net, X, Y, rows=5)])
    rows = [0, 5, 11, 16, 22]
    for l, delta in enumerate(net.backpropagate(X[rows], Y[rows]).delta):
        assert history[f"delta_{l}"].shape == (2, 3)
        assert np.allclose(history[f"delta_{l}"][-1], np.abs(delta).mean(axis=(1, 2)))


def test_lists_are_as_good_as_arrays():
    net, (X, y) = classifier(), labelled()
    history = gpumlp.Trainer(net).fit(X.tolist(), y.tolist(), 1, monitors=[DeltaNorms(net, X.tolist(), y.tolist())])
    wanted = np.abs(net.backpropagate(X, y).delta[0]).mean(axis=(1, 2), dtype=np.float64)
    assert np.array_equal(history["delta_0"][-1], wanted)


def test_measuring_deltas_changes_nothing(backend):
    plain, watched = classifier(backend=backend), classifier(backend=backend)
    X, y = labelled()
    gpumlp.Trainer(plain).fit(X, y, 3)
    gpumlp.Trainer(watched).fit(X, y, 3, monitors=[DeltaNorms(watched, X, y)])
    assert all(np.array_equal(a, b) for a, b in zip(plain.weights, watched.weights, strict=True))


@pytest.mark.parametrize("n", [1, 3, 23])
def test_fewer_rows_than_asked_for_are_all_taken(n):
    X, Y = data(n=n)
    assert len(DeltaNorms(network(), X, Y)._X) == n
