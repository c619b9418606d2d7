import csv
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from interrupted import small_sweep

import gpumlp
from gpumlp.ensembles import Sweep, Watcher, distributions, executors
from gpumlp.ensembles.configurations import PARAMETERS, RULE_NUMBERS, read_configuration
from gpumlp.ensembles.executors import batches_of
from gpumlp.ensembles.ledger import read_folder
from gpumlp.errors import BackendUnavailable, ConfigurationError, DataError, GpumlpError, ShapeError, UnknownName

ROOT = Path(gpumlp.__file__).parents[1]
NUMPY = {"backend": "numpy", "dtype": "float64"}


def timeless(rows):
    """Return rows without what depends on the moment."""
    text = json.dumps(rows, sort_keys=True)

    def without(row):
        return {name: value for name, value in row.items() if name != "seconds"}

    return [without(row) | {"folds": [without(fold) for fold in row["folds"]]} for row in json.loads(text)]


def numbers(n=40, out=1, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, 3))
    return X, np.tanh(X @ generator.normal(size=(3, out)))


@pytest.fixture(scope="module")
def found():
    """A whole sweep that nothing disturbed."""
    sweep, X, y = small_sweep()
    return sweep.run(X, y)


# ---------------------------------------------------------------- the space


def test_a_grid_has_every_combination_once_and_a_tuple_is_one_value():
    sweep = Sweep({"hidden": [(8,), (6, 4)], "learning_rate": [0.1, 0.01], "activation": "tanh"})
    told = [(c["hidden"], c["learning_rate"], c["activation"]) for c in sweep.configurations]
    assert told == [(h, rate, "tanh") for h in ([8], [6, 4]) for rate in (0.1, 0.01)]
    assert sweep.varied == ["hidden", "learning_rate"]


def test_configurations_that_differ_in_nothing_that_acts_are_tried_once():
    sweep = Sweep({"optimizer": ["adam", "momentum"], "momentum": [0.5, 0.8], "hidden": [[], 4], "dropout": [0, 0.1]})
    told = [(c["hidden"], c["dropout"], c["optimizer"], c["momentum"]) for c in sweep.configurations]
    assert len(told) == len({str(t) for t in told}) == 3 * 3
    assert all(momentum is None for *_, rule, momentum in told if rule == "adam")


RANGES = {
    "hidden": distributions.layers(1, 3, widths=(4, 32)),
    "learning_rate": distributions.log_uniform(1e-3, 1e-1),
    "dropout": distributions.uniform(0.1, 0.3),
    "batch_size": distributions.log_integers(8, 64),
    "seed": distributions.integers(3, 5),
    "activation": ["relu", "tanh"],
}


def test_draws_lie_in_their_ranges_and_reach_all_of_them():
    drawn = Sweep(RANGES, n=300).configurations
    assert len(drawn) == 300
    assert {len(c["hidden"]) for c in drawn} == {1, 2, 3}
    widths = [n for c in drawn for n in c["hidden"]]
    assert (min(widths), max(widths)) == (4, 32)
    assert np.median(widths) < 15  # by ratio: as many from 4 to 11 as from 11 to 32
    rates = np.log10([c["learning_rate"] for c in drawn])
    assert -3 <= rates.min() < -2.9
    assert -1.1 < rates.max() <= -1
    assert abs(rates.mean() + 2) < 0.1
    assert all(0.1 <= c["dropout"] <= 0.3 for c in drawn)
    assert all(8 <= c["batch_size"] <= 64 for c in drawn)
    assert {c["seed"] for c in drawn} == {3, 4, 5}
    assert {c["activation"] for c in drawn} == {"relu", "tanh"}


def test_more_draws_begin_with_the_same_and_another_seed_draws_others():
    assert Sweep(RANGES, n=30).configurations[:10] == Sweep(RANGES, n=10).configurations
    assert Sweep(RANGES, n=10, seed=1).configurations != Sweep(RANGES, n=10).configurations


def test_draws_from_a_small_grid_are_all_of_it_and_none_comes_twice():
    assert len(Sweep({"seed": [1, 2, 3], "epochs": [5, 6]}, n=50).configurations) == 6


def test_nothing_more_is_drawn_when_the_whole_grid_is_there():
    draws = []

    def draw(generator):
        draws.append(generator)
        return int(generator.integers(2))

    seeds = distributions.Distribution("choice", draw, (0, 1))
    found = [Sweep({"seed": seeds}, n=n).configurations for n in (2, 500)]
    assert [c["seed"] for c in found[1]] == [c["seed"] for c in found[0]]
    assert len(draws) < 40


def test_a_file_spells_a_space_as_python_does():
    spelled = {
        "hidden": {"layers": [1, 3], "widths": [4, 32]},
        "learning_rate": {"log_uniform": [1e-3, 1e-1]},
        "dropout": {"uniform": [0.1, 0.3]},
        "batch_size": {"log_integers": [8, 64]},
        "seed": {"integers": [3, 5]},
        "activation": {"choice": ["relu", "tanh"]},
    }
    assert Sweep(spelled, n=20).configurations == Sweep(RANGES, n=20).configurations


def test_numpy_values_count_as_python_ones():
    sweep = Sweep({"learning_rate": np.array([0.1, 0.2]), "hidden": [(np.int64(4), 3)], "epochs": [np.int32(3)]})
    assert [c["learning_rate"] for c in sweep.configurations] == [0.1, 0.2]
    json.dumps(sweep.configurations)


WRONG_SPACES = [
    ({}, "at least one parameter"),
    ([], "at least one parameter"),
    ({"hiden": [4]}, "unknown parameter of a space 'hiden'; did you mean 'hidden'"),
    ({"learning_rate": []}, "learning_rate: choice.*at least one value"),
    ({"learning_rate": [-0.1]}, "learning_rate=-0.1"),
    ({"learning_rate": [0.1, float("nan")]}, "learning_rate"),
    ({"learning_rate": ["fast"]}, "learning_rate='fast': expected a number"),
    ({"learning_rate": distributions.uniform(0.1, 0.2)}, "no grid; say how many"),
    ({"learning_rate": {"uniform": [0.1]}}, "learning_rate: .*uniform"),
    ({"learning_rate": {"unifrm": [0.1, 0.2]}}, "learning_rate: unknown distribution 'unifrm'; did you mean 'uniform'"),
    ({"hidden": [(4, 0)]}, "hidden=.*whole numbers of at least 1"),
    ({"hidden": ["4,3"]}, "hidden='4,3'"),
    ({"activation": ["rellu"]}, "did you mean 'relu'"),
    ({"activation": [np.tanh]}, "a name; register"),
    ({"hidden": [(4, 3)], "activation": [("relu",)]}, r"hidden=\[4, 3\]: activation names 1"),
    ({"hidden": [(4, 3)], "dropout": [(0.1, 0.1, 0.1)]}, r"dropout=\[0.1, 0.1, 0.1\]"),
    ({"dropout": [1.0]}, "dropout=1.0: expected a share"),
    ({"normalisation": ["layr"]}, "did you mean 'layer'"),
    ({"initialiser": ["she"]}, "unknown initialiser 'she'"),
    ({"optimizer": ["adm"]}, "did you mean 'adam'"),
    ({"optimizer": ["sgd"], "beta1": [0.8]}, "beta1 is a number of no update rule here"),
    ({"optimizer": distributions.uniform(0, 1)}, "expected names"),
    ({"momentum": [1.5], "optimizer": "momentum"}, "momentum"),
    ({"batch_size": ["tune"]}, "batch_size='tune'"),
    ({"batch_size": [0]}, "batch_size=0"),
    ({"clip_norm": [0]}, "clip_norm"),
    ({"schedule": ["cosin"]}, "did you mean 'cosine'"),
    ({"label_smoothing": [1]}, "label_smoothing=1"),
    ({"epochs": [0]}, "epochs=0"),
    ({"epochs": [True]}, "epochs=True"),
    ({"seed": [-1]}, "seed=-1"),
    ({"seed": list(range(1001)), "epochs": list(range(1, 101))}, "the grid has 100,100"),
]


@pytest.mark.parametrize(("space", "message"), WRONG_SPACES, ids=[str(row[0])[:40] for row in WRONG_SPACES])
def test_a_space_that_means_nothing_is_refused_with_the_reason(space, message):
    with pytest.raises(GpumlpError, match=message):
        Sweep(space)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: distributions.uniform(2, 1), "the smaller one first"),
        (lambda: distributions.log_uniform(0, 1), "above 0"),
        (lambda: distributions.integers(1, 2.5), "whole numbers"),
        (lambda: distributions.layers(1, 2, widths=(0, 4)), "widths.*above 0"),
        (lambda: distributions.layers(1, 2, widths=3), "the smallest and the largest"),
        (lambda: distributions.choice("relu"), "a list"),
    ],
)
def test_a_range_that_means_nothing_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


WRONG_OPTIONS = [
    ({"n": 0}, "n=0"),
    ({"patience": 0}, "patience=0"),
    ({"folds": 1}, "folds=1"),
    ({"folds": 1.5}, "folds=1.5"),
    ({"folds": "5"}, "folds='5'"),
    ({"folds": []}, "folds="),
    ({"folds": [(1, 2, 3)]}, "no pair"),
    ({"folds": [([0, 99], [1])]}, "expected rows 0 to 39"),
    ({"metric": "acuracy"}, "metric of labels 'acuracy'; did you mean 'accuracy'"),
    ({"metric": "r2"}, "metric of labels 'r2'"),
    ({"cost": "quadrtic"}, "did you mean 'quadratic'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS, ids=[str(row[0]) for row in WRONG_OPTIONS])
def test_an_option_that_means_nothing_is_refused(options, message):
    X, _ = numbers()
    with pytest.raises(GpumlpError, match=message):
        Sweep({"epochs": [1]}, **options).run(X, np.arange(40) % 2)


def test_data_that_do_not_fit_are_refused():
    sweep, (X, Y) = Sweep({"epochs": [1]}), numbers()
    with pytest.raises(ShapeError, match=r"a target each"):
        sweep.run(X, Y[:-1])
    with pytest.raises(DataError, match="encode_labels"):
        sweep.run(X, np.array(["a", "b"] * 20))
    with pytest.raises(ConfigurationError, match=r"label_smoothing=0\.1 goes with"):
        Sweep({"label_smoothing": [0.1]}).run(X, Y)
    with pytest.raises(UnknownName, match="executor 'lokal'; did you mean 'local'"):
        sweep.run(X, Y, executor="lokal")
    for shard in ((0, 2), (3, 2), "1/2", (1.0, 2)):
        with pytest.raises(ConfigurationError, match="shard="):
            sweep.run(X, Y, shard=shard)


# ---------------------------------------------------------------- what is found


def test_every_parameter_has_a_default_that_it_reads_itself():
    configuration = read_configuration({})
    assert configuration == {p.name: p.default for p in PARAMETERS}
    assert json.loads(json.dumps(configuration)) == configuration
    given = {p.name: [p.default] for p in PARAMETERS if p.name not in RULE_NUMBERS}
    assert Sweep(given).configurations == [configuration]


def test_a_row_is_what_training_each_fold_alone_gives():
    X, Y = numbers(out=2)
    space = {
        "hidden": [(6, 5)],
        "activation": [("tanh", "gelu")],
        "dropout": [(0.1, 0.2)],
        "optimizer": ["rmsprop"],
        "rho": [0.8],
        "learning_rate": [0.01],
        "batch_size": [7],
        "l1": [1e-4],
        "l2": [1e-3],
        "clip_norm": [0.5],
        "schedule": ["step(every=2, factor=0.5)"],
        "initialiser": ["glorot"],
        "epochs": [6],
        "seed": [11],
    }
    pairs = gpumlp.data.k_folds(40, 3, 4)
    (row,) = Sweep(space, folds=3, seed=4, **NUMPY).run(X, Y).rows
    for fold, (train, judge) in enumerate(pairs):
        net = gpumlp.Network(
            (3, 6, 5, 2), ("tanh", "gelu"), "identity", "quadratic", initialiser="glorot", dropout=(0.1, 0.2),
            seed=11, model_ids=[fold], **NUMPY,
        )  # fmt: skip
        trainer = gpumlp.Trainer(
            net, gpumlp.rules.rmsprop(rho=0.8), 0.01, 7, l1=1e-4, l2=1e-3, clip_norm=0.5,
            schedule="step(every=2, factor=0.5)",
        )  # fmt: skip
        keeper = gpumlp.KeepBest()
        history = trainer.fit(X[train], Y[train], 6, (X[judge], Y[judge]), monitors=[keeper])
        best = history["validation_cost"][:, 0].argmin()
        found, outputs = row["folds"][fold], net.predict(X[judge])[0]
        assert found["cost"] == history["validation_cost"][best, 0]
        assert found["best_epoch"] == best + 1
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean((outputs - Y[judge]) ** 2)), rel=1e-12)
        spread = np.var(Y[judge], axis=0)
        assert found["r2"] == pytest.approx(np.mean(1 - np.mean((outputs - Y[judge]) ** 2, axis=0) / spread), rel=1e-12)
    for name in ("cost", "rmse", "r2"):
        assert row[name] == pytest.approx(np.mean([fold[name] for fold in row["folds"]]), rel=1e-12)
    assert row["epochs_run"] == 18
    assert row["samples"] == 6 * 80


def test_patience_stops_each_model_after_its_best_epoch(found):
    folds = [fold for row in found.rows for fold in row["folds"]]
    asked = [row["configuration"]["epochs"] for row in found.rows for _ in row["folds"]]
    for fold, epochs in zip(folds, asked, strict=True):
        assert fold["epochs"] == min(epochs, fold["best_epoch"] + 3)


def test_the_best_is_first_by_the_metric(found):
    scores = [row["accuracy"] for row in found.ranked]
    assert scores == sorted(scores, reverse=True)
    assert found.best is found.ranked[0]
    X, Y = numbers()
    by_cost = Sweep({"learning_rate": [1e-5, 1e-2]}, metric="cost", **NUMPY).run(X, Y)
    assert by_cost.best["configuration"]["learning_rate"] == 1e-2


def test_a_bootstrap_counts_each_training_row_as_often_as_it_is_drawn_and_no_other_row():
    sweep, X, y = small_sweep()
    for fold in sweep.task(X, y).folds:
        assert fold.sample_weight.sum() == len(fold.rows)
        assert (fold.sample_weight[fold.validation_rows] == 0).all()
        assert 0.5 < (fold.sample_weight[fold.rows] > 0).mean() < 0.75


def test_a_model_that_diverges_spoils_its_own_row_alone():
    X, Y = numbers()
    with np.errstate(all="ignore"):
        result = Sweep({"learning_rate": [1e-3, 1e30], "optimizer": "sgd", "epochs": [3]}, **NUMPY).run(X, Y)
    good, bad = result.rows
    assert (bad["r2"], bad["deviation"], bad["best_epoch"]) == (None, None, None)
    assert "diverged in epoch" in bad["folds"][0]["error"]
    assert result.ranked == [good]


LAST_10 = [(np.arange(30), np.arange(30, 40))]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_model_whose_cost_on_the_rows_that_judge_is_never_finite_spoils_its_own_row_alone(tmp_path):
    X, Y = numbers()
    X[35] = 1e30
    space = {"activation": ["identity", "tanh"], "hidden": [(4,)], "epochs": [3]}
    result = Sweep(space, folds=LAST_10, backend="numpy").run(X, Y, tmp_path)
    bad, good = result.rows
    assert (bad["r2"], bad["rmse"], bad["cost"], bad["best_epoch"]) == (None, None, None, None)
    assert bad["folds"][0]["error"] == "validation_cost is not finite in any epoch"
    assert result.ranked == [good]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_an_accuracy_counts_where_the_cost_is_not_finite(tmp_path):
    X, Y = numbers()
    X[35] = 1e38
    space = {"activation": ["identity"], "hidden": [(4,), (5,)], "epochs": [2]}
    result = Sweep(space, folds=LAST_10, backend="numpy", cost="quadratic", output="identity").run(
        X, (Y[:, 0] > 0).astype(int), tmp_path
    )
    assert [row["cost"] for row in result.rows] == [None, None]
    scores = [row["accuracy"] for row in result.ranked]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def test_a_sweep_of_which_every_model_diverged_says_so():
    X, Y = numbers()
    with np.errstate(all="ignore"):
        result = Sweep({"learning_rate": [1e30], "optimizer": "sgd", "epochs": [3]}, **NUMPY).run(X, Y)
    for ask in (lambda: result.best, result.refit, result.best_network):
        with pytest.raises(ConfigurationError, match="every configuration diverged"):
            ask()


def test_a_metric_that_a_constant_target_leaves_undefined_is_told():
    X, Y = numbers()
    result = Sweep({"epochs": [1]}, folds=[(np.arange(20), np.arange(20, 25))], **NUMPY).run(
        X, np.where(X[:, :1] > 9, Y, 1.0)
    )
    assert result.rows[0]["rmse"] > 0
    with pytest.raises(ConfigurationError, match="r2 is not defined"):
        result.refit()


def test_the_best_network_is_the_one_of_the_sweep(found):
    _, X, y = small_sweep()
    for number, fold in enumerate(found.best["folds"]):
        rows = found.task.folds[number].validation_rows
        assert found.best_network(number).evaluate(X[rows], y[rows])["accuracy"][0] == fold["accuracy"]
    with pytest.raises(ConfigurationError, match="folds 0 to 2"):
        found.best_network(3)


@pytest.mark.parametrize("schedule", ["none", "cosine", "reduce_on_plateau(metric='validation_cost')"])
def test_a_refit_is_a_training_on_all_rows_for_the_best_epochs_at_the_rates_of_the_plan(schedule):
    X, Y = numbers()
    result = Sweep({"schedule": [schedule], "epochs": [9], "learning_rate": [0.1]}, patience=2, **NUMPY).run(X, Y)
    epochs = round(result.best["best_epoch"])
    assert epochs < 9
    plan = {"none": None, "cosine": gpumlp.schedules.cosine(epochs=9)}.get(schedule, "reduce_on_plateau")
    net = gpumlp.Network((3, 100, 1), output="identity", cost="quadratic", **NUMPY)
    gpumlp.Trainer(net, learning_rate=0.1, schedule=plan).fit(X, Y, epochs)
    assert all(np.array_equal(W, V) for W, V in zip(net.weights, result.refit().weights, strict=True))


def test_rows_go_into_files_best_first(found, tmp_path):
    lines = list(csv.DictReader(found.to_csv(tmp_path / "r.csv").read_text().splitlines()))
    assert [float(line["accuracy"]) for line in lines] == [row["accuracy"] for row in found.ranked]
    assert [json.loads(line["hidden"]) for line in lines] == [row["configuration"]["hidden"] for row in found.ranked]
    text = found.to_json_lines(tmp_path / "r.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == found.rows
    with pytest.raises(ConfigurationError, match="choose another place"):
        found.to_csv(tmp_path / "no" / "r.csv")


def test_a_plot_has_a_panel_for_the_ranks_and_for_each_parameter_that_varies(found, tmp_path):
    pytest.importorskip("matplotlib")
    figure = found.plot(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["rank of 24 configurations", *(name.replace("_", " ") for name in found.varied)]


def test_a_plot_without_matplotlib_names_the_extra(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"gpumlp\[plot\]"):
        found.plot()


# ---------------------------------------------------------------- going on


def test_a_sweep_that_is_killed_at_any_moment_goes_on_to_the_result_of_an_undisturbed_one(found, tmp_path):
    if os.name != "posix":
        pytest.skip("kills as POSIX has them")
    program = Path(__file__).with_name("interrupted.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(program), str(tmp_path), "3", "10"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert int(ended.stdout) >= 5  # those after a number of epochs at least
    assert len(read_folder(tmp_path)) < 24
    sweep, X, y = small_sweep()
    result = sweep.run(X, y, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines}) == 24
    assert timeless(result.rows) == timeless(found.rows)


class Counting(Watcher):
    """Counts what it is told."""

    def __init__(self):
        self.wanted = self.there = self.rows = self.samples = self.ends = 0

    def sweep_began(self, wanted, rows):
        self.wanted, self.there = wanted, len(rows)

    def epoch_ended(self, samples):
        self.samples += samples

    def row_added(self, row):
        self.rows += 1

    def sweep_ended(self):
        self.ends += 1


def test_a_finished_sweep_trains_nothing_and_a_larger_one_only_what_is_new(tmp_path):
    X, Y = numbers()
    counts = []
    for n in (3, 3, 5):
        watcher = Counting()
        Sweep({"learning_rate": distributions.uniform(0.01, 0.1), "epochs": 2}, n=n, **NUMPY).run(
            X, Y, tmp_path, watcher=watcher
        )
        counts.append((watcher.wanted, watcher.there, watcher.rows, watcher.samples, watcher.ends))
    assert counts == [(3, 0, 3, 3 * 2 * 32, 1), (3, 3, 0, 0, 1), (5, 3, 2, 2 * 2 * 32, 1)]


def test_a_result_counts_for_its_own_data_folds_and_settings_alone(tmp_path):
    X, Y = numbers()
    space = {"epochs": [2]}
    runs = [
        (Sweep(space, **NUMPY), X, Y),
        (Sweep(space, **NUMPY), X + 1e-9, Y),
        (Sweep(space, **NUMPY), X, Y * 1.0000001),
        (Sweep(space, seed=1, **NUMPY), X, Y),
        (Sweep(space, folds=2, **NUMPY), X, Y),
        (Sweep(space, patience=1, **NUMPY), X, Y),
        (Sweep(space, bootstrap=True, **NUMPY), X, Y),
        (Sweep(space, cost="huber", **NUMPY), X, Y),
        (Sweep(space, backend="numpy", dtype="float32"), X, Y),
        (Sweep({"epochs": [2], "seed": [1]}, **NUMPY), X, Y),
    ]
    for i, (sweep, *data) in enumerate(runs, 1):
        assert len(sweep.run(*data, tmp_path)) == 1
        assert len(read_folder(tmp_path)) == i


def test_a_row_counts_for_each_metric_that_its_epochs_were_chosen_by_with_that_ones_deviation(tmp_path):
    X, Y = numbers()
    sweeps = [Sweep({"epochs": [2]}, folds=3, metric=metric, **NUMPY) for metric in ("r2", "rmse")]
    for sweep in sweeps:
        watcher = Counting()
        (row,) = sweep.run(X, Y, tmp_path, watcher=watcher).rows
        assert row["deviation"] == pytest.approx(np.std([fold[sweep.metric] for fold in row["folds"]]), rel=1e-12)
    assert watcher.rows == 0


def test_shards_part_a_sweep_and_their_rows_merge(found, tmp_path):
    sweep, X, y = small_sweep()
    watchers = [Counting() for _ in range(3)]
    results = [sweep.run(X, y, tmp_path, shard=(part, 3), watcher=watchers[part - 1]) for part in (1, 2, 3)]
    assert [watcher.rows for watcher in watchers] == [8, 8, 8]
    assert [(len(result), result.missing) for result in results] == [(8, 16), (16, 8), (24, 0)]
    assert timeless(results[-1].rows) == timeless(found.rows)
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [f"results-{i}-of-3.jsonl" for i in (1, 2, 3)]
    merged = sweep.run(X, y, tmp_path)
    assert timeless(merged.rows) == timeless(found.rows)


def test_batches_hold_every_trial_once_and_a_bounded_number_of_models(monkeypatch):
    sweep, X, y = small_sweep()
    monkeypatch.setattr(executors, "MODELS_AT_A_TIME", 10)
    trials = sweep.task(X, y).trials(sweep.configurations)
    batches = batches_of(trials, 3)
    assert sorted(trial.number for batch in batches for trial in batch) == list(range(24))
    assert {len(batch) for batch in batches} == {3}
    assert [len(batch) for batch in batches_of(trials, 50)] == [1] * 24


def test_a_task_and_its_trials_can_be_pickled_and_run_elsewhere(found):
    sweep, X, y = small_sweep()

    class Elsewhere:
        def run(self, task, batches, done, pulse):
            for batch in reversed(batches):
                for row in executors.run_trials(*pickle.loads(pickle.dumps((task, batch)))):
                    done(row)

    assert timeless(sweep.run(X, y, executor=Elsewhere()).rows) == timeless(found.rows)


def test_a_plan_covers_every_configuration_on_every_fold():
    sweep, X, y = small_sweep()
    stacks = sweep.plan(X, y).stacks
    assert sorted(job for stack in stacks for job in stack.jobs) == list(range(24 * 3))
