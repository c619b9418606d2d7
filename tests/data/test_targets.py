import numpy as np
import pytest

from gpumlp.data import describe_task, encode_labels, tell_task
from gpumlp.errors import DataError

CLASSES, QUANTITY = "classification", "regression"


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["a", "b", "a"], CLASSES),
        (np.array(["a", "b"], object), CLASSES),
        ([True, False], CLASSES),
        ([0, 1, 1, 0], CLASSES),
        ([0.0, 1.0, 2.0], CLASSES),
        ([0.0, 1.5, 2.0], QUANTITY),
        (np.arange(20), CLASSES),  # few distinct whole numbers, however few the rows
        (np.arange(21), QUANTITY),
        (np.arange(42) // 2, CLASSES),  # 21 distinct, each twice
        (np.arange(41) // 2, QUANTITY),
        (np.arange(100).repeat(2), CLASSES),
        (np.arange(101).repeat(9), QUANTITY),
        ([[0], [1], [1]], CLASSES),
        ([[1.5], [2.5]], QUANTITY),
        ([[0, 1, 0], [1, 0, 0]], CLASSES),
        ([[0, 1, 1], [1, 0, 0]], QUANTITY),
        ([[0, 2], [2, 0]], QUANTITY),
    ],
)
def test_the_task_is_told_by_the_rule(y, task):
    assert tell_task(y) == task
    assert describe_task(y).startswith(f"{task}, because the target holds ")


def test_the_reason_is_one_sentence():
    assert describe_task([0, 1, 1, 0]) == (
        "classification, because the target holds whole numbers, 2 distinct values in 4 rows."
    )
    assert describe_task(np.arange(30)) == (
        "regression, because the target holds whole numbers, but as many as 30 distinct values in 30 rows."
    )
    assert describe_task([0.5, 1]) == "regression, because the target holds numbers that are not all whole."


@pytest.mark.parametrize("y", [[], np.zeros((2, 2, 2)), np.array([1, None]), np.array([["a", "b"]]), 3, [1j]])
def test_what_is_no_target_is_told(y):
    with pytest.raises(DataError, match="y has shape"):
        tell_task(y)


@pytest.mark.parametrize(
    "y", [["b", "a", "c", "a"], [3, -1, 3], [2.5, 1.0], [True, False, True], np.array(["x", "y"], object)]
)
def test_codes_lead_back_to_the_labels(y):
    codes, classes = encode_labels(y)
    assert codes.dtype == np.int64
    assert np.array_equal(classes[codes], y)
    assert list(classes) == sorted(set(np.asarray(y).tolist()))
    again, same = encode_labels(y, classes)
    assert np.array_equal(again, codes)
    assert np.array_equal(same, classes)


def test_given_classes_keep_their_places_when_rows_lack_some():
    codes, classes = encode_labels(["c", "a"], ["c", "b", "a"])
    assert codes.tolist() == [2, 0]
    assert classes.tolist() == ["a", "b", "c"]


def test_one_hot_rows_are_the_classes_of_their_columns():
    codes, classes = encode_labels([[0, 0, 1], [1, 0, 0]], np.arange(3))
    assert codes.tolist() == [2, 0]
    assert classes.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("y", "classes", "says"),
    [
        (["a", "cow"], ["a", "b"], "class 'cow' in row 2 is unknown, expected one of a, b;"),
        ([1, 9], [1, 2], "class 9 in row 2 is unknown, expected one of 1, 2;"),
        (["1"], [1, 2], "class '1' in row 1"),
        (["1"], np.arange(50), "class '1' in row 1"),
        ([1, 2], ["1", "2"], "class 1 in row 1"),
        ([99], np.arange(50), r"7, \.\.\. \(50 in all\)"),
        ([1.0, np.nan], None, "NaN or infinity"),
        ([[1, 1], [0, 1]], None, "not one-hot"),
    ],
)
def test_an_unknown_class_is_named_with_the_known_ones(y, classes, says):
    with pytest.raises(DataError, match=says):
        encode_labels(y, classes)
