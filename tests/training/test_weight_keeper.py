"""A keeper's copy of some models' weights, on every backend."""

import numpy as np
import pytest
from comparing import set_theta, theta

import gpumlp
from gpumlp.training.active import Active
from gpumlp.training.weight_copy import WeightCopy

PATTERNS = ["0000000", "1111111", "0110001", "1010101", "1000000", "0000001"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_weights_of_some_models_are_kept_and_come_back(pattern, backend):
    models = np.array([c == "1" for c in pattern])
    net = gpumlp.Network((3, 2), n_models=7, backend=backend)
    all_of_them = Active(gpumlp.Trainer(net))
    keeper, first = WeightCopy(net, lambda: all_of_them), theta(net)
    keeper.save(np.ones(7, bool))
    second = first + 1
    set_theta(net, second)
    keeper.save(models)
    set_theta(net, first + 2)
    keeper.restore(models)
    assert np.array_equal(theta(net), np.where(models[:, None], second, first + 2))
    keeper.restore(np.ones(7, bool))
    assert np.array_equal(theta(net), np.where(models[:, None], second, first))
    other = WeightCopy(net, lambda: all_of_them)
    other.keep(np.array(keeper.kept()) + 4)
    other.restore(np.ones(7, bool))
    assert np.array_equal(theta(net), np.where(models[:, None], second, first) + 4)
