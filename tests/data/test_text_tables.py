import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpumlp.data import Table, delimited, read_table
from gpumlp.errors import DataError

SMALL = settings(max_examples=40, deadline=None)


@pytest.fixture
def table(tmp_path):
    """Write text to a file and read it back as a table."""

    def write_and_read(text, name="t.csv", **options):
        content = text if isinstance(text, bytes) else text.encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return read_table(path, **options)

    return write_and_read


def test_the_last_column_is_the_target_and_whole_numbers_are_ints(table):
    t = table("1,2.5,0\n3,4.5,1\n")
    assert np.array_equal(t.X, [[1, 2.5], [3, 4.5]])
    assert t.X.dtype == np.float64
    assert t.y.dtype == np.int64
    assert np.array_equal(t.y, [0, 1])
    assert (t.feature_names, t.target_name) == (None, None)


def test_a_header_gives_names_and_text_labels_stay_text(table):
    t = table("a,b,kind\n1,2,cat\n3,4, dog \n")
    assert (t.feature_names, t.target_name) == (("a", "b"), "kind")
    assert t.y.tolist() == ["cat", "dog"]
    assert np.array_equal(t.X, [[1, 2], [3, 4]])


@pytest.mark.parametrize("target", ["kind", "0", 0, -3])
def test_the_target_is_found_by_name_and_by_number(table, target):
    t = table("kind,a,b\n7.5,1,2\n8.5,3,4\n", target=target)
    assert (t.feature_names, t.target_name) == (("a", "b"), "kind")
    assert np.array_equal(t.y, [7.5, 8.5])
    assert np.array_equal(t.X, [[1, 2], [3, 4]])


@pytest.mark.parametrize("target", [1, "-2"])
def test_text_labels_may_stand_in_any_column(table, target):
    t = table("1,cat,2\n3,dog,4\n", target=target)
    assert t.y.tolist() == ["cat", "dog"]
    assert np.array_equal(t.X, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "options", "n_rows"),
    [
        ("1,2,cat\n3,4,dog\n", {}, 2),  # text in the target alone
        ("cat,2,1\ndog,4,3\n", {"target": 0}, 2),
        (",a,b\n0,1,2\n", {}, 1),  # a first cell left empty, as pandas writes it
        ("1,2,3\n4,5,6\n", {"header": True}, 1),
        ("1,2,3\n4,5,6\n", {"header": True, "target": "3"}, 1),
        ("1,2,y\n4,5,6\n", {"target": "y"}, 1),  # a named target needs a header
        ("a,b\n4,5\n", {"with_target": False}, 1),
        ("nan,inf,3\n4,5,6\n", {"header": True}, 1),
    ],
)
def test_the_first_row_is_a_header_by_the_rule(table, text, options, n_rows):
    assert len(table(text, **options).X) == n_rows


def test_a_slip_in_the_first_row_is_not_taken_for_a_header(table):
    with pytest.raises(DataError, match=r"line 1, column 1 \(from 0\) holds '2x', expected a number.*header=True"):
        table("1,2x,0\n3,4,1\n")


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.csv.gz", "t.tsv", "t.tsv.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_kinds_of_text_read_the_same(table, name, mark, end):
    text = mark + end.join(['a,"b",c', "1,2,3", "", '"4",5,6'])
    t = table(text.replace(",", "\t") if "tsv" in name else text, name)
    assert t.feature_names == ("a", "b")
    assert np.array_equal(t.X, [[1, 2], [4, 5]])
    assert np.array_equal(t.y, [3, 6])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_told_from_the_first_line(table, delimiter):
    t = table("\n1,2,x\n3,4,y\n".replace(",", delimiter))
    assert np.array_equal(t.X, [[1, 2], [3, 4]])


def test_without_target_all_columns_are_features_save_the_one_named(table):
    text = "a,b,c\n1,2,3\n4,5,6\n"
    assert table(text, with_target=False).X.shape == (2, 3)
    assert table(text, with_target=False).y is None
    named = table(text, with_target=False, target="b")
    assert named.feature_names == ("a", "c")
    assert np.array_equal(named.y, [2, 5])
    assert table("1\n2\n", with_target=False).X.shape == (2, 1)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "t.csv: is empty"),
        ("\n\n", {}, "is empty"),
        ("a,b,c\n", {}, "holds a header and no row"),
        ("1\n2\n", {}, "has one column"),
        ("1,2,3\n4,5\n", {}, "line 2 has 2 cells, expected 3"),
        ("a,b,c\n1,2,3\n\n4,5,6,7\n", {}, "line 4 has 4 cells, expected 3"),
        ("a,b\n1,2,3\n", {}, "line 2 has 3 cells, expected 2"),
        ("a,b,c\n1,,3\n", {}, "missing value in line 2, column 'b'"),
        ("1,2,3\n1,2, \n", {}, r"missing value in line 2, column 2 \(from 0\)"),
        ("a,b,c\n1,2,3\n1,x y,3\n", {}, "line 3, column 'b' holds 'x y', expected a number"),
        ("a,b,c\n1,1_000,3\n", {}, "'1_000'"),
        ("a,b,c\n1,%s,3\n" % ("x" * 99), {}, r"'x{30}\.\.\.x{30}'"),
        ("a,b,c\n1,nan,3\n", {}, "t.csv: X holds 1 value that is not finite, the first nan in row 1, feature 'b'"),
        ("a,b,c\n1,2,inf\n", {}, "y holds 1 value"),
        ("a,weight,c\n1,2,3\n", {"target": "wieght"}, "no column is named 'wieght'; did you mean 'weight'"),
        ("1,2,3\n", {"target": "a", "header": False}, "there is no header, so give its number"),
        ("1,2,3\n", {"target": 3}, "no column 3, expected -3 to 2"),
        ("1,2,3\n", {"target": "-4"}, "no column -4"),
        ("a,a,b\n1,2,3\n", {"target": "a"}, "2 columns are named 'a'"),
        ("1,2,3\n", {"header": "yes"}, "header is 'yes'"),
        (b"a,b\n1,caf\xe9\n", {}, "byte 0xe9 is not UTF-8|not UTF-8 .byte 0xe9"),
        ("1," + "9" * 200_000 + "x", {}, "field larger than field limit"),
    ],
)
def test_what_is_wrong_in_a_text_table_is_told_with_its_place(table, text, options, says):
    with pytest.raises(DataError, match=says) as error:
        table(text, **options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1,2\n")
    path.chmod(0)
    with pytest.raises(DataError, match="no permission to read"):
        read_table(path)


def test_a_permission_error_of_the_system_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "t.csv"
    path.write_text("1,2\n")
    monkeypatch.setattr(delimited, "open_text", refuse)
    with pytest.raises(DataError, match="no permission to read"):
        read_table(path)


def test_a_gzip_file_cut_short_is_told(tmp_path):
    whole = gzip.compress(b"1,2,3\n" * 1000)
    for name, content in [("cut.csv.gz", whole[:-12]), ("not.csv.gz", b"1,2,3\n"), ("bad.csv.gz", whole[:12] + whole)]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            read_table(path)


numbers = st.floats(allow_nan=False, allow_infinity=False)
matrices = st.tuples(st.integers(1, 5), st.integers(2, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=numbers)
)


@SMALL
@given(matrices, st.booleans(), st.booleans())
def test_a_text_table_brings_back_the_very_numbers_written(values, named, labelled):
    lines = [[repr(float(v)) for v in row] for row in values]
    if labelled:
        lines = [[*row, f"class {i}"] for i, row in enumerate(lines)]
    if named:
        lines.insert(0, [f"column {i}" for i in range(len(lines[0]))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        path.write_text("\n".join(",".join(line) for line in lines))
        t = read_table(path)
    assert np.array_equal(t.X, values if labelled else values[:, :-1])
    if not labelled:
        assert np.array_equal(t.y, values[:, -1])


cells = st.sampled_from(
    ["1", "-2.5", " 3 ", "1e5", '"4"', "", "x", "nan", "inf", '"', "1_0", "+.5", "0x1", "1e999", "٣"]
)
tables = st.lists(st.lists(cells, min_size=1, max_size=3).map(",".join), min_size=1, max_size=4).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(tables, st.sampled_from(["auto", True, False]))
@example('1,","4"\n1,"\n1', "auto")  # a quote within a cell, and a cell that goes on behind its line
def test_the_fast_reader_and_small_blocks_find_what_the_careful_reader_finds(text, header):
    def read(path):
        try:
            t = read_table(path, header=header)
        except DataError as error:
            return str(error)
        assert isinstance(t, Table)
        return t.X.tolist(), t.y.tolist(), t.feature_names

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "t.csv")
        path.write_text(text, encoding="utf-8")
        fast = read(path)
        patch.setattr(delimited, "_numbers", lambda lines, layout: None)
        assert read(path) == fast
        patch.undo()
        patch.setattr("gpumlp.data.table.BLOCK_VALUES", 2)
        assert read(path) == fast
