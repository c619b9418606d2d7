"""How models of one kind are divided into stacks."""

from itertools import pairwise
from math import inf

import numpy as np
import pytest

from gpumlp.ensembles.cutting import Limits, cut


def parameters(sizes):
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))


def wasted(sizes, parts):
    room = sum(len(p) * parameters(np.max([sizes[i] for i in p], axis=0)) for p in parts)
    return 1 - sum(map(parameters, sizes)) / room


@pytest.mark.parametrize("n_hidden", [1, 2, 3])
@pytest.mark.parametrize("n_models", [20, 300])
def test_a_random_grid_of_widths_wastes_less_than_15_percent(n_models, n_hidden):
    rng = np.random.default_rng(n_hidden)
    sizes = [(30, *rng.integers(8, 65, n_hidden).tolist(), 4) for _ in range(n_models)]
    parts = cut(sizes, Limits(1.5, 0.15))
    assert sorted(i for part in parts for i in part) == list(range(n_models))
    assert wasted(sizes, parts) < 0.15
    for part in parts:
        widths = np.array([sizes[i] for i in part])
        assert (widths.max(axis=0) <= 1.5 * widths.min(axis=0)).all()


def test_models_of_few_sizes_are_not_cut_more_than_they_differ():
    sizes = [(4, n, 2) for n in (8, 64, 8, 64, 8, 9)]
    assert sorted(sorted(part) for part in cut(sizes, Limits(1.5, 0.15))) == [[0, 2, 4, 5], [1, 3]]


def test_where_anything_goes_nothing_is_cut():
    assert cut([(4, 2), (4, 2)], Limits(1.5, 0.15)) == [[0, 1]]
    assert cut([(4, 1, 2), (4, 900, 2)], Limits(inf, 1.0)) == [[0, 1]]
