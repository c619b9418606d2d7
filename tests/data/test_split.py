import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumlp.data import k_folds, train_validation_split
from gpumlp.errors import DataError

FAST = settings(max_examples=80, deadline=None)
some_labels = st.lists(st.integers(0, 4), min_size=2, max_size=40)


@FAST
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_split_holds_each_row_once_in_the_rounded_proportion(n, fraction, seed):
    train, validation = train_validation_split(n, fraction, seed)
    assert train.dtype == validation.dtype == np.int64
    assert sorted([*train, *validation]) == list(range(n))
    assert len(validation) == min(max(int(n * fraction + 0.5), 1), n - 1)


@FAST
@given(some_labels, st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_stratified_split_gives_each_class_its_share_and_spares_one_to_train_on(labels, fraction, seed):
    y, counts = np.array(labels), np.bincount(labels)
    if counts.max() == 1:
        with pytest.raises(DataError, match="each class has a single row"):
            train_validation_split(len(y), fraction, seed, y)
        return
    train, validation = train_validation_split(len(y), fraction, seed, y)
    assert sorted([*train, *validation]) == list(range(len(y)))
    assert set(y[train]) == set(labels)
    taken = np.bincount(y[validation], minlength=len(counts))
    assert np.all(np.abs(taken - counts * fraction) <= 1)
    assert len(validation) <= max(int(len(y) * fraction + 0.5), 1)


def test_classes_that_can_spare_rows_validate_in_the_rounded_number():
    labels = np.repeat([0, 1, 2], [50, 31, 20])
    _, validation = train_validation_split(101, 0.25, 0, labels)
    assert np.bincount(labels[validation]).tolist() == [12, 8, 5]  # 12.5, 7.75 and 5 are 25 rows


@pytest.mark.parametrize("labels", [None, np.arange(50) % 2])
def test_a_fraction_just_under_1_still_leaves_rows_to_train_on(labels):
    train, _ = train_validation_split(50, 1 - 2**-53, 0, labels)
    assert len(train) == (1 if labels is None else 2)


@FAST
@given(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))), st.integers(0, 9))
def test_folds_test_each_row_once_and_train_on_all_others(n_and_k, seed):
    n, k = n_and_k
    folds = k_folds(n, k, seed)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n))
    for train, test in folds:
        assert train.dtype == test.dtype == np.int64
        assert sorted([*train, *test]) == list(range(n))
        assert len(test) in (n // k, -(-n // k))


@FAST
@given(some_labels, st.integers(2, 6), st.integers(0, 9))
def test_stratified_folds_differ_by_one_row_in_each_class_and_in_all(labels, k, seed):
    y = np.array([*labels, *labels])  # no class alone
    k = min(k, len(y))
    folds = k_folds(len(y), k, seed, y)
    assert np.ptp([len(test) for _, test in folds]) <= 1
    by_class = np.array([np.bincount(y[test], minlength=5) for _, test in folds])
    assert np.all(np.ptp(by_class, axis=0) <= 1)
    assert all(set(y[train]) == set(labels) for train, _ in folds)


@pytest.mark.parametrize("labels", [None, np.arange(40) % 3, [str(i % 3) for i in range(40)]])
def test_the_seed_alone_decides(labels):
    def drawn(seed):
        folds = k_folds(40, 5, seed, labels)
        return [rows.tolist() for pair in [train_validation_split(40, 0.3, seed, labels), *folds] for rows in pair]

    assert drawn(1) == drawn(1)
    assert all(a != b for a, b in zip(drawn(1), drawn(2), strict=True))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_told(fraction):
    with pytest.raises(DataError, match="validation fraction is"):
        train_validation_split(10, fraction, 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: train_validation_split(1, 0.5, 0), "cannot split 1 row for"),
        (lambda: train_validation_split(3, 0.5, 0, [1, 2, 3]), "each class has a single row"),
        (lambda: train_validation_split(3, 0.5, 0, [1, 2]), "2 labels came for 3 rows"),
        (lambda: k_folds(5, 1, 0), "cannot make 1 folds of 5 rows"),
        (lambda: k_folds(5, 6, 0), "cannot make 6 folds of 5 rows"),
        (lambda: k_folds(5, 2, 0, [1, 1, 2, 3, 3]), "class in row 3 has no other row"),
    ],
)
def test_too_few_rows_are_told(call, says):
    with pytest.raises(DataError, match=says):
        call()
