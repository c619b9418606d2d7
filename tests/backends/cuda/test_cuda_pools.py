"""What pools cost a device: each row is copied once in an epoch, and the step stays one graph. What they wait for."""

import emulated_gpu
import numpy as np
import pytest
from cuda_cases import draw, on_host, opened, put
from devices import cupy_on

import gpumlp
from gpumlp.backends.cuda.ring import pinned
from gpumlp.errors import OutOfMemory

cupy = cupy_on("emulated")

N_ROWS, EPOCHS = 430, 3


class Snapshots(gpumlp.Monitor):
    def training_began(self, run):
        self.seen = []

    def step_ended(self, step):
        self.seen.append(emulated_gpu.snapshot())


@pytest.fixture(scope="module")
def counted():
    """What happened in a training of nine pools an epoch, the last one short; and between its second and last epoch."""
    X, labels = np.random.default_rng(0).integers(0, 255, (N_ROWS, 16), np.uint8), np.arange(N_ROWS) % 3
    net, noted = gpumlp.Network((16, 8, 3), n_models=2, backend="cuda"), Snapshots()
    trainer = gpumlp.Trainer(net, batch_size=10)
    with emulated_gpu.counting() as found:
        trainer.fit(X, labels, EPOCHS, pool=gpumlp.Pool(50, blocks=2), monitors=[noted])
    begin, end = noted.seen[43], noted.seen[-1]
    later = {group: dict(keys - begin[group]) for group, keys in end.items() if keys - begin[group]}
    return found, later, EPOCHS * (X.nbytes + labels.nbytes)


def test_one_graph_serves_all_pools(counted):
    found, _, _ = counted
    assert found["graphs"]["instantiated"] == 1
    assert found["graphs"]["launches"] == EPOCHS * 43 - 1  # the first step is run kernel by kernel


def test_each_row_is_copied_to_the_device_once_in_an_epoch(counted):
    found, _, n_bytes = counted
    assert n_bytes <= found["memcpy_bytes"]["HostToDevice"] < n_bytes + 3_000  # tables of numbers besides


def test_nothing_is_allocated_once_the_first_epoch_is_done(counted):
    _, later, _ = counted
    assert "memory" not in later


def test_pools_take_no_more_of_the_host_than_their_size_and_leave_none_of_it_behind():
    kept = cupy.get_default_pinned_memory_pool().n_free_blocks()
    b = opened("cuda", "float32")
    ring = b.ring({"X": (1, 300, 7)}, {"X": np.dtype(np.float32)})  # of what CuPy's pool would make 16 KiB
    assert {host["X"].base.base.obj.mem.size for host in ring.hosts} == {300 * 7 * 4}
    del ring
    assert cupy.get_default_pinned_memory_pool().n_free_blocks() == kept


def test_a_host_without_room_for_pools_says_so():
    with pytest.raises(OutOfMemory, match=r"the pools of rows: .*the host has no room for it.*take a smaller pool"):
        pinned(opened("cuda", "float32")._device, (2**60,), np.float32)


@pytest.fixture
def lazy():
    """Work that waits as long as it may."""
    emulated_gpu.set_mode("lazy")
    yield
    emulated_gpu.set_mode("eager")


def test_nothing_is_under_way_once_a_ring_is_closed(lazy):
    b = opened("cuda", "float32")
    with b.session():
        ring = b.ring({"X": (2, 5, 3)}, {"X": b.dtype})
        ring.hosts[1]["X"][...] = draw(1, 2, 5, 3)
        ring.send(1, 4)
        ring.close()
        ring.hosts[1]["X"][...] = 0  # another one may have this memory now
        assert np.array_equal(on_host(b, ring.arrays["X"])[:, 5:9], draw(1, 2, 5, 3)[:, :4])


def test_a_ring_overwrites_no_memory_that_steps_have_yet_to_read(lazy):
    b = opened("cuda", "float32")
    own = cupy.cuda.MemoryPool()  # in which what is freed below is all there is of its size
    with b.session(), cupy.cuda.using_allocator(own.malloc):
        x, out = put(b, draw(1, 1, 2000, 3)), put(b, np.zeros((1, 2000, 3)))
        place = x.data.ptr
        b.copy(x, out)
        del x
        ring = b.ring({"X": (1, 1000, 3)}, {"X": b.dtype})
        assert ring.arrays["X"].data.ptr == place
        ring.hosts[0]["X"][...] = 0
        ring.send(0, 1000)
        ring.close()
        assert np.array_equal(on_host(b, out), draw(1, 1, 2000, 3))


class TaughtBlocks:
    """Blocks whose targets another network computes, each time anew."""

    def __init__(self, teacher):
        self.teacher = teacher

    def __iter__(self):
        lock = opened("cuda", "float32")._device.lock
        for i in range(6):
            assert lock.acquire(timeout=20), "the training keeps the device while it waits for rows"
            lock.release()
            X = draw(i, 16, 4)
            yield X, self.teacher.predict(X)[0]


def test_blocks_may_be_computed_on_the_device_that_trains_on_them():
    teacher, net, pupil = (gpumlp.Network((4, 5, 3), seed=seed, backend="cuda") for seed in (3, 0, 0))
    by_pools = gpumlp.Trainer(net, batch_size=8, shuffle=False).fit(TaughtBlocks(teacher), None, 2, pool=32)
    X, Y = (np.concatenate(x) for x in zip(*TaughtBlocks(teacher), strict=True))
    in_memory = gpumlp.Trainer(pupil, batch_size=8, shuffle=False).fit(X, Y, 2)
    np.testing.assert_allclose(by_pools["cost"], in_memory["cost"], rtol=1e-6)
