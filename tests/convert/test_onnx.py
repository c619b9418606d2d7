"""What ONNX Runtime gives for an exported model is what gpumlp gives."""

import sys

import numpy as np
import pytest
from exchanged_models import (
    DTYPES,
    HIDDEN,
    OUTPUTS,
    SCALER,
    X,
    allowance,
    by_quantiles,
    classifier,
    network,
    regression,
    rows,
)

import gpumlp
from gpumlp.convert import to_onnx
from gpumlp.errors import BackendUnavailable, ConfigurationError, ModelFileError
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.onnx_nodes import onnx_formula
from gpumlp.formulas.play import play
from gpumlp.formulas.registry import UNIT
from gpumlp.formulas.term import record
from gpumlp.formulas.vocabulary import WORDS, absolute, cos, power, sign, sin, sqrt, where

onnx = pytest.importorskip("onnx", reason='onnx is not installed (extra "onnx")')
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, which would run what is exported")

by_name = {"ids": lambda x: getattr(x, "name", None)}
NEAR = 1e-5


def ask(path, X):
    """Return the outputs of a file by name."""
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X}), strict=True))


def exported(model, tmp_path, X=None):
    return ask(to_onnx(model, tmp_path / "m.onnx"), rows(model) if X is None else X)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", HIDDEN, **by_name)
def test_every_activation_in_hidden_layers_computes_the_same(activation, scaled, n_models, dtype, tmp_path):
    model = regression(scaled=scaled, activation=activation, dtype=dtype, n_models=n_models)
    found = model.predict(rows(model))
    given = exported(model, tmp_path)
    assert list(given) == ["variable"]
    assert given["variable"].dtype == model.network.dtype
    assert np.abs(given["variable"] - found).max() <= 10 * allowance(model, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("output", OUTPUTS, **by_name)
def test_every_output_of_a_classification_gives_label_and_probabilities_or_scores(
    output, n_classes, n_models, dtype, tmp_path
):
    model = classifier(n_classes, output.name, dtype=dtype, n_models=n_models)
    given, X = exported(model, tmp_path), rows(model)
    assert given.pop("label").tolist() == model.predict(X).tolist()
    if output.range in UNIT:
        assert np.abs(given.pop("probabilities") - model.probabilities(X)).max() <= NEAR
    else:
        assert np.abs(given.pop("scores") - model.outputs(X).mean(axis=0)).max() <= NEAR
    assert not given


@pytest.mark.parametrize("output", [a for a in OUTPUTS if not a.row_wise], **by_name)
def test_every_output_of_a_regression_is_given_as_it_is(output, tmp_path):
    model = regression(1, output.name)
    found = model.predict(rows(model))
    variable = exported(model, tmp_path)["variable"]
    assert variable.shape == (len(X), 1)
    assert np.abs(variable[:, 0] - found).max() <= NEAR * np.abs(found).max()


def test_one_output_of_a_cost_with_labels_of_its_own_is_told_by_its_threshold(tmp_path):
    net = network((3, 4, 1), "identity", cost="hinge")
    net.set_weights(1, net.weights[1], [-np.median(net.predict(SCALER.transform(X))) + net.biases[1][0, 0]])
    model = gpumlp.SavedModel(net, "classification", np.array(["minus", "plus"]))
    given = exported(model, tmp_path)
    assert set(model.predict(rows(model))) == {"minus", "plus"}
    assert given["label"].tolist() == model.predict(rows(model)).tolist()


@pytest.mark.parametrize(
    ("classes", "kind"),
    [
        (["a", "b", "c"], object),
        ([4, 5, 9], np.int64),
        ([1.0, 2.0, 3.0], np.int64),
        ([-1, 0, 1], np.int64),
        ([False, True], np.int64),
    ],
)
def test_labels_are_text_or_int64(classes, kind, tmp_path):
    net = network((3, len(classes)), "softmax", [])
    model = gpumlp.SavedModel(net, "classification", np.array(classes))
    label = exported(model, tmp_path)["label"]
    assert label.dtype == kind
    assert label.tolist() == model.predict(rows(model)).tolist()


def test_labels_that_are_fractions_are_refused(tmp_path):
    model = gpumlp.SavedModel(network((3, 3), "softmax", []), "classification", np.array([0.5, 1, 2]))
    with pytest.raises(ConfigurationError, match=r"text or whole numbers, these are \[0\.5, 1\.0, 2\.0\]"):
        to_onnx(model, tmp_path / "m.onnx")


def test_the_file_tells_its_features_and_takes_any_number_of_rows(tmp_path):
    model = classifier()
    path = to_onnx(model, tmp_path / "m.onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("X", ["rows", 3], "tensor(float)")
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes == {"label": ["rows"], "probabilities": ["rows", 3]}
    told = session.get_modelmeta().custom_metadata_map
    assert told == {"feature_names": '["a", "b", "c"]', "target_name": "tree"}
    for n in (1, 2, 23):
        assert session.run(["label"], {"X": rows(model)[:n]})[0].tolist() == model.predict(rows(model)[:n]).tolist()
    content = onnx.load(path)
    assert {o.version for o in content.opset_import if o.domain == ""} == {13}
    assert not content.functions


def test_a_mean_far_from_zero_loses_nothing_in_float32(tmp_path):
    X = (1e6 + np.random.default_rng(0).standard_normal((9, 3)) * 50).astype(np.float32)
    model = regression()
    model.scaler = gpumlp.data.Standardiser.fit(X)
    model.target_scaler = None
    assert np.abs(exported(model, tmp_path, X)["variable"] - model.predict(X)).max() <= 1e-6


def test_dropout_is_left_out(tmp_path):
    model = regression(dropout=0.5)
    found = model.predict(rows(model))
    assert np.abs(exported(model, tmp_path)["variable"] - found).max() <= NEAR * np.abs(found).max()


def test_an_activation_of_the_users_own_is_exported_without_further_ado(tmp_path):
    gpumlp.register(gpumlp.Activation("ripple", value=lambda z: where(z > 0.1, sin(z) * cos(z), sign(z) * sqrt(z * z))))
    try:
        model = regression(activation="ripple", dtype="float64")
        found = model.predict(rows(model))
        assert np.abs(exported(model, tmp_path)["variable"] - found).max() <= 1e-11
    finally:
        ACTIVATIONS.remove("ripple")


def test_another_activation_that_couples_a_row_is_refused(tmp_path):
    own = gpumlp.Activation("soft", value=lambda z: z, range=UNIT, row_wise=True)
    cost = gpumlp.Cost("own", lambda a, y: a - y, matched="soft", matched_term=lambda z, a, y: a - y)
    gpumlp.register(own)
    try:
        with pytest.raises(ConfigurationError, match="soft couples the units of a row"):
            to_onnx(gpumlp.Network((3, 3), output=own, cost=cost), tmp_path / "m.onnx")
    finally:
        ACTIVATIONS.remove("soft")


def test_an_activation_that_reads_nothing_is_refused(tmp_path):
    net = gpumlp.Network((3, 2, 3), activation=gpumlp.Activation("one", value=lambda z: 1.0))
    with pytest.raises(ConfigurationError, match="one is the same for every z"):
        to_onnx(net, tmp_path / "m.onnx")


# ---------------------------------------------------------------- words

SMALL = [0.0, -0.0, 1e-30, -1e-30, 1e-9, -1e-9, 1e-4, -1e-4]
POINTS = np.array([*SMALL, 0.25, 0.3, -0.3, 0.999, -0.999, 1.0, 1.5, 7.0, -7.0, 30.0, -30.0, 1e4])


def run_formula(formula, values):
    """Return what ONNX Runtime makes of a formula's nodes."""
    helper, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    nodes = [helper.make_node(n.operator, n.inputs, [n.output]) for n in formula.nodes]
    nodes.append(helper.make_node("Identity", [formula.result], ["y"]))
    constants = [onnx.numpy_helper.from_array(np.array(v, values.dtype), n) for n, v in formula.constants.items()]
    ends = [[helper.make_tensor_value_info(name, kind, None)] for name in ("x", "y")]
    made = helper.make_model(
        helper.make_graph(nodes, "formula", *ends, constants), ir_version=7, opset_imports=[helper.make_opsetid("", 13)]
    )
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values})[0]


def of_one(word):
    """Return a formula of one number that uses a word, and where it is defined."""
    everywhere = POINTS
    if word.name == "where":
        return (lambda x: where(x, 2.0, x)), everywhere
    if word.name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
        return (lambda x: where(x.recorder.record(word.name, x, 0.25), 1, 0)), everywhere
    if word.name in ("add", "subtract", "multiply", "divide"):
        return (lambda x: x.recorder.record(word.name, x, 0.7)), everywhere
    if word.name == "power":
        return (lambda x: power(absolute(x), 1.5)), everywhere
    positive = everywhere[everywhere > 0]
    places = {"log": positive, "sqrt": positive, "log1p": everywhere[everywhere > -1], "exp": everywhere[:-1]}
    places["expm1"] = places["exp"]
    return (lambda x: x.recorder.record(word.name, x)), places.get(word.name, everywhere)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("word", WORDS.values(), ids=lambda w: w.name)
def test_every_word_means_the_same_in_onnx(word, dtype):
    formula, places = of_one(word)
    recording, values = record(formula, "x"), places.astype(dtype)
    found = run_formula(onnx_formula(recording, "x", "f_"), values)
    wanted = play(recording, values.astype(np.float64))
    assert found.dtype == dtype
    # some runtimes' sin, cos and tanh are that rough near the ends, and a float32 argument of sin is itself rounded
    np.testing.assert_allclose(found, wanted, rtol=64 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).tiny)


# ---------------------------------------------------------------- what is in the way


def test_without_onnx_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailable, match=r'pip install "gpumlp\[onnx\]"'):
        to_onnx(classifier(), tmp_path / "m.onnx")


def test_what_is_larger_than_a_file_can_be_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("gpumlp.convert.onnx_file.LARGEST", 2**20 + 100)
    with pytest.raises(ConfigurationError, match="2 GiB"):
        to_onnx(classifier(), tmp_path / "m.onnx")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="cannot write"):
        to_onnx(classifier(), tmp_path / "no" / "m.onnx")


def test_a_scaling_by_quantiles_has_no_place_in_a_file(tmp_path):
    with pytest.raises(ConfigurationError, match="no place for features scaled by quantile; train with --scale stand"):
        to_onnx(by_quantiles(classifier()), tmp_path / "m.onnx")
