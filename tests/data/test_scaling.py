import numpy as np
import pytest

from gpumlp.data import Standardiser
from gpumlp.data.table import BLOCK_VALUES
from gpumlp.errors import DataError

rng = np.random.default_rng(0)
WIDE = rng.normal([0, 1e3, -5], [1, 20, 1e-3], (BLOCK_VALUES, 3))  # three blocks


def test_transformed_features_have_mean_0_and_deviation_1():
    Z = Standardiser.fit(WIDE).transform(WIDE, np.float64)
    assert np.allclose(Z.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(Z.std(axis=0), 1)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "bool"])
def test_the_measures_are_those_of_float64_for_any_dtype(dtype):
    X = (rng.random((50, 4)) * 200).astype(dtype)
    if dtype == "bool":
        X[::3] = False
    fitted = Standardiser.fit(X)
    assert np.allclose(fitted.mean, X.astype(np.float64).mean(axis=0), rtol=1e-12)
    assert np.allclose(fitted.scale, X.astype(np.float64).std(axis=0), rtol=1e-12)
    assert fitted.transform(X).dtype == np.float32


def test_inverse_undoes_transform():
    fitted = Standardiser.fit(WIDE)
    assert np.allclose(fitted.inverse(fitted.transform(WIDE, np.float64)), WIDE, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, -7e20])
def test_a_constant_feature_becomes_0_and_has_scale_1(value):
    X = np.full((1001, 2), value)
    fitted = Standardiser.fit(X)
    assert fitted.scale.tolist() == [1, 1]
    assert np.allclose(fitted.transform(X, np.float64), 0, atol=abs(value) * 1e-12)


def test_a_feature_too_narrow_for_its_square_is_not_divided_by_0():
    assert Standardiser.fit([[0.0], [1e-200]]).scale.tolist() == [1]


def test_what_does_not_fit_is_told():
    fitted = Standardiser.fit(WIDE)
    for call in (fitted.transform, fitted.inverse):
        with pytest.raises(DataError, match="X has 2 features, expected the 3 that the scaling was fitted on"):
            call(WIDE[:, :2])
        with pytest.raises(DataError, match=r"expected \(n_samples, n_features\)"):
            call(WIDE[:, 0])
    with pytest.raises(DataError, match="at least one row"):
        Standardiser.fit(WIDE[:0])
    with pytest.raises(DataError, match="dtype <U1"):
        Standardiser.fit([["a"]])
