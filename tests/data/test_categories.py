import json
import logging

import numpy as np
import pytest

from gpumlp.data import OneHot, Table
from gpumlp.errors import DataError

NAMES = ("size", "colour", "shape")
SIZES = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
COLOURS = ["red", "", "blue", "red", "green", "green"]
SHAPES = ["round", "flat", "flat", "round", "round", "long"]


def table_of(names=NAMES, **columns):
    """Return a table of columns of numbers and of text, codes counted up as texts appear."""
    columns = {"size": SIZES, "colour": COLOURS, "shape": SHAPES} | columns
    X, texts = [], []
    for name in names:
        of_column = tuple(dict.fromkeys(columns[name])) if isinstance(columns[name][0], str) else None
        X.append(columns[name] if of_column is None else [of_column.index(text) for text in columns[name]])
        texts.append(of_column)
    return Table(np.array(X, float).T, np.arange(len(X[0])), names, "y", tuple(texts))


def test_each_category_of_the_training_rows_is_a_feature_of_0_and_1():
    columns = OneHot.fit(table_of(), np.arange(4))
    assert columns.categories == (None, ("", "blue", "red"), ("flat", "round"))
    expected = ("size", "colour=", "colour=blue", "colour=red", "shape=flat", "shape=round")
    assert columns.feature_names == expected
    assert columns.is_category.tolist() == [False, True, True, True, True, True]
    found = columns.transform(table_of())
    assert (found.feature_names, found.target_name, found.texts) == (expected, "y", None)
    assert np.array_equal(found.y, np.arange(6))
    assert found.X.tolist() == [
        [1.5, 0, 0, 1, 0, 1],
        [2.5, 1, 0, 0, 1, 0],
        [3.5, 0, 1, 0, 1, 0],
        [4.5, 0, 0, 1, 0, 1],
        [5.5, 0, 0, 0, 0, 1],
        [6.5, 0, 0, 0, 0, 0],
    ]


def test_a_category_that_is_called_as_a_column_gets_a_name_of_its_own():
    names = ("a", "a=b", "a=c", "a=c'", "a=b=c", "z")
    columns = OneHot(names, (("b", "b=c", "c"), None, None, None, None, ("u",)))
    assert columns.feature_names == ("a=b'", "a=b=c'", "a=c''", *names[1:5], "z=u")
    twice = OneHot(("a", "a=b"), (("b=c",), ("c",)))
    assert twice.feature_names == ("a=b=c", "a=b=c'")
    table = Table(np.array([[0.0, 0.0]]), None, ("a", "a=b"), None, (("b=c",), ("c",)))
    assert twice.transform(table).X.tolist() == [[1, 1]]


def test_rows_held_out_change_nothing():
    rows = np.array([0, 2, 3])
    columns = OneHot.fit(table_of(), rows)
    others = table_of(colour=["red", "x", "blue", "red", "y", "z"], shape=["round", "u", "flat", "round", "v", "w"])
    assert OneHot.fit(others, rows) == columns
    assert np.array_equal(columns.transform(others).X[rows], columns.transform(table_of()).X[rows])


def test_neither_the_order_of_columns_nor_that_of_rows_changes_a_feature():
    columns = OneHot.fit(table_of(), np.arange(6))
    expected = columns.transform(table_of()).X
    assert np.array_equal(columns.transform(table_of(("shape", "size", "colour"))).X, expected)
    back = table_of(size=SIZES[::-1], colour=COLOURS[::-1], shape=SHAPES[::-1])
    assert OneHot.fit(back, np.arange(6)) == columns
    assert np.array_equal(columns.transform(back).X, expected[::-1])


def test_unseen_categories_are_logged_or_refused(caplog):
    columns = OneHot.fit(table_of(), np.arange(4))
    with caplog.at_level(logging.INFO, "gpumlp"):
        columns.transform(table_of())
    assert caplog.messages == [
        "column 'colour' holds 'green' in 2 rows, of which no training row is: 0 at all its categories",
        "column 'shape' holds 'long' in 1 row, of which no training row is: 0 at all its categories",
    ]
    with pytest.raises(DataError, match="column 'colour' holds 'green' in 2 rows, expected categories of the training"):
        columns.transform(table_of(), unseen="error")


def test_it_comes_back_from_its_header():
    columns = OneHot.fit(table_of(), np.arange(4))
    assert OneHot.restored(json.loads(json.dumps(columns.header()))) == columns


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (table_of(("size", "colour")), "features none are not the model's, and its shape are missing"),
        (table_of((*NAMES, "more"), more=SIZES), "features more are not the model's, and its none are missing"),
        (table_of(colour=SIZES), "column 'colour' holds numbers, expected text as in training"),
        (table_of(size=COLOURS), "column 'size' holds text, expected numbers as in training"),
        (Table(np.ones((2, 3))), "the columns have no names, expected size, colour, shape; name them"),
    ],
)
def test_other_columns_are_told(table, says):
    columns = OneHot.fit(table_of(), np.arange(4))
    with pytest.raises(DataError, match=says):
        columns.transform(table)


def test_what_cannot_be_learned_is_told(monkeypatch):
    table = table_of()
    with pytest.raises(DataError, match="columns of text need names"):
        OneHot.fit(Table(table.X, texts=table.texts), np.arange(4))
    monkeypatch.setattr("gpumlp.data.categories.MOST_CATEGORIES", 2)
    with pytest.raises(DataError, match=r"'colour' has 3 different texts .* expected at most 2 categories; drop it"):
        OneHot.fit(table, np.arange(4))
    with pytest.raises(DataError, match="texts of 2 features came for 3; give those of each"):
        Table(table.X, texts=(None, ("u",)))
