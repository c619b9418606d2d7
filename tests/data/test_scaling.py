from statistics import NormalDist

import numpy as np
import pytest

from gpumlp.data import SCALERS, QuantileNormaliser, Standardiser, scaler_named
from gpumlp.data.statistics import ColumnStatistics
from gpumlp.data.table import BLOCK_VALUES
from gpumlp.errors import DataError, UnknownName

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


@pytest.mark.parametrize("value", [0.1, 1.7e18, -1.234567890123e20])
def test_a_large_constant_leaves_nothing_of_its_rounding(value):
    X = np.full((1001, 1), value)
    assert not Standardiser.fit(X).transform(X, np.float64).any()
    statistics = ColumnStatistics(1)
    for rows in (X[:7], X[7:]):
        statistics.add(rows)
    found = Standardiser.of_measures(statistics.mean, statistics.variance, statistics.least, statistics.largest)
    assert not found.transform(X, np.float64).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scaler", SCALERS.values())
def test_what_has_no_scale_is_told_with_its_feature(scaler, value):
    X = WIDE[:50].copy()
    X[7, 1] = value
    with pytest.raises(
        DataError, match=r"scale of feature 1 \(from 0\) cannot be measured: a value is missing, infinite"
    ):
        scaler.fit(X)
    scaler.fit(X, np.array([False, True, False]))


@pytest.mark.parametrize("values", [(1e200, -1e200, 3.0), (1.7e308, 1.7e308, 1.6e308)])
def test_what_is_too_large_to_be_squared_is_told(values):
    X = np.array(values)[:, None]
    with pytest.raises(DataError, match="too large to be squared; fill or drop it"):
        Standardiser.fit(X)
    assert np.isfinite(QuantileNormaliser.fit(X).transform(X)).all()


@pytest.mark.parametrize("scaler", SCALERS.values())
def test_one_row_and_equal_rows_become_0(scaler):
    for X in (np.array([[3.0, -4.0]]), np.full((5, 2), 0.1)):
        assert scaler.fit(X).transform(X).tolist() == np.zeros_like(X).tolist()


def test_a_feature_too_narrow_for_its_square_is_not_divided_by_0():
    assert Standardiser.fit([[0.0], [1e-200]]).scale.tolist() == [1]


@pytest.mark.parametrize("scaler", SCALERS.values())
def test_a_scaling_moves_each_feature_by_itself_and_leaves_those_alone_that_it_is_told_to(scaler):
    kept = np.array([False, True, False])
    alone = scaler.fit(WIDE[:501]).transform(WIDE[:900], np.float64)
    found = scaler.fit(WIDE[:501], kept).transform(WIDE[:900], np.float64)
    assert np.array_equal(found[:, ~kept], alone[:, ~kept])
    assert np.array_equal(found[:, kept], WIDE[:900, kept])
    assert not np.allclose(alone[:, kept], WIDE[:900, kept])


@pytest.mark.parametrize("scaler", SCALERS.values())
def test_a_scaling_comes_back_from_its_header_and_arrays(scaler):
    fitted = scaler.fit(WIDE[:77], np.array([False, True, False]))
    header, arrays = fitted.header(), fitted.arrays()
    kind = scaler_named(header["kind"])
    assert kind.layout(header, 3) == {name: (array.shape, array.dtype) for name, array in arrays.items()}
    assert np.array_equal(kind.restored(arrays).transform(WIDE[:99]), fitted.transform(WIDE[:99]))


@pytest.mark.parametrize("n_rows", [1, 2, 7, 1000, 4321])
def test_features_of_any_shape_become_normal_by_their_ranks(n_rows):
    X = np.column_stack([rng.normal(size=n_rows), np.exp(5 * rng.normal(size=n_rows)), np.arange(n_rows) ** 3.0])
    Z = QuantileNormaliser.fit(X).transform(X, np.float64)
    p = (np.arange(n_rows) + 0.5) / n_rows
    expected = [NormalDist().inv_cdf(value) for value in p]
    coarse = 0 if n_rows <= 1000 else 2e-3
    for column, z in zip(X.T, Z.T, strict=True):
        shares = [NormalDist().cdf(value) for value in z[np.argsort(column)]]
        assert np.allclose(shares, [NormalDist().cdf(value) for value in expected], rtol=0, atol=coarse + 1e-9)


def test_ranks_ignore_how_far_values_are_apart():
    X = rng.random((501, 2))
    one, other = QuantileNormaliser.fit(X), QuantileNormaliser.fit(np.exp(9 * X))
    assert np.allclose(one.transform(X, np.float64), other.transform(np.exp(9 * X), np.float64), atol=1e-9)


def test_values_that_are_the_same_share_the_middle_of_their_ranks():
    X = np.repeat([0.0, 1.0, 5.0], [60, 30, 10])[:, None]
    Z = QuantileNormaliser.fit(X).transform([[0], [1], [5]], np.float64)
    assert np.allclose(Z[:, 0], [NormalDist().inv_cdf(p) for p in (0.3, 0.75, 0.95)], atol=1e-9)
    assert QuantileNormaliser.fit(np.full((9, 1), 0.1)).transform([[0.1]], np.float64).tolist() == [[0]]


def test_what_lies_beyond_all_training_rows_stays_at_the_outermost_rank():
    fitted = QuantileNormaliser.fit(WIDE[:5000])
    Z = fitted.transform([[-1e300] * 3, [1e300] * 3, *WIDE[:5000]], np.float64)
    assert np.allclose(Z[0], -3.29, atol=1e-3)
    assert np.allclose(Z[1], 3.29, atol=1e-3)
    assert np.array_equal(Z.min(axis=0), Z[0])


def test_quantiles_do_not_fall_between_values_that_are_nearly_the_same():
    X = np.nextafter(0.1, rng.integers(-1, 2, (3001, 1)).astype(float))
    assert (np.diff(QuantileNormaliser.fit(X).quantiles, axis=0) >= 0).all()


def test_an_unknown_scaling_is_told_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown scaling 'quantiles'; did you mean 'quantile'"):
        scaler_named("quantiles")


def test_what_does_not_fit_is_told():
    fitted = Standardiser.fit(WIDE)
    for call in (fitted.transform, fitted.inverse, QuantileNormaliser.fit(WIDE).transform):
        with pytest.raises(DataError, match="X has 2 features, expected the 3 that the scaling was fitted on"):
            call(WIDE[:, :2])
        with pytest.raises(DataError, match=r"expected \(n_samples, n_features\)"):
            call(WIDE[:, 0])
    with pytest.raises(DataError, match="at least one row"):
        Standardiser.fit(WIDE[:0])
    with pytest.raises(DataError, match="dtype <U1"):
        Standardiser.fit([["a"]])
