"""Small mixed jobs, and each as it is alone."""

from dataclasses import replace

import numpy as np

import gpumlp
from gpumlp.ensembles import Job
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

N_IN, N_OUT = 5, 3


def data(n=61, seed=0):
    """Return X (n, 5) and labels (n,) of 3 classes that X explains in part."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, N_IN))
    return X, (X @ rng.standard_normal((N_IN, N_OUT)) + 0.3 * rng.standard_normal((n, N_OUT))).argmax(axis=1)


def member(
    hidden=(6,),
    activation="tanh",
    smoothing=0.0,
    dropout=0.0,
    normalisation=None,
    seed=0,
    model_id=0,
    initialiser="he",
    embeddings=(),
):
    cost = f"categorical_cross_entropy(label_smoothing={smoothing})" if smoothing else "categorical_cross_entropy"
    architecture = build_architecture((N_IN, *hidden, N_OUT), activation, "softmax", cost, normalisation, embeddings)
    rates = (dropout,) * len(hidden) if isinstance(dropout, float) else tuple(dropout)
    return Member(architecture, rates, seed, model_id, initialiser)


def job(epochs=3, batch_size=16, **options):
    """Return a small job; options of its member and its own."""
    names = ("hidden", "activation", "smoothing", "dropout", "normalisation", "seed", "model_id", "initialiser")
    names += ("embeddings",)
    own = {name: options.pop(name) for name in names if name in options}
    return Job(member(**own), epochs, batch_size=batch_size, **options)


def solo(job, X, Y, dtype="float64", backend="numpy"):
    """Return network, history and error of a job as a Network and a Trainer of their own give them."""
    m, net = job.member, job.member.architecture
    network = gpumlp.Network(
        net.sizes,
        net.activations[:-1],
        net.activations[-1],
        net.cost,
        initialiser=m.initialiser,
        dropout=m.dropout,
        dtype=dtype,
        backend=backend,
        seed=m.seed,
        model_ids=[m.model_id],
        normalisation=net.normalisation,
        embeddings=net.embeddings,
    )
    for l, (W, b) in enumerate(job.weights or ()):
        network.set_weights(l, W, b)
    names = ("learning_rate", "batch_size", "reduction", "l2", "l1", "clip_norm", "schedule", "shuffle")
    names += ("train_biases", "momentum_on_biases", "penalty")
    trainer = gpumlp.Trainer(network, job.optimizer, **{name: getattr(job, name) for name in names})
    rows = slice(None) if job.rows is None else job.rows
    held_out = None if job.validation_rows is None else (X[job.validation_rows], Y[job.validation_rows])
    weights = None if job.sample_weight is None else job.sample_weight[rows]
    error = None
    try:
        trainer.fit(X[rows], Y[rows], job.epochs, held_out, weights, monitors=job.monitors)
    except gpumlp.errors.DivergenceError as diverged:
        error = diverged
    return network, trainer.history, error


RULES = {
    "sgd": lambda draw: "sgd",
    "momentum": lambda draw: gpumlp.rules.momentum(draw.choice([0.5, 0.9])),
    "adam": lambda draw: gpumlp.rules.adam(beta1=draw.choice([0.8, 0.9]), beta2=draw.choice([0.99, 0.999])),
    "adamw": lambda draw: gpumlp.rules.adamw(weight_decay=draw.choice([0.0, 0.1])),
}
SCHEDULES = (None, "cosine", "exponential(rate=0.8)", "reduce_on_plateau(patience=0, threshold=0.1)")


def mixed_jobs(n_jobs, n_rows, rule="adam", n_hidden=2, seed=0, widths=(3, 12), **common):
    """Return jobs of one kind that differ in all that may differ within it.

    widths   of hidden layers: from the first number up to the second
    common   options of all jobs
    """
    draw = np.random.default_rng(seed)

    def pick(*values):
        return values[draw.integers(len(values))]

    folds = [draw.permutation(n_rows)[:15] for _ in range(5)]
    jobs = []
    for _ in range(n_jobs):
        held_out = pick(*folds)
        own = {
            "epochs": pick(2, 4, 5),
            "hidden": tuple(int(n) for n in draw.integers(*widths, n_hidden)),
            "activation": [pick("relu", "tanh", "sigmoid", "gelu", "leaky_relu(slope=0.2)") for _ in range(n_hidden)],
            "dropout": tuple(pick(0.0, 0.25, 0.5) for _ in range(n_hidden)),
            "smoothing": pick(0.0, 0.1),
            "initialiser": pick("he", "glorot", "nielsen"),
            "seed": pick(0, 1),
            "model_id": pick(0, 1, 2),
            "optimizer": RULES[rule](draw),
            "learning_rate": float(10 ** draw.uniform(-3, -1)),
            "l1": pick(0.0, 1e-3),
            "l2": pick(0.0, 1e-2),
            "clip_norm": pick(None, 0.1, 1.0),
            "schedule": pick(*SCHEDULES),
            "rows": np.setdiff1d(np.arange(n_rows), held_out),
            "validation_rows": held_out,
            "sample_weight": pick(np.ones(n_rows), draw.uniform(0.1, 2, n_rows)),
            "monitors": pick((), ("early",), ("best",), ("early", "best")),
        }
        jobs.append(job(**own | common))
    return jobs


MONITORS = {
    "early": lambda: gpumlp.EarlyStopping("validation_cost", patience=1),
    "best": lambda: gpumlp.KeepBest(accuracy, mode="max"),
}


def accuracy(y, outputs):
    return (outputs.argmax(axis=1) == y).mean()


def with_monitors(job):
    """Return the job with monitors of its own for the names that stand in their place."""
    return replace(job, monitors=[MONITORS[name]() for name in job.monitors])
