import csv
import io
import json

import numpy as np
import pytest
from comparing import theta
from small import classifier, data, labelled, network

import gpumlp
from gpumlp import CsvLog, EarlyStopping, JsonLinesLog, KeepBest, Metric, Monitor, Stop
from gpumlp.errors import ConfigurationError, DivergenceError, ShapeError, UnknownName


class Diary(Monitor):
    """Writes down every moment."""

    def __init__(self, name="", into=None):
        self.name, self.seen = name, [] if into is None else into

    def training_began(self, run):
        self.run = run
        self.seen.append(f"{self.name}began")

    def epoch_began(self, epoch):
        self.seen.append(f"{self.name}epoch {epoch}")

    def step_ended(self, step):
        self.seen.append(f"{self.name}step {step}")

    def epoch_ended(self, report):
        self.report = report
        self.seen.append(f"{self.name}epoch {report.epoch} ended")

    def training_ended(self):
        self.seen.append(f"{self.name}ended")


class Snapshots(Monitor):
    """Keeps the parameters after each epoch."""

    def __init__(self, net):
        self.net, self.kept = net, []

    def epoch_ended(self, report):
        self.kept.append(theta(self.net))


class Replay(Monitor):
    """Replaces a metric by a given course, one line an epoch."""

    def __init__(self, name, course):
        self.name, self.course = name, course

    def training_began(self, run):
        self.left = iter(self.course)

    def epoch_ended(self, report):
        report.values[self.name] = np.where(report.active, np.array(next(self.left), float), np.nan)


def test_all_moments_come_in_order(backend):
    diary = Diary()
    trainer = gpumlp.Trainer(network(backend=backend), batch_size=10)
    trainer.fit(*data(), 2, monitors=[diary])
    epoch = ["epoch {0}", "step 1", "step 2", "step 3", "epoch {0} ended"]
    assert diary.seen == ["began", *(m.format(1) for m in epoch), *(m.format(2) for m in epoch), "ended"]
    trainer.fit(*data(), 1, monitors=[diary])
    assert diary.seen[12:] == ["began", *(m.format(3) for m in epoch), "ended"]


def test_monitors_are_told_in_their_order_and_of_the_end_in_the_opposite_one(backend):
    seen = []
    gpumlp.Trainer(network(backend=backend), batch_size="full").fit(
        *data(), 1, monitors=[Diary("a ", seen), Diary("b ", seen)]
    )
    moments = [f"{who} {what}" for what in ("began", "epoch 1", "step 1", "epoch 1 ended") for who in "ab"]
    assert seen == [*moments, "b ended", "a ended"]


def test_every_monitor_is_told_of_the_end_even_if_one_raises_there(backend):
    class Breaks(Monitor):
        def training_ended(self):
            raise RuntimeError("no")

    diary = Diary()
    with pytest.raises(RuntimeError, match="no"):
        gpumlp.Trainer(network(backend=backend)).fit(*data(), 1, monitors=[diary, Breaks()])
    assert diary.seen[-1] == "ended"


def test_a_run_and_a_report_say_what_they_are(backend):
    diary = Diary()
    trainer = gpumlp.Trainer(
        network(n_models=2, model_ids=[3, 8], backend=backend), batch_size=10, learning_rate=[0.1, 0.2]
    )
    trainer.fit(*data(), 1)
    trainer.fit(*data(), 4, monitors=[diary], validation=data(n=5))
    run, report = diary.run, diary.report
    assert (run.n_models, run.model_ids, run.first_epoch, run.epochs) == (2, (3, 8), 1, 4)
    assert (run.n_rows, run.n_steps, run.batch, run.device) == (23, 3, 10, f"{backend} on {trainer.net.backend.device}")
    assert (report.epoch, report.step) == (5, 15)
    assert report.active.tolist() == [True, True]
    assert report.values["learning_rate"].tolist() == [0.1, 0.2]
    assert {"cost", "validation_cost"} <= set(report.values)
    assert report.seconds > 0
    assert np.isclose(report.samples_per_second, 23 / report.seconds)
    with pytest.raises(UnknownName, match="unknown metric 'accuracy'"):
        report.metric("accuracy")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_end_is_told_whatever_happens(error, backend):
    class Breaks(Monitor):
        def step_ended(self, step):
            if step == 2:
                raise error

    diary = Diary()
    with pytest.raises(error):
        gpumlp.Trainer(network(backend=backend), batch_size=10).fit(*data(), 2, monitors=[diary, Breaks()])
    assert diary.seen == ["began", "epoch 1", "step 1", "step 2", "ended"]


def test_a_monitor_that_cannot_begin_ends_those_that_have(backend, tmp_path):
    diary = Diary()
    with pytest.raises(OSError, match="missing"):
        gpumlp.Trainer(network(backend=backend)).fit(
            *data(), 1, monitors=[diary, CsvLog(tmp_path / "missing" / "x.csv")]
        )
    assert diary.seen == ["began", "ended"]


def test_training_can_go_on_after_an_interruption(backend):
    class Breaks(Monitor):
        def step_ended(self, step):
            raise KeyboardInterrupt

    trainer = gpumlp.Trainer(network(backend=backend), batch_size=10)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data(), 1, monitors=[Breaks()])
    assert trainer.fit(*data(), 2).epochs.tolist() == [1, 2]


def test_a_stop_ends_all_models_or_those_it_names(backend):
    class StopAt(Monitor):
        def __init__(self, epoch, models):
            self.epoch, self.models = epoch, models

        def epoch_ended(self, report):
            return Stop("enough", self.models) if report.epoch == self.epoch else None

    net = network(n_models=3, model_ids=[5, 6, 7], backend=backend)
    trainer = gpumlp.Trainer(net)
    history = trainer.fit(*data(), 9, monitors=[StopAt(2, np.array([False, True, False])), StopAt(4, None)])
    assert len(history) == 4
    assert history.stopped == {6: "enough", 5: "enough", 7: "enough"}
    assert np.isfinite(history["cost"]).tolist() == [[True] * 3] * 2 + [[True, False, True]] * 2
    again = trainer.fit(*data(), 3)  # a monitor ends one fit, the next one goes on
    assert len(again) == 3
    assert np.isfinite(again["cost"]).all()
    assert again.stopped == {}


COURSE = [[5, 5, 5], [4, 6, 4], [4.5, 3, 4], [4.2, 3.5, 3], [4.1, 3.4, 2], [1, 1, 1.5], [1, 1, 1.2]]


def test_early_stopping_stops_each_model_alone_and_restores_its_best(backend):
    net = network(n_models=3, backend=backend)
    stopping, snapshots = EarlyStopping("score_cost", patience=2), Snapshots(net)
    history = gpumlp.Trainer(net, learning_rate=0.05).fit(
        *data(), 7, monitors=[Replay("score_cost", COURSE), stopping, snapshots]
    )
    assert stopping.best.tolist() == [4, 3, 1.2]
    assert stopping.best_epoch.tolist() == [2, 3, 7]
    assert set(history.stopped) == {0, 1}
    assert "score_cost has not improved for 2 epochs" in history.stopped[0]
    assert np.isfinite(history["cost"]).sum(axis=0).tolist() == [4, 5, 7]
    for m, epoch in enumerate([2, 3, 7]):
        assert np.array_equal(theta(net)[m], snapshots.kept[epoch - 1][m])


def test_early_stopping_may_leave_the_last_weights(backend):
    net = network(n_models=3, backend=backend)
    snapshots = Snapshots(net)
    monitors = [Replay("score_cost", COURSE), EarlyStopping("score_cost", patience=2, restore_best=False), snapshots]
    gpumlp.Trainer(net).fit(*data(), 7, monitors=monitors)
    assert np.array_equal(theta(net), snapshots.kept[-1])


@pytest.mark.parametrize(("delta", "epochs"), [(0.0, 6), (0.05, 6), (0.25, 3)])
def test_early_stopping_wants_an_improvement_of_its_size(delta, epochs, backend):
    course = [[1.0], [0.9], [0.8], [0.7], [0.6], [0.5]]
    monitors = [Replay("cost_", course), EarlyStopping("cost_", patience=2, min_delta=delta)]
    assert len(gpumlp.Trainer(network(backend=backend)).fit(*data(), 6, monitors=monitors)) == epochs


def test_what_is_better_follows_from_the_metrics_name_or_the_mode(backend):
    course = [[0.2], [0.9], [0.4]]
    for name, mode, best in [
        ("accuracy_", None, 2),
        ("some_cost", None, 1),
        ("mean_error", None, 1),
        ("loss", None, 1),
        ("cost2", "max", 2),
        ("score", "min", 1),
    ]:
        keep = KeepBest(name, mode)
        gpumlp.Trainer(network(backend=backend)).fit(*data(), 3, monitors=[Replay(name, course), keep])
        assert keep.best_epoch.tolist() == [best], name
    with pytest.raises(ConfigurationError, match="mode='up'"):
        gpumlp.Trainer(network(backend=backend)).fit(*data(), 3, monitors=[KeepBest("cost", "up")])


def test_a_value_that_is_not_a_number_is_never_the_best(backend):
    course = [[np.nan, 3], [2, np.nan], [np.nan, 4], [5, np.inf]]
    net = network(n_models=2, backend=backend)
    keep, snapshots = KeepBest("my_cost"), Snapshots(net)
    gpumlp.Trainer(net, learning_rate=0.05).fit(*data(), 4, monitors=[Replay("my_cost", course), keep, snapshots])
    assert keep.best.tolist() == [2, 3]
    assert np.array_equal(theta(net)[0], snapshots.kept[1][0])
    assert np.array_equal(theta(net)[1], snapshots.kept[0][1])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_keep_best_leaves_the_best_also_after_an_error(error, backend):
    class Breaks(Monitor):
        def epoch_began(self, epoch):
            if epoch == 4:
                raise error

    net = network(backend=backend)
    snapshots = Snapshots(net)
    monitors = [Replay("my_cost", [[3], [1], [2], [0]]), KeepBest("my_cost"), snapshots, Breaks()]
    with pytest.raises(error):
        gpumlp.Trainer(net, learning_rate=0.05).fit(*data(), 5, monitors=monitors)
    assert np.array_equal(theta(net), snapshots.kept[1])


def test_keep_best_watches_the_validation_set(backend):
    X, Y = data()
    net = network(n_models=2, backend=backend)
    keep = KeepBest()
    history = gpumlp.Trainer(net, learning_rate=0.5, batch_size=5).fit(
        X, Y, 8, validation=data(n=9, seed=3), monitors=[keep]
    )
    costs = history["validation_cost"]
    assert keep.best_epoch.tolist() == (costs.argmin(axis=0) + 1).tolist()
    assert np.allclose(net.cost_of(*data(n=9, seed=3)), costs.min(axis=0), rtol=1e-12)


def test_keep_best_starts_anew_with_each_fit(backend):
    net = network(backend=backend)
    keep = KeepBest("my_cost")
    trainer = gpumlp.Trainer(net)
    trainer.fit(*data(), 1, monitors=[Replay("my_cost", [[0.0]]), keep])
    snapshots = Snapshots(net)
    trainer.fit(*data(), 1, monitors=[Replay("my_cost", [[9.0]]), keep, snapshots])
    assert np.array_equal(theta(net), snapshots.kept[0])


def test_a_monitor_of_an_unknown_metric_raises(backend):
    with pytest.raises(UnknownName, match="unknown metric 'validation_cost'; known are cost, learning_rate"):
        gpumlp.Trainer(network(backend=backend)).fit(*data(), 1, monitors=[KeepBest()])


def test_a_users_metric_stands_in_the_history(backend):
    def spread(Y, outputs):
        assert outputs.shape == (9, 2)
        return np.abs(Y - outputs).max()

    X, Y = data(n=9, seed=3)
    net = network(n_models=2, backend=backend)
    history = gpumlp.Trainer(net).fit(*data(), 3, validation=(X, Y), monitors=[Metric("spread", spread)])
    assert history["spread"].shape == (3, 2)
    assert np.allclose(history["spread"][-1], np.abs(Y - net.predict(X)).max(axis=(1, 2)))


def test_a_function_may_be_watched_as_a_metric(backend):
    def worst_error(Y, outputs):
        return float(np.abs(Y - outputs).max())

    net = network(backend=backend)
    keep = KeepBest(worst_error)
    history = gpumlp.Trainer(net, learning_rate=0.3).fit(*data(), 5, validation=data(n=9, seed=3), monitors=[keep])
    assert keep.best_epoch[0] == history["worst_error"][:, 0].argmin() + 1


def test_a_users_metric_needs_a_validation_set(backend):
    with pytest.raises(ConfigurationError, match=r"needs fit\(\.\.\., validation=\(X, Y\)\)"):
        gpumlp.Trainer(network(backend=backend)).fit(*data(), 1, monitors=[Metric("m", lambda Y, out: 0.0)])


# ---------------------------------------------------------------- logs


def logged(log, backend, epochs=(2, 1)):
    trainer = gpumlp.Trainer(classifier(n_models=2, model_ids=[4, 9], backend=backend))
    histories = [trainer.fit(*labelled(), n, validation=labelled(seed=1), monitors=[log]) for n in epochs]
    return np.concatenate([h["cost"] for h in histories])


def check_lines(lines, costs):
    assert [int(line["epoch"]) for line in lines] == [1, 1, 2, 2, 3, 3]
    assert [int(line["model"]) for line in lines] == [4, 9] * 3
    assert np.array_equal([float(line["cost"]) for line in lines], costs.ravel())
    assert {"step", "accuracy", "validation_cost", "validation_accuracy", "learning_rate", "seconds"} <= set(lines[0])


def test_a_csv_log_has_a_line_for_each_epoch_and_model(tmp_path, backend):
    costs = logged(CsvLog(tmp_path / "log.csv"), backend)
    with (tmp_path / "log.csv").open(newline="") as file:
        check_lines(list(csv.DictReader(file)), costs)


def test_a_json_lines_log_has_a_line_for_each_epoch_and_model(tmp_path, backend):
    costs = logged(JsonLinesLog(str(tmp_path / "log.jsonl")), backend)
    check_lines([json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()], costs)


def test_a_log_begins_anew_after_a_reset(tmp_path, backend):
    trainer = gpumlp.Trainer(network(backend=backend))
    log = CsvLog(tmp_path / "log.csv")
    trainer.fit(*data(), 3, monitors=[log])
    trainer.reset()
    trainer.fit(*data(), 1, monitors=[log])
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_csv_log_keeps_its_columns_when_a_later_fit_has_others(tmp_path, backend):
    trainer = gpumlp.Trainer(network(backend=backend))
    log = CsvLog(tmp_path / "log.csv")
    first = trainer.fit(*data(), 1, monitors=[log])
    second = trainer.fit(*data(), 1, validation=data(n=5), monitors=[log])
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["seconds"]) == first.seconds[0]
    assert float(lines[1]["seconds"]) == second.seconds[0]


def test_a_log_is_whole_up_to_the_moment_a_run_dies(tmp_path, backend):
    class Breaks(Monitor):
        def epoch_began(self, epoch):
            if epoch == 3:
                self.lines = (tmp_path / "log.jsonl").read_text().splitlines()
                raise RuntimeError

    breaks = Breaks()
    with pytest.raises(RuntimeError):
        gpumlp.Trainer(network(backend=backend)).fit(
            *data(), 5, monitors=[JsonLinesLog(tmp_path / "log.jsonl"), breaks]
        )
    assert [json.loads(line)["epoch"] for line in breaks.lines] == [1, 2]


def test_json_has_null_where_a_value_is_no_number(tmp_path, backend):
    monitors = [Replay("odd", [[np.nan], [np.inf], [1.5]]), JsonLinesLog(tmp_path / "log.jsonl")]
    gpumlp.Trainer(network(backend=backend)).fit(*data(), 3, monitors=monitors)
    assert [json.loads(line)["odd"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [None, None, 1.5]


def test_a_stopped_model_leaves_no_lines(tmp_path, backend):
    monitors = [
        Replay("my_cost", [[1, 1], [2, 0.5], [3, 0.2]]),
        EarlyStopping("my_cost", patience=1),
        CsvLog(tmp_path / "log.csv"),
    ]
    gpumlp.Trainer(network(n_models=2, backend=backend)).fit(*data(), 3, monitors=monitors)
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [line["model"] for line in csv.DictReader(file)] == ["0", "1", "0", "1", "1"]


def test_the_progress_bar_is_drawn_and_ends(backend):
    rich = pytest.importorskip("rich.console")
    stream = io.StringIO()
    bar = gpumlp.ProgressBar(rich.Console(file=stream, force_terminal=True, width=120))
    gpumlp.Trainer(classifier(backend=backend)).fit(*labelled(), 2, validation=labelled(seed=1), monitors=[bar])
    text = stream.getvalue()
    assert "epoch" in text
    assert "cost" in text
    assert "/s" in text


def test_the_progress_bar_survives_a_divergence(backend):
    rich = pytest.importorskip("rich.console")
    bar = gpumlp.ProgressBar(rich.Console(file=io.StringIO(), force_terminal=True, width=120))
    X, Y = data()
    net = network((4, 6, 2), "identity", backend=backend)
    with pytest.raises(DivergenceError):
        gpumlp.Trainer(net, "sgd", learning_rate=1e200, batch_size=5).fit(X, Y, 5, validation=(X, Y), monitors=[bar])


def test_divergence_is_told_to_the_monitors_before_it_raises(backend):
    diary = Diary()
    net = network(backend=backend)
    with pytest.raises(DivergenceError):
        gpumlp.Trainer(net, "sgd", learning_rate=1e200).fit(*data(), 5, monitors=[diary])
    assert diary.seen[-1] == "ended"
    assert not np.isfinite(diary.report.values["cost"]).all()


def test_two_functions_of_one_name_are_watched_apart(backend):
    best = gpumlp.KeepBest(lambda Y, outputs: 1.0, mode="max")
    stop = gpumlp.EarlyStopping(lambda Y, outputs: 2.0, mode="max")
    gpumlp.Trainer(network(backend=backend)).fit(*data(), 2, validation=data(n=5), monitors=[best, stop])
    assert (best.best.item(), stop.best.item()) == (1.0, 2.0)


def test_a_metric_whose_name_does_not_tell_needs_a_mode(backend):
    options = {"validation": data(n=5), "epochs": 2}
    with pytest.raises(ConfigurationError, match="surprise"):
        gpumlp.Trainer(network(backend=backend)).fit(
            *data(), monitors=[gpumlp.Metric("surprise", lambda Y, o: 1.0), gpumlp.KeepBest("surprise")], **options
        )


@pytest.mark.parametrize("patience", [0, -1, "3", np.nan])
def test_a_patience_that_means_nothing_raises(patience):
    with pytest.raises(ConfigurationError, match=f"patience={patience!r}: expected a number of epochs of at least 1"):
        gpumlp.EarlyStopping("cost", patience=patience)


@pytest.mark.parametrize(
    ("wish", "error", "message"),
    [
        (True, ConfigurationError, "Wishes.epoch_ended returned True; expected a gpumlp.Stop or None"),
        (
            gpumlp.Stop("enough", [True, False]),
            ShapeError,
            r"the Stop of Wishes has shape \(2,\), expected \(3,\)",
        ),
    ],
)
def test_a_wish_that_is_none_is_told_by_the_monitors_name(wish, error, message, backend):
    class Wishes(Monitor):
        def epoch_ended(self, report):
            return wish

    with pytest.raises(error, match=message):
        gpumlp.Trainer(network(n_models=3, backend=backend)).fit(*data(), 2, monitors=[Wishes()])


def test_a_monitor_may_look_at_the_network_that_is_trained():
    class Look(gpumlp.Monitor):
        def training_began(self, run):
            self.network = run.network()

    look, net = Look(), gpumlp.Network([4, 3, 2], backend="numpy")
    gpumlp.Trainer(net).fit(np.zeros((5, 4)), np.zeros(5, int), epochs=1, monitors=[look])
    assert look.network is net
