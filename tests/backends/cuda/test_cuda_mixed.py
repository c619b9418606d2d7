"""A layer whose models differ gives on cuda what each model gives on NumPy by itself, and zeros beyond its units."""

import numpy as np
import pytest
from comparing import is_same_model
from cuda_cases import DTYPES, compute, expect_agreement
from mixed_layers import mixed, parts_of

from gpumlp.formulas.activations import ACTIVATIONS, Activation, reads_z
from gpumlp.formulas.vocabulary import log, sqrt

UNITS = [f.name for f in ACTIVATIONS.definitions() if not f.row_wise]
IN_PLACE = [name for name in UNITS if not reads_z(ACTIVATIONS.get(name))]
KINDS = ("softplus", "gelu", "tanh", "exp")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@both_dtypes
@pytest.mark.parametrize("rates", [0.0, 0.4, (0.5, 0.0, 0.25, 0.1)], ids=str)
@pytest.mark.parametrize(
    "widths", [(3, 6, 1, 5), (8, 4, 7, 8), (33, 20, 1, 32), (130, 97, 128, 3), (1, 1, 1, 1)], ids=str
)
def test_models_of_any_width(widths, rates, dtype):
    expect_agreement(mixed(KINDS, widths, rates), dtype)
    expect_agreement(mixed(("sigmoid", "tanh") * 2, widths, rates, in_place=True), dtype)


@both_dtypes
@pytest.mark.parametrize("rates", [0.0, 0.3], ids=str)
def test_all_activations_in_one_stack(rates, dtype):
    expect_agreement(mixed(UNITS, [3 + i % 5 for i in range(len(UNITS))], rates), dtype)
    expect_agreement(mixed(IN_PLACE, [3 + i % 5 for i in range(len(IN_PLACE))], rates, in_place=True), dtype)


@both_dtypes
@pytest.mark.parametrize(("widths", "batch"), [((130, 97), 300), ((33, 20), 517), ((16, 9), 2051), ((3, 1), 4099)])
def test_bias_gradients_over_several_chunks(widths, batch, dtype):
    expect_agreement(mixed(("softplus", "tanh"), widths, (0.0, 0.3), batch, 2, 1), dtype)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_grid_smaller_than_the_work_does_all_of_it(most, monkeypatch):
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_BLOCKS", most)
    monkeypatch.setattr("gpumlp.backends.cuda.backend.MAX_CHUNKS", most)
    expect_agreement(mixed(KINDS, (33, 20, 5, 30), (0.5, 0.0, 0.25, 0.1), 301), "float32")


ROOT = Activation("root", lambda z: sqrt(z * z), lambda z, a: 1 / a)  # whose f' is infinite at 0
LOG = Activation("log", lambda z: log(z * z))  # which is so itself


@pytest.mark.parametrize("rates", [0.0, 0.3, (0.0, 0.5, 0.25)], ids=str)
@pytest.mark.parametrize("n", [5, 8])
def test_what_lies_beyond_a_models_units_is_exactly_zero(n, rates):
    widths = (n - 3, n, n - 1)
    with np.errstate(all="ignore"):
        for kinds in (("softplus", "sigmoid", "exp"), (ROOT, LOG, ROOT)):
            found = parts_of(compute(mixed(kinds, widths, rates, infinite=(0, 1)), "cuda", "float32"), 5, widths)
            for m, width in enumerate(widths):
                for name, value in found.items():
                    beyond = value[m, width:] if name in ("dW", "db") else value[m, :, width:]
                    assert not beyond.any(), (name, m)


@both_dtypes
@pytest.mark.parametrize("n", [7, 8])
def test_a_model_without_dropout_has_the_bits_of_a_stack_without_any(n, dtype):
    kinds, widths = ("tanh", "gelu", "mish"), (n, n, n - 2)
    some, none = (compute(mixed(kinds, widths, rates), "cuda", dtype) for rates in ((0.5, 0.0, 0.0), 0.0))
    some, none = parts_of(some, 5, widths), parts_of(none, 5, widths)
    for name in some:
        assert not np.array_equal(some[name][0], none[name][0]) or name == "z"
        for m in (1, 2):
            assert is_same_model(some[name][m], none[name][m], "cuda"), name


@both_dtypes
@pytest.mark.parametrize("n", [7, 8])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_model_of_a_mixed_stack_has_the_bits_that_it_has_among_its_like(activation, n, dtype):
    others, widths, rates = ("relu", activation, "mish"), (n - 1, n, n), (0.1, 0.3, 0.0)
    among_others = parts_of(compute(mixed(others, widths, rates), "cuda", dtype), 5, widths)
    alike = parts_of(compute(mixed((activation,) * 3, (n, n, n), 0.3, alike=True), "cuda", dtype), 5, widths)
    by_rates = parts_of(compute(mixed((activation,) * 3, (n, n, n), rates, alike=True), "cuda", dtype), 5, widths)
    for name, value in alike.items():
        assert is_same_model(among_others[name][1], value[1], "cuda"), name
        assert is_same_model(by_rates[name][1], value[1], "cuda"), name


def test_models_that_differ_in_dropout_alone_have_masks_of_their_own():
    expect_agreement(mixed(("tanh",) * 4, (6,) * 4, (0.5, 0.0, 0.25, 0.1), alike=True), "float64")
