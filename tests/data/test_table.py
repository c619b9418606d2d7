import numpy as np
import pytest

from gpumlp.data import Table, check_finite
from gpumlp.data.table import BLOCK_VALUES, row_blocks
from gpumlp.errors import DataError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("uint8", "uint8"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("int32", "float64"),
        ("bool", "float64"),
    ],
)
def test_features_keep_their_dtype_or_take_the_next_that_training_knows(given, kept):
    X = Table(np.ones((3, 2), given)).X
    assert X.dtype == kept
    assert X.dtype.isnative
    assert np.all(X == 1)


def test_a_target_of_one_column_is_a_vector():
    assert Table(np.ones((3, 2)), np.ones((3, 1))).y.shape == (3,)
    assert Table(np.ones((3, 2)), np.ones((3, 4))).y.shape == (3, 4)


@pytest.mark.parametrize(
    ("X", "y", "names", "says"),
    [
        (np.ones(3), None, None, r"shape \(3,\).*reshape"),
        (np.ones((3, 2, 2)), None, None, r"\(n_samples, n_features\)"),
        (np.ones((0, 2)), None, None, "at least one row"),
        (np.ones((3, 0)), None, None, "at least one row and one feature"),
        (np.array([["a"]]), None, None, "dtype <U1"),
        (np.array([[None]]), None, None, "dtype object"),
        (np.ones((3, 2)), np.ones(4), None, "X has 3 rows, but y has 4"),
        (np.ones((3, 2)), np.ones((3, 1, 1)), None, r"y has shape \(3, 1, 1\)"),
        (np.ones((3, 2)), np.array(["a", None, "b"]), None, r"astype\(str\)"),
        (np.ones((3, 2)), None, ("a",), "1 feature names came for 2 features"),
    ],
)
def test_what_does_not_fit_is_told(X, y, names, says):
    with pytest.raises(DataError, match=says):
        Table(X, y, names)


def test_the_first_value_that_is_not_finite_is_named_with_their_number():
    X = np.zeros((BLOCK_VALUES, 3), np.float32)  # three blocks
    X[BLOCK_VALUES // 2, 1] = np.inf
    X[-1, 0] = np.nan
    with pytest.raises(
        DataError, match=r"^X holds 2 values that are not finite, the first inf in row 65537, feature 'b'"
    ):
        check_finite(Table(X, feature_names=("a", "b", "c")))
    with pytest.raises(DataError, match=r"feature 1 \(from 0\); remove or fill"):
        check_finite(Table(X))
    with pytest.raises(DataError, match=r"^y holds 1 value that is not finite, the first nan in row 2;"):
        check_finite(Table(X[:2], np.array([1, np.nan])))
    with pytest.raises(DataError, match=r"row 2, column 1 \(from 0\)"):
        check_finite(Table(X[:2], np.array([[1, 1], [1, np.nan]])))


def test_finite_numbers_and_text_pass():
    check_finite(Table(np.ones((2, 2)), np.array(["nan", "inf"])))
    check_finite(Table(np.ones((2, 2), np.uint8), np.array([1, 2])))


@pytest.mark.parametrize("shape", [(1, 1), (5, BLOCK_VALUES + 1), (BLOCK_VALUES + 1, 1), (70000, 4), (3, 0)])
def test_blocks_cover_each_row_once_in_order(shape):
    X = np.broadcast_to(np.uint8(0), shape)
    rows = np.concatenate([np.arange(shape[0])[block] for block in row_blocks(X)])
    assert np.array_equal(rows, np.arange(shape[0]))
