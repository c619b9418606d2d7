"""Rows that come by pools train as the same rows do in memory, in an order that is known beforehand."""

import threading

import numpy as np
import pytest
from comparing import theta
from small import data, labelled, network

import gpumlp
from gpumlp import Pool
from gpumlp.data import Table
from gpumlp.data.row_blocks import ArrayBlocks
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.randomness.feistel import rows_at
from gpumlp.randomness.seeds import model_keys, shared_key
from gpumlp.randomness.streams import BLOCKS, pool_keys, shuffle_keys

ROUNDING = {"float32": 1e-5, "float64": 1e-12}
N_ROWS, BATCH = 53, 5
POOL = Pool(10, blocks=3)  # blocks of four rows; the last pool has three


def expected_order(epoch, keys, key_of_blocks, n=N_ROWS, rows=10, block=4):
    """The row numbers of an epoch, as the documentation says, for one model."""
    n_blocks = -(-n // block)
    blocks = rows_at(np.arange(n_blocks), shuffle_keys(key_of_blocks, epoch, BLOCKS), n_blocks)
    stream = np.concatenate([np.arange(b * block, min((b + 1) * block, n)) for b in blocks])
    found = []
    for pool, own in enumerate(pool_keys(keys, -(-n // rows))):
        part = stream[pool * rows : (pool + 1) * rows]
        found.append(part[rows_at(np.arange(len(part)), shuffle_keys(own, epoch), len(part))])
    return np.concatenate(found)


def fitted(net, X, Y, epochs=3, optimizer="adam", weights=None, given=None, **options):
    trainer = gpumlp.Trainer(net, optimizer, 0.01, BATCH, **options)
    history = trainer.fit(X, Y, epochs, sample_weight=weights, **(given or {}))
    return theta(net), history


def in_memory(build, X, Y, epochs=3, shared=False, weights=None, **options):
    """Train in memory in the order that pools give."""
    found = None
    for m in range(3):
        net = build(model_ids=[m])
        keys = shared_key(7) if shared else model_keys([7], [m])[0]
        order = np.stack([expected_order(epoch, keys, shared_key(7)) for epoch in range(epochs)])
        own = weights if weights is None or weights.ndim == 1 else weights[m]
        learned, _ = fitted(net, X, Y, epochs, weights=own, given={"order": order}, **options)
        found = learned if found is None else np.concatenate([found, learned])
    return found


def stack_of(backend, dtype="float64", **options):
    return lambda model_ids=(0, 1, 2): network(model_ids=model_ids, seed=7, backend=backend, dtype=dtype, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shuffle", [True, "shared"])
def test_pools_learn_what_the_same_order_of_rows_teaches_in_memory(shuffle, dtype, backend):
    build, (X, Y) = stack_of(backend, dtype), data(N_ROWS)
    by_pools, history = fitted(build(), X, Y, shuffle=shuffle, given={"pool": POOL})
    wanted = in_memory(build, X, Y, shared=shuffle == "shared")
    np.testing.assert_allclose(by_pools, wanted, rtol=0, atol=ROUNDING[dtype])
    assert np.isfinite(history["cost"]).all()


def test_numpy_learns_it_bit_for_bit():
    build, (X, Y) = stack_of("numpy"), data(N_ROWS)
    by_pools, _ = fitted(build(), X, Y, given={"pool": POOL})
    assert by_pools.tobytes() == in_memory(build, X, Y).tobytes()


@pytest.mark.parametrize("options", [{"reduction": "sum", "l2": 0.01}, {"penalty": "batch", "l2": 0.01}], ids=str)
@pytest.mark.parametrize("shape", [(N_ROWS,), (3, N_ROWS)], ids=["one weight", "each model's own"])
@pytest.mark.parametrize("kind", ["<f8", ">f8"], ids=["read in place", "copied"])
def test_sample_weights_and_penalties_go_with_their_rows(kind, shape, options, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    weights = np.random.default_rng(1).uniform(0.1, 2, shape)
    by_pools, _ = fitted(build(), X.astype(kind), Y, weights=weights, given={"pool": POOL}, **options)
    wanted = in_memory(build, X, Y, weights=weights, **options)
    np.testing.assert_allclose(by_pools, wanted, rtol=0, atol=ROUNDING["float64"])


def test_without_shuffling_pools_change_nothing(backend):
    build, (X, Y) = stack_of(backend, dropout=0.2), data(N_ROWS)
    by_pools, history = fitted(build(), X, Y, shuffle=False, given={"pool": POOL})
    wanted, its_history = fitted(build(), X, Y, shuffle=False)
    assert by_pools.tobytes() == wanted.tobytes()
    np.testing.assert_allclose(history["cost"], its_history["cost"], rtol=1e-12)


def test_a_pool_with_room_for_all_changes_nothing(backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    wanted, _ = fitted(build(), X, Y)
    for given in (N_ROWS, "1MB", Pool(200)):
        assert fitted(build(), X, Y, given={"pool": given})[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rows", [5, 15, 50, 52])
@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_pools_of_any_size_train_on_each_row_once(rows, schedule, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    full = rows - rows % BATCH
    order = np.stack([expected_order(e, model_keys([7], [1])[0], shared_key(7), rows=full, block=full) for e in (0, 1)])
    by_pools, _ = fitted(build(), X, Y, 2, schedule=schedule, given={"pool": Pool(rows, blocks=1)})
    alone, _ = fitted(build(model_ids=[1]), X, Y, 2, schedule=schedule, given={"order": order})
    np.testing.assert_allclose(by_pools[1], alone[0], rtol=0, atol=ROUNDING["float64"])
    assert (np.sort(order, axis=1) == np.arange(N_ROWS)).all()


@pytest.mark.parametrize("steps_per_launch", [1, 2, 3])
def test_several_steps_at_once_stay_within_a_pool(steps_per_launch, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    by_pools, _ = fitted(build(), X, Y, given={"pool": POOL}, steps_per_launch=steps_per_launch)
    np.testing.assert_allclose(by_pools, in_memory(build, X, Y), rtol=0, atol=ROUNDING["float64"])


@pytest.mark.parametrize("kind", ["uint8", "int64", "float16", ">f4", "float64"])
def test_features_of_any_dtype_are_cast_as_in_memory(kind, backend):
    X, Y = data(N_ROWS)
    X = np.round(20 * np.abs(X)).astype(kind)
    build = stack_of(backend, "float32")
    by_pools, _ = fitted(build(), X, Y, given={"pool": POOL})
    np.testing.assert_allclose(by_pools, in_memory(build, X, Y), rtol=0, atol=ROUNDING["float32"])


def test_labels_are_streamed_as_they_are(backend):
    X, y = labelled(N_ROWS)
    smoothed = gpumlp.costs.categorical_cross_entropy(label_smoothing=0.1)

    def build(model_ids=(0, 1, 2)):
        sizes = {"output": "softmax", "cost": smoothed, "sizes": (4, 6, 3)}
        return network(model_ids=model_ids, seed=7, backend=backend, **sizes)

    by_pools, history = fitted(build(), X, y, given={"pool": POOL})
    np.testing.assert_allclose(by_pools, in_memory(build, X, y), rtol=0, atol=ROUNDING["float64"])
    assert "accuracy" in history.names


class Shelf:
    """Blocks of uneven lengths that can be gone through again and again; counts how often."""

    def __init__(self, X, Y, cuts=(3, 4, 20, 41)):
        self.blocks = list(zip(np.split(X, cuts), np.split(Y, cuts), strict=True))
        self.begun = 0

    def __iter__(self):
        self.begun += 1
        return iter(self.blocks)


def test_blocks_of_an_iterable_come_in_its_order(backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    shelf = Shelf(X, Y)
    weights = np.random.default_rng(1).uniform(0.1, 2, N_ROWS)
    by_pools, _ = fitted(build(), shelf, None, given={"pool": POOL}, weights=weights)
    keys = pool_keys(model_keys([7], [2])[0], 6)
    order = np.stack(
        [
            np.concatenate(
                [
                    p + rows_at(np.arange(min(10, 53 - p)), shuffle_keys(k, e), min(10, 53 - p))
                    for p, k in zip(range(0, 53, 10), keys, strict=True)
                ]
            )
            for e in range(3)
        ]
    )
    alone, _ = fitted(build(model_ids=[2]), X, Y, weights=weights, given={"order": order})
    np.testing.assert_allclose(by_pools[2], alone[0], rtol=0, atol=ROUNDING["float64"])
    assert shelf.begun == 1 + 3 + 1  # asked whether it begins anew; looked at; read in each epoch


def test_blocks_of_a_list_come_in_random_order():
    X, Y = data(N_ROWS)
    as_list, as_iterable = Shelf(X, Y).blocks, Shelf(X, Y)
    first, _ = fitted(stack_of("numpy")(), as_list, None, given={"pool": POOL})
    again, _ = fitted(stack_of("numpy")(), [Table(x, y) for x, y in as_list], None, given={"pool": POOL})
    other, _ = fitted(stack_of("numpy")(), as_iterable, None, given={"pool": POOL})
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_blocks_that_are_small_are_trained_on_in_memory():
    X, Y = data(N_ROWS)
    assert fitted(stack_of("numpy")(), Shelf(X, Y), None)[0].tobytes() == fitted(stack_of("numpy")(), X, Y)[0].tobytes()


def test_training_goes_on_where_the_last_fit_ended(backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    parts, whole = build(), build()
    trainer = gpumlp.Trainer(parts, "adam", 0.01, BATCH)
    for epochs in (1, 2):
        trainer.fit(X, Y, epochs, pool=POOL)
    gpumlp.Trainer(whole, "adam", 0.01, BATCH).fit(X, Y, 3, pool=POOL)
    assert theta(parts).tobytes() == theta(whole).tobytes()


def test_models_that_stop_leave_the_others_their_pools(backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)

    class StopTwo(gpumlp.Monitor):
        def epoch_ended(self, report):
            return gpumlp.Stop("enough", models=[True, False, True]) if report.epoch == 1 else None

    weights = np.random.default_rng(1).uniform(0.1, 2, (3, N_ROWS))
    given = {"pool": POOL, "monitors": [StopTwo()]}
    by_pools, _ = fitted(build(), X, Y, weights=weights, given=given)
    wanted = in_memory(build, X, Y, weights=weights)
    np.testing.assert_allclose(by_pools[1], wanted[1], rtol=0, atol=ROUNDING["float64"])
    after_one = in_memory(build, X, Y, 1, weights=weights)
    np.testing.assert_allclose(by_pools[0], after_one[0], rtol=0, atol=ROUNDING["float64"])


def test_a_checkpoint_within_a_pool_is_gone_on_from(tmp_path, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    whole, _ = fitted(build(), X, Y, given={"pool": POOL})

    class Break(gpumlp.Monitor):
        def step_ended(self, step):
            if trainer.epoch_count == 1 and step == 8:
                raise KeyboardInterrupt

    net = build()
    trainer = gpumlp.Trainer(net, "adam", 0.01, BATCH)
    kept = gpumlp.Checkpoints(tmp_path / "kept", every="1steps")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, 3, pool=POOL, checkpoints=kept, monitors=[Break()])
    again = build()
    gpumlp.Trainer(again, "adam", 0.01, BATCH).fit(X, Y, 3, pool=POOL, checkpoints=kept, resume=True)
    assert theta(again).tobytes() == whole.tobytes()


def test_the_reading_thread_ends_with_the_training(backend):
    before, (X, Y) = threading.active_count(), data(N_ROWS)

    class Break(gpumlp.Monitor):
        def step_ended(self, step):
            raise KeyboardInterrupt

    fitted(stack_of(backend)(), X, Y, given={"pool": POOL})
    with pytest.raises(KeyboardInterrupt):
        fitted(stack_of(backend)(), X, Y, given={"pool": POOL, "monitors": [Break()]})
    assert threading.active_count() == before


# ---------------------------------------------------------------- what is refused


def refused(error, text, X, Y, given, **options):
    with pytest.raises(error, match=text):
        fitted(stack_of("numpy")(), X, Y, given=given, **options)


def test_contradictions_are_told():
    X, Y = data(N_ROWS)
    refused(ConfigurationError, "room for 4 rows, a batch has 5", X, Y, {"pool": 4})
    refused(ConfigurationError, "number of rows, or bytes", X, Y, {"pool": 0})
    refused(ConfigurationError, "pool is 'much'", X, Y, {"pool": "much"})
    refused(ConfigurationError, "no `order`", X, Y, {"pool": 10, "order": np.zeros((3, N_ROWS), int)})
    refused(DataError, "read once", iter([(X, Y)]), None, {})
    refused(DataError, "gave no rows", [], None, {})
    refused(DataError, "block 1 is int, expected", [(X, Y), 3], None, {})
    with pytest.raises(ConfigurationError, match="all rows in memory"):
        gpumlp.Trainer(stack_of("numpy")(), batch_size="full").fit(X, Y, 1, pool=POOL)


def test_a_value_that_is_not_finite_is_found_before_training_begins():
    X, Y = data(N_ROWS)
    X[40, 2] = np.nan
    refused(DataError, r"X of the rows from \d+ on holds 1 values that are not finite", X, Y, {"pool": POOL})


def test_blocks_that_change_are_told():
    X, Y = data(N_ROWS)

    class Shrinking(Shelf):
        def __iter__(self):
            self.begun += 1
            return iter(self.blocks[: -1 if self.begun > 3 else None])

    refused(DataError, "gave 41 rows, before they gave 53", Shrinking(X, Y), None, {"pool": POOL})


def test_targets_that_mean_something_else_in_other_blocks_are_refused():
    X, Y = data(N_ROWS)
    net = network((4, 3, 1), cost="hinge")
    signs = np.where(Y[:, :1] > 0, 1.0, -1.0)
    names = [(X[:20], (signs[:20] + 1) / 2), (X[20:], signs[20:])]
    with pytest.raises(DataError, match="another kind than others"):
        gpumlp.Trainer(net, batch_size=BATCH).fit(names, None, 1, pool=POOL)
    with pytest.raises(DataError, match="another kind than others"):
        gpumlp.Trainer(stack_of("numpy")(), batch_size=BATCH).fit([(X, Y), (X, Y[:, 0] > 0)], None, 1, pool=POOL)


def test_zeros_and_ones_stand_for_signs_in_each_block():
    X, Y = data(N_ROWS)
    ones = (Y[:, :1] > 0).astype(float)
    found = [
        fitted(network((4, 3, 1), cost="hinge", seed=7), X, target, given={"pool": POOL})[0]
        for target in (ones, 2 * ones - 1)
    ]
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("is_weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("kind", ["<f8", ">f8"], ids=["read in place", "copied"])
def test_rows_that_are_left_out_are_never_trained_on(kind, is_weighted, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS + 9)
    without = np.array([0, 3, 4, 5, 20, 21, 22, 23, 61])
    broken = np.where(np.isin(np.arange(62), without)[:, None], np.nan, X).astype(kind)
    weights = np.random.default_rng(1).uniform(0.1, 2, N_ROWS) if is_weighted else None
    blocks, left = ArrayBlocks(broken, Y, without), (np.delete(X, without, 0), np.delete(Y, without, 0))
    found, _ = fitted(build(), blocks, None, weights=weights, shuffle=False, given={"pool": POOL})
    wanted, _ = fitted(build(), *left, weights=weights, shuffle=False)
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("is_weighted", [False, True], ids=["equal", "weighted"])
def test_rows_beside_others_that_are_left_out_come_in_the_same_order_read_in_place_or_copied(is_weighted, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS + 9)
    without = np.array([0, 3, 4, 5, 20, 21, 22, 23, 61])
    weights = np.random.default_rng(1).uniform(0.1, 2, N_ROWS) if is_weighted else None
    found = [
        fitted(build(), ArrayBlocks(X.astype(kind), Y, without), None, weights=weights, given={"pool": POOL})[0]
        for kind in ("<f8", ">f8")
    ]
    assert found[0].tobytes() == found[1].tobytes()


def test_the_first_pool_has_the_keys_of_training_in_memory_and_each_other_one_its_own():
    keys = model_keys([7, 7, 8], [0, 1, 0])
    of_pools = pool_keys(keys, 5)
    assert of_pools.shape == (5, 3, 2)
    assert of_pools.dtype == keys.dtype
    assert (of_pools[0] == keys).all()
    assert len(np.unique(of_pools.reshape(-1, 2), axis=0)) == 15
    assert (pool_keys(keys[1], 3) == of_pools[:3, 1]).all()
    assert (shuffle_keys(keys, 0) != shuffle_keys(keys, 0, BLOCKS)).any()


@pytest.mark.parametrize("rows", [2, 3])
def test_a_batch_in_parts_comes_from_a_pool_as_well(rows, backend):
    build, (X, Y) = stack_of(backend), data(N_ROWS)
    by_pools, _ = fitted(build(), X, Y, given={"pool": POOL}, micro_batch=rows)
    np.testing.assert_allclose(by_pools, in_memory(build, X, Y), rtol=0, atol=ROUNDING["float64"])
