from statistics import NormalDist

import numpy as np

from gpumlp.data.normal_quantile import normal_quantile


def test_it_is_the_inverse_of_the_normal_distribution_function():
    tails = np.logspace(-10.8, -1, 400)
    p = np.concatenate([tails, np.linspace(0.0001, 0.9999, 4001), 1 - tails, [0.075, 0.5, 0.925]])
    expected = np.array([NormalDist().inv_cdf(value) for value in p])
    assert np.allclose(normal_quantile(p), expected, rtol=1e-13, atol=1e-15)
    assert normal_quantile(np.array([0.5])).tolist() == [0]
