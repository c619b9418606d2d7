"""What a step costs: launches, and nothing that allocates, copies or waits."""

from collections import Counter

import emulated_gpu
import numpy as np
import pytest
from cuda_cases import draw
from cuda_runs import TRAININGS, build_members, expect_same_bits, train
from devices import cupy_on

import gpumlp

cupy_on("emulated")


class Counts(gpumlp.Monitor):
    """Notes what has happened on the device by the end of each step."""

    def training_began(self, run):
        self.seen, self.n_steps = [], run.n_steps

    def step_ended(self, step):
        self.seen.append(emulated_gpu.snapshot())

    def steps(self):
        """What happened in each step, {group: {key: count}}, but for the first of an epoch, before which much does."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [difference(*pair) for i, pair in enumerate(pairs, 1) if i % self.n_steps]


def difference(before, after):
    return {group: dict(keys - before[group]) for group, keys in after.items() if keys - before[group]}


def nodes_of(graph):
    """The names of a graph's nodes, as the device's own listing has them."""
    lines = graph.debug_dot_str().splitlines()
    return Counter(lines[i + 1].strip() for i, line in enumerate(lines) if 'label="' in line and "_node_" in line)


# launches that a normalised layer has besides, and those that it has instead
NORMALISING = {
    "layer": {"normalise_rows": 1, "rows_delta": 1, "bias_activation": -1},
    "batch": {
        "batch_statistics": 1,
        "normalise_batch": 1,
        "gamma_gradients": 1,
        "batch_delta": 1,
        "bias_activation": -1,
    },
    None: {},
}


def expected(n_layers, clip=False):
    once = {"gather_batch": 1, "output_delta": 1, "update": 1, "GemmStridedBatchedEx": 3 * n_layers - 1}
    hidden = {"bias_activation": n_layers - 1, "hidden_delta": n_layers - 1} if n_layers > 1 else {}
    return {**once, **hidden, **({"gradient_norm": 1} if clip else {})}


SIZES = {1: (4, 2), 2: (4, 6, 2), 3: (4, 33, 7, 2), 4: (4, 8, 6, 5, 2)}
WAYS = {
    "plain": {},
    "several models": {"n_models": 3},
    "weights of each model": {"n_models": 3, "weights": "own"},
    "shared weights, sums": {"weights": "shared", "reduction": "sum"},
    "explicit order": {"explicit": True},
    "shared order": {"n_models": 3, "shuffle": "shared"},
    "as the rows stand": {"shuffle": False},
    "schedule": {"schedule": "cosine"},
    "schedules": {"n_models": 2, "schedule": ["cosine", None]},
    "folds": {"n_models": 3, "folds": (16, 17, 20)},
    "penalties": {"l1": 0.1, "l2": 0.1},
    "double": {"dtype": "float64"},
    "tf32": {"precision": "tf32"},
    "labels": {"classes": True, "result": "softmax", "cost": "categorical_cross_entropy"},
    "f' reads z": {"activation": "gelu"},
}


def count(noted=None, **options):
    counts = Counts()
    train("cuda", monitors=[counts], noted=noted, **options)
    return counts


def expect_only_graphs(counts, n_layers, clip, noted):
    """The second step records the graph; each later one is one launch of it, and nothing else happens."""
    wanted = expected(n_layers, clip)
    assert sum(wanted.values()) == 5 * n_layers + clip
    only_a_graph = {"graphs": {"launches": 1}, "graph_nodes": wanted}
    second, *later = counts.steps()
    assert {k: second[k] for k in ("graph_nodes", "captured")} == {"graph_nodes": wanted, "captured": wanted}
    assert set(second) == {"graphs", "graph_nodes", "captured", "gemm"}
    assert len(later) > 2
    assert later == [only_a_graph] * len(later)
    assert nodes_of(noted[0].graph) == wanted


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_a_step_is_one_graph_of_five_launches_for_each_layer(n_layers, clip):
    noted, options = [], {"clip_norm": 1.0} if clip else {}
    counts = count(noted, sizes=SIZES[n_layers], epochs=2, **options)
    expect_only_graphs(counts, n_layers, clip, noted)


@pytest.mark.parametrize("kinds", [("layer", None), ("batch", "layer"), ("batch", "batch")], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_layer_normalised_over_units_costs_one_launch_more_and_one_over_a_batch_three(activation, kinds):
    noted = []
    counts = count(noted, sizes=SIZES[3], epochs=2, normalisation=kinds, activation=activation, dropout=0.3)
    wanted = Counter(expected(3))
    for kind in kinds:
        wanted.update(NORMALISING[kind])
    wanted = dict(+wanted)
    assert sum(wanted.values()) == 5 * 3 + kinds.count("layer") + 3 * kinds.count("batch")
    _, *later = counts.steps()
    assert later == [{"graphs": {"launches": 1}, "graph_nodes": wanted}] * len(later)
    assert nodes_of(noted[0].graph) == wanted


@pytest.mark.parametrize(
    "more", [{}, {"n_models": 3, "dropout": 0.3}, {"dtype": "float64"}, {"precision": "tf32"}], ids=str
)
def test_embedded_columns_cost_three_launches_however_many_they_are(more):
    for embeddings in ([(1, 5, 3)], [(0, 9, 2), (1, 5, 3), (3, 4, 40)]):
        noted, given = [], [gpumlp.Embedding(*e) for e in embeddings]
        counts = count(noted, sizes=SIZES[3], epochs=2, embeddings=given, **more)
        wanted = Counter(expected(3)) + Counter(embed=1, sum_by_code=1, GemmStridedBatchedEx=1)
        _, *later = counts.steps()
        assert later == [{"graphs": {"launches": 1}, "graph_nodes": dict(wanted)}] * len(later)
        assert nodes_of(noted[0].graph) == wanted


@pytest.mark.parametrize("way", list(WAYS))
def test_what_a_step_does_besides_costs_no_launch(way):
    noted = []
    dropout = {} if way in ("double", "tf32") else {"dropout": 0.3}
    counts = count(noted, sizes=SIZES[3], epochs=2, **dropout, **WAYS[way])
    expect_only_graphs(counts, 3, False, noted)


KINDS = ("relu", "tanh", "sigmoid", "gelu", "softplus", "elu")


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.3, 0.3), (0.0, 0.3)], ids=str)
@pytest.mark.parametrize(("n_models", "n_kinds"), [(2, 1), (2, 2), (9, 6)])
def test_models_that_differ_cost_no_launch_however_many_they_are(n_models, n_kinds, rates):
    noted = []
    of_each = [
        ((7 - m % 3, 5 + m), (KINDS[m % n_kinds], KINDS[-1 - m % n_kinds]), (rates[m % 2], rates[0]))
        for m in range(n_models)
    ]
    counts = count(noted, members=build_members(*of_each), classes=True, epochs=2)
    expect_only_graphs(counts, 3, False, noted)


@pytest.mark.parametrize("name", [name for name, options in TRAININGS.items() if "ends" not in options])
def test_an_epoch_takes_no_memory_and_records_no_graph_once_there_have_been_two(name):
    began, ended = [], []

    class Epochs(gpumlp.Monitor):
        def epoch_began(self, epoch):
            began.append(emulated_gpu.snapshot())

        def epoch_ended(self, report):
            ended.append(emulated_gpu.snapshot())

    noted, options = [], {**TRAININGS[name], "epochs": 4, "n_rows": 23, "batch_size": 5}
    train("cuda", monitors=[Epochs()], noted=noted, **options)
    for before, after in zip(began[2:], ended[2:], strict=True):
        happened = difference(before, after)
        assert not {"captured", "modules", "memory"} & set(happened)
        assert happened["graphs"] == {"launches": 5 + 1}  # steps, and the batch of the validation set
    assert len(began) == 4


@pytest.mark.parametrize("together", [2, 5, 9])
def test_steps_that_are_launched_together_are_one_graph_with_the_same_bits(together):
    noted, seen = [], []

    class Epochs(gpumlp.Monitor):
        def epoch_began(self, epoch):
            seen.append(emulated_gpu.snapshot())

        step_ended = epoch_began

    options = {"sizes": SIZES[3], "dropout": 0.3, "clip_norm": 1.0, "epochs": 4, "validation": False}
    wanted = train("cuda", **options)
    expect_same_bits(train("cuda", noted=noted, monitors=[Epochs()], steps_per_launch=together, **options), wanted)
    launches, rest = divmod(5, together)  # of 5 steps
    last_epoch = difference(seen[-1 - launches - rest], seen[-1])
    assert last_epoch["graphs"] == {"launches": launches + rest}
    assert last_epoch["graph_nodes"] == {name: 5 * n for name, n in expected(3, clip=True).items()}
    assert set(last_epoch) == {"graphs", "graph_nodes", "memset_bytes"}
    assert sum(last_epoch["memset_bytes"].values()) == 8  # of the position, where the epoch begins
    largest = max((nodes_of(step.graph) for step in noted), key=Counter.total)
    times = together if launches else 1
    assert largest == {name: times * n for name, n in expected(3, clip=True).items()}


def test_without_graphs_a_step_is_as_many_launches(monkeypatch):
    monkeypatch.setenv("GPUMLP_CUDA_GRAPHS", "off")
    steps = count(sizes=SIZES[3], epochs=2, clip_norm=1.0).steps()
    kernels = expected(3, clip=True)
    products = kernels.pop("GemmStridedBatchedEx")
    for step in steps:
        assert step.pop("gemm")
        assert step == {"launches": kernels, "cublas": {"GemmStridedBatchedEx": products}}


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_batch_of_an_evaluation_is_one_graph_without_a_way_back(n_layers, monkeypatch):
    monkeypatch.setattr("gpumlp.network.evaluation.ROWS_AT_A_TIME", 8)
    sizes, noted, seen = SIZES[n_layers], [], []

    class Snapshots(gpumlp.Monitor):
        def epoch_ended(self, report):
            seen.append(emulated_gpu.snapshot())

    train("cuda", sizes=sizes, epochs=3, n_rows=45, classes=n_layers == 2, monitors=[Snapshots()], noted=noted)
    evaluation = noted[1]
    wanted = {"gather_batch": 1, "GemmStridedBatchedEx": n_layers, "evaluate": 1}
    wanted |= {"bias_activation": n_layers - 1} if n_layers > 1 else {}
    assert nodes_of(evaluation.graph) == wanted
    happened = difference(*seen[1:])
    assert happened["graph_nodes"]["evaluate"] == 3  # 23 rows, 8 at a time
    assert happened["graphs"] == {"launches": 9 + 3}
    with emulated_gpu.counting() as of_one, of_device(evaluation):
        evaluation()
    assert {group: keys for group, keys in of_one.items() if group != "queries"} == {
        "graphs": {"launches": 1},
        "graph_nodes": wanted,
    }


def of_device(captured):
    return captured._device.session()


def test_a_prediction_copies_inputs_in_and_outputs_out_and_no_more():
    net = gpumlp.Network((4, 6, 2), "tanh", n_models=3, backend="cuda")
    X = draw(1, 23, 4)
    net.predict(X)
    with emulated_gpu.counting() as counted:
        net.predict(X)
    assert counted["launches"]["bias_activation"] == counted["launches"]["softmax"] == 1
    assert counted["cublas"]["GemmStridedBatchedEx"] == 2
    assert counted["memcpy_bytes"]["DeviceToHost"] == 3 * 23 * 2 * 4
    assert counted["memcpy_bytes"]["HostToDevice"] == X.nbytes
    assert not counted["memory"]


@pytest.mark.parametrize("on_folds", [False, True], ids=["all rows", "folds"])
def test_data_go_to_the_device_once_in_their_own_dtype(on_folds):
    X, labels = np.random.default_rng(0).integers(0, 255, (4000, 16), np.uint8), np.arange(4000) % 3
    net = gpumlp.Network((16, 8, 3), n_models=2, backend="cuda")
    folds = gpumlp.Folds((np.arange(50), np.arange(20, 70)), (0, 1)) if on_folds else None
    with emulated_gpu.counting() as counted:
        gpumlp.Trainer(net, batch_size=50).fit(X, labels, 3, folds=folds, validation=folds)
    assert X.nbytes + labels.nbytes <= counted["memcpy_bytes"]["HostToDevice"] < X.nbytes + labels.nbytes + 6000


def test_a_prediction_looks_codes_up_once():
    net = gpumlp.Network((3, 6, 2), "tanh", n_models=3, backend="cuda", embeddings=[gpumlp.Embedding(1, 4, 3)])
    X = np.ones((23, 3))
    net.predict(X)
    with emulated_gpu.counting() as counted:
        net.predict(X)
    assert counted["launches"] == {"embed": 1, "bias_activation": 1, "softmax": 1}
    assert counted["cublas"]["GemmStridedBatchedEx"] == 2
