import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import gpumlp
import gpumlp.convert
from gpumlp.data import Encoding, QuantileNormaliser, Standardiser, Table
from gpumlp.errors import ConfigurationError, ModelFileError
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.network.architecture import build_architecture
from gpumlp.network.members import Member
from gpumlp.saved_model import HEADER, VERSION, SavedModel

X = np.random.default_rng(0).standard_normal((9, 3))


def classifier(**options):
    net = gpumlp.Network((3, 5, 4), seed=2, **options)
    classes = np.array(["ash", "birch", "elm", "oak"])
    return SavedModel(net, "classification", classes, ("a", "b", "c"), "tree", Standardiser.fit(X))


def regression():
    net = gpumlp.Network((3, 5, 2), output="identity", cost="quadratic", dtype="float64", n_models=2)
    return SavedModel(net, "regression", target_scaler=Standardiser(np.array([10.0, 0.0]), np.array([2.0, 1.0])))


def rewrite(path, change_header=lambda header: None, change_arrays=lambda arrays: None):
    """Write a model file again with another header or other arrays."""
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read(HEADER))
        arrays = {n: np.lib.format.read_array(archive.open(n)) for n in archive.namelist() if n != HEADER}
    change_header(header)
    change_arrays(arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(HEADER, json.dumps(header))
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array)
            archive.writestr(name, member.getvalue())


def by_quantiles():
    model = classifier()
    model.scaler = QuantileNormaliser.fit(X, np.array([False, True, False]))
    return model


def by_columns():
    columns = Encoding(("a", "b"), (None, ("", "unseen")))
    return replace(classifier(), columns=columns, feature_names=columns.feature_names)


def by_codes(**options):
    columns = Encoding(("a", "b", "c"), (None, ("", "u", "v"), None), frozenset("b"))
    model = classifier(embeddings=[gpumlp.Embedding(1, 3, 2)], **options)
    scaler = Standardiser.fit(X, columns.is_category)
    return replace(model, columns=columns, feature_names=columns.feature_names, scaler=scaler)


def coded(X):
    """Return rows whose second feature is a code of three categories, or -1."""
    return np.column_stack([X[:, 0], np.arange(len(X)) % 4 - 1, X[:, 2]])


@pytest.mark.parametrize("n_models", [1, 3])
def test_a_model_with_embeddings_comes_back_with_its_tables(n_models, tmp_path):
    model = by_codes(n_models=n_models)
    loaded = gpumlp.load(model.save(tmp_path / "model"))
    assert loaded.network.architecture == model.network.architecture
    assert np.array_equal(loaded.network.embeddings[0], model.network.embeddings[0])
    assert loaded.columns == model.columns
    assert np.array_equal(loaded.outputs(coded(X)), model.outputs(coded(X)))


def test_a_model_whose_names_are_too_long_for_a_file_is_refused_before_it_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.saved_model.header.MAX_HEADER", 300)
    for call in (by_codes().expect_saveable, lambda: by_codes().save(tmp_path / "m.npz")):
        with pytest.raises(ModelFileError, match=r"names of the features and their categories take .* at most 300 b"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "model",
    [classifier(), classifier(n_models=3), classifier(dtype="float64"), regression(), by_quantiles(), by_columns()],
)
def test_a_model_that_is_saved_and_loaded_predicts_the_same(model, tmp_path):
    loaded = gpumlp.load(model.save(tmp_path / "model"))
    assert np.array_equal(loaded.outputs(X), model.outputs(X))
    assert np.array_equal(loaded.predict(X), model.predict(X))
    assert loaded.feature_names == model.feature_names
    assert loaded.target_name == model.target_name
    assert loaded.columns == model.columns
    assert (loaded.network.seeds, loaded.network.model_ids) == (model.network.seeds, model.network.model_ids)


def test_a_file_has_the_lowest_version_that_can_say_what_is_in_it(tmp_path):
    versions = ((classifier(), 1), (regression(), 1), (by_quantiles(), 2), (by_columns(), 2), (by_codes(), 3))
    for model, version in versions:
        with zipfile.ZipFile(model.save(tmp_path / "m.npz")) as archive:
            assert json.loads(archive.read(HEADER))["version"] == version


def test_raw_rows_may_be_a_table_of_the_columns_that_there_were_in_training():
    model = by_columns()
    table = Table([[0.5, 0], [1.5, 1], [2.5, 2]], feature_names=("a", "b"), texts=(None, ("unseen", "x", "")))
    assert np.array_equal(model.outputs(table), model.outputs([[0.5, 0, 1], [1.5, 0, 0], [2.5, 1, 0]]))
    assert np.array_equal(classifier().outputs(Table(X)), classifier().outputs(X))


def test_definitions_with_parameters_come_back_with_them(tmp_path):
    net = gpumlp.Network((3, 4, 1), activation="leaky_relu(slope=0.3)", output="identity", cost="huber(width=2.5)")
    loaded = gpumlp.load(SavedModel(net, "regression").save(tmp_path / "m.npz")).network
    assert [a.name for a in loaded.architecture.activations] == ["leaky_relu(slope=0.3)", "identity"]
    assert loaded.architecture.cost.name == "huber(width=2.5)"
    assert np.array_equal(loaded.predict(X), net.predict(X))


def test_an_activation_of_the_users_own_must_be_registered_before_loading(tmp_path):
    gpumlp.register(gpumlp.Activation("cubic", value=lambda z: z * z * z))
    try:
        path = SavedModel(gpumlp.Network((3, 4, 2), activation="cubic"), "regression").save(tmp_path / "m.npz")
    finally:
        ACTIVATIONS.remove("cubic")
    with pytest.raises(
        ModelFileError, match=r"unknown activation 'cubic'.*register your own definitions before loading"
    ):
        gpumlp.load(path)


def test_regression_answers_in_the_units_of_its_targets():
    model = regression()
    assert np.allclose(model.predict(X), model.outputs(X).mean(axis=0) * [2, 1] + [10, 0])


def test_probabilities_sum_to_one_for_softmax_and_for_sigmoid_outputs():
    several = SavedModel(gpumlp.Network((3, 4), output="sigmoid", cost="cross_entropy"), "classification", np.arange(4))
    single = SavedModel(gpumlp.Network((3, 1), output="sigmoid", cost="cross_entropy"), "classification", np.arange(2))
    for model in (classifier(), several, single):
        assert np.allclose(model.probabilities(X).sum(axis=1), 1)
        assert np.array_equal(model.classes[model.probabilities(X).argmax(axis=1)], model.predict(X))


def test_probabilities_of_outputs_that_are_none_are_refused():
    net = gpumlp.Network((3, 4), output="identity", cost="hinge")
    with pytest.raises(ConfigurationError, match="no probabilities"):
        SavedModel(net, "classification", np.arange(4)).probabilities(X)
    with pytest.raises(ConfigurationError, match="regression"):
        regression().probabilities(X)


WRONG_HEADERS = {
    "newer": (lambda h: h.update(version=VERSION + 1, written_by="9.1"), f"version {VERSION + 1}.*gpumlp 9.1"),
    "no version": (lambda h: h.pop("version"), "version None"),
    "another format": (lambda h: h.update(format="zip"), "no gpumlp model"),
    "no sizes": (lambda h: h.pop("sizes"), "no entry 'sizes'"),
    "negative sizes": (lambda h: h.update(sizes=[3, -5, 4]), "describes no network"),
    "other sizes": (lambda h: h.update(sizes=[3, 6, 4]), "the architecture needs"),
    "huge sizes": (lambda h: h.update(sizes=[3, 10**9, 4]), "claims 29.8 GiB of parameters"),
    "more layers": (lambda h: h.update(sizes=[3, 5, 5, 4]), "describes no network"),
    "sizes that are text": (lambda h: h.update(sizes="354"), "describes no network"),
    "unknown cost": (lambda h: h.update(cost="crossentropy"), "describes no network"),
    "misfit": (lambda h: h.update(cost="cross_entropy"), "describes no network"),
    "float16": (lambda h: h.update(dtype="float16"), "describes no network"),
    "feature names": (lambda h: h.update(feature_names=["a"]), "1 feature names for 3 features"),
    "classes": (lambda h: h.update(classes=[1, 2]), "2 classes for 4 outputs"),
    "task": (lambda h: h.update(task="guess"), "task 'guess'"),
    "scaler gone": (lambda h: h.update(scaled=False), "not expected"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_HEADERS.values(), ids=list(WRONG_HEADERS))
def test_a_header_that_does_not_fit_is_refused(change, message, tmp_path):
    path = classifier().save(tmp_path / "m.npz")
    rewrite(path, change_header=change)
    with pytest.raises(ModelFileError, match=message):
        gpumlp.load(path)


WRONG_ARRAYS = {
    "missing": (lambda a: a.pop("b1.npy"), "missing.*b1"),
    "surplus": (lambda a: a.update({"W9.npy": np.zeros(3)}), "not expected.*W9"),
    "shape": (lambda a: a.update({"W0.npy": a["W0.npy"][:, :4]}), "W0 is float32"),
    "dtype": (lambda a: a.update({"W0.npy": a["W0.npy"].astype(np.float64)}), "W0 is float64"),
    "byte order": (lambda a: a.update({"W0.npy": a["W0.npy"].astype(">f4")}), "W0 is >f4"),
    "objects": (lambda a: a.update({"W0.npy": np.array([None])}), "W0 is object"),
    "not finite": (lambda a: a["b0.npy"].fill(np.nan), "b0 holds values that are not finite"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_ARRAYS.values(), ids=list(WRONG_ARRAYS))
def test_arrays_that_do_not_fit_are_refused(change, message, tmp_path):
    path = classifier().save(tmp_path / "m.npz")
    rewrite(path, change_arrays=change)
    with pytest.raises(ModelFileError, match=message):
        gpumlp.load(path)


def test_a_damaged_file_never_gives_a_model_or_another_error(tmp_path):
    content = classifier().save(tmp_path / "m.npz").read_bytes()
    source = np.random.default_rng(0)
    damaged = tmp_path / "damaged.npz"
    loaded = 0
    for trial in range(300):
        bad = bytearray(content)
        if trial % 2:
            bad = bad[: source.integers(len(bad))]
        else:
            for place in source.integers(len(bad), size=3):
                bad[place] ^= 1 << source.integers(8)
        damaged.write_bytes(bad)
        try:
            model = gpumlp.load(damaged)
        except ModelFileError:
            continue
        loaded += 1  # bits that nothing depends on, such as a time stamp
        assert np.isfinite(model.outputs(X)).all()
    assert loaded < 60


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.npz"):
        gpumlp.load(tmp_path / "none.npz")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = classifier().save(tmp_path / "m.npz")
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        regression().save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path):
    mask = os.umask(0o027)
    try:
        path = classifier().save(tmp_path / "m.npz")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o600)
        classifier().save(path)
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(mask)


def test_a_loaded_model_can_be_trained_anew_from_its_own_initial_weights(tmp_path):
    model = classifier(initialiser="glorot")
    wanted = model.network.weights[0].copy()
    loaded = gpumlp.load(model.save(tmp_path / "m.npz")).network
    loaded.reset()
    assert np.array_equal(loaded.weights[0], wanted)


def test_a_loaded_model_says_that_it_does_not_know_an_own_initialiser(tmp_path):
    model = classifier(initialiser=lambda generator, n_out, n_in: generator.random((n_out, n_in)))
    loaded = gpumlp.load(model.save(tmp_path / "m.npz"))
    assert np.array_equal(loaded.outputs(X), model.outputs(X))
    with pytest.raises(ConfigurationError, match="by a function of the user"):
        loaded.network.reset()


def test_a_definition_that_only_has_a_shipped_name_is_not_saved_under_it(tmp_path):
    net = gpumlp.Network((3, 4, 2), activation=gpumlp.Activation("tanh", lambda z: z / 2))
    with pytest.raises(ModelFileError, match="not the registered definition"):
        SavedModel(net, "regression").save(tmp_path / "m.npz")
    net = gpumlp.Network((3, 4, 2), activation=gpumlp.activations.leaky_relu(0.3))  # the same, made by hand
    assert SavedModel(net, "regression").save(tmp_path / "m.npz").exists()


# ---------------------------------------------------------------- normalised layers


def normalised():
    rng = np.random.default_rng(4)
    net = gpumlp.Network((3, 5, 4, 6, 2), "tanh", "identity", "quadratic", n_models=2, normalisation=KINDS)
    gpumlp.Trainer(net, batch_size=4).fit(X, rng.standard_normal((9, 2)), 3)
    return SavedModel(net, "regression")


KINDS = ("batch", None, "layer")


def test_a_normalised_model_comes_back_with_its_statistics(tmp_path):
    model = normalised()
    loaded = gpumlp.load(model.save(tmp_path / "model"))
    assert loaded.network.architecture.normalisation == KINDS
    assert np.array_equal(loaded.outputs(X), model.outputs(X))
    for found, wanted in zip(loaded.network.normalising, model.network.normalising, strict=True):
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("write", [lambda model, path: model.save(path), gpumlp.convert.save_safetensors])
def test_a_stack_of_different_networks_is_refused(write, tmp_path):
    nets = [build_architecture((3, n, 2), "relu", "softmax", "categorical_cross_entropy") for n in (4, 5)]
    net = gpumlp.Network.mixed([Member(net, (0.0,)) for net in nets])
    model = SavedModel(net, "classification", np.arange(2))
    with pytest.raises(ModelFileError, match=r"a stack of 2 kinds.*convert\.one_of\(model, 0\)"):
        write(model, tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []
    one = gpumlp.convert.one_of(model, 1)
    assert np.array_equal(gpumlp.load(one.save(tmp_path / "one")).outputs(X)[0], net.predict(X)[1])


def test_a_file_from_before_there_was_normalisation_is_read(tmp_path):
    model = classifier()
    path = model.save(tmp_path / "model")
    rewrite(path, lambda header: header.pop("normalisation"))
    assert np.array_equal(gpumlp.load(path).outputs(X), model.outputs(X))


@pytest.mark.parametrize(
    ("change_header", "change_arrays", "message"),
    [
        (lambda h: h.update(normalisation=None), None, "not expected"),
        (lambda h: h.update(normalisation=["batch"]), None, "describes no network"),
        (lambda h: h.update(normalisation=["batch", None, "group"]), None, "describes no network"),
        (lambda h: h.update(normalisation=5), None, "describes no network"),
        (None, lambda a: a.pop("running_mean0.npy"), "missing"),
        (None, lambda a: a.update({"gamma2.npy": np.ones((2, 5), np.float32)}), "gamma2"),
        (None, lambda a: a.update({"running_variance0.npy": -np.ones((2, 5), np.float32)}), "below 0"),
    ],
)
def test_a_normalised_model_that_is_damaged_is_refused(change_header, change_arrays, message, tmp_path):
    path = normalised().save(tmp_path / "model")
    rewrite(path, *(change or (lambda x: None) for change in (change_header, change_arrays)))
    with pytest.raises(ModelFileError, match=message):
        gpumlp.load(path)
