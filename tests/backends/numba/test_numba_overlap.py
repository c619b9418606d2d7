"""Weights that are moved beside a product: only those that nobody needs any more, and each once."""

import numpy as np
import pytest
from numpy.lib.array_utils import byte_bounds

import gpumlp
from gpumlp.backends import numba_backend, numba_overlap, threads
from gpumlp.backends.numba_overlap import touched_by, with_update
from gpumlp.backends.numba_program import Atoms, Pieces, Room, Together
from gpumlp.network.parameters import ParameterLayout

RNG = np.random.default_rng(4)
X, LABELS = RNG.random((90, 24)), RNG.integers(0, 5, 90)
X[:, 3] = RNG.integers(0, 7, 90)
SIZES = [24, 33, 40, 33, 5]

NETS = {
    "plain": {},
    "dropout": {"dropout": 0.4},
    "layer normalisation": {"normalisation": "layer"},
    "batch normalisation": {"normalisation": "batch"},
    "embeddings": {"embeddings": [gpumlp.Embedding(3, 7, 5)]},
    "a stack": {"n_models": 3},
}
TRAININGS = {
    "adam": {"l2": 0.01},
    "momentum": {"optimizer": "momentum", "learning_rate": 0.05, "momentum_on_biases": False, "l1": 0.001},
    "clipped": {"clip_norm": 0.3},
    "micro-batches": {"micro_batch": 8},
}
PAIRS = [(n, t) for n in NETS for t in TRAININGS if (n, t) != ("batch normalisation", "micro-batches")]
MOVED_EARLY = [pair for pair in PAIRS if pair[0] != "a stack" and pair[1] in ("adam", "momentum")]


class Plan:
    """A step's items, the plan made of them with the update, and which parameters each stage of it moves."""

    def __init__(self, items, theta, grad, move):
        self.items, self.theta, self.grad, self.moved = list(items), theta, grad, []

        def noted(params):
            self.moved.append((move(params), params))
            return self.moved[-1][0]

        self.plan = with_update(items, theta, grad, noted)

    def early(self):
        """Yield where weights are moved beside an item, and which."""
        for i, found in enumerate(self.plan[: len(self.items)]):
            if found is not self.items[i]:
                stages = set(map(id, found._stages))
                yield from ((i, params) for stage, params in self.moved if id(stage) in stages)


@pytest.fixture
def plans(monkeypatch):
    """Three threads, to which all is dealt out, and even small vectors worth moving; return the plans made."""
    made = []

    def spy(*given):
        made.append(Plan(*given))
        return made[-1].plan

    monkeypatch.setattr(threads, "count", lambda: 3)
    monkeypatch.setattr(threads, "divides_products", lambda: True)
    monkeypatch.setattr(numba_backend, "PIECE_WORK", 1)
    monkeypatch.setattr(numba_overlap, "WORTH_MOVING", 32)
    monkeypatch.setattr(numba_backend, "with_update", spy)
    return made


def trained(net, training, backend="numba"):
    model = gpumlp.Network(SIZES, activation="tanh", seed=3, backend=backend, dtype="float64", **NETS[net])
    trainer = gpumlp.Trainer(model, **{"batch_size": 24, **TRAININGS[training]})
    history = trainer.fit(X, LABELS, epochs=3)
    return [model.parameters.theta.copy(), *(x.copy() for x in trainer.state.values()), history["cost"]]


@pytest.mark.parametrize(("net", "training"), PAIRS)
def test_weights_moved_early_have_the_bits_of_those_moved_last(net, training, plans, monkeypatch):
    early = trained(net, training)
    monkeypatch.setattr(numba_overlap, "WORTH_MOVING", 1 << 40)
    for one, other in zip(early, trained(net, training), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(early, trained(net, training, "numpy"), strict=True):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("net", "training"), MOVED_EARLY)
def test_all_layers_behind_which_a_gradient_comes_are_moved_beside_it(net, training, plans, monkeypatch):
    monkeypatch.setattr(numba_overlap, "WORTH_MOVING", 64)
    trained(net, training)
    early = weights_of(net) if net == "embeddings" else weights_of(net)[1:]
    for plan in plans:
        assert [params.start for _, params in plan.early()] == early[::-1]
        assert len({place for place, _ in plan.early()}) == len(early)


def weights_of(net):
    """Return where the weights of each layer begin."""
    embeddings = tuple(NETS[net].get("embeddings", ()))
    return ParameterLayout(tuple(SIZES), embeddings=embeddings).offsets[: len(SIZES) - 1]


@pytest.mark.parametrize(("net", "training"), PAIRS)
def test_each_parameter_is_moved_once_and_behind_all_that_touch_it(net, training, plans):
    trained(net, training)
    assert bool(plans) == (net != "a stack")
    for plan in plans:
        moved = np.concatenate([np.arange(params.start, params.stop) for _, params in plan.moved])
        assert np.array_equal(np.sort(moved), np.arange(plan.theta.shape[1]))
        for i, params in plan.early():
            weights = plan.theta[:, params]
            assert not any(np.shares_memory(weights, x) for item in plan.items[i:] for x in touched_by(item))


@pytest.mark.parametrize("net", [net for net in NETS if net != "a stack"])
def test_a_stage_says_all_that_it_touches_of_weights_and_gradients(net, plans):
    trained(net, "adam")
    for plan in plans:
        told = [item for item in plan.items if touched_by(item) is not None]
        assert len(told) > len(SIZES)
        for item in told:
            said = [byte_bounds(x) for x in item.touches]
            arrays = [x for call in item.of_models(0, 1, Room()) for x in call.kept if isinstance(x, np.ndarray)]
            for x in arrays:
                if any(np.shares_memory(x, y) for y in (plan.theta, plan.grad)):
                    begin, end = byte_bounds(x)
                    assert any(low <= begin and end <= high for low, high in said)


def test_weights_that_are_read_late_are_moved_later(monkeypatch):
    monkeypatch.setattr(numba_overlap, "WORTH_MOVING", 64)
    theta, grad, others = np.zeros((1, 192)), np.zeros((1, 192)), np.zeros(8)

    def item(*arrays):
        return Pieces(1, 1, 1e6, lambda *given: [], arrays)

    def tensor(of, which):
        return of[:, 64 * which : 64 * (which + 1)]

    def beside(**items):
        plan = Plan(list(items.values()), theta, grad, lambda params: Atoms(1, 64, 1e6, None))
        names = list(items)
        return [(names[place], params.start // 64) for place, params in plan.early()]

    dW2, dW1, dW0 = (item(others, tensor(grad, which)) for which in (2, 1, 0))
    reads_W2, silent = item(tensor(theta, 2), others), Pieces(1, 1, 1e6, lambda *given: [])
    assert beside(dW2=dW2, dW1=dW1, dW0=dW0) == [("dW1", 2), ("dW0", 1)]
    assert beside(dW2=dW2, dW1=dW1, reads_W2=reads_W2, dW0=dW0) == [("dW0", 1), ("dW0", 2)]
    assert beside(dW2=dW2, reads_W2=reads_W2, dW1=dW1, dW0=dW0) == [("dW1", 2), ("dW0", 1)]
    assert beside(dW2=dW2, dW1=dW1, dW0=dW0, reads_W2=reads_W2) == [("dW0", 1)]
    assert beside(dW2=dW2, silent=silent, dW1=dW1, dW0=dW0) == [("dW0", 1)]


@pytest.mark.parametrize("training", ["clipped", "micro-batches"])
def test_nothing_is_moved_before_what_does_not_say_what_it_touches(training, plans):
    trained("plain", training)
    for plan in plans:
        assert not list(plan.early())
        assert [params for _, params in plan.moved] == [slice(0, plan.theta.shape[1])]


def test_threads_go_through_stages_that_are_done_together_in_opposite_orders():
    update = Atoms(1, 6, 1e6, lambda first, last, room: ("update", first, last))
    product = Pieces(1, 3, 1e6, lambda first, last, piece, room: [("product", piece)])
    shares = [Together([update, product]).of_thread(thread, 3, Room()) for thread in range(3)]
    assert shares == [
        [("update", 0, 2), ("product", 0)],
        [("product", 1), ("update", 2, 4)],
        [("update", 4, 6), ("product", 2)],
    ]
