"""Tables in place of codes on a device: what NumPy gives, whatever the sizes, and with the same bits in any stack."""

import numpy as np
import pytest
from cuda_cases import DTYPES, compute, expect_agreement, opened
from embedded_rows import embedded
from test_cuda_sums import GROUPS, noted_launches

from gpumlp.backends.cuda import backend as cuda_backend

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)

EMBEDDINGS = {
    "one unit of one category": [(0, 1, 1)],
    "a whole tile": [(4, 8, 4)],
    "tiles and one category": [(2, 17, 3)],
    "a warp of units": [(1, 9, 32)],
    "more units than a warp has lanes": [(1, 3, 33), (2, 5, 70)],
    "every column": [(0, 2, 1), (1, 8, 2), (2, 9, 3), (3, 1, 5), (4, 33, 4)],
}


@both_dtypes
@pytest.mark.parametrize("own_rows", [False, True])
@pytest.mark.parametrize("name", list(EMBEDDINGS))
def test_codes_become_lines_of_tables_and_their_deltas_sums(name, own_rows, dtype):
    for n_models, batch in ((1, 1), (3, 23), (2, 300)):
        found = expect_agreement(embedded(EMBEDDINGS[name], n_models, batch, own_rows=own_rows), dtype)
        assert np.isfinite(found["dtables"]).all()


@both_dtypes
@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize(("n_chunks", "n_groups"), GROUPS)
def test_sums_of_any_number_of_chunks(n_chunks, n_groups, n_models, dtype, monkeypatch):
    monkeypatch.setattr(cuda_backend, "ROWS_OF_CODES", 8)
    noted, batch = noted_launches(dtype, monkeypatch), 8 * n_chunks - 3  # the last chunk is short
    expect_agreement(embedded([(1, 3, 5), (3, 9, 2)], n_models, batch), dtype)
    launch = next(x for x in noted if x["name"] == "sum_by_code")
    assert launch["blocks"] == n_models * n_chunks * 3
    if n_chunks > 1:
        assert launch["partials"] == n_models * (n_chunks + n_groups) * (32 + 32)
        assert launch["tickets"] == n_models * 3 * (n_groups + 1)
    b = opened("cuda", dtype)
    with b.session():
        tickets = [x.get() for key, x in b._arena._scratch.items() if key[0].endswith("tickets")]
    assert not any(x.any() for x in tickets)


def test_a_long_table_is_searched_in_one_go_and_takes_no_scratch(monkeypatch):
    noted = noted_launches("float32", monkeypatch)
    expect_agreement(embedded([(1, 2100, 2)], 1, 300), "float32")
    launch = next(x for x in noted if x["name"] == "sum_by_code")
    assert launch["blocks"] == 263
    assert not {"partials", "tickets"} & set(launch)


@both_dtypes
def test_a_models_sums_are_the_same_bits_in_any_stack(dtype):
    for name in EMBEDDINGS:
        one, three = (compute(embedded(EMBEDDINGS[name], n, 700), "cuda", dtype)["dtables"] for n in (1, 3))
        assert one[0].tobytes() == three[0].tobytes()
