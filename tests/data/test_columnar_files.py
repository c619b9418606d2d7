"""Parquet and Arrow files: what they say of their rows, and the dictionaries of their texts."""

import struct

import bad_files as bad
import numpy as np
import pytest

from gpumlp.data import open_blocks, read_table, write_folder
from gpumlp.errors import DataError


def test_a_parquet_file_that_claims_less_than_no_rows_is_damaged(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    bad.put_parquet(path, a=[1.0, 2.0], y=[1, 0])
    whole, found = path.read_bytes(), 0
    for place in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            with parquet.ParquetFile(path) as file:
                claims = file.metadata.row_group(0).num_rows
        except Exception:  # which the library itself has noticed
            continue
        if claims < 0:
            found += 1
            with pytest.raises(DataError, match="a group of -3 rows"):
                read_table(path)
    assert found


@pytest.mark.parametrize("read", [read_table, lambda path: write_folder(open_blocks(path), path.with_name("t.d"))])
def test_an_arrow_file_that_claims_less_than_no_rows_is_damaged(read, tmp_path):
    path, n_rows = tmp_path / "t.arrow", 7777
    bad.put_arrow(path, a=np.arange(n_rows), y=np.arange(n_rows) % 2)
    whole = path.read_bytes()
    of_batch, claimed = (struct.pack("<q", n) for n in (n_rows, -3))
    path.write_bytes(whole.replace(of_batch, claimed, 1))
    with pytest.raises(DataError, match="a group of -3 rows"):
        read(path)


def test_texts_of_a_dictionary_that_no_row_has_are_not_looked_at(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    texts = [*(f"unused {i}" for i in range(5000)), "x" * 5000, "b", None, "a"]
    kind, y = (
        arrow.DictionaryArray.from_arrays(arrow.array(places, arrow.int16()), texts)
        for places in ([5001, 5003, 5002, None, 5001], [5001, 5003, 5001, 5001, 5001])
    )
    bad.put_arrow(tmp_path / "t.arrow", kind=kind, y=y)
    monkeypatch.setenv("GPUMLP_MAX_DATA", "10kB")  # which as many labels of 5,000 characters would not fit into
    table = read_table(tmp_path / "t.arrow", categorical=())
    assert (table.texts, table.X[:, 0].tolist()) == ((("b", "a", ""),), [0, 1, 2, 2, 0])
    assert table.y.tolist() == ["b", "a", "b", "b", "b"]
