import numpy as np
import pytest

from gpumlp.errors import ConfigurationError
from gpumlp.randomness import feistel, seeds, streams
from gpumlp.randomness.philox import philox4x32

ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [  # published with the paper's own program, Random123
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, key, answer):
    assert " ".join(f"{int(word):08x}" for word in philox4x32(counter, key)) == answer


def test_philox_of_arrays_is_philox_of_each_element():
    counters = np.arange(12, dtype=np.uint32).reshape(4, 3)
    together = philox4x32(tuple(counters), (7, 9))
    for i in range(3):
        alone = philox4x32(tuple(counters[:, i]), (7, 9))
        assert [int(w[i]) for w in together] == [int(w) for w in alone]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 16, 17, 100, 257, 1797, 4097])
def test_an_order_holds_each_row_once(n_rows):
    keys = streams.shuffle_keys(seeds.model_keys([3], [0])[0], epoch=5)
    rows = feistel.rows_at(np.arange(n_rows), keys, n_rows)
    assert sorted(rows) == list(range(n_rows))


def test_an_order_computed_in_pieces_is_the_order_computed_whole():
    keys = streams.shuffle_keys(seeds.model_keys([3], [0])[0], epoch=0)
    whole = feistel.rows_at(np.arange(1000), keys, 1000)
    pieces = [feistel.rows_at(np.arange(i, min(i + 37, 1000)), keys, 1000) for i in range(0, 1000, 37)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_orders_differ_between_epochs_models_and_seeds():
    def order(seed, model, epoch):
        keys = streams.shuffle_keys(seeds.model_keys([seed], [model])[0], epoch)
        return tuple(feistel.rows_at(np.arange(50), keys, 50))

    orders = {order(s, m, e) for s in range(3) for m in range(3) for e in range(3)}
    assert len(orders) == 27


@pytest.mark.parametrize("n_rows", [4, 7, 10, 40])
def test_every_row_comes_to_every_position_equally_often(n_rows):
    n_epochs = 4000
    key = seeds.model_keys([11], [0])[0]
    counts = np.zeros((n_rows, n_rows))
    for epoch in range(n_epochs):
        counts[np.arange(n_rows), feistel.rows_at(np.arange(n_rows), streams.shuffle_keys(key, epoch), n_rows)] += 1
    chi_square = ((counts - n_epochs / n_rows) ** 2 / (n_epochs / n_rows)).sum()
    freedom = (n_rows - 1) ** 2
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations


def test_neighbours_in_one_order_are_not_neighbours_in_the_next():
    key = seeds.model_keys([1], [2])[0]
    n = 2000
    steps = [np.diff(feistel.rows_at(np.arange(n), streams.shuffle_keys(key, e), n)).astype(float) for e in range(20)]
    correlation = np.corrcoef(np.array(steps))
    assert np.abs(correlation[np.triu_indices(20, 1)]).max() < 5 / np.sqrt(n)


def test_too_many_rows_are_refused():
    with pytest.raises(ConfigurationError, match="4294967296"):
        feistel.rows_at(np.arange(2), np.zeros(4, np.uint32), 2**32 + 1)


def test_a_model_has_its_key_and_generator_wherever_it_stands():
    keys = seeds.model_keys([5, 5, 5], [0, 7, 9])
    assert np.array_equal(keys[1], seeds.model_keys([5], [7])[0])
    assert seeds.generator(5, 7).random() == seeds.generator(5, 7).random()
    assert len({tuple(k) for k in keys} | {tuple(seeds.shared_key(5))}) == 4


def test_a_mask_changes_neither_with_padding_of_the_layer_nor_of_the_batch():
    key = seeds.model_keys([5], [1])[0]
    small = streams.dropout_words(key, np.arange(3), 5, step=2, layer=1)
    large = streams.dropout_words(key, np.arange(6), 12, step=2, layer=1)
    assert np.array_equal(small, large[:3, :5])


def test_masks_differ_between_layers_steps_and_rows_and_keep_the_share_asked_for():
    key = seeds.model_keys([5], [1])[0]
    words = streams.dropout_words(key, np.arange(200), 100, step=0, layer=0)
    for other in ({"step": 1, "layer": 0}, {"step": 0, "layer": 1}):
        assert not np.array_equal(words, streams.dropout_words(key, np.arange(200), 100, **other))
    assert len(np.unique(words)) > 19_990
    kept = (words >= streams.dropout_threshold(0.3)).mean()
    assert abs(kept - 0.7) < 5 * np.sqrt(0.21 / words.size)


def test_dropping_nothing_keeps_every_word():
    assert streams.dropout_threshold(0.0) == 0
    assert streams.dropout_threshold(1.0) == 0xFFFFFFFF


@pytest.mark.parametrize("n_rows", [3, 50, 1797])
def test_the_orders_of_a_stack_are_those_of_its_models(n_rows):
    keys = seeds.model_keys([1, 2, 3], [4, 5, 6])
    together = feistel.rows_at(np.arange(n_rows), streams.shuffle_keys(keys, epoch=3), n_rows)
    for m in range(3):
        alone = feistel.rows_at(np.arange(n_rows), streams.shuffle_keys(keys[m], epoch=3), n_rows)
        assert np.array_equal(together[m], alone)
