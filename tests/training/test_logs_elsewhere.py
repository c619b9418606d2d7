"""What goes to TensorBoard and to MLflow."""

import sys

import numpy as np
import pytest
from small import classifier, labelled, network

import gpumlp
from gpumlp import MlflowLog, Monitor, TensorBoardLog
from gpumlp.cli import main
from gpumlp.errors import BackendUnavailable, ConfigurationError


@pytest.fixture
def events():
    """events(folder): name -> [(epoch, value)], as TensorBoard itself reads them."""
    pytest.importorskip("tensorboard", reason="reads and writes event files")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    def read(folder):
        found = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
        tensors = {}
        for run in found.Runs():
            for tag in found.Runs()[run]["tensors"]:
                tensors[tag] = [(e.step, e.tensor_proto) for e in found.Tensors(run, tag)]
        return tensors

    return read


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The address of a store of MLflow in files, and a client that reads it."""
    mlflow = pytest.importorskip("mlflow", reason="reads and writes runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    return uri, mlflow.MlflowClient(tracking_uri=uri)


def numbers(series):
    return [(epoch, proto.float_val[0]) for epoch, proto in series]


# ---------------------------------------------------------------- TensorBoard


def test_tensorboard_has_a_series_for_each_value_and_model(tmp_path, events):
    trainer = gpumlp.Trainer(classifier(n_models=2, model_ids=[3, 8]))
    history = trainer.fit(*labelled(), 3, validation=labelled(n=20), monitors=[TensorBoardLog(tmp_path)])
    found = events(tmp_path)
    names = {"cost", "accuracy", "validation_cost", "validation_accuracy", "learning_rate"}
    assert set(found) == {f"{name}/model {m}" for name in names for m in (3, 8)} | {"samples_per_second"}
    for m, model in enumerate((3, 8)):
        epochs, costs = zip(*numbers(found[f"cost/model {model}"]), strict=True)
        assert epochs == (1, 2, 3)
        assert np.allclose(costs, history["cost"][:, m])


def test_a_network_by_itself_has_plain_names_and_goes_on_in_the_same_folder(tmp_path, events):
    trainer = gpumlp.Trainer(classifier())
    for _ in range(2):
        trainer.fit(*labelled(), 2, monitors=[TensorBoardLog(tmp_path)])
    assert [epoch for epoch, _ in numbers(events(tmp_path)["cost"])] == [1, 2, 3, 4]


def test_a_stopped_model_ends_its_series(tmp_path, events):
    class StopSecond(Monitor):
        def epoch_ended(self, report):
            return gpumlp.Stop("enough", np.array([False, True]))

    trainer = gpumlp.Trainer(classifier(n_models=2))
    trainer.fit(*labelled(), 3, monitors=[TensorBoardLog(tmp_path), StopSecond()])
    found = events(tmp_path)
    assert [len(found[f"cost/model {m}"]) for m in range(2)] == [3, 1]


def test_weights_are_histograms_where_they_are_asked_for(tmp_path, events):
    net = network(n_models=2)
    gpumlp.Trainer(net).fit(*labelled(classes=2), 2, monitors=[TensorBoardLog(tmp_path, histograms=net)])
    found = events(tmp_path)
    for l, W in enumerate(net.weights):
        for m in range(2):
            (_, first), (_, last) = found[f"weights {l}/model {m}"]
            counts = np.frombuffer(last.tensor_content).reshape(-1, 3)
            assert counts[:, 2].sum() == W[m].size
            assert np.isclose(counts[:, 1].max(), W[m].max())
            assert first != last


def test_tensorboard_writes_without_tensorflow_or_torch(tmp_path, events):
    gpumlp.Trainer(classifier()).fit(*labelled(), 1, monitors=[TensorBoardLog(tmp_path)])
    assert not {"tensorflow", "torch"} & set(sys.modules)


# ---------------------------------------------------------------- MLflow


def only_run(client, experiment="gpumlp"):
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


def test_mlflow_has_parameters_and_a_metric_for_each_value_and_model(store):
    uri, client = store
    log = MlflowLog(uri, "mine", params={"optimizer": "adam"})
    trainer = gpumlp.Trainer(classifier(n_models=2, model_ids=[3, 8]), batch_size=7)
    history = trainer.fit(*labelled(), 3, monitors=[log])
    run = only_run(client, "mine")
    assert run.info.run_id == log.run_id
    assert run.info.status == "FINISHED"
    assert {"optimizer": "adam", "n_models": "2", "n_rows": "60", "batch": "7"}.items() <= run.data.params.items()
    found = client.get_metric_history(log.run_id, "cost/model 8")
    assert [(m.step, m.value) for m in found] == [(e + 1, c) for e, c in enumerate(history["cost"][:, 1])]


def test_a_fit_that_goes_on_goes_on_with_the_run(store):
    uri, client = store
    log, trainer = MlflowLog(uri), gpumlp.Trainer(classifier())
    trainer.fit(*labelled(), 2, monitors=[log])
    trainer.fit(*labelled(), 2, monitors=[log])
    assert only_run(client).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(log.run_id, "cost")] == [1, 2, 3, 4]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")])
def test_a_run_that_breaks_off_says_so(store, error, status):
    class Breaks(Monitor):
        def epoch_ended(self, report):
            raise error

    uri, client = store
    with pytest.raises(error):
        gpumlp.Trainer(classifier()).fit(*labelled(), 2, monitors=[MlflowLog(uri), Breaks()])
    assert only_run(client).info.status == status


def test_files_are_artifacts_of_the_run(store, tmp_path):
    uri, client = store
    log, file = MlflowLog(uri), tmp_path / "notes.txt"
    file.write_text("it went well")
    with pytest.raises(ConfigurationError, match="no run to add to"):
        log.add_file(file)
    gpumlp.Trainer(classifier()).fit(*labelled(), 1, monitors=[log])
    log.add_file(file)
    assert [a.path for a in client.list_artifacts(log.run_id)] == ["notes.txt"]


def test_a_store_that_does_not_take_the_run_is_named(store, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(ConfigurationError, match="MLflow at nowhere://x does not take the run"):
        gpumlp.Trainer(classifier()).fit(*labelled(), 1, monitors=[MlflowLog("nowhere://x")])


# ---------------------------------------------------------------- the command line, and what is missing


def test_the_command_line_logs_to_both(store, events, tmp_path, capsys):
    uri, client = store
    asked = ("--tensorboard", tmp_path / "tb", "--mlflow", uri, "--mlflow-experiment", "flowers")
    argv = ["train", "iris", "--epochs", "3", "--quiet", *map(str, asked)]
    assert main(argv) == 0, capsys.readouterr().err
    assert len(events(tmp_path / "tb")["validation_cost"]) == 3
    run = only_run(client, "flowers")
    assert {"optimizer": "adam", "lr": "0.001", "data": "iris"}.items() <= run.data.params.items()
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["model.npz"]


@pytest.mark.parametrize(("package", "log"), [("tensorboard", TensorBoardLog), ("mlflow", MlflowLog)])
def test_a_missing_package_is_named_with_what_brings_it(package, log, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=rf'pip install "gpumlp\[{package}\]"'):
        log("somewhere")


@pytest.mark.parametrize(("package", "option"), [("tensorboard", "--tensorboard"), ("mlflow", "--mlflow")])
def test_the_command_line_tells_of_a_missing_package_before_it_trains(package, option, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["train", "iris", option, str(tmp_path / "x")]) != 0
    assert f'pip install "gpumlp[{package}]"' in capsys.readouterr().err
