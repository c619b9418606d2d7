import csv
import json

import numpy as np
import pytest

import gpumlp as package
from gpumlp.cli.problem import pose, split
from gpumlp.data import QuantileNormaliser, load_table

QUICK = ("--quiet", "--epochs", 3)


def result_of(ended):
    assert ended.status == 0, ended.err
    return json.loads(ended.out)


def test_the_demo_ends_in_a_line_with_accuracy_speed_and_device(gpumlp):
    ended = gpumlp("train", "digits", "--hidden", "64,32", "--epochs", 30, "--standardise", "--seed", 0)
    *_, last = ended.out.splitlines()
    words = last.split()
    assert ended.status == 0
    assert words[:2] == ["test", "accuracy"]
    assert float(words[2]) >= 96
    assert last.endswith("samples/s, numpy on cpu")
    for told in ("1,797 rows, 64 features, 10 classes", "64-64-32-10", "6,570 parameters", "classification, because"):
        assert told in ended.err


def test_a_regression_is_scaled_back_and_its_r2_is_sensible(gpumlp):
    result = result_of(gpumlp("train", "diabetes", "--json", "--quiet"))
    assert (result["task"], result["part"]) == ("regression", "test")
    assert 0.35 < result["r2"] < 0.8
    assert 40 < result["rmse"] < 70


@pytest.mark.parametrize(
    ("options", "part", "rows", "words"),
    [
        ((), "test", 30, "held out"),
        (("--early-stopping", 2), "test", 30, "held out"),
        (("--early-stopping", 2, "--val-fraction", 0), "validation", 15, "which also chose the epoch"),
        (("--val-fraction", 0), "training", 150, "none held out"),
    ],
)
def test_the_closing_line_says_on_which_rows_it_was_measured(gpumlp, options, part, rows, words):
    result = result_of(gpumlp("train", "iris", *QUICK, "--json", *options))
    assert (result["part"], result["rows"]) == (part, rows)
    line = gpumlp("train", "iris", *QUICK, *options).out
    assert line.startswith(f"{part} accuracy")
    assert words in line


def test_no_row_has_two_uses_and_none_is_left_out():
    parts = split(pose(load_table("iris"), None), None, choosing=True, seed=4)
    everything = np.concatenate([parts.train, parts.choice, parts.test])
    assert np.array_equal(np.sort(everything), np.arange(150))
    assert [len(rows) for rows in (parts.train, parts.choice, parts.test)] == [108, 12, 30]


def test_the_saved_scalings_know_the_training_rows_alone(gpumlp, tmp_path):
    gpumlp("train", "diabetes", *QUICK, "--standardise", "--seed", 5, "--save", tmp_path / "m")
    table, model = load_table("diabetes"), package.load(tmp_path / "m.npz")
    rows = split(pose(table, None), None, choosing=False, seed=5).train
    assert np.allclose(model.scaler.mean, table.X[rows].mean(axis=0))
    assert np.allclose(model.target_scaler.mean, table.y[rows].mean())


def test_a_scaling_by_quantiles_knows_the_training_rows_alone_and_is_saved(gpumlp, tmp_path):
    ended = gpumlp("train", "diabetes", *QUICK[1:], "--scale", "quantile", "--seed", 5, "--save", tmp_path / "m")
    assert "scaling   features (quantile) and target (standardise), measured on the training rows" in ended.err
    table, model = load_table("diabetes"), package.load(tmp_path / "m.npz")
    rows = split(pose(table, None), None, choosing=False, seed=5).train
    fitted = QuantileNormaliser.fit(table.X[rows])
    assert np.array_equal(model.scaler.quantiles, fitted.quantiles)
    predicted = gpumlp("predict", tmp_path / "m.npz", "diabetes").out.split()[1:]
    X = fitted.transform(table.X, "float32")
    expected = model.target_scaler.inverse(model.network.predict(X)[0])[:, 0]
    assert np.allclose(np.array(predicted, float), expected, rtol=1e-6)


def test_xor_is_learned_from_all_its_rows_with_two_outputs(gpumlp):
    result = result_of(gpumlp("train", "xor", "--lr", 0.05, "--hidden", 8, "--json", "--quiet"))
    assert (result["part"], result["rows"], result["accuracy"]) == ("training", 4, 1.0)
    assert result["sizes"] == [2, 8, 2]


def test_early_stopping_ends_before_the_last_epoch_and_reports_the_best(gpumlp):
    result = result_of(gpumlp("train", "iris", "--lr", 0.05, "--early-stopping", 5, "--json", "--quiet"))
    assert result["epochs"] < 100
    assert result["best_epoch"] == result["epochs"] - 5


def test_two_runs_with_one_seed_print_the_same_numbers_and_another_seed_others(gpumlp):
    def run(seed):
        result = result_of(gpumlp("train", "wine", *QUICK, "--seed", seed, "--json"))
        return {name: value for name, value in result.items() if "seconds" not in name and "second" not in name}

    assert run(1) == run(1)
    assert run(1) != run(2)


ALIASES = [
    ("--hidden", "7,5", ("--hidden-layer-sizes", "(7, 5)"), ("--unit", "7,5"), ("-u", "7,5")),
    ("--lr", 0.01, ("--learning-rate-init", 0.01)),
    ("--epochs", 4, ("--max-iter", 4), ("--epoch", 4), ("-e", 4)),
    ("--seed", 3, ("--random-state", 3)),
    ("--optimizer", "sgd", ("--solver", "sgd")),
    ("--val-fraction", 0.5, ("--validation-fraction", 0.5)),
    ("--l2", 0.3, ("--alpha", 0.3)),
    ("--batch-size", 10, ("--batchsize", 10), ("-b", 10)),
    ("--device", "cpu", ("-d", "cpu")),
    ("--standardise", "--quiet", ("--standardize", "--quiet"), ("--scale", "standardise"), ("--scale", "standardize")),
    ("--scale", "quantile", ("--scale", "Quantile")),
]


@pytest.mark.parametrize("spellings", ALIASES, ids=lambda s: s[0])
def test_an_option_means_the_same_in_all_its_spellings(gpumlp, tmp_path, spellings):
    name, value, *others = spellings
    weights = []
    for i, spelling in enumerate([(name, value), *others]):
        path = tmp_path / f"{i}.npz"
        assert gpumlp("train", "iris", "--quiet", "-e", 2, *spelling, "-o", path).status == 0
        weights.append(np.concatenate([W.ravel() for W in package.load(path).network.weights]))
    assert all(np.array_equal(w, weights[0]) for w in weights[1:])
    if name != "--device":
        gpumlp("train", "iris", "--quiet", "-e", 2, "--save", tmp_path / "plain.npz")
        plain = np.concatenate([W.ravel() for W in package.load(tmp_path / "plain.npz").network.weights])
        assert not np.array_equal(plain, weights[0])


def test_a_batch_may_be_done_in_parts(gpumlp, tmp_path):
    weights = []
    for rows in ("none", 7):
        ended = gpumlp("train", "iris", "--epochs", 2, "--micro-batch", rows, "--save", tmp_path / "m.npz")
        assert ended.status == 0
        assert ("in 10 parts of 7" in ended.err) == (rows == 7)
        weights.append(np.concatenate([W.ravel() for W in package.load(tmp_path / "m.npz").network.weights]))
    assert np.allclose(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spelling", ["--batch-size", "--batchsize", "-b"])
def test_a_tuned_batch_size_is_told_and_training_is_as_with_that_size(gpumlp, tmp_path, spelling):
    options = ("xor", "--epochs", 3, "--hidden", 3, "--json")
    ended = gpumlp("train", *options, spelling, "tune", "-o", tmp_path / "tuned.npz")
    result = result_of(ended)
    told = [line for line in ended.err.splitlines() if "batch size" in line]
    assert len(told) == 1
    assert told[0].startswith(f"note      batch size {result['batch_size']} on numpy: ")
    gpumlp("train", *options, "-b", result["batch_size"], "-o", tmp_path / "given.npz")
    assert (tmp_path / "tuned.npz").read_bytes() == (tmp_path / "given.npz").read_bytes()


def test_a_batch_size_that_is_none_is_refused(gpumlp):
    ended = gpumlp("train", "iris", "--batch-size", "auto")
    assert ended.status == 2
    assert 'expected a number of rows of at least 1, "full" or "tune"' in ended.err


def test_what_the_options_say_is_what_is_built(gpumlp, tmp_path):
    options = ("--hidden", "6,4", "--activation", "tanh, leaky_relu(0.2)", "--output", "sigmoid", "--cost", "quadratic")
    ended = gpumlp("train", "iris", *QUICK, *options, "--dropout", 0.1, "--dtype", "float64", "-o", tmp_path / "m.npz")
    net = package.load(tmp_path / "m.npz").network
    names = [a.name for a in net.architecture.activations]
    assert ended.status == 0
    assert names == ["tanh", "leaky_relu(slope=0.2)", "sigmoid"]
    assert (net.sizes, net.architecture.cost.name, net.dtype) == ((4, 6, 4, 3), "quadratic", np.float64)
    assert net.dropout == (0.1, 0.1)


@pytest.mark.parametrize("hidden", ["", "none"])
def test_a_network_may_have_no_hidden_layer(gpumlp, hidden):
    assert result_of(gpumlp("train", "iris", *QUICK, "--hidden", hidden, "--json"))["sizes"] == [4, 3]


@pytest.mark.parametrize(("name", "read"), [("l.csv", csv.DictReader), ("l.jsonl", lambda f: map(json.loads, f))])
def test_the_log_has_a_line_for_each_epoch(gpumlp, tmp_path, name, read):
    gpumlp("train", "iris", *QUICK, "--log", tmp_path / name)
    with open(tmp_path / name) as file:
        assert [int(line["epoch"]) for line in read(file)] == [1, 2, 3]


def test_the_task_can_be_set_against_what_the_target_looks_like(gpumlp):
    result = result_of(gpumlp("train", "digits", *QUICK, "--task", "regression", "--json"))
    assert (result["task"], result["sizes"][-1]) == ("regression", 1)


def test_counts_stay_as_they_are_where_the_cost_wants_them(gpumlp, tmp_path):
    counts = np.random.default_rng(0).poisson(4.0, 300)
    np.savez(tmp_path / "counts.npz", X=np.sqrt(counts)[:, None], y=counts + 0.25)
    options = ("--cost", "poisson", "--output", "exp", "--save", tmp_path / "m.npz")
    assert (
        result_of(gpumlp("train", tmp_path / "counts.npz", "--epochs", 40, "--quiet", "--json", *options))["r2"] > 0.5
    )
    assert package.load(tmp_path / "m.npz").target_scaler is None


def test_pixels_train_as_they_are_and_a_hint_names_the_option(gpumlp, tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (40, 9), dtype=np.uint8)
    np.savez(tmp_path / "pixels.npz", X=X, y=(X[:, 0] > 127).astype(int))
    ended = gpumlp("train", tmp_path / "pixels.npz", "--epochs", 2)
    assert ended.status == 0
    assert "--standardise usually helps" in ended.err


def test_a_constant_test_target_has_no_r2_and_json_says_null(gpumlp, tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"{i},{i + 0.5 * (i == 0)}\n" for i in range(4)))
    result = result_of(
        gpumlp("train", tmp_path / "t.csv", *QUICK, "--val-fraction", 0.2, "--task", "regression", "--json")
    )
    assert result["r2"] is None


def test_quiet_leaves_stderr_empty(gpumlp):
    assert gpumlp("train", "iris", *QUICK).err == ""


def test_what_the_library_logs_while_training_is_told_unless_quiet(gpumlp, monkeypatch):
    import logging

    from gpumlp.training.trainer import Trainer

    fit = Trainer.fit

    def noted(self, *args, **options):
        logging.getLogger("gpumlp").info("loops are compiled")
        return fit(self, *args, **options)

    monkeypatch.setattr(Trainer, "fit", noted)
    assert "note      loops are compiled\n" in gpumlp("train", "iris", "--epochs", "1").err
    assert gpumlp("train", "iris", "--epochs", "1", "--quiet").err == ""
    assert not logging.getLogger("gpumlp").handlers


@pytest.mark.parametrize(
    ("kinds", "found", "told"),
    [
        ("batch", ("batch", "batch"), "batch normalisation"),
        ("layer,none", ("layer", None), "layer normalisation"),
        ("none", (None, None), "relu, softmax, cat"),
    ],
)
def test_hidden_layers_are_normalised_as_asked_for(gpumlp, kinds, found, told, tmp_path):
    path = tmp_path / "model.npz"
    options = ("--hidden", "8,6", "--epochs", 2, "--normalisation", kinds, "--save", path)
    ended = gpumlp("train", "iris", *options)
    assert ended.status == 0, ended.err
    assert told in ended.err
    assert package.load(path).network.architecture.normalisation == found
    assert gpumlp("predict", path, "iris").status == 0


def test_a_kind_of_normalisation_that_does_not_exist_is_refused(gpumlp):
    ended = gpumlp("train", "iris", *QUICK, "--normalisation", "bacth")
    assert ended.status == 2
    assert "did you mean 'batch'" in ended.err
