"""Whole trainings, and the same in a process of its own.

python cuda_runs.py FILE.npz [memcheck] writes what they give.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from cuda_cases import compute, draw, gather, layer, norm, on_host, output, update
from embedded_rows import embedded
from mixed_layers import mixed
from normalised_layers import normalised
from stopping import StopAt

import gpumlp
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

HERE = Path(__file__).parent


def train(
    backend,
    sizes=(4, 6, 2),
    activation="tanh",
    result="identity",
    cost="quadratic",
    n_rows=23,
    epochs=2,
    classes=False,
    weights=None,
    explicit=False,
    folds=None,
    validation=True,
    monitors=(),
    device=None,
    seed=9,
    model_ids=None,
    dtype="float32",
    noted=None,
    members=None,
    pool=None,
    ends=None,
    **options,
):
    """Train and return {name: array}: parameters, state, history, outputs and scores.

    classes    whether the targets name classes
    weights    None, "shared" or "own"
    explicit   whether the order of the rows is given
    members    of a mixed stack, in place of all that describes a network
    pool       as of Trainer.fit
    ends       after which epoch each model is stopped
    folds      sizes of folds, which the models have in turn and are trained and evaluated on
    noted      list that is given what was captured: the training's step, then the validation's
    options    of Network: n_models, dropout, normalisation, embeddings, initialiser, precision; all others of Trainer
    """
    of_network = {k: options.pop(k) for k in OF_NETWORK if k in options}
    placed = {"backend": backend, "device": device, "dtype": dtype}
    if members is None:
        net = gpumlp.Network(sizes, activation, result, cost, seed=seed, model_ids=model_ids, **placed, **of_network)
    else:
        net = gpumlp.Network.mixed(members, **placed)
    captured, sizes = note_captures(net.backend), net.sizes
    rng = np.random.default_rng(1)
    X = draw(1, n_rows, sizes[0])
    for embedding in net.architecture.embeddings:
        X[:, embedding.column] = rng.integers(-1, embedding.n_categories, n_rows)
    T = np.tanh(X @ draw(2, sizes[0], sizes[-1]))
    Y = T if not classes else T.argmax(axis=1) if sizes[-1] > 1 else (T > 0).astype(int)
    if weights:
        weights = rng.uniform(0, 2, (net.n_models, n_rows) if weights == "own" else n_rows)
    order = np.array([rng.permutation(n_rows) for _ in range(epochs)]) if explicit else None
    trainer = gpumlp.Trainer(net, **{"batch_size": 5, "learning_rate": 0.01, **options})
    start = learned(net)
    validation = (X[::2], Y[::2]) if validation else None
    if folds is not None:
        rows = tuple(rng.permutation(n_rows)[:n] for n in folds)
        validation = folds = gpumlp.Folds(rows, tuple(m % len(rows) for m in range(net.n_models)))
    monitors = [*monitors, *([] if ends is None else [StopAt(ends)])]
    given = {"sample_weight": weights, "order": order, "monitors": monitors, "folds": folds, "pool": pool}
    history = trainer.fit(X, Y, epochs, validation, **given)
    if noted is not None:
        noted += graphs_in(captured)
    found = {f"start {i}": x for i, x in enumerate(start)}
    found |= {f"parameters {i}": x for i, x in enumerate(learned(net))}
    found |= {f"{name} {l}": x.copy() for l, of in enumerate(net.normalising) for name, x in of.items()}
    for name, x in trainer.state.items():
        found |= {f"state {name} {i}": part for i, part in enumerate(parts_of_models(net, on_host(net.backend, x)))}
    found |= {f"history {name}": np.array(history[name]) for name in history.names if name not in NOT_RESULTS}
    found |= {f"score {name}": x for name, x in net.evaluate(X, Y, weights).items()}
    return {**found, "outputs": net.predict(X)}


def learned(net):
    """Return a copy of all weights and biases; of a mixed stack model by model, as large as they are."""
    if net.is_mixed:
        return parts_of_models(net, on_host(net.backend, net.parameters.theta))
    return [x.copy() for x in (*net.weights, *net.embeddings, *net.biases)]


def parts_of_models(net, values):
    """Return what is laid out as theta; of a mixed stack, whose layout depends on the backend, each model's tensors."""
    return [x for m in range(net.n_models) for x in net._tensors_in(values, m)] if net.is_mixed else [values]


def note_captures(backend):
    """Return a list to which all is added that `capture` returns from now on."""
    noted, capture = [], backend.capture

    def noting(step, times=1):
        noted.append(capture(step, times))
        return noted[-1]

    backend.capture = noting
    return noted


def graphs_in(noted):
    """What has become a graph, in the order in which it was captured."""
    return [step for step in noted if getattr(step, "graph", None) is not None]


OF_NETWORK = ("n_models", "dropout", "normalisation", "embeddings", "initialiser", "precision")
NOT_RESULTS = ("seconds", "samples_per_second")


def build_members(*of_each):
    """Return members (sizes of the hidden layers, activations, dropout) of a stack that classifies."""
    return [
        Member(build_architecture((4, *widths, 3), kinds, "softmax", "categorical_cross_entropy"), rates, 9, m)
        for m, (widths, kinds, rates) in enumerate(of_each)
    ]


TRAININGS = {
    "classes, dropout, clipping, decay": {
        "sizes": (3, 33, 130, 5),
        "activation": "relu",
        "result": "softmax",
        "cost": "categorical_cross_entropy",
        "classes": True,
        "n_models": 3,
        "dropout": 0.3,
        "clip_norm": 0.5,
        "l2": 0.01,
        "batch_size": 7,
        "schedule": "cosine",
    },
    "one class, weights of each model, sums": {
        "sizes": (33, 3, 1),
        "result": "sigmoid",
        "cost": "cross_entropy",
        "classes": True,
        "n_models": 3,
        "weights": "own",
        "optimizer": "momentum",
        "reduction": "sum",
        "shuffle": "shared",
        "learning_rate": [0.001, 0.002, 0.003],
    },
    "explicit order, double": {
        "sizes": (4, 7, 8, 2),
        "activation": "gelu",
        "n_models": 2,
        "dtype": "float64",
        "explicit": True,
        "weights": "shared",
        "optimizer": "nadam",
        "l1": 0.001,
        "dropout": [0.0, 0.5],
    },
    "units and batches normalised": {
        "sizes": (4, 33, 8, 7, 2),
        "activation": ["tanh", "gelu", "silu"],
        "normalisation": ["batch", "layer", "batch"],
        "n_models": 3,
        "dropout": 0.2,
        "weights": "own",
        "clip_norm": 1.0,
    },
    "embedded columns": {
        "sizes": (5, 7, 3),
        "n_models": 3,
        "embeddings": [gpumlp.Embedding(1, 5, 3), gpumlp.Embedding(4, 17, 33)],
        "weights": "own",
        "dropout": 0.2,
        "clip_norm": 1.0,
        "l2": 0.01,
    },
    "large batches of embedded columns, several chunks": {
        "sizes": (3, 4, 2),
        "embeddings": [gpumlp.Embedding(0, 3, 2), gpumlp.Embedding(1, 9, 4)],
        "n_models": 2,
        "n_rows": 1100,
        "batch_size": 1000,
        "shuffle": "shared",
        "dtype": "float64",
    },
    "large batches normalised, several chunks": {
        "sizes": (4, 132, 33, 11),
        "normalisation": ["batch", "layer"],
        "n_rows": 700,
        "batch_size": 600,
        "dtype": "float64",
    },
    "models that differ": {
        "members": build_members(
            ((33, 8), ("softplus", "tanh"), (0.3, 0.2)),
            ((20, 8), ("gelu", "tanh"), (0.0, 0.0)),
            ((7, 8), ("softplus", "tanh"), (0.5, 0.1)),
        ),
        "classes": True,
        "learning_rate": [0.001, 0.01, 0.002],
        "l2": [0.0, 0.01, 0.1],
        "clip_norm": [0.5, 1.0, 2.0],
        "batch_size": 7,
    },
    "large batches of models that differ, double": {
        "members": build_members(
            ((16, 3), ("tanh", "sigmoid"), (0.0, 0.4)),
            ((9, 5), ("tanh", "relu"), (0.0, 0.4)),
        ),
        "classes": True,
        "dtype": "float64",
        "n_rows": 2300,
        "batch_size": 2051,
        "optimizer": "momentum",
    },
    "pools, steps together, models that stop": {
        "sizes": (5, 7, 3),
        "n_models": 4,
        "embeddings": [gpumlp.Embedding(1, 5, 3), gpumlp.Embedding(4, 17, 33)],
        "weights": "own",
        "dropout": 0.2,
        "schedule": "cosine",
        "pool": gpumlp.Pool(10, blocks=2),
        "steps_per_launch": 2,
        "ends": (2, 9, 2, 4),
        "epochs": 5,
        "n_rows": 43,
    },
    "parts of batches, folds, models that differ and stop": {
        "members": build_members(
            ((33, 8), ("softplus", "tanh"), (0.3, 0.2)),
            ((20, 8), ("gelu", "tanh"), (0.0, 0.0)),
            ((7, 8), ("softplus", "tanh"), (0.5, 0.1)),
            ((7, 9), ("softplus", "relu"), (0.5, 0.0)),
        ),
        "classes": True,
        "weights": "own",
        "folds": (17, 18, 20),
        "micro_batch": 3,
        "batch_size": 8,
        "clip_norm": 1.0,
        "l2": 0.01,
        "penalty": "batch",
        "ends": (9, 2, 9, 3),
        "epochs": 5,
    },
    "large batches, several chunks": {
        "sizes": (4, 33, 11),
        "activation": "silu",
        "n_rows": 700,
        "batch_size": 600,
        "optimizer": "rmsprop",
        "dropout": 0.1,
        "clip_norm": 1.0,
    },
}

CASES = {
    "wide layer": layer("tanh", batch=300, n_out=130, rate=0.3),
    "unaligned layer": layer("gelu", batch=517, n_out=33),
    "layer of long columns": layer("tanh", 2, 5003, 1, 4, 1, in_place=True),
    "narrow layer": layer("tanh", batch=2051, n_out=16, in_place=True),
    "batch normalised": normalised("batch, weights of each model", "gelu", 3, 331, 2, 33, 0.3),
    "wide batch normalised": normalised("batch", "tanh", 2, 300, 2, 132),
    "rows normalised": normalised("layer", "gelu", 3, 331, 2, 33, 0.3),
    "wide rows normalised": normalised("layer", "tanh", 2, 300, 2, 132),
    "long rows normalised": normalised("layer", "tanh", 2, 35, 2, 1028, 0.3),
    "models that differ": mixed(("gelu", "tanh", "exp"), (33, 20, 1), (0.5, 0.0, 0.3), 517),
    "models that differ, aligned": mixed(("sigmoid", "tanh"), (130, 97), (0.2, 0.0), 300, in_place=True),
    "embedded": embedded([(1, 3, 33), (2, 17, 5)], 3, 700, own_rows=True),
    "embedded, one chunk": embedded([(0, 300, 2), (4, 5, 4)], 2, 65),
    "output": output("categorical_cross_entropy", "softmax", batch=301, n_out=10, hits=True),
    "long rows": output("categorical_cross_entropy", "softmax", 2, 70, 1028, hits=True),
    "long rows, one cost": output("quadratic", "tanh", batch=35, n_out=1032, hits=True, train=False),
    "groups of chunks": output("quadratic", "tanh", batch=331, n_out=33, steps=2),
    "evaluation": output("quadratic", "tanh", batch=600, hits=True, train=False, weights_per_model=True),
    "batches": gather(n_rows=300, batch=257, n_in=16, x_dtype="uint8", labels="int64", weights="own", rule="adamw"),
    "norm": norm(draw(1, 3, 70016)),
    "norm of many": norm(draw(1, 1, 1200000)),
    "update": update("adam", ("clip", "l2"), bounds=(0, 6016, 7040), skipped=(1,)),
}


def everything():
    """What all trainings and cases give on cuda, as one dictionary."""
    found = {}
    for name, options in TRAININGS.items():
        found |= {f"{name}: {key}": value for key, value in train("cuda", **options).items()}
    for name, case in CASES.items():
        found |= {f"{name}: {key}": value for key, value in compute(case, "cuda", "float32").items()}
    return found


def everything_elsewhere(folder, *arguments, **environment):
    """The same from a process of its own, with the emulated device under these settings."""
    path = Path(folder) / "found.npz"
    run_python([str(HERE / "cuda_runs.py"), str(path), *arguments], GPUMLP_TEST_DEVICE="emulated", **environment)
    with np.load(path) as found:
        return dict(found)


def run_python(arguments, **environment):
    """Run Python in a process of its own, in which this folder's modules and the emulated device can be imported."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expect_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].tobytes() == value.tobytes(), name


if __name__ == "__main__":
    import emulated_gpu

    if "memcheck" in sys.argv:
        emulated_gpu.memcheck()
    np.savez(sys.argv[1], **everything())
