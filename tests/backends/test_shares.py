"""Work that is dealt out to the threads: all of it is done, and no thread needs what another one has yet to write."""

import gc
import time
import weakref

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import numpy_elementwise, numpy_shares, threads
from gpumlp.backends.numpy_backend import NumpyBackend
from gpumlp.backends.numpy_shares import Follower, Share, Shared, cuts, in_chains
from gpumlp.backends.numpy_update import Update
from gpumlp.backends.protocol import Batch, BatchSource, StepNumbers, Tally
from gpumlp.formulas.update_rules import RULES, finished_names

RNG = np.random.default_rng(5)
X, LABELS, Y = RNG.random((90, 7)), RNG.integers(0, 5, 90), RNG.random((90, 5))
PIXELS = RNG.integers(0, 256, (90, 7)).astype(np.uint8)

NETS = {
    "one hidden layer": {"sizes": [7, 20, 5]},
    "rows fewer than units": {"sizes": [7, 64, 5]},
    "three hidden layers": {"sizes": [7, 20, 30, 12, 5], "activation": "tanh"},
    "alike layers": {"sizes": [7, 24, 24, 24, 5]},
    "no hidden layer": {"sizes": [7, 5]},
    "many outputs": {"sizes": [7, 9, 40], "output": "linear", "cost": "quadratic"},
    "dropout": {"sizes": [7, 20, 16, 5], "dropout": 0.4},
    "layer normalisation": {"sizes": [7, 20, 16, 5], "normalisation": "layer"},
    "batch normalisation": {"sizes": [7, 20, 16, 5], "normalisation": "batch"},
    "a stack": {"sizes": [7, 20, 16, 5], "n_models": 3},
    "a stack of one hidden layer": {"sizes": [7, 20, 5], "n_models": 3},
    "embeddings": {"sizes": [7, 20, 5], "embeddings": [gpumlp.Embedding(0, 4, 3)]},
}
TRAININGS = {
    "adam": {"l2": 0.01},
    "momentum on weights alone": {"optimizer": "momentum", "learning_rate": 0.05, "momentum_on_biases": False},
    "weights alone": {"train_biases": False, "l1": 0.001},
    "clipped": {"clip_norm": 0.3},
    "micro-batches": {"micro_batch": 8},
    "sums": {"reduction": "sum", "optimizer": "sgd", "learning_rate": 1e-3},
    "one order for all": {"shuffle": "shared"},
}
# a normalised batch is not divided
TOGETHER = [(n, t) for n in NETS for t in TRAININGS if (n, t) != ("batch normalisation", "micro-batches")]
every_training = pytest.mark.parametrize(("net", "training"), TOGETHER)


@pytest.fixture(params=[0, 500], ids=["even", "uneven"])
def eager(request, monkeypatch):
    """Every piece of work that can be dealt out is, to three threads, cut alike or by how much work it is."""
    deal_out_all(monkeypatch, late=request.param)


def deal_out_all(monkeypatch, n_threads=3, late=0):
    monkeypatch.setattr(threads, "count", lambda: n_threads)
    monkeypatch.setattr(threads, "divides_products", lambda: n_threads > 1)
    monkeypatch.setattr(numpy_shares, "LATE", late)
    monkeypatch.setattr(numpy_shares, "LEAST", 1)
    monkeypatch.setattr(numpy_shares, "LINE", 1)


def given(net):
    x = X.copy()
    if "embeddings" in net:
        x[:, 0] = RNG.integers(0, 4, len(x))
    return x, (np.resize(Y, (90, net["sizes"][-1])) if net.get("cost") == "quadratic" else LABELS)


def trained(net, training, x, y, **fit):
    model = gpumlp.Network(**net, backend="numpy", dtype="float64", seed=3)
    trainer = gpumlp.Trainer(model, **{"batch_size": 24, **training})
    history = trainer.fit(x, y, epochs=3, **fit)
    return [*model.weights, *model.biases, history["cost"]]


# ---------------------------------------------------------------- a training dealt out


@every_training
def test_threads_may_come_in_any_order(net, training, eager, monkeypatch):
    """Each piece that one thread does must not need what another one does at the same time."""
    net, training = NETS[net], TRAININGS[training]
    x, y = given(net)
    found = []
    for order in (slice(None), slice(None, None, -1)):
        monkeypatch.setattr(threads, "together", lambda pieces, order=order: [piece() for piece in pieces[order]])
        found.append(trained(net, training, x, y))
    for first, second in zip(*found, strict=True):
        assert np.array_equal(first, second)


@every_training
def test_a_training_dealt_out_is_the_training_of_one_thread(net, training, monkeypatch):
    net, training = NETS[net], TRAININGS[training]
    x, y = given(net)
    alone = trained(net, training, x, y)
    deal_out_all(monkeypatch)
    for one, several in zip(alone, trained(net, training, x, y), strict=True):
        assert np.allclose(one, several, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block", [2, 10, 1000], ids=["2 rows", "10 rows", "all rows"])
@pytest.mark.parametrize("weights", [None, RNG.random(90)], ids=["alike", "weighted"])
@pytest.mark.parametrize("x", [X, PIXELS, X.astype(np.float32)], ids=["as it is", "pixels", "cast"])
def test_rows_that_each_thread_brings_are_those_of_one(x, weights, block, monkeypatch):
    net = NETS["one hidden layer"]
    monkeypatch.setattr(numpy_elementwise, "BLOCK_BYTES", block * x.shape[1] * 8)  # rows that are cast at a time
    alone = trained(net, {}, x, LABELS, sample_weight=weights)
    deal_out_all(monkeypatch)
    for one, several in zip(alone, trained(net, {}, x, LABELS, sample_weight=weights), strict=True):
        assert np.allclose(one, several, rtol=1e-9, atol=1e-12)


def test_a_model_has_the_same_bits_in_a_stack_however_many_threads_there_are(eager):
    several = gpumlp.Network([7, 40, 30, 5], n_models=3, seed=[1, 2, 3], backend="numpy")
    gpumlp.Trainer(several, batch_size=24).fit(X, LABELS, epochs=3)
    alone = gpumlp.Network([7, 40, 30, 5], seed=2, model_ids=[1], backend="numpy")
    gpumlp.Trainer(alone, batch_size=24).fit(X, LABELS, epochs=3)
    assert np.array_equal(several.parameters.theta[1], alone.parameters.theta[0])


@pytest.mark.parametrize("bounds", [(0, 12, 52, 62), (6, 12, 52, 62), (0, 52)], ids=["all", "not all", "a part"])
def test_an_update_goes_on_with_a_gradient_as_it_goes_alone(bounds, monkeypatch):
    """Each group with its own numbers, nothing outside of the groups, and nothing in a step without this model."""
    deal_out_all(monkeypatch)
    undivided, run = [], Update.__call__
    monkeypatch.setattr(Update, "__call__", lambda self: undivided.append(run(self)))
    rule, backend = RULES.get("momentum"), NumpyBackend("float64")
    names = finished_names(rule)
    table = RNG.random((len(names), len(bounds) - 1, 1))
    skip = np.zeros(1, np.bool_)
    numbers = StepNumbers(rule, frozenset(), {}, names, table, np.ones((1, 1)), skip)
    start = RNG.random((1, 62)), RNG.random((len(rule.state), 1, 62))
    delta, a = RNG.random((1, 6, 5)), RNG.random((1, 6, 8))
    around = np.zeros((1, 3, 62))  # other gradients, before and behind this one
    grad, others = around[:, 1], [around[:, 0], around[:, 2]]
    grad[:] = RNG.random(62)

    def moved(between, into=grad):
        theta, state, clock = start[0].copy(), start[1].copy(), np.zeros(3, np.int64)
        undivided.clear()

        def step():
            backend.weight_gradient(delta, a, into[:, 12:52].reshape(1, 5, 8))
            if between:
                backend.fill(np.empty(1), 0)
            backend.update(numbers, theta, grad, state, bounds, clock, 7)

        replay = backend.capture(step)
        found = []
        for skipped in (False, True, False):
            skip[0] = skipped
            replay()
            found += [theta.copy(), state.copy(), clock.copy()]
        return found, len(undivided)

    (alone, n_alone), (followed, n_followed) = moved(True), moved(False)
    assert (n_alone, n_followed) == (3, 0)
    assert not np.array_equal(alone[0], start[0])
    assert np.array_equal(alone[0], alone[3])
    for one, other in zip(alone, followed, strict=True):
        assert np.array_equal(one, other)
    for other in others:
        found, n = moved(False, other)
        assert n == 3
        for one, as_well in zip(alone, found, strict=True):
            assert np.array_equal(one, as_well)


@pytest.mark.parametrize("n", [6, 4], ids=["of as many", "of fewer"])
def test_all_rows_are_brought_where_something_else_is_dealt_out(n, eager):
    backend = NumpyBackend("float64")
    a0, y, clock = np.full((1, 6, 7), np.nan), np.full((1, 6, 5), np.nan), np.zeros(3, np.int64)
    batch = Batch(a0, y, np.zeros((1, 6)), np.zeros(1))
    tally = Tally(np.zeros((4, 1)), None, False)
    others = Shared([slice(0, 3), slice(3, n)], lambda cut, thread: Share([lambda: None], (), ()))

    def step():
        backend.gather_batch(BatchSource(X, Y, None, None, 6, True), clock, batch, tally, None)
        backend._launch(others)

    backend.capture(step)()
    assert np.array_equal(a0[0], X[:6])
    assert np.array_equal(y[0], Y[:6])


def test_an_update_waits_for_the_numbers_of_its_step(monkeypatch):
    """One thread sets them while it brings its rows: none may move by those of the step before."""
    deal_out_all(monkeypatch)
    rule, backend = RULES.get("sgd"), NumpyBackend("float64")
    names, hyper = finished_names(rule), {name: np.ones((1, 1)) for name in ("eta", "l2", "l1")}
    a0, delta, none = np.ones((1, 6, 7)), RNG.random((1, 6, 6)), np.zeros((0, 1, 42))

    def moved(order):
        monkeypatch.setattr(threads, "together", lambda pieces: [piece() for piece in pieces[order]])
        theta, grad, clock, skip = np.ones((1, 42)), np.zeros((1, 42)), np.zeros(3, np.int64), np.zeros(1, np.bool_)
        table = np.zeros((len(names), 1, 1))
        numbers = StepNumbers(rule, frozenset(), hyper, names, table, np.ones((15, 1)), skip)
        batch = Batch(a0, np.empty((1, 6, 5)), np.zeros((1, 6)), np.zeros(1))

        def step():
            tally = Tally(np.zeros((4, 1)), None, False)
            backend.gather_batch(BatchSource(X, Y, None, None, 6, True), clock, batch, tally, numbers)
            backend.weight_gradient(delta, np.ones((1, 6, 7)), grad.reshape(1, 6, 7))
            backend.update(numbers, theta, grad, none, (0, 42), clock, 6)

        backend.capture(step)()
        return theta

    forth, back = moved(slice(None)), moved(slice(None, None, -1))
    assert np.array_equal(forth, back)
    assert (forth != 1).all()


def test_a_thread_that_waits_keeps_nothing_of_a_training(eager):
    x = X.copy()
    there = weakref.ref(x)
    net = gpumlp.Network([7, 20, 5], backend="numpy", dtype="float64")
    trainer = gpumlp.Trainer(net, batch_size=24)
    trainer.fit(x, LABELS, epochs=1, validation=(x, LABELS))
    del x, trainer
    gc.collect()
    assert there() is None


# ---------------------------------------------------------------- chains


class Log(Follower):
    """A launch that can be cut like its neighbours, and writes down what each thread does."""

    def __init__(self, done, reads, writes):
        self.done, self.reads, self.writes = done, reads, writes

    def __call__(self):
        self.done.append("whole")

    def behind(self, shared):
        return Shared(shared.cuts, logging(self.done, "behind", self.reads, self.writes))

    def before(self, shared):
        first = lambda: self.done.append("first")  # noqa: E731
        return first, Shared(shared.cuts, logging(self.done, "before", self.reads, self.writes))


def logging(done, name, reads, writes):
    def share(cut, thread):
        return Share([lambda: done.append((name, thread))], [x(cut) for x in reads], [x(cut) for x in writes])

    return share


def own(x):
    return lambda cut: x[:, cut]


def whole(x):
    return lambda cut: x


HALVES = [slice(0, 3), slice(3, 6)]


def run_in_order(launches, monkeypatch):
    """Run launches; note where the threads wait for each other."""

    def together(pieces):
        for piece in pieces:
            piece()
        done.append("wait")

    done = launches[0]
    monkeypatch.setattr(threads, "together", together)
    for launch in in_chains(launches[1]):
        launch()
    return done


@pytest.mark.parametrize(
    ("second", "waits"),
    [((own, own), 1), ((whole, own), 2), ((own, whole), 2)],
    ids=["its own alone", "reads what others write", "writes what others read"],
)
def test_threads_wait_only_for_what_another_one_writes(second, waits, monkeypatch):
    a, b = np.zeros((2, 6)), np.zeros((2, 6))
    done = []
    reads, writes = second
    launches = [
        Shared(HALVES, logging(done, "one", [own(a)], [own(b)])),
        Shared(HALVES, logging(done, "two", [reads(b)], [writes(a)])),
    ]
    assert run_in_order((done, launches), monkeypatch).count("wait") == waits
    assert [x for x in done if x[0] == "two"] == [("two", 0), ("two", 1)]


def test_launches_of_different_numbers_of_threads_wait_for_each_other(monkeypatch):
    done, thirds = [], [slice(0, 2), slice(2, 4), slice(4, 6)]
    launches = [Shared(cuts, logging(done, "one", [], [])) for cuts in (HALVES, thirds, HALVES)]
    assert run_in_order((done, launches), monkeypatch).count("wait") == 3


def test_a_launch_between_two_is_not_overtaken(monkeypatch):
    a, b, done = np.zeros((2, 6)), np.zeros((2, 6)), []
    launches = [
        Shared(HALVES, logging(done, "one", [own(a)], [own(b)])),
        lambda: done.append("between"),
        Shared(HALVES, logging(done, "two", [own(b)], [own(a)])),
    ]
    run_in_order((done, launches), monkeypatch)
    assert done == [("one", 0), ("one", 1), "wait", "between", ("two", 0), ("two", 1), "wait"]


def test_followers_are_cut_like_their_neighbours_or_run_whole(monkeypatch):
    a, b, done = np.zeros((2, 6)), np.zeros((2, 6)), []
    middle = Shared(HALVES, logging(done, "one", [own(a)], [own(b)]))
    fits, does_not = Log(done, [], [own(a)]), Log(done, [whole(b)], [])
    run_in_order((done, [fits, middle, does_not]), monkeypatch)
    assert done == ["first", ("before", 0), ("one", 0), ("before", 1), ("one", 1), "wait", "whole"]
    done.clear()
    run_in_order((done, [Log(done, [], [whole(a)]), middle, Log(done, [own(b)], [])]), monkeypatch)
    assert done == ["whole", ("one", 0), ("behind", 0), ("one", 1), ("behind", 1), "wait"]


def test_a_network_of_one_hidden_layer_waits_twice_a_step(monkeypatch):
    """Rows are brought and taken through the layer at once, and so are its gradient and the update."""
    deal_out_all(monkeypatch, 2)
    monkeypatch.setattr(numpy_shares, "LEAST", 24 * 20 * 7 // 2)  # the hidden layer's products alone
    waits = []
    monkeypatch.setattr(threads, "together", lambda pieces: waits.append([piece() for piece in pieces]))
    net = gpumlp.Network([7, 20, 5], backend="numpy")
    gpumlp.Trainer(net, batch_size=24).fit(X[:72], LABELS[:72], epochs=1)
    assert len(waits) == 2 * 3


# ---------------------------------------------------------------- cuts


@pytest.mark.parametrize("n", [1, 7, 8, 16, 17, 40, 64, 100, 128, 1000])
@pytest.mark.parametrize("work", [10, 10**6, 36 * 10**5, 5 * 10**6, 10**8, 10**11])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_cuts_cover_all_and_give_the_caller_the_most(n, work, n_threads, monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: n_threads)
    monkeypatch.setattr(threads, "divides_products", lambda: n_threads > 1)
    found = cuts(n, work)
    assert len(found) <= n_threads
    assert np.array_equal(np.concatenate([np.arange(n)[cut] for cut in found]), np.arange(n))
    sizes = [cut.stop - cut.start for cut in found]
    assert all(size > 0 for size in sizes)
    assert sizes[0] >= max(sizes) - numpy_shares.LINE
    assert all(cut.start % numpy_shares.LINE == 0 for cut in found)


def test_little_work_is_not_dealt_out(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 4)
    monkeypatch.setattr(threads, "divides_products", lambda: True)
    assert len(cuts(1000, numpy_shares.LATE + numpy_shares.LEAST)) == 1
    assert len(cuts(1000, numpy_shares.LATE + 2 * numpy_shares.LEAST)) == 2


def test_a_training_dealt_out_to_real_threads_is_that_of_one(monkeypatch):
    """The same bits each time, whichever thread comes first."""
    deal_out_all(monkeypatch)
    net, found = NETS["three hidden layers"], []
    for _ in range(5):
        found.append(trained(net, TRAININGS["adam"], X, LABELS))
        time.sleep(0.001)
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            assert np.array_equal(first, second)
