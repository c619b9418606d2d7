"""Columns of text are read as codes of their texts, from each kind of file that names its columns."""

import bad_files as bad
import numpy as np
import pytest

from gpumlp.data import open_blocks, read_table
from gpumlp.errors import DataError

ENDINGS = (".csv", ".tsv.gz", ".parquet", ".arrow")


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write columns to a file of some kind in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def write(ending, **columns):
        name = f"t{ending}"
        if ending == ".parquet":
            bad.put_parquet(name, **columns)
        elif ending == ".arrow":
            bad.put_arrow(name, **columns)
        else:
            rows = [columns, *zip(*columns.values(), strict=True)]
            between = "\t" if "tsv" in ending else ","
            bad.put(name, "".join(between.join("" if c is None else str(c) for c in row) + "\n" for row in rows))
        return name

    return write


def spelled(table, j):
    """Return column j as its texts."""
    return [table.texts[j][int(code)] for code in table.X[:, j]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_column_of_text_comes_back_and_a_missing_value_is_the_empty_text(put, ending):
    colours = ["red", "blue", None, "red", "a green one"]
    name = put(ending, size=[1.5, 2.0, 3.0, 4.0, 5.0], colour=colours, y=[0, 1, 0, 1, 1])
    table = read_table(name, categorical=())
    assert table.X.dtype == np.float64
    assert table.X[:, 0].tolist() == [1.5, 2, 3, 4, 5]
    assert table.texts[0] is None
    assert spelled(table, 1) == ["red", "blue", "", "red", "a green one"]
    assert (table.feature_names, table.y.tolist()) == (("size", "colour"), [0, 1, 0, 1, 1])


@pytest.mark.parametrize("ending", ENDINGS)
def test_numbers_are_text_where_their_column_is_named(put, ending):
    name = put(ending, zip=[101, 7, 101], b=[1.0, 2.0, 3.0], y=["n", "m", "n"])
    assert read_table(name, categorical=()).texts is None
    table = read_table(name, categorical=["zip"])
    assert spelled(table, 0) == ["101", "7", "101"]
    assert table.texts[1] is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_text_is_refused_where_nothing_is_said_of_categories(put, ending):
    name = put(ending, a=[1.0, 2.0], b=["u", "v"], y=[0, 1])
    with pytest.raises(DataError, match=r"expected.*numbers?; encode or drop it"):
        read_table(name)
    with pytest.raises(DataError, match=r"expected.*numbers?; encode or drop it"):
        for _ in open_blocks(name):
            pass


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_name_that_is_no_feature_is_told(put, ending):
    name = put(ending, colour=["u", "v"], b=[1.0, 2.0], y=[0, 1])
    with pytest.raises(DataError, match="no categorical column is named 'color'; did you mean 'colour'"):
        read_table(name, categorical=["color"])
    with pytest.raises(DataError, match="'y' is the target"):
        read_table(name, categorical=["y"])


def test_tables_larger_than_a_block_have_one_code_for_one_text(put, monkeypatch):
    monkeypatch.setattr("gpumlp.data.table.BLOCK_VALUES", 6)
    texts = [f"{i % 5}th" for i in range(31)]
    for ending in ENDINGS:
        table = read_table(put(ending, a=texts, b=[*range(31)], y=[*range(31)]), categorical=())
        assert spelled(table, 0) == texts
        assert len(table.texts[0]) == 5


def test_a_dictionary_of_arrow_is_text(put):
    arrow = pytest.importorskip("pyarrow")
    column = arrow.array(["u", None, "v", "u"]).dictionary_encode()
    table = read_table(put(".parquet", a=column, y=[0, 1, 1, 0]), categorical=())
    assert spelled(table, 0) == ["u", "", "v", "u"]


def test_a_column_that_begins_with_missing_values_is_told_by_the_first_that_is_there(put):
    table = read_table(put(".csv", a=[None, None, "u"], b=[1, 2, 3], y=[0, 1, 1]), categorical=())
    assert spelled(table, 0) == ["", "", "u"]
    with pytest.raises(DataError, match="missing value in line 2, column 'a'"):
        read_table(put(".csv", a=[None, None, 3], b=["u", "v", "w"], y=[0, 1, 1]), categorical=())


def test_numbers_and_text_in_one_column_are_not_guessed_at(put):
    name = put(".csv", a=["u", "v", 3], b=[1, 2, 3], y=[0, 1, 1])
    with pytest.raises(DataError, match=r"line 4, column 'a' holds '3', expected text such as 'u' in the rows before"):
        read_table(name, categorical=())
    assert spelled(read_table(name, categorical=["a"]), 0) == ["u", "v", "3"]
    name = put(".csv", a=[1, 2, "?"], b=[1, 2, 3], y=[0, 1, 1])
    with pytest.raises(
        DataError, match=r"line 4, column 'a' holds '\?', expected a number; encode or drop it, or name"
    ):
        read_table(name, categorical=())


def test_text_without_names_stays_an_error(put):
    bad.put("t.csv", "u,1,0\nv,2,1\n")
    with pytest.raises(DataError, match=r"column 0 .* expected a number; .* give the table a line of names"):
        read_table("t.csv", categorical=())
    with pytest.raises(DataError, match="there is no header, but categorical columns came: a; add one"):
        read_table("t.csv", categorical=["a"])


def test_a_first_line_among_text_alone_is_not_guessed_at(put):
    bad.put("t.csv", "u,m,0\nv,n,1\nu,m,1\n")
    with pytest.raises(DataError, match="line 1 may be names or a row; say which: --header or --no-header"):
        read_table("t.csv", categorical=())
    bad.put("t.csv", "a,b,y\nv,n,1\nu,m,1\n")  # a target of numbers that begins with a word has a header
    evident = [{}, {"header": True}, {"target": "y"}]
    assert [spelled(read_table("t.csv", categorical=(), **how), 0) for how in evident] == [["v", "u"]] * 3
    bad.put("t.csv", "3,b,y\nv,n,k\nu,m,l\n")
    assert spelled(read_table("t.csv", categorical=["3"]), 0) == ["v", "u"]


def test_other_kinds_of_files_have_no_categorical_columns(put):
    bad.put_npz("t.npz", X=bad.X, y=bad.Y)
    assert read_table("t.npz", categorical=()).texts is None
    with pytest.raises(DataError, match="cannot be categorical, but a came; give a text table, Parquet or Arrow"):
        read_table("t.npz", categorical=["a"])
