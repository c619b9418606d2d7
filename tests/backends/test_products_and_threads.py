import os
import signal
import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

import gpumlp
from gpumlp.backends import numpy_backend, threads
from gpumlp.backends.numpy_backend import column_sums, product, transposed

SHAPES = [(1, 5, 4, 6), (3, 5, 4, 6), (3, 1, 1, 1), (2, 1, 7, 3), (5, 9, 1, 2), (1, 40, 30, 50), (3, 40, 30, 50)]


@pytest.fixture(params=["1", "2"])
def any_threads(request, monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", request.param)


@pytest.mark.parametrize("limit", [1, 50_000, 10**9], ids=["divided", "some", "whole"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_is_that_of_each_model(shape, limit, any_threads, monkeypatch):
    monkeypatch.setattr(numpy_backend, "PRODUCT_WORK", limit)
    n_models, rows, inner, columns = shape
    rng = np.random.default_rng(0)
    for shared in (False, True):
        x, y = (
            rng.standard_normal((1 if shared else n_models, rows, inner)),
            rng.standard_normal((n_models, inner, columns)),
        )
        out = np.full((n_models, rows, columns), np.nan)
        product(x, y, out)()
        assert np.allclose(out, x @ y, rtol=1e-12)
        out[:] = np.nan
        product(transposed(np.ascontiguousarray(transposed(x))), transposed(np.ascontiguousarray(transposed(y))), out)()
        assert np.allclose(out, x @ y, rtol=1e-12)


@pytest.mark.parametrize("limit", [1, 10**9])
def test_column_sums_sum_each_model_over_its_batch(limit, any_threads, monkeypatch):
    monkeypatch.setattr(numpy_backend, "PRODUCT_WORK", limit)
    delta = np.random.default_rng(0).standard_normal((3, 41, 7))
    theta = np.full((3, 20), np.nan)
    column_sums(delta, theta[:, 5:12])()
    assert np.allclose(theta[:, 5:12], delta.sum(axis=1), rtol=1e-12)
    assert np.isnan(theta[:, [4, 12]]).all()


def test_all_pieces_are_done_when_the_work_returns():
    for n in (1, 2, 5):
        done = [0] * n

        def piece(i, done=done):
            done[i] += 1

        for _ in range(50):
            threads.together([lambda i=i: piece(i) for i in range(n)])
        assert done == [50] * n


def fail(message):
    raise ValueError(message)


def test_an_error_in_any_piece_reaches_the_caller():
    with pytest.raises(ValueError, match="first"):
        threads.together([lambda: fail("first"), lambda: None])
    with pytest.raises(ValueError, match="second"):
        threads.together([lambda: None, lambda: fail("second")])


@pytest.mark.parametrize("here", [lambda: None, lambda: fail("own")])
def test_an_error_is_not_told_again_by_later_work(here):
    """Several pieces fail at once; only one error can be raised, and the next work knows of none."""
    with pytest.raises(ValueError):
        threads.together([here, lambda: fail("old"), lambda: fail("older")])
    threads.together([lambda: None] * 3)


def test_work_within_work_and_of_two_callers_is_done():
    done = []
    inner = [lambda: done.append(1)] * 2
    callers = [
        threading.Thread(target=lambda: threads.together([lambda: threads.together(inner)] * 2)) for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    assert len(done) == 12


def test_the_number_of_threads_is_what_the_environment_says(monkeypatch):
    names = ("GPUMLP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    processors = threads.count()
    assert 1 <= processors <= (os.cpu_count() or 1)
    for name in reversed(names):
        monkeypatch.setenv(name, "1")
        assert threads.count() == 1
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "1000")
    assert threads.count() == processors
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "many")
    assert threads.count() == 1  # what the next name says


def blas_threads():
    ours = threads.blas_files()  # SciPy brings another BLAS, which the network does not use
    return [pool["num_threads"] for pool in threadpool_info() if pool["filepath"] in ours]


@pytest.mark.parametrize("n_processors", [1, 2], ids=["confined to one processor", "on two"])
def test_the_blas_is_held_at_one_thread_and_given_back(monkeypatch, n_processors):
    if not blas_threads():
        pytest.skip("nothing controls the threads of this BLAS")
    monkeypatch.setattr(threads, "processors", lambda: n_processors)
    with ThreadpoolController().limit(limits=2):
        with threads.computing():
            with threads.computing():
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {2}
        with pytest.raises(RuntimeError), threads.computing():
            raise RuntimeError
        assert set(blas_threads()) == {2}


def test_a_network_used_from_several_threads_gives_each_what_it_would_give_alone(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    net = gpumlp.Network((64, 512, 10), "gelu")
    inputs = [np.random.default_rng(i).standard_normal((200, 64)).astype(np.float32) for i in range(4)]
    alone = [net.predict(X) for X in inputs]
    wrong = []

    def use(i):
        wrong.extend(i for _ in range(20) if not np.array_equal(net.predict(inputs[i]), alone[i]))

    users = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []


def test_training_in_another_thread_gives_the_same_bits(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    X, Y = np.random.default_rng(0).standard_normal((256, 300)), np.arange(256) % 10
    found = []

    def train():
        net = gpumlp.Network((300, 256, 10), seed=3)
        gpumlp.Trainer(net, batch_size=128).fit(X, Y, 2)
        found.append((net.parameters.theta.copy(), blas_threads()))

    before = blas_threads()
    train()
    other = threading.Thread(target=train)
    other.start()
    other.join()
    assert np.array_equal(found[0][0], found[1][0])
    assert [threads_after for _, threads_after in found] == [before, before]


def test_an_interrupt_waits_for_what_the_helper_still_writes():
    written = []

    def interrupt():
        raise KeyboardInterrupt

    def slow():
        time.sleep(0.2)
        written.append(True)

    with pytest.raises(KeyboardInterrupt):
        threads.together([interrupt, slow])
    assert written == [True]
    threads.together([lambda: None, lambda: written.append(True)])
    assert written == [True, True]


def test_an_interrupt_waits_for_no_helper_whose_end_is_known(monkeypatch):
    """Ctrl-C may come right behind the lock that tells the end, which then is not told again."""
    threads.together([lambda: None, lambda: None])
    worker, waited = threads._workers[0], []

    class Interrupted:
        def __init__(self, lock):
            self.lock = lock

        def acquire(self, timeout=None):
            if timeout is not None:
                waited.append(timeout)
                return
            self.lock.acquire()
            raise KeyboardInterrupt

        def release(self):
            self.lock.release()

    monkeypatch.setattr(worker, "end", Interrupted(worker.end))
    with pytest.raises(KeyboardInterrupt):
        threads.together([lambda: None, lambda: None])
    assert waited == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is of POSIX")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that of Python 3.12 about forking with threads
def test_a_forked_process_computes_though_its_parent_was_computing(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    net, X = gpumlp.Network((300, 512, 10)), np.ones((256, 300), np.float32)
    wanted = net.predict(X)
    ready, done = threading.Event(), threading.Event()

    def hold():
        with threads.computing():
            ready.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    ready.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends the child if it waits for a thread that it does not have
        os._exit(0 if np.allclose(net.predict(X), wanted) else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    other.join()
    assert os.waitstatus_to_exitcode(status) == 0
