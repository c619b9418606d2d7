"""Columns of codes that become learned numbers before the first layer, on every backend."""

from itertools import pairwise

import numpy as np
import pytest
from comparing import is_same_model, set_theta, theta
from embedded import CITIES, EMBEDDINGS, N_COLUMNS, N_OUT, SHOPS, SIZES, blocks, data, network, one_hot
from learning import StopTheSecond, kept, padding
from stopping import StopAt

import gpumlp
from gpumlp import Checkpoints, Embedding, Folds, Network, Pool, Trainer
from gpumlp.backends.select import get_backend
from gpumlp.errors import CheckpointError, ConfigurationError, DataError, ShapeError
from gpumlp.network.architecture import build_architecture
from gpumlp.network.embedding import MOST_CATEGORIES
from gpumlp.network.members import Member
from gpumlp.network.objective import Objective
from gpumlp.network.parameters import ParameterLayout, Parameters
from gpumlp.randomness.seeds import generator

STEP = 1e-6
ONE_COLUMN = (Embedding(0, 4, 2),)


def step_of(net, X, Y, **options):
    """Take one step of rate 1 with all rows, and return the cost and what was subtracted from theta."""
    before, given = theta(net), {"learning_rate": 1.0, "batch_size": "full", "shuffle": False}
    history = Trainer(net, "sgd", **given).fit(X, Y, 1, **options)
    return history["cost"][0], before - theta(net)


# ---------------------------------------------------------------- numbers and gradients


@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)], ids=str)
def test_an_embedding_is_a_linear_layer_that_reads_one_hot_columns(hidden, backend):
    X, y = data()
    net = network(backend, (N_COLUMNS, *hidden, N_OUT), n_models=3)
    found, inputs = net.backpropagate(X, y), one_hot(X)
    for m in range(3):
        W = blocks(net, m)
        activations = ["identity", *["tanh"] * len(hidden)]
        other = Network((W.shape[1], len(W), *hidden, N_OUT), activations, dtype="float64", backend="numpy")
        other.set_weights(0, W, np.zeros(len(W)))
        for l, (weights, biases) in enumerate(zip(net.weights, net.biases, strict=True), 1):
            other.set_weights(l, weights[m], biases[m])
        wanted = other.backpropagate(inputs, y)
        assert np.allclose(net.predict(X)[m], other.predict(inputs)[0], rtol=1e-11)
        assert np.allclose(net.forward(X).a[0][m], other.forward(inputs).a[1][0], rtol=1e-15)
        for l in range(len(hidden) + 1):
            assert np.allclose(found.dW[l][m], wanted.dW[l + 1][0], rtol=1e-10, atol=1e-14)
            assert np.allclose(found.db[l][m], wanted.db[l + 1][0], rtol=1e-10, atol=1e-14)
        dW = wanted.dW[0][0]
        for dE, unit, column, e in zip(found.dE, (1, 5), (1, 7), EMBEDDINGS, strict=True):
            assert np.allclose(dE[m], dW[unit : unit + e.n_units, column : column + e.n_categories].T, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"normalisation": ["layer", "batch"]}], ids=str)
def test_the_gradient_of_everything_that_is_learned_equals_central_differences(options, backend):
    """All models of the stack have one number and so one mask; a step with rate 1 shows the gradient."""
    X, Y = data(n=9)
    weights = np.array([1.0, 0.5, 0.0, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    net = network(backend, seed=3, **options)
    own, step = theta(net)[0], STEP * np.eye(net.parameters.layout.n_params)
    stack = network("numpy", model_ids=[0] * (2 * len(own)), seed=[3] * (2 * len(own)), **options)
    set_theta(stack, np.concatenate([own + step, own - step]))
    costs, _ = step_of(stack, X, Y, sample_weight=weights)
    numeric = (costs[: len(own)] - costs[len(own) :]) / (2 * STEP)
    _, exact = step_of(net, X, Y, sample_weight=weights)
    learned = ~padding(net) & (np.arange(len(own)) < net.parameters.layout.n_learned)
    assert np.abs(exact[0, net.parameters.layout.tables]).max() > 0.01
    assert np.abs(numeric - exact[0])[learned].max() <= 1e-6 * np.abs(exact[0][learned]).max()


def test_backpropagate_gives_what_a_step_moves_by(backend):
    X, y = data()
    net = network(backend, n_models=3)
    found = net.backpropagate(X, y)
    _, step = step_of(net, X, y)
    wanted = net.parameters.views(step)
    for gradient, view in zip([*found.dW, *found.dE, *found.db], wanted, strict=True):
        assert np.allclose(gradient, view, rtol=1e-10, atol=1e-14)
    assert network(backend, embeddings=()).backpropagate(X, y).dE == []


def test_a_step_by_hand(backend):
    """One output a = W E[c] + w x + b; a step moves E[c] by W (a - y) / n, summed over the rows with code c."""
    X = np.array([[2.0, 0.5], [0.0, -1.0], [2.0, 2.0], [-1.0, 1.0]])
    Y = np.array([[1.0], [2.0], [0.0], [3.0]])
    net = Network(
        (2, 1), (), "identity", "quadratic", dtype="float64", backend=backend, embeddings=[Embedding(0, 3, 2)]
    )
    net.set_weights(0, [[0.5, -2.0, 3.0]], [0.25])
    net.set_embedding(0, [[1.0, 2.0], [7.0, 7.0], [4.0, 0.5]])
    # a = 0.5 * 4 - 2 * 0.5 + 3 * 0.5 + 0.25, ...
    error = np.array([2.75, -6.25, 7.25, 3.25]) - Y[:, 0]
    assert np.allclose(net.predict(X)[0, :, 0] - Y[:, 0], error, rtol=1e-14)
    Trainer(net, "sgd", 0.1, batch_size="full").fit(X, Y, 1)
    W = np.array([0.5, -2.0])
    wanted = [[1, 2] - 0.1 * W * error[1] / 4, [7, 7], [4, 0.5] - 0.1 * W * (error[0] + error[2]) / 4]
    assert np.allclose(net.embeddings[0][0], wanted, rtol=1e-14)
    read = np.array([[4, 0.5, 0.5], [1, 2, -1], [4, 0.5, 2], [0, 0, 1]])
    assert np.allclose(net.weights[0][0], [[0.5, -2, 3] - 0.1 * error @ read / 4], rtol=1e-14)


@pytest.mark.parametrize(
    "embeddings", [(SHOPS,), (Embedding(0, 9, 1), Embedding(4, 3, 40)), (Embedding(2, 300, 5),)], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_learns_what_numpy_learns(dtype, embeddings, backend):
    X, y = data(n=700, embeddings=embeddings)
    found, wanted = (network(name, embeddings=embeddings, n_models=2, dtype=dtype) for name in (backend, "numpy"))
    for net in (found, wanted):
        Trainer(net, learning_rate=0.01, batch_size=600, l2=0.01, clip_norm=1.0).fit(X, y, 3)
    assert np.allclose(theta(found), theta(wanted), atol=2e-5 if dtype == "float32" else 1e-10)


# ---------------------------------------------------------------- codes


NO_CODES = [-1.0, -2.0, 0.5, 4.0, 3.9999, 1e9, 1e30, -1e30, np.nan, np.inf, -np.inf, 2.0**24 + 2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_code_reads_zeros_and_writes_nothing(dtype, backend):
    """Above and below the tables there are NaN, which would be seen in what is read or gone if it were written."""
    b = get_backend(backend, dtype=dtype)
    layout = ParameterLayout((2, 1), embeddings=(Embedding(1, 4, 3),))
    lookup = layout.lookup()
    lookup = type(lookup)(b.asarray(lookup.units), b.asarray(lookup.firsts), lookup.categories)
    codes = [*NO_CODES, -0.0, 3.0]
    rows = np.array([[[7.0, code] for code in codes]], dtype)
    line = layout.tables.stop - layout.tables.start
    around, inside = np.full((2, 3 * line), np.nan, dtype), slice(line, 2 * line)
    around[:, inside] = np.arange(1, 2 * line + 1).reshape(2, line)
    tables, a = b.asarray(around), b.asarray(np.full((2, len(codes), 4), np.nan, dtype))
    with b.session():
        b.embed(lookup, b.asarray(rows), tables[:, inside], a)
    found = np.array(b.to_host(a))
    assert (found[:, :, 0] == 7).all()
    assert not found[:, : len(NO_CODES), 1:].any()
    assert np.array_equal(
        found[:, len(NO_CODES) :, 1:], around[:, [[line, line + 1, line + 2], [line + 9, line + 10, line + 11]]]
    )
    delta = np.arange(2 * len(codes) * 3, dtype=dtype).reshape(2, len(codes), 3) + 1
    delta[:, 2] = np.nan  # of a row that has no code
    with b.session():
        b.embedding_gradient(lookup, b.asarray(rows), b.asarray(delta), tables[:, inside])
    after = np.array(b.to_host(tables))
    sums = np.zeros((2, 4, 3))
    sums[:, 0], sums[:, 3] = delta[:, -2], delta[:, -1]
    assert np.array_equal(after[:, line : line + 12].reshape(2, 4, 3), sums)
    assert np.isnan(after[:, :line]).all()
    assert np.isnan(after[:, 2 * line :]).all()


def test_a_batch_of_unknown_categories_leaves_the_tables_alone(backend):
    X, y = data()
    X[:, [1, 3]] = -1
    net = network(backend, n_models=2)
    before = [E.copy() for E in net.embeddings]
    Trainer(net, "sgd", 0.1, batch_size=5).fit(X, y, 2)
    assert all(np.array_equal(E, was) for E, was in zip(net.embeddings, before, strict=True))
    for dE in net.backpropagate(X, y).dE:
        assert not dE.any()
    net.set_embedding(0, np.full((5, 3), 1e6))
    outputs = net.predict(X)
    net.set_embedding(0, np.zeros((5, 3)))
    assert np.array_equal(net.predict(X), outputs)


@pytest.mark.parametrize("wrong", [5.0, -2.0, 1.5, 1234567.0])
def test_codes_that_do_not_exist_are_refused_with_their_place(wrong, backend):
    (X, y), net = data(), network(backend)
    bad = X.copy()
    bad[[4, 9], 1] = wrong
    trainer = Trainer(net, batch_size=5)
    for call in (
        lambda: trainer.fit(bad, y, 1),
        lambda: net.predict(bad),
        lambda: net.evaluate(bad, y),
        lambda: net.backpropagate(bad, y),
        lambda: trainer.fit(X, y, 1, (bad, y)),
        lambda: trainer.fit(bad, y, 1, pool=Pool(10)),
    ):
        with pytest.raises(DataError, match=rf"\[4, 1\] is {wrong:.9g}.*from 0 to 4, or -1"):
            call()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float16", "bool"])
def test_codes_may_be_of_any_dtype(dtype, backend):
    embeddings = [Embedding(0, 2, 3)]
    X, y = (np.arange(24).reshape(12, 2) // 2 % 2).astype(dtype), np.arange(12) % N_OUT
    nets = [network(backend, (2, 4, N_OUT), embeddings=embeddings) for _ in range(2)]
    for net, given in zip(nets, (X, X.astype("float64")), strict=True):
        Trainer(net, batch_size=5).fit(given, y, 2)
    assert np.array_equal(theta(nets[0]), theta(nets[1]))


def test_the_largest_code_that_float32_holds_is_a_row_of_its_own(backend):
    if backend == "cuda":
        pytest.skip("the emulated device would search a table of this length for minutes")
    n = MOST_CATEGORIES
    net = Network((1, 2), (), embeddings=[Embedding(0, n, 1)], backend=backend, initialiser="zeros")
    net.set_weights(0, [[1.0], [0.0]])
    net.embeddings[0][0, -3:, 0] = [1, 2, 3]
    codes = np.array([[n - 3], [n - 2], [n - 1], [-1]])
    before = net.predict(codes)[0, :, 0]
    assert np.allclose(np.log(before / (1 - before)), [1, 2, 3, 0], atol=1e-6)


# ---------------------------------------------------------------- stacks


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"normalisation": ["layer", "batch"]}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_in_a_stack_learns_as_if_alone(weighted, options, dtype, backend):
    X, y = data()
    weights = np.random.default_rng(0).integers(0, 3, (3, 23)).astype(float) if weighted else None
    training = {"learning_rate": 0.01, "batch_size": 5, "clip_norm": 1.0, "l2": 0.01}
    ids = [7, 0, 3]
    stack = network(backend, model_ids=ids, dtype=dtype, **options)
    start = theta(stack)
    trainer = Trainer(stack, **training)
    history = trainer.fit(X, y, 2, (X[::2], y[::2]), sample_weight=weights)
    for m, number in enumerate(ids):
        alone = network(backend, model_ids=[number], dtype=dtype, **options)
        assert np.array_equal(theta(alone)[0], start[m])
        own = Trainer(alone, **training)
        own_history = own.fit(X, y, 2, (X[::2], y[::2]), sample_weight=None if weights is None else weights[m])
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)
        for name, buffer in kept(own).items():
            assert is_same_model(buffer[0], kept(trainer)[name][m], backend)
        for name in ("cost", "accuracy", "validation_cost"):
            assert is_same_model(own_history[name][:, 0], history[name][:, m], backend, dtype)


WIDE = (Embedding(0, 300, 24), Embedding(2, 7, 40))


def test_threads_and_repetition_change_no_bit(backend, monkeypatch):
    if backend == "cuda":
        pytest.skip("a device has no threads of the host")
    X, y = data(n=250, embeddings=WIDE)
    found = {}
    for threads in ("1", "2"):
        monkeypatch.setenv("GPUMLP_NUM_THREADS", threads)
        for repetition, ids in enumerate(([0, 1, 2], [0, 1, 2], [1])):
            net = network(backend, (N_COLUMNS, 300, N_OUT), embeddings=WIDE, model_ids=ids, dtype="float32")
            Trainer(net, batch_size=128, clip_norm=1.0).fit(X, y, 2)
            found[threads, repetition] = theta(net)
    for threads in ("1", "2"):
        assert np.array_equal(found[threads, 0], found[threads, 1])
        assert np.array_equal(found[threads, 0][1], found[threads, 2][0])


def test_the_same_training_twice_gives_the_same_bits_on_every_backend(backend):
    X, y = data(n=700)
    nets = [network(backend, n_models=2, dtype="float32") for _ in range(2)]
    for net in nets:
        Trainer(net, batch_size=600).fit(X, y, 2)
    assert theta(nets[0]).tobytes() == theta(nets[1]).tobytes()


def members_of(n, embeddings=EMBEDDINGS):
    draw, found = np.random.default_rng(3), []
    for i in range(n):
        if i % 3 != 2:  # some are alike and side by side
            widths = [int(w) for w in draw.integers(1, 20, 2)]
            kinds = [str(f) for f in draw.choice(["relu", "tanh", "gelu"], 2)]
            dropout = tuple(float(r) for r in draw.choice([0.0, 0.4], 2))
        sizes = (N_COLUMNS, *widths, N_OUT)
        net = build_architecture(sizes, kinds, "softmax", "categorical_cross_entropy", embeddings=embeddings)
        found.append(Member(net, dropout, i // 2, model_id=i))
    return found


@pytest.mark.parametrize("options", [{}, {"steps_per_launch": 3}, {"micro_batch": 3}], ids=str)
def test_each_model_of_a_mixed_stack_with_folds_is_trained_as_alone(options, backend):
    """Other hidden sizes, activations, rates, folds and weights; two are stopped early and left behind."""
    (X, y), n, draw = data(37), 6, np.random.default_rng(5)
    members, weights = members_of(n), draw.uniform(0.5, 2, (n, 37))
    rows, of_model = (draw.permutation(37)[:29], draw.permutation(37)[:26]), (0, 1, 1, 0, 1, 0)
    rates, ends = 10.0 ** np.linspace(-3, -1, n), np.array([2, 4, 1, 4, 4, 2])

    def fit(some, folds, **more):
        net = Network.mixed([members[m] for m in some], dtype="float64", backend=backend)
        trainer = Trainer(net, learning_rate=rates[some], batch_size=8, l2=0.01 * np.array(some), clip_norm=1.0, **more)
        given = {"sample_weight": weights[some], "folds": folds, "monitors": [StopAt(ends[some])]}
        return net, trainer.fit(X, y, 4, folds, **given)

    net, history = fit(list(range(n)), Folds(rows, of_model), **options)
    near = {"rtol": 0, "atol": 0 if backend == "numpy" and not options else 1e-9}
    for m in range(n):
        solo, its_history = fit([m], Folds((rows[of_model[m]],), (0,)))
        alone = net.alone(m)
        for x, wanted in zip((*alone.weights, *alone.embeddings), (*solo.weights, *solo.embeddings), strict=True):
            assert np.allclose(x, wanted, **near)
        assert np.allclose(net.embeddings[0][m], solo.embeddings[0][0], **near)
        assert np.allclose(history["validation_cost"][: ends[m], m], its_history["validation_cost"][:, 0], **near)


def test_members_of_a_stack_embed_the_same_columns_alike():
    with pytest.raises(ConfigurationError, match="member 1 has embeddings"):
        Network.mixed([members_of(1)[0], members_of(1, embeddings=(CITIES,))[0]])


# ---------------------------------------------------------------- initial tables


def test_tables_are_drawn_behind_all_layers_with_unit_variance():
    """An embedding of one unit leaves the widths as they are, and so W and b are those of a network without it."""
    nets = [Network((3, 40, 2), embeddings=e, n_models=2) for e in ((), [Embedding(1, 5000, 1)])]
    for x, y in zip((*nets[0].weights, *nets[0].biases), (*nets[1].weights, *nets[1].biases), strict=True):
        assert np.array_equal(x, y)
    E = nets[1].embeddings[0]
    assert np.abs(E.mean(axis=(1, 2))).max() < 0.05
    assert np.abs(E.std(axis=(1, 2)) - 1).max() < 0.05
    assert not np.array_equal(E[0], E[1])


def test_the_numbers_of_tables_come_from_the_models_own_generator_in_the_order_of_columns(backend):
    net = network(backend, model_ids=[4], seed=9)
    source = generator(9, 4)
    for n_in, n_out in pairwise(net.architecture.widths):
        source.standard_normal((n_out, n_in))
    for E in net.embeddings:
        assert np.array_equal(E[0], source.standard_normal(E.shape[1:]))


def test_without_embeddings_a_network_reads_the_rows_themselves(backend):
    X, _ = data()
    net = network(backend, embeddings=())
    assert net.embeddings == []
    assert net.architecture.n_embedded == N_COLUMNS
    assert net.forward(X).a[0].shape == (1, 23, N_COLUMNS)


def test_reset_draws_the_tables_again(backend):
    X, y = data()
    net = network(backend, n_models=2)
    start = theta(net)
    Trainer(net, batch_size=5).fit(X, y, 2)
    assert not np.array_equal(theta(net), start)
    net.reset()
    assert np.array_equal(theta(net), start)


# ---------------------------------------------------------------- training in all its ways


@pytest.mark.parametrize("rule", ["adamw", "momentum"])
def test_tables_decay_as_weights_do_and_the_padding_stays_zero(rule, backend):
    X, y = data()
    net = network(backend, n_models=3)
    trainer = Trainer(net, rule, 0.01, batch_size=5, l2=0.1, l1=0.01, clip_norm=1.0)
    trainer.fit(X, y, 2)
    for row in (theta(net), *kept(trainer).values()):
        assert not row[:, padding(net)].any()
    still = network(backend, initialiser="zeros")  # no gradient reaches the tables: what moves them is their decay
    before = still.embeddings[0].copy()
    Trainer(still, "sgd", 0.5, batch_size="full", l2=0.1).fit(X, y, 1)
    assert np.allclose(still.embeddings[0], (1 - 0.5 * 0.1) * before, rtol=1e-12)


def test_a_state_that_is_given_by_layer_leaves_zeros_for_the_tables(backend):
    net, normal = network(backend, n_models=2), np.random.default_rng(0).standard_normal
    layers = [(normal(W.shape), normal(b.shape)) for W, b in zip(net.weights, net.biases, strict=True)]
    trainer = Trainer(net, "momentum", state={"v": layers})
    v = Parameters(net.backend, net.parameters.layout, 2, theta=trainer.state["v"])
    for l, (W, b) in enumerate(layers):
        assert np.array_equal(net.backend.to_host(v.W[l]), W)
        assert np.array_equal(net.backend.to_host(v.b[l]), b)
    assert not net.backend.to_host(v.tables).any()


def test_tables_are_trained_without_biases_too(backend):
    X, y = data()
    net = network(backend)
    before = [E.copy() for E in net.embeddings]
    Trainer(net, train_biases=False, batch_size=5).fit(X, y, 1)
    assert not any(np.array_equal(E, was) for E, was in zip(net.embeddings, before, strict=True))
    assert not any(b.any() for b in net.biases)


@pytest.mark.parametrize(
    ("options", "near"),
    [({"steps_per_launch": 2}, 0), ({"micro_batch": 3}, 1e-11), ({"micro_batch": 2, "steps_per_launch": 3}, 1e-11)],
    ids=str,
)
def test_steps_together_and_batches_in_parts_are_the_same_training(options, near, backend):
    (X, y), found = data(), []
    for more in ({}, options):
        net = network(backend, n_models=3, dropout=0.2)
        Trainer(net, "momentum", 0.05, batch_size=7, **more).fit(X, y, 3)
        found.append(theta(net))
    assert np.abs(found[0] - found[1]).max() <= near


def test_rows_that_come_by_pools_train_as_in_memory(backend):
    (X, y), found = data(), []
    for given in ({}, {"pool": Pool(10)}):
        net = network(backend, n_models=2)
        Trainer(net, batch_size=5, shuffle=False).fit(X, y, 3, (X, y), **given)
        found.append(theta(net))
    assert np.array_equal(*found)


def test_a_stopped_model_stays_as_it_is_and_the_rest_goes_on(backend):
    X, y = data()
    stack = network(backend, n_models=3)
    Trainer(stack, batch_size=5).fit(X, y, 5, monitors=[StopTheSecond()])
    for m, epochs in enumerate([5, 2, 5]):
        alone = network(backend, model_ids=[m])
        Trainer(alone, batch_size=5).fit(X, y, epochs)
        assert is_same_model(theta(alone)[0], theta(stack)[m], backend)


def test_a_training_that_is_broken_off_goes_on_with_its_tables(backend, tmp_path):
    class BreakOff(gpumlp.Monitor):
        def epoch_began(self, epoch):
            self.epoch = epoch

        def step_ended(self, step):
            if (self.epoch, step) == (2, 3):
                raise KeyboardInterrupt

    (X, y), options = data(), {"batch_size": 5, "learning_rate": 0.05}
    whole, broken, again = (network(backend, n_models=2) for _ in range(3))
    Trainer(whole, **options).fit(X, y, 3)
    with pytest.raises(KeyboardInterrupt):
        Trainer(broken, **options).fit(
            X, y, 3, checkpoints=Checkpoints(tmp_path, every="1steps"), monitors=[BreakOff()]
        )
    Trainer(again, **options).fit(X, y, 3, checkpoints=Checkpoints(tmp_path), resume=True)
    assert np.array_equal(theta(again), theta(whole))
    other = network(backend, embeddings=(CITIES, Embedding(3, 2, 1)), n_models=2)
    with pytest.raises(CheckpointError, match="embeddings"):
        Trainer(other, **options).fit(X, y, 3, checkpoints=Checkpoints(tmp_path), resume=True)


def test_the_best_tables_come_back(backend):
    X, y = data()
    net, kept_at = network(backend), []
    scores = iter([3.0, 1.0, 2.0])

    def score_error(targets, outputs):
        kept_at.append(theta(net))
        return next(scores)

    Trainer(net, batch_size=5).fit(X, y, 3, (X, y), monitors=[gpumlp.KeepBest(score_error)])
    assert np.array_equal(theta(net), kept_at[1])
    assert not np.array_equal(kept_at[1], kept_at[2])


def test_the_objective_of_a_data_set_has_the_gradient_of_finite_differences(backend):
    X, y = data()
    f = Objective(network(backend), X, y, l2=0.3)
    at = f.parameters()
    _, gradient = f(at)
    direction = np.random.default_rng(0).standard_normal(len(at)) * (gradient != 0)
    slope = (f(at + 1e-6 * direction)[0] - f(at - 1e-6 * direction)[0]) / 2e-6
    assert slope == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_a_batch_size_is_found_by_measuring(backend):
    if backend == "cuda":
        pytest.skip("the emulated device would measure for minutes")
    X, y = data(100)
    trainer = Trainer(network(backend), batch_size="tune")
    trainer.fit(X, y, 1)
    assert trainer.batch_size > 0


# ---------------------------------------------------------------- networks


def test_a_network_moves_and_is_cut_with_its_tables(backend):
    X, _ = data()
    net = network("numpy", n_models=3)
    before, outputs = theta(net), net.predict(X)
    net.move_to(backend)
    assert np.array_equal(theta(net), before)
    assert np.allclose(net.predict(X), outputs, rtol=1e-11)
    some = net.take([2, 0])
    assert np.array_equal(some.embeddings[1], net.embeddings[1][[2, 0]])
    assert np.allclose(some.predict(X), outputs[[2, 0]], rtol=1e-11)
    with pytest.raises(ConfigurationError, match="embeddings must be equal"):
        net.put(0, network(backend, embeddings=(CITIES,)))


def test_a_table_is_set_for_one_or_for_all(backend):
    net = network(backend, n_models=2)
    E = np.arange(15.0).reshape(5, 3)
    net.set_embedding(0, E)
    assert np.array_equal(net.embeddings[0], [E, E])
    net.set_embedding(1, [np.ones((2, 2)), np.zeros((2, 2))])
    assert np.array_equal(net.embeddings[1][:, 0, 0], [1, 0])
    with pytest.raises(ShapeError, match=r"E\[0\].*\(5, 3\)"):
        net.set_embedding(0, E.T)
    for number in (2, -1):
        with pytest.raises(ConfigurationError, match="has 2"):
            net.set_embedding(number, E)


WRONG = {
    "a column beyond the last": ([Embedding(5, 3, 2)], "column has to be a whole number from 0 to 4"),
    "a column before the first": ([Embedding(-1, 3, 2)], "column"),
    "no categories": ([Embedding(0, 0, 2)], "n_categories has to be a whole number from 1 to 16777216"),
    "too many categories": ([Embedding(0, 2**24 + 1, 2)], "n_categories"),
    "no units": ([Embedding(0, 3, 0)], "n_units"),
    "half a unit": ([Embedding(0, 3, 1.5)], "n_units"),
    "a truth for a number": ([Embedding(True, 3, 1)], "column"),
    "text": ([Embedding(0, "3", 1)], "n_categories"),
    "a column twice": ([Embedding(2, 3, 1), Embedding(2, 4, 1)], "column 2 comes 2 times"),
    "what is no embedding": ([(0, 3, 1)], "is no gpumlp.Embedding"),
    "no list": (SHOPS, "expected a list of gpumlp.Embedding"),
    "nothing": (None, "embeddings=None: expected a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_embeddings_that_make_no_sense_are_refused(name):
    given, text = WRONG[name]
    with pytest.raises(ConfigurationError, match=text):
        Network(SIZES, embeddings=given)


def test_units_of_embeddings_count_as_neurons_of_the_first_layer():
    with pytest.raises(ConfigurationError, match="2147483647 neurons, units of embeddings counted in"):
        Network((200, 2), embeddings=[Embedding(column, 1, 2**24) for column in range(200)])


def test_embeddings_are_in_the_order_of_their_columns_and_plain_numbers():
    net = Network(SIZES, embeddings=[Embedding(np.int64(3), np.int32(2), 2), CITIES])
    assert net.architecture.embeddings == EMBEDDINGS
    assert all(type(e.column) is int for e in net.architecture.embeddings)
    assert net.architecture.n_embedded == 3 + 3 + 2
    assert net.parameters.layout.n_trainable == 6 * 8 + 4 * 6 + 3 * 4 + 13 + 15 + 4


def test_each_example_has_no_table_of_its_own(backend):
    with pytest.raises(ConfigurationError, match="embeddings"):
        network(backend).backpropagate(*data(), per_sample=True)
