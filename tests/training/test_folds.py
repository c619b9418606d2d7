"""A model of a stack that has a fold of the rows learns as if these rows were all there are."""

import numpy as np
import pytest
from comparing import theta
from small import classifier, data, labelled, network

import gpumlp
from gpumlp import Folds, costs, schedules
from gpumlp.errors import ConfigurationError, DataError
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member

ALLOWED = {"float32": 1e-4, "float64": 1e-10}
IDS = [7, 0, 3, 12]
N_ROWS = 26


def folds_of(*sizes, of_model=(1, 0, 1, 2), seed=0):
    """Folds in no order, which share rows."""
    rng = np.random.default_rng(seed)
    return Folds(tuple(rng.permutation(N_ROWS)[:n] for n in sizes), of_model)


UNEVEN = folds_of(17, 18, 16)  # four batches of five rows, of which the last has two, three or one
EVEN = folds_of(15, 15, 15)


def is_same(x, y, backend, dtype="float64"):
    """Tell whether two models are the same: on NumPy bit for bit."""
    if backend == "numpy":
        return x.tobytes() == y.tobytes()
    size = np.abs(y[np.isfinite(y)]).max(initial=0)
    return np.allclose(x, y, rtol=0, atol=ALLOWED[dtype] * max(1e-3, size), equal_nan=True)


def of_model(value, m):
    return value[m] if isinstance(value, list) else value


def check(backend, build, X, Y, folds, options=None, epochs=3, weights=None, validation=None, monitors=list):
    """Train a stack on folds, then each model alone on its rows, and compare parameters and history."""
    options = {"batch_size": 5, "learning_rate": [0.01, 0.02, 0.03, 0.04], **(options or {})}
    stack = build(model_ids=IDS, seed=4, backend=backend)
    start, dtype = theta(stack), stack.dtype.name
    history = gpumlp.Trainer(stack, **options).fit(
        X, Y, epochs, sample_weight=weights, folds=folds, validation=validation, monitors=monitors()
    )
    learned = theta(stack)
    assert (learned != start).any(axis=1).all()
    for m, number in enumerate(IDS):
        rows = folds.rows[folds.of_model[m]] if folds is not None else slice(None)
        own_weights = None if weights is None else (weights if weights.ndim == 1 else weights[m])[rows]
        own = {}
        if validation is not None:
            chosen = validation.rows[validation.of_model[m]]
            own["validation"] = (X[chosen], Y[chosen])
        alone = build(model_ids=[number], seed=4, backend=backend)
        trainer = gpumlp.Trainer(alone, **{name: of_model(v, m) for name, v in options.items()})
        wanted = trainer.fit(X[rows], Y[rows], epochs, sample_weight=own_weights, monitors=monitors(), **own)
        assert is_same(learned[m], theta(alone)[0], backend, dtype)
        assert set(history.names) == set(wanted.names)
        for name in history.names:
            found = history[name][: len(wanted), m]
            assert is_same(found, wanted[name][:, 0], backend, dtype), name
    return history


def stack_of(dtype="float64", dropout=0.3, **options):
    return lambda **own: network((4, 6, 5, 2), dropout=dropout, dtype=dtype, **options, **own)


both_kinds = pytest.mark.parametrize("folds", [UNEVEN, EVEN], ids=["a short last batch", "full batches"])


@both_kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shuffle", [True, False, "shared"])
def test_a_model_with_a_fold_learns_as_if_alone_on_its_rows(shuffle, dtype, folds, backend):
    check(backend, stack_of(dtype), *data(N_ROWS), folds, {"shuffle": shuffle})


@both_kinds
@pytest.mark.parametrize("weighted", ["no weights", "weights of all", "weights of each"])
@pytest.mark.parametrize("penalty", ["example", "batch"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_and_penalties_are_those_of_its_rows(reduction, penalty, weighted, folds, backend):
    rng = np.random.default_rng(1)
    weights = {"w": rng.uniform(0, 2, N_ROWS), "e": rng.uniform(0, 2, (4, N_ROWS))}
    options = {
        "reduction": reduction,
        "penalty": penalty,
        "l2": [0.1, 0.0, 0.2, 0.3],
        "l1": [0.0, 0.01, 0.02, 0.0],
        "clip_norm": [0.5, 1e-3, 100.0, 1.0],
        "learning_rate": 1e-3,
        "schedule": "cosine",
    }
    own = {"no weights": None, "weights of all": weights["w"], "weights of each": weights["e"]}[weighted]
    check(backend, stack_of(), *data(N_ROWS), folds, options, weights=own)


@pytest.mark.parametrize("folds", [UNEVEN, EVEN, folds_of(23, of_model=(0, 0, 0, 0))], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_classifier_with_a_fold_learns_as_if_alone_on_its_rows(dtype, folds, backend):
    X, y = labelled(N_ROWS)
    check(backend, lambda **own: classifier(dropout=0.2, **{"dtype": dtype, **own}), X, y, folds)


@pytest.mark.parametrize("normalisation", ["layer", "batch"])
def test_a_normalised_model_learns_as_if_alone_on_its_rows(normalisation, backend):
    check(backend, stack_of(normalisation=normalisation), *data(N_ROWS), UNEVEN)


@pytest.mark.parametrize("batch_size", [1, 4, 15, 100, "full"])
def test_every_size_of_batches_has_the_rows_of_the_fold(batch_size, backend):
    check(backend, stack_of(), *data(N_ROWS), EVEN, {"batch_size": batch_size})


def test_integers_and_several_steps_at_a_launch_change_nothing(backend):
    X, Y = data(N_ROWS)
    check(backend, stack_of(), (50 * X).astype(np.int16), Y, UNEVEN, {"steps_per_launch": 3})


def test_orders_longer_than_a_window_are_those_of_the_rows_alone(backend):
    rng = np.random.default_rng(3)
    X, Y = data(6000)
    folds = Folds(tuple(rng.permutation(6000)[:n] for n in (5000, 4999)), (0, 1, 1, 0))
    check(backend, stack_of(dropout=0.0), X, Y, folds, {"batch_size": 100}, epochs=1)


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of_model", [(0, 1, 2, 1), (0, 0, 1, 1), (2, 2, 2, 2)])
@pytest.mark.parametrize("trained", [UNEVEN, None], ids=["on folds", "on all rows"])
def test_a_model_is_evaluated_on_its_rows_as_alone(trained, of_model, dtype, backend):
    X, y = labelled(N_ROWS)
    validation = folds_of(1, 9, 10, of_model=of_model, seed=5)
    build = lambda **own: classifier(**{"dtype": dtype, **own})  # noqa: E731
    history = check(backend, build, X, y, trained, validation=validation)
    assert {"validation_cost", "validation_accuracy"} <= set(history.names)


def test_rows_that_do_not_fit_one_batch_are_evaluated_as_alone(backend):
    rng = np.random.default_rng(3)
    X, y = labelled(2500)
    validation = Folds(tuple(rng.permutation(2500)[:n] for n in (1030, 2050, 1024, 1023)), (0, 1, 2, 3))
    check(backend, classifier, X, y, None, {"batch_size": 500}, 1, validation=validation)


def test_a_metric_is_computed_of_the_rows_of_each_model(backend):
    def spread(Y, outputs):
        assert len(Y) == len(outputs)
        return float(np.abs(Y - outputs).max())

    validation = folds_of(4, 9, 10, of_model=(0, 1, 2, 1), seed=5)
    X, Y = data(N_ROWS)
    check(backend, stack_of(), X, Y, UNEVEN, validation=validation, monitors=lambda: [gpumlp.Metric("spread", spread)])


def test_each_model_stops_when_its_own_rows_say_so(backend):
    validation = folds_of(4, 9, 10, of_model=(0, 1, 2, 1), seed=5)
    X, Y = data(N_ROWS)
    stops = lambda: [gpumlp.EarlyStopping(patience=2)]  # noqa: E731
    history = check(backend, stack_of(), X, Y, UNEVEN, epochs=25, validation=validation, monitors=stops)
    assert len(set(np.isfinite(history["cost"]).sum(axis=0))) > 1


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("folds", [UNEVEN, None], ids=["folds", "all rows"])
def test_each_model_follows_its_own_schedule(folds, backend):
    X, Y = data(N_ROWS)
    plateau = schedules.ReduceOnPlateau("cost", factor=0.5, patience=0, threshold=10.0)
    options = {"schedule": ["exponential(0.5)", plateau, None, schedules.cosine(warmup=1)], "learning_rate": 0.01}
    history = check(backend, stack_of(), X, Y, folds, options, epochs=5)
    assert len(np.unique(history["learning_rate"][-1])) == 4


def test_schedules_are_one_or_as_many_as_models():
    with pytest.raises(ConfigurationError, match=r"^2 schedules for 3 models; give one, or one for each model$"):
        gpumlp.Trainer(network(n_models=3), schedule=["cosine", "step"])


def test_a_trainer_has_the_schedules_that_it_was_given():
    assert gpumlp.Trainer(network(), schedule="cosine").schedule.name == "cosine"
    found = gpumlp.Trainer(network(n_models=2), schedule=["cosine", None]).schedule
    assert [schedule.name for schedule in found] == ["cosine", "constant"]


def test_resetting_forgets_what_each_schedule_saw(backend):
    X, Y = data(N_ROWS)
    net = network(n_models=2, backend=backend)
    plateau = schedules.ReduceOnPlateau("cost", factor=0.5, patience=0, threshold=10.0)
    trainer = gpumlp.Trainer(net, learning_rate=0.01, schedule=[plateau, "constant"])
    first = trainer.fit(X, Y, 4)["learning_rate"]
    trainer.reset()
    assert np.array_equal(trainer.fit(X, Y, 4)["learning_rate"], first)
    assert first[:, 0].tolist() == [0.01, 0.01, 0.005, 0.0025]
    assert first[:, 1].tolist() == [0.01] * 4


# ---------------------------------------------------------------- models that differ


def members(*rows):
    """One member for each (widths, activations, dropout, label_smoothing), of four inputs and three classes."""
    found = []
    for m, (widths, activations, dropout, smoothing) in enumerate(rows):
        cost = costs.categorical_cross_entropy(smoothing)
        of = build_architecture((4, *widths, 3), activations, "softmax", cost)
        found.append(Member(of, dropout, seed=4, model_id=IDS[m]))
    return found


SMOOTHED = [((6,), ("tanh",), (0.3,), smoothing) for smoothing in (0.1, 0.0, 0.3, 0.3)]
MIXED = [
    ((6,), ("tanh",), (0.3,), 0.1),
    ((6,), ("tanh",), (0.3,), 0.0),
    ((5,), ("relu",), (0.0,), 0.0),
    ((8,), ("gelu",), (0.0,), 0.2),
]


def check_members(given, backend, X, y, folds=None, validation=None, dtype="float64", **options):
    """Train members as a stack, then each alone, and compare weights and history."""
    net = gpumlp.Network.mixed(given, dtype=dtype, backend=backend)
    stops = gpumlp.EarlyStopping(patience=3)
    trainer = gpumlp.Trainer(net, batch_size=5, learning_rate=0.02, **options)
    history = trainer.fit(X, y, 6, folds=folds, validation=validation or (X, y), monitors=[stops])
    for m, member in enumerate(given):
        solo = gpumlp.Network.mixed([member], dtype=dtype, backend=backend)
        rows = slice(None) if folds is None else folds.rows[folds.of_model[m]]
        other = slice(None) if validation is None else validation.rows[validation.of_model[m]]
        wanted = gpumlp.Trainer(solo, batch_size=5, learning_rate=0.02, **options).fit(
            X[rows], y[rows], 6, validation=(X[other], y[other]), monitors=[gpumlp.EarlyStopping(patience=3)]
        )
        found = net.alone(m)
        for x, own in zip(found.weights + found.biases, solo.weights + solo.biases, strict=True):
            assert is_same(x, own, backend, dtype)
        for name in history.names:
            assert is_same(history[name][: len(wanted), m], wanted[name][:, 0], backend, dtype), name
        assert is_same(net.cost_of(X, y)[m : m + 1], solo.cost_of(X, y), backend, dtype)
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("folds", [UNEVEN, None], ids=["folds", "all rows"])
@pytest.mark.parametrize("shuffle", [True, "shared", False])
def test_models_of_a_stack_smooth_labels_each_as_its_cost_says(shuffle, folds, dtype, backend):
    X, y = labelled(N_ROWS)
    check_members(members(*SMOOTHED), backend, X, y, folds, dtype=dtype, shuffle=shuffle)


@pytest.mark.parametrize("validation", [folds_of(9, 9, 10, seed=5), None], ids=["own rows", "all rows"])
def test_a_model_with_a_fold_learns_as_alone_beside_models_of_other_sizes(validation, backend):
    X, y = labelled(N_ROWS)
    check_members(members(*MIXED), backend, X, y, UNEVEN, validation)


def test_gradients_are_those_of_each_models_own_smoothing(backend):
    X, y = labelled(N_ROWS)
    given = members(*SMOOTHED)
    found = gpumlp.Network.mixed(given, dtype="float64", backend=backend).backpropagate(X, y)
    for m, member in enumerate(given):
        wanted = gpumlp.Network.mixed([member], dtype="float64", backend=backend).backpropagate(X, y)
        for l in range(2):
            assert is_same(found.delta[l][m], wanted.delta[l][0], backend)
            assert is_same(found.dW[l][m], wanted.dW[l][0], backend)


def test_targets_that_are_no_labels_are_smoothed_alike():
    X, y = labelled(N_ROWS)
    net = gpumlp.Network.mixed(members(*SMOOTHED))
    with pytest.raises(ConfigurationError, match=r"^the models of this stack differ in label_smoothing, which needs"):
        gpumlp.Trainer(net).fit(X, np.eye(3)[y], 1)


# ---------------------------------------------------------------- what is refused


def fit(folds, batch_size=5, n_models=2, **options):
    X, Y = data(10)
    gpumlp.Trainer(network(n_models=n_models), batch_size=batch_size).fit(X, Y, 1, folds=folds, **options)


REFUSED = [
    ([[0]], {}, ConfigurationError, "folds is list; expected gpumlp.Folds(rows, of_model)"),
    (Folds((range(5),), (0,)), {}, ConfigurationError, "folds.of_model=(0,): expected a fold's number for each of 2"),
    (Folds((range(5),), (0, 0.5)), {}, ConfigurationError, "folds.of_model=(0, 0.5): expected a fold's number for"),
    (Folds((range(5),), (0, 1)), {}, ConfigurationError, "folds.of_model names folds 0 to 1, there are folds 0 to 0"),
    (Folds((range(5), []), (0, 1)), {}, DataError, "folds.rows[1] has shape (0,) and dtype float64, expected one row"),
    (Folds((range(5), [0.5]), (0, 1)), {}, DataError, "folds.rows[1] has shape (1,) and dtype float64, expected one"),
    (Folds((range(5), [0, 10]), (0, 1)), {}, DataError, "folds.rows[1] names rows 0 to 10, X has rows 0 to 9"),
    (Folds((range(5), [-1]), (0, 1)), {}, DataError, "folds.rows[1] names rows -1 to -1, X has rows 0 to 9"),
    (
        Folds((range(5), range(6)), (0, 1)),
        {},
        ConfigurationError,
        "folds of 5 to 6 rows have epochs of 1 to 2 batches with batch_size=5, and all models of a stack need the same",
    ),
    (
        Folds((range(5), range(6)), (0, 1)),
        {"batch_size": "full"},
        ConfigurationError,
        "folds of 5 to 6 rows have batches of 5 to 6 rows with batch_size='full', and all models of a stack need the",
    ),
    (
        Folds((range(5), range(6)), (0, 1)),
        {"batch_size": 8},
        ConfigurationError,
        "folds of 5 to 6 rows have batches of 5 to 6 rows with batch_size=8, and all models of a stack need the same",
    ),
    (
        Folds((range(5), range(5)), (0, 1)),
        {"order": [range(10)]},
        ConfigurationError,
        'folds go with no `order`, and not with batch_size="tune"; leave one of them away',
    ),
    (
        Folds((range(5), range(5)), (0, 1)),
        {"batch_size": "tune"},
        ConfigurationError,
        'folds go with no `order`, and not with batch_size="tune"; leave one of them away',
    ),
    (
        Folds((range(5), range(5, 10)), (0, 1)),
        {"sample_weight": np.arange(10) > 4},
        ConfigurationError,
        "sample_weight is 0 on all rows of model 0's fold; some have to be above 0",
    ),
]


@pytest.mark.parametrize(("folds", "options", "error", "text"), REFUSED, ids=lambda x: x if isinstance(x, str) else "")
def test_what_is_wrong_with_folds_is_said(folds, options, error, text):
    with pytest.raises(error) as caught:
        fit(folds, **options)
    assert str(caught.value).startswith(text)


def test_what_is_wrong_with_folds_to_evaluate_on_names_these():
    with pytest.raises(DataError, match=r"^validation.rows\[0\] names rows 0 to 10, X has rows 0 to 9$"):
        fit(None, validation=Folds(([0, 10],), (0, 0)))


def test_a_fold_that_no_model_has_does_not_matter():
    fit(Folds(([3, 4], [], [11]), (0, 0)))
