"""Parquet files whose own words about their rows cannot be true."""

import bad_files as bad
import pytest

from gpumlp.data import read_table
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
