import gc
import json
import pickle
import weakref

import numpy as np
import pytest
from small import classifier, data, labelled, network

import gpumlp
from gpumlp.errors import UnknownName


@pytest.fixture
def history(backend):
    net = classifier(n_models=2, model_ids=[4, 9], backend=backend)
    trainer = gpumlp.Trainer(net, batch_size=20)
    trainer.fit(*labelled(), 1)
    return trainer.fit(*labelled(), 3, validation=labelled(seed=1))


NAMES = ["cost", "accuracy", "learning_rate", "validation_cost", "validation_accuracy"]


def test_a_history_holds_every_value_by_epoch_and_model(history):
    assert len(history) == 3
    assert history.epochs.tolist() == [2, 3, 4]
    assert sorted(history) == sorted(NAMES)
    assert all(history[name].shape == (3, 2) for name in NAMES)
    assert history.seconds.shape == history.samples_per_second.shape == (3,)
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        history["acuracy"]


def test_a_history_becomes_a_dict_for_json(history):
    found = json.loads(json.dumps(history.to_dict()))
    assert found["model_ids"] == [4, 9]
    assert found["epoch"] == [2, 3, 4]
    assert np.array_equal(found["cost"], history["cost"])
    assert set(NAMES) <= set(found)


def test_a_history_becomes_a_frame_with_a_row_for_each_epoch_and_model(history):
    pytest.importorskip("pandas")
    frame = history.to_frame()
    assert frame["epoch"].tolist() == [2, 2, 3, 3, 4, 4]
    assert frame["model"].tolist() == [4, 9] * 3
    assert np.array_equal(frame.pivot(index="epoch", columns="model", values="cost").to_numpy(), history["cost"])


def test_a_history_is_plotted_into_a_file(history, tmp_path):
    pytest.importorskip("matplotlib")
    figure = history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000
    assert [axes.get_ylabel() for axes in figure.axes] == ["cost", "accuracy"]


def test_the_cost_of_an_epoch_is_the_mean_of_its_batches_before_their_steps(backend):
    X, Y = data()
    net = network(backend=backend)
    history = gpumlp.Trainer(net, "sgd", 0.0, batch_size=5).fit(X, Y, 2)
    assert np.allclose(history["cost"], net.cost_of(X, Y), rtol=1e-12)


def test_the_accuracy_of_an_epoch_is_the_share_of_right_answers(backend):
    X, y = labelled()
    net = classifier(n_models=2, backend=backend)
    history = gpumlp.Trainer(net, "sgd", 0.0, batch_size=7).fit(X, y, 1, validation=(X, y))
    wanted = (net.predict(X).argmax(axis=2) == y).mean(axis=1)
    assert np.allclose(history["accuracy"][0], wanted)
    assert np.allclose(history["validation_accuracy"][0], wanted)


def test_a_history_of_no_epoch_is_empty(backend):
    history = gpumlp.Trainer(network(backend=backend)).fit(*data(), 0)
    assert history.to_dict()["epoch"] == []
    assert list(history) == []


def test_a_history_keeps_numbers_and_not_the_training(backend):
    """Whoever keeps a history must not keep the data and all buffers with it."""
    X, y = labelled()
    there = weakref.ref(X)
    history = gpumlp.Trainer(classifier(backend=backend)).fit(X, y, 2, validation=(X, y))
    del X
    gc.collect()
    assert len(history) == 2
    assert there() is None


def test_a_history_can_be_pickled(history):
    again = pickle.loads(pickle.dumps(history))
    assert again.to_dict() == history.to_dict()
