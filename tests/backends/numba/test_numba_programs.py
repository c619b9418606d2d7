"""Programs of compiled calls: what waits for what, who does which part, and helpers that come and go."""

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import numba_backend, numba_crew, numba_program, numpy_backend, threads
from gpumlp.backends.numba_program import Atoms, Pieces, Program, Room, Runs, bind, evenly, few_at_a_time, grouped
from gpumlp.backends.numba_source import loop
from gpumlp.backends.select import get_backend
from gpumlp.formulas.term import record
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member


def doubling(values, n_models, offsets):
    """Return a stage: each atom adds to its own number what stands `offsets` further on, around the end."""
    n = values.size // n_models
    add = loop("forward_in_place", np.float64, (("activation_value", record(lambda z: z, "z")),))
    shifted = np.empty_like(values)
    copy = loop("take_rows", np.float64, given=np.float64)
    rows = (np.arange(values.size) + offsets) % values.size
    at = np.zeros(1, np.int64)

    def take(first, last, room):
        return bind(copy, values, 1, rows, rows.size, at, rows.size, first, last, shifted)

    def put(first, last, room):
        # a row of one unit for each number: a <- a + b, b being what was taken for it
        return bind(add, shifted, 1, 1, 1, first, last, 0, 1, np.zeros(1), values)

    return [Atoms(n_models, n, 1e9, take), Atoms(n_models, n, 1e9, put)]


@pytest.fixture
def at_home():
    """Whatever a test does, its helpers rest afterwards."""
    yield
    numba_crew.send_home()


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_a_stage_begins_when_all_threads_have_done_the_one_before(n_threads):
    start = np.arange(35.0) + 1
    values, expected = start.copy(), start.copy()
    stages = [stage for offset in (1, 3, 11, 17) for stage in doubling(values, 1, offset)]
    program = Program(stages, n_threads, repeated=False)
    assert program.n_threads == n_threads
    for _ in range(300 if n_threads < 5 else 20):
        values[:] = expected[:] = start
        program()
        for offset in (1, 3, 11, 17):
            expected += np.roll(expected, -offset)
        assert np.array_equal(values, expected)


@pytest.mark.usefixtures("at_home")
def test_helpers_that_have_no_processor_hold_up_nobody(monkeypatch):
    """They are offered every program and come to none: the first thread does all parts, and takes its offers back."""
    crew = numba_crew._Crew()
    monkeypatch.setattr(numba_crew, "crew", crew)
    monkeypatch.setattr(crew, "awake", lambda n: None)
    start = np.arange(35.0) + 1
    values = start.copy()
    program = Program([stage for offset in (1, 3, 11) for stage in doubling(values, 1, offset)], 3, repeated=False)
    expected = start.copy()
    for run in range(1, 4):
        program()
        for offset in (1, 3, 11):
            expected += np.roll(expected, -offset)
        assert np.array_equal(values, expected)
        for mailbox in crew.mailboxes[:2]:
            assert mailbox[numba_crew.OFFERS] == mailbox[numba_crew.DONE] == 2 * run


@pytest.mark.usefixtures("at_home")
def test_a_helper_that_comes_late_does_nothing_twice():
    """Helpers come and go at any moment of a program: each part is done once in each run."""
    values = np.zeros(35)
    program = Program(doubling(values, 1, 0), 3, repeated=False)
    for run in range(2000):
        values[:] = 1
        program()
        assert (values == 2).all(), run
        if run % 7 == 0:
            numba_crew.send_home()


def recorded(stages, n_threads, repeated=True, repeats=1, prologue=()):
    """Return the calls of each thread in each segment, by what the stages' fake calls are."""
    program = Program.__new__(Program)
    program.n_threads, program._rooms = n_threads, [Room() for _ in range(n_threads)]
    program._repeats, program._prologue = repeats, prologue
    return program._segments(stages, repeated)


def named(name, n_models, n, nanoseconds=1e9):
    return Atoms(n_models, n, nanoseconds, lambda first, last, room: (name, first, last))


def test_with_models_enough_each_thread_carries_its_own_through_all_stages():
    stages = [named("begin", 1, 4), named("a", 4, 10), named("b", 4, 3)]
    begin, carried = recorded(stages, 2)
    assert begin == [[("begin", 0, 2)], [("begin", 2, 4)]]
    assert carried[0] == [("a", 0, 10), ("b", 0, 3), ("a", 10, 20), ("b", 3, 6)]
    assert carried[1] == [("a", 20, 30), ("b", 6, 9), ("a", 30, 40), ("b", 9, 12)]


def test_small_models_are_carried_a_few_at_a_time(monkeypatch):
    for name, value in (("AT_ONCE", 2), ("PART_OF_A_CALL", 0), ("A_PRODUCT", 0)):
        monkeypatch.setattr(numba_program, name, value)
    segments = recorded([named("a", 9, 5, nanoseconds=9), named("b", 9, 1, nanoseconds=0)], 2)
    assert segments[0][0] == [("a", 0, 10), ("b", 0, 2), ("a", 10, 20), ("b", 2, 4)]
    assert segments[0][1] == [("a", 20, 30), ("b", 4, 6), ("a", 30, 40), ("b", 6, 8), ("a", 40, 45), ("b", 8, 9)]


def test_a_thread_repeats_all_stages_for_some_models_before_it_takes_the_next(monkeypatch):
    for name, value in (("AT_ONCE", 2), ("PART_OF_A_CALL", 0), ("A_PRODUCT", 0)):
        monkeypatch.setattr(numba_program, name, value)
    stages, prologue = [named("a", 4, 1, nanoseconds=4), named("b", 4, 1, nanoseconds=4)], [named("begin", 4, 1)]
    (carried,) = recorded(stages, 2, repeats=2, prologue=prologue)
    assert carried[0] == [
        ("begin", 0, 1),
        *2 * [("a", 0, 1), ("b", 0, 1)],
        ("begin", 1, 2),
        *2 * [("a", 1, 2), ("b", 1, 2)],
    ]


def test_stages_that_divide_the_work_are_not_repeated():
    segments = recorded([named("a", 1, 4), named("b", 4, 1)], 2, repeats=3, prologue=[named("begin", 4, 1)])
    assert segments[1] == [[("b", 0, 1), ("b", 1, 2)], [("b", 2, 3), ("b", 3, 4)]]


def test_where_models_would_be_dealt_out_unevenly_the_work_of_each_stage_is_divided():
    first, second = recorded([named("a", 3, 10), named("b", 3, 4)], 2)
    assert first == [[("a", 0, 15)], [("a", 15, 30)]]
    assert second == [[("b", 0, 6)], [("b", 6, 12)]]


def test_small_stages_in_a_row_are_the_first_threads_and_wait_for_nobody():
    small = [named(name, 1, 8, nanoseconds=10) for name in "abc"]
    segments = recorded([named("large", 1, 8), *small, named("large", 1, 8)], 2)
    assert [[len(part) for part in segment] for segment in segments] == [[1, 1], [3, 0], [1, 1]]


def test_pieces_are_cut_alike_in_every_model_and_all_are_done_once():
    def build(first, last, piece, room):
        return [(m, piece) for m in range(first, last)]

    for n_models, n, n_threads in [(1, 3, 2), (5, 3, 2), (4, 1, 2), (2, 1, 4), (7, 2, 3), (1, 1, 2)]:
        stage = Pieces(n_models, n, 1e9, build)
        for repeated in (True, False):
            done = [c for segment in recorded([stage], n_threads, repeated) for part in segment for c in part]
            assert sorted(done) == [(m, p) for m in range(n_models) for p in range(n)]


def test_stages_are_grouped_by_their_models():
    stages = [named(name, n, 1) for name, n in (("a", 1), ("b", 4), ("c", 4), ("d", 1), ("e", 1), ("f", 4))]
    names = [[stage.build(0, 1, None)[0] for stage in group] for group in grouped(stages)]
    assert names == [["a"], ["b", "c"], ["d"], ["e"], ["f"]]


# ---------------------------------------------------------------- parts of a stack


def part(stage, name, n_models, n, each, in_pieces):
    """Return a stage of one part, whose calls are (stage, name, model, piece) for all that they do."""
    if in_pieces:

        def pieces(first, last, piece, room):
            return [(stage, name, m, piece) for m in range(first, last)]

        return Pieces(n_models, n, n_models * each, pieces)
    return Atoms(n_models, n, n_models * each, lambda first, last, room: Done((stage, name), n, first, last))


class Done(tuple):
    """The atoms that a call does."""

    __slots__ = ()

    def __new__(cls, of, n, first, last):
        return super().__new__(cls, [(*of, i // n, i % n) for i in range(first, last)])


def done_by(calls):
    return [one for call in calls for one in (call if isinstance(call, Done) else [call])]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(6))
def test_the_work_of_all_parts_is_done_once_and_a_models_in_order(seed, n_threads, monkeypatch):
    monkeypatch.setattr(numba_program, "AT_ONCE", 3e5)
    draw = np.random.default_rng(seed)
    n_models = draw.integers(1, 4, draw.integers(2, 7)).tolist()
    each = (10.0 ** draw.uniform(3, 6, len(n_models))) * draw.integers(0, 2, len(n_models))
    cut = draw.integers(1, 5, (3, len(n_models))).tolist()
    stages = [
        Runs([part(i, name, m, cut[i][name], each[name], i < 2) for name, m in enumerate(n_models)]) for i in range(3)
    ]
    wanted = [
        (i, name, m, k)
        for i in range(3)
        for name, n in enumerate(n_models)
        for m in range(n)
        for k in range(cut[i][name])
    ]
    for repeated in (True, False):
        segments = recorded(stages, n_threads, repeated)
        assert sorted(one for segment in segments for calls in segment for one in done_by(calls)) == wanted
        for segment in segments:
            for calls in segment:
                came: dict[tuple[int, int], list[int]] = {}
                for stage, name, m, _ in done_by(calls):
                    came.setdefault((name, m), []).append(stage)
                assert all(order == sorted(order) for order in came.values())


def test_models_are_cut_so_that_threads_take_about_as_long():
    draw = np.random.default_rng(0)
    for n in (1, 2, 3, 7):
        for times in (
            np.ones(20),
            draw.uniform(0, 1, 50),
            10 ** draw.uniform(0, 5, 50),
            np.zeros(4),
            np.array([5.0, 0, 0]),
        ):
            cuts = evenly(times, n)
            assert (cuts[0], cuts[-1], len(cuts)) == (0, len(times), n + 1)
            assert cuts == sorted(cuts)
            busiest = max(times[begin:end].sum() for begin, end in pairwise(cuts))
            assert busiest <= times.sum() / n + times.max() * (1 + 1e-9)


def test_models_are_carried_as_few_at_a_time_as_fit_and_none_is_left_out(monkeypatch):
    monkeypatch.setattr(numba_program, "AT_ONCE", 10)
    for times, wanted in [
        ([4, 4, 4, 4], [1, 3, 4]),
        ([40, 1, 1, 9, 40], [1, 3, 4, 5]),
        ([1, 40, 40], [1, 2, 3]),
        ([0, 0, 0, 0], [1, 4]),
        ([1] * 4, [1, 4]),
    ]:
        assert few_at_a_time(np.array(times, float), 1, len(times)) == wanted, times
    assert few_at_a_time(np.ones(3), 2, 2) == []


def test_parts_of_one_model_each_are_dealt_out_to_all_threads():
    runs = Runs([part(0, name, 1, 1, 1e6, True) for name in range(12)])
    shares = [[name for _, name, *_ in runs.of_thread(thread, 3, None)] for thread in range(3)]
    assert shares == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_large_part_is_divided_and_small_ones_are_dealt_out():
    runs = Runs([part(0, 0, 1, 4, 1e7, True), *(part(0, name, 1, 1, 1e5, True) for name in range(1, 5))])
    shares = [[(name, piece) for _, name, _, piece in runs.of_thread(thread, 2, None)] for thread in range(2)]
    assert shares == [[(0, 0), (0, 1), (1, 0), (2, 0)], [(0, 2), (0, 3), (3, 0), (4, 0)]]


def test_models_that_take_differently_long_are_dealt_out_by_their_times():
    stages = [Runs([part(i, 0, 2, 1, 3e6, True), part(i, 1, 6, 1, 1e6, True)]) for i in range(2)]
    (carried,) = recorded(stages, 2)
    first, second = ({(name, m) for _, name, m, _ in calls} for calls in carried)
    assert first == {(0, 0), (0, 1)}
    assert second == {(1, m) for m in range(6)}


def test_where_one_model_takes_most_of_the_time_stages_are_divided():
    stages = [Runs([part(i, 0, 1, 4, 1e8, True), part(i, 1, 3, 1, 1e6, True)]) for i in range(2)]
    segments = recorded(stages, 2)
    assert [sorted({stage for calls in segment for stage, *_ in calls}) for segment in segments] == [[0], [1]]


def mixed_network(*hidden):
    """Return a stack of models with these hidden layers; those with an odd number of units drop some."""
    members = [
        Member(
            build_architecture((20, *widths, 5), "tanh", "softmax", "categorical_cross_entropy"),
            tuple(0.3 * (n % 2) for n in widths),
            model_id=m,
        )
        for m, widths in enumerate(hidden)
    ]
    return gpumlp.Network.mixed(members, backend="numba")


def train_mixed(*hidden):
    net = mixed_network(*hidden)
    X = np.random.default_rng(0).standard_normal((150, 20)).astype(np.float32)
    history = gpumlp.Trainer(net, batch_size=64, clip_norm=1.0).fit(X, np.arange(150) % 5, 3)
    return net.parameters.theta.copy(), history["cost"], history["accuracy"]


def test_models_that_differ_have_the_same_bits_however_they_are_dealt_out(monkeypatch):
    found = []
    for n_threads, uneven in (("1", 1.2), ("2", 0), ("2", 99)):
        monkeypatch.setenv("GPUMLP_NUM_THREADS", n_threads)
        monkeypatch.setattr(numba_program, "WORTH_A_THREAD", 1)
        monkeypatch.setattr(numba_program, "WORTH_A_PART", 1)
        monkeypatch.setattr(numba_program, "UNEVEN", uneven)
        found.append(train_mixed((70, 9), (33, 8), (33, 8), (20, 40), (7, 7)))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert one.tobytes() == same.tobytes()


def test_parts_of_which_python_does_different_numbers_of_steps_go_together(monkeypatch):
    """The softmax of an output is computed by NumPy, which deals out large products to threads, and small ones not."""
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    X = np.random.default_rng(0).standard_normal((64, 20)).astype(np.float32)
    for work in (64 * 5 * 9, 64 * 5 * 9 + 1, 64 * 5 * 50, 1):
        monkeypatch.setattr(numpy_backend, "PRODUCT_WORK", work)
        net = mixed_network((90,), (3,))
        outputs = net.predict(X)
        for m in range(2):
            assert np.allclose(outputs[m], net.alone(m).predict(X)[0], rtol=1e-6, atol=0)


def test_a_call_refuses_what_its_loop_would_read_wrongly():
    take = loop("move_on", np.float64)
    clock = np.zeros(3, np.int64)
    bind(take, 1, 4, clock)
    for wrong, told in [
        ((1, 4), "takes 3 arguments, not 2"),
        ((1, 4, clock.astype(np.uint32)), "expected int64"),
        ((1, 4, np.zeros(6, np.int64)[::2]), "in a row"),
        ((1, 4, clock.reshape(1, 3)), "in a row"),
    ]:
        with pytest.raises(TypeError, match=told):
            bind(take, *wrong)


def test_a_thread_has_one_scratch_array_for_each_use_and_size():
    room = Room()
    assert room("sums", 4, np.float32) is room("sums", 4, np.float32)
    others = [room("sums", 5, np.float32), room("terms", 4, np.float32), room("sums", 4, np.float64)]
    assert len({id(x) for x in [room("sums", 4, np.float32), *others]}) == 4


# ---------------------------------------------------------------- trainings


def train(n_models=1, backend="numba", **options):
    net = gpumlp.Network((120, 70, 40, 5), "gelu", n_models=n_models, backend=backend, dropout=0.2, seed=2)
    X = np.random.default_rng(0).standard_normal((150, 120)).astype(np.float32)
    trainer = gpumlp.Trainer(net, batch_size=64, clip_norm=1.0, **options)
    history = trainer.fit(X, np.arange(150) % 5, 3)
    return net.parameters.theta.copy(), history["cost"], history["accuracy"]


@pytest.mark.parametrize("n_models", [1, 3, 8])
def test_models_carried_whole_and_divided_stages_give_the_same_bits(n_models, monkeypatch):
    """How a program is laid out decides who computes, never what."""
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    monkeypatch.setattr(numba_program, "WORTH_A_THREAD", 1)
    found = []
    for uneven in (0, 99):
        monkeypatch.setattr(numba_program, "UNEVEN", uneven)
        found.append(train(n_models))
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()


def test_without_the_address_of_a_product_numpys_is_called(monkeypatch):
    compiled = train()
    monkeypatch.setattr(numba_backend, "gemm_address", lambda dtype: 0)
    for one, other in zip(compiled, train(), strict=True):
        assert np.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_helpers_rest_at_the_end_of_a_session_also_after_an_error(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    monkeypatch.setattr(numba_program, "WORTH_A_THREAD", 1)
    train()
    assert numba_crew.crew._n_awake == 0
    b = get_backend("numba")
    values = np.ones(40)

    def use_and_fail():
        with b.session():
            Program(doubling(values, 1, 3), 2)()
            assert numba_crew.crew._n_awake == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert numba_crew.crew._n_awake == 0
    time.sleep(0.1)
    mailbox = numba_crew.crew.mailboxes[0]
    assert mailbox[numba_crew.DONE] == mailbox[numba_crew.OFFERS]


@pytest.mark.usefixtures("at_home")
def test_a_helper_that_has_fallen_asleep_takes_the_next_program():
    values = np.ones(35)
    program = Program(doubling(values, 1, 3), 2)
    for pause in (0, 0.05, 0.3, 0):
        time.sleep(pause)
        values[:] = 1
        program()
        assert (values == 2).all()


def test_networks_in_several_threads_of_python_take_turns(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    monkeypatch.setattr(numba_program, "WORTH_A_THREAD", 1)
    alone, found = train(), []
    users = [threading.Thread(target=lambda: found.append(train())) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(timeout=60)
    assert len(found) == 3
    assert all(other[0].tobytes() == alone[0].tobytes() for other in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is of POSIX")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that of Python 3.12 about forking with threads
def test_a_forked_process_goes_on_with_helpers_of_its_own(monkeypatch):
    monkeypatch.setenv("GPUMLP_NUM_THREADS", "2")
    monkeypatch.setattr(numba_program, "WORTH_A_THREAD", 1)
    values = np.ones(35)
    program = Program(doubling(values, 1, 3), 2)
    with threads.computing():
        program()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends the child if it waits for a helper that it does not have
            program()
            os._exit(0 if (values == 4).all() else 1)
        _, status = os.waitpid(child, 0)
        numba_crew.send_home()
    assert os.waitstatus_to_exitcode(status) == 0
