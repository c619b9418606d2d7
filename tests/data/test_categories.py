import json
import logging

import numpy as np
import pytest

from gpumlp.data import Encoding, QuantileNormaliser, Standardiser, Table
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
    columns = Encoding.fit(table_of(), np.arange(4))
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
    columns = Encoding(names, (("b", "b=c", "c"), None, None, None, None, ("u",)))
    assert columns.feature_names == ("a=b'", "a=b=c'", "a=c''", *names[1:5], "z=u")
    twice = Encoding(("a", "a=b"), (("b=c",), ("c",)))
    assert twice.feature_names == ("a=b=c", "a=b=c'")
    table = Table(np.array([[0.0, 0.0]]), None, ("a", "a=b"), None, (("b=c",), ("c",)))
    assert twice.transform(table).X.tolist() == [[1, 1]]


def test_rows_held_out_change_nothing():
    rows = np.array([0, 2, 3])
    columns = Encoding.fit(table_of(), rows)
    others = table_of(colour=["red", "x", "blue", "red", "y", "z"], shape=["round", "u", "flat", "round", "v", "w"])
    assert Encoding.fit(others, rows) == columns
    assert np.array_equal(columns.transform(others).X[rows], columns.transform(table_of()).X[rows])


def test_neither_the_order_of_columns_nor_that_of_rows_changes_a_feature():
    columns = Encoding.fit(table_of(), np.arange(6))
    expected = columns.transform(table_of()).X
    assert np.array_equal(columns.transform(table_of(("shape", "size", "colour"))).X, expected)
    back = table_of(size=SIZES[::-1], colour=COLOURS[::-1], shape=SHAPES[::-1])
    assert Encoding.fit(back, np.arange(6)) == columns
    assert np.array_equal(columns.transform(back).X, expected[::-1])


def test_unseen_categories_are_logged_or_refused(caplog):
    columns = Encoding.fit(table_of(), np.arange(4))
    with caplog.at_level(logging.INFO, "gpumlp"):
        columns.transform(table_of())
    assert caplog.messages == [
        "column 'colour' holds 'green' in 2 rows, of which no training row is: 0 at all its categories",
        "column 'shape' holds 'long' in 1 row, of which no training row is: 0 at all its categories",
    ]
    with pytest.raises(DataError, match="column 'colour' holds 'green' in 2 rows, expected categories of the training"):
        columns.transform(table_of(), unseen="error")


@pytest.mark.parametrize("coded", [(), ["shape"], ["colour", "shape"]], ids=str)
def test_it_comes_back_from_its_header(coded):
    columns = Encoding.fit(table_of(), np.arange(4), coded)
    assert Encoding.restored(json.loads(json.dumps(columns.header()))) == columns


def test_a_column_of_codes_is_one_feature_of_the_places_of_categories_and_minus_1_for_a_new_one():
    columns = Encoding.fit(table_of(), np.arange(4), coded=["colour"])
    assert columns.categories == Encoding.fit(table_of(), np.arange(4)).categories
    assert columns.feature_names == ("size", "colour", "shape=flat", "shape=round")
    assert columns.is_category.tolist() == [False, True, True, True]
    assert (columns.n_features, columns.codes) == (4, {"colour": (1, 3)})
    assert columns.transform(table_of(("shape", "colour", "size"))).X.tolist() == [
        [1.5, 2, 0, 1],
        [2.5, 0, 1, 0],
        [3.5, 1, 1, 0],
        [4.5, 2, 0, 1],
        [5.5, -1, 0, 1],
        [6.5, -1, 0, 0],
    ]


def test_what_is_a_code_of_all_columns_has_more_than_two_categories():
    assert Encoding.fit(table_of(), np.arange(6), every=True).coded == {"colour", "shape"}
    assert Encoding.fit(table_of(), np.arange(4), every=True).coded == {"colour"}
    assert Encoding.fit(table_of(), np.arange(4), ["shape"], every=True).coded == {"colour", "shape"}


def test_a_category_that_codes_do_not_know_is_logged_or_refused(caplog):
    columns = Encoding.fit(table_of(), np.arange(4), ["colour", "shape"])
    with caplog.at_level(logging.INFO, "gpumlp"):
        columns.transform(table_of())
    assert caplog.messages == [
        "column 'colour' holds 'green' in 2 rows, of which no training row is: embedded as zeros",
        "column 'shape' holds 'long' in 1 row, of which no training row is: embedded as zeros",
    ]
    with pytest.raises(DataError, match=r"'green' in 2 rows, .* let them be embedded as zeros"):
        columns.transform(table_of(), unseen="error")


@pytest.mark.parametrize("scaler", [Standardiser, QuantileNormaliser])
def test_scaling_leaves_codes_alone(scaler):
    columns = Encoding.fit(table_of(), np.arange(4), ["colour"])
    X = columns.transform(table_of()).X
    found = scaler.fit(X, columns.is_category).transform(X)
    assert np.array_equal(found[:, 1:], X[:, 1:])
    assert not np.array_equal(found[:, 0], X[:, 0])


def test_what_can_be_no_code_is_told(monkeypatch):
    with pytest.raises(DataError, match="column 'size' is not categorical, expected one that is"):
        Encoding.fit(table_of(), np.arange(4), ["size"])
    with pytest.raises(DataError, match=r"column 'color' is not categorical, .* did you mean 'colour'"):
        Encoding.fit(table_of(), np.arange(4), ["color"])
    monkeypatch.setattr("gpumlp.data.categories.MOST_CODES", 2)
    with pytest.raises(DataError, match=r"'colour' has 3 different texts .* at most 2 categories; drop it, or"):
        Encoding.fit(table_of(), np.arange(4), ["colour"])


@pytest.mark.parametrize("value", [-1.0, 4.0, 0.5, np.nan])
def test_values_that_are_no_places_of_texts_are_told_and_never_looked_up(value):
    table = table_of()
    columns = Encoding.fit(table, np.arange(6))
    table.X[3, 1] = value
    for call in (lambda: Encoding.fit(table, np.arange(6)), lambda: columns.transform(table)):
        with pytest.raises(DataError, match="column 'colour' holds values that are no places in its 4 texts"):
            call()


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
    columns = Encoding.fit(table_of(), np.arange(4))
    with pytest.raises(DataError, match=says):
        columns.transform(table)


def test_what_cannot_be_learned_is_told(monkeypatch):
    table = table_of()
    with pytest.raises(DataError, match="columns of text need names"):
        Encoding.fit(Table(table.X, texts=table.texts), np.arange(4))
    monkeypatch.setattr("gpumlp.data.categories.MOST_CATEGORIES", 2)
    with pytest.raises(DataError, match=r"'colour' has 3 different texts .* expected at most 2 categories; drop it"):
        Encoding.fit(table, np.arange(4))
    with pytest.raises(DataError, match="texts of 2 features came for 3; give those of each"):
        Table(table.X, texts=(None, ("u",)))
