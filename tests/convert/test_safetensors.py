"""Files of safetensors: read by its own library, and checked so that no file gives a wrong model or another error."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from exchanged_models import DTYPES, HIDDEN, OUTPUTS, by_quantiles, classifier, network, regression, rows
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gpumlp
from gpumlp.convert import load_safetensors, save_safetensors
from gpumlp.errors import ModelFileError
from gpumlp.saved_model import VERSION

MODELS = {
    "a classification": classifier(),
    "a stack": classifier(2, n_models=3),
    "one sigmoid": classifier(2, "sigmoid", scaled=False, dtype="float64"),
    "a scaling by quantiles": by_quantiles(classifier()),
    "a regression": regression(n_models=2, dropout=0.25),
    "float64": regression(1, dtype="float64", activation=["elu(alpha=0.5)", "leaky_relu(slope=0.3)"]),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_a_model_that_is_saved_and_loaded_predicts_the_same(model, tmp_path):
    loaded = load_safetensors(save_safetensors(model, tmp_path / "m.safetensors"))
    assert np.array_equal(loaded.outputs(rows(model)), model.outputs(rows(model)))
    assert np.array_equal(loaded.predict(rows(model)), model.predict(rows(model)))
    assert (loaded.feature_names, loaded.target_name) == (model.feature_names, model.target_name)
    assert (loaded.network.seeds, loaded.network.dropout) == (model.network.seeds, model.network.dropout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", HIDDEN, ids=lambda a: a.name)
def test_every_activation_comes_back(activation, dtype, tmp_path):
    net = network((3, 4, 2), "identity", activation=activation, dtype=dtype)
    loaded = load_safetensors(save_safetensors(net, tmp_path / "m")).network
    assert [a.name for a in loaded.architecture.activations] == [activation.name, "identity"]
    assert np.array_equal(loaded.predict(np.eye(3)), net.predict(np.eye(3)))


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda a: a.name)
def test_every_output_comes_back(output, tmp_path):
    net = network((3, 3), output, activation=[])
    loaded = load_safetensors(save_safetensors(net, tmp_path / "m")).network
    assert loaded.architecture.cost.name == net.architecture.cost.name
    assert np.array_equal(loaded.predict(np.eye(3)), net.predict(np.eye(3)))


def test_the_library_of_the_format_reads_what_is_written(tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    model = MODELS["a regression"]
    path = save_safetensors(model, tmp_path / "m.safetensors")
    with safetensors.safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["gpumlp"])
    assert set(arrays) == {"W0", "W1", "W2", "b0", "b1", "b2", "x_mean", "x_scale", "y_mean", "y_scale"}
    for l, (W, b) in enumerate(zip(model.network.weights, model.network.biases, strict=True)):
        assert np.array_equal(arrays[f"W{l}"], W)
        assert np.array_equal(arrays[f"b{l}"], b)
    assert np.array_equal(arrays["x_mean"], model.scaler.mean)
    assert header["sizes"] == [3, 5, 4, 2]


def test_every_array_begins_at_a_multiple_of_its_numbers_size(tmp_path):
    content = save_safetensors(regression(1), tmp_path / "m.safetensors").read_bytes()
    head, body = parts_of(content)
    assert (len(content) - len(body)) % 8 == 0
    sizes = {"F32": 4, "F64": 8}
    assert all(head[name]["data_offsets"][0] % sizes[head[name]["dtype"]] == 0 for name in head if name[:2] != "__")


def test_what_the_library_of_the_format_writes_is_read(tmp_path):
    numpy_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    model = MODELS["a regression"]
    path = save_safetensors(model, tmp_path / "m.safetensors")
    head, _ = parts_of(path.read_bytes())
    numpy_file.save_file(numpy_file.load_file(path), tmp_path / "again", metadata=head["__metadata__"])
    assert np.array_equal(load_safetensors(tmp_path / "again").predict(rows(model)), model.predict(rows(model)))


# ---------------------------------------------------------------- what does not fit


def parts_of(content):
    n = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def as_content(head, body):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture(scope="session")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("safetensors") / "m.safetensors"
    return save_safetensors(MODELS["a classification"], path).read_bytes()


def set_header(**changes):
    def change(head, body):
        header = json.loads(head["__metadata__"]["gpumlp"])
        for name, value in changes.items():
            header[name] = value
        head["__metadata__"]["gpumlp"] = json.dumps(header)
        return as_content(head, body)

    return change


def set_entry(name, **changes):
    def change(head, body):
        head[name].update(changes)
        return as_content(head, body)

    return change


def set_value(name, value):
    def change(head, body):
        dtype = {"F32": np.float32, "F64": np.float64}[head[name]["dtype"]]
        begin, _ = head[name]["data_offsets"]
        new = dtype(value).tobytes()
        return as_content(head, body[:begin] + new + body[begin + len(new) :])

    return change


def without(*names):
    def change(head, body):
        for name in names:
            del head[name]
        return as_content(head, body)

    return change


def renamed(old, new):
    return lambda head, body: as_content({new if name == old else name: entry for name, entry in head.items()}, body)


def doubled(head, body):
    text = json.dumps(head)
    return as_content(('{"b0": ' + json.dumps(head["b0"]) + ", " + text[1:]).encode(), body)


WRONG = {
    "nothing": (lambda head, body: b"", "no safetensors file, or is cut off"),
    "a length alone": (lambda head, body: b"\x09" + bytes(7), "cut off"),
    "a head without end": (lambda head, body: b"\xff" * 8 + body, "claims a head of 18446744073709551615 bytes"),
    "a head that is large": (
        lambda head, body: (2**26 + 8).to_bytes(8, "little") + bytes(2**26 + 8),
        "the head may take 67108864",
    ),
    "no JSON": (lambda head, body: as_content(b"{]", body), "the head cannot be read"),
    "deep JSON": (lambda head, body: as_content(b"[" * 100_000, body), "the head cannot be read"),
    "another JSON": (lambda head, body: as_content([1], body), "no JSON object"),
    "a tensor twice": (doubled, "a name stands in it twice"),
    "no metadata": (without("__metadata__"), "no gpumlp model"),
    "metadata of others": (lambda head, body: as_content(head | {"__metadata__": {"a": "b"}}, body), "no gpumlp model"),
    "metadata that is a list": (lambda head, body: as_content(head | {"__metadata__": [1]}, body), "no gpumlp model"),
    "a header that is none": (
        lambda head, body: as_content(head | {"__metadata__": {"gpumlp": "{"}}, body),
        "__metadata__ cannot be read",
    ),
    "a tensor gone": (renamed("b1", "b7"), r"missing \['b1'\], not expected \['b7'\]"),
    "a hole": (without("W1"), "begins at byte"),
    "cut off": (lambda head, body: as_content(head, body[:-4]), "is cut off"),
    "surplus bytes": (lambda head, body: as_content(head, body + b"0000"), "is cut off or damaged"),
    "another shape": (
        set_entry("b0", shape=[5, 1]),
        r"b0 is float32 \(5, 1\), the architecture needs float32 \(1, 5\)",
    ),
    "another dtype": (set_entry("b0", dtype="I32"), r"b0 is int32 \(1, 5\), the architecture needs float32"),
    "a dtype of another width": (set_entry("b0", dtype="I64"), "array b0 is described as"),
    "a dtype that NumPy does not have": (set_entry("b0", dtype="BF16"), "array b0 is described as"),
    "a dtype that is none": (set_entry("b0", dtype=[1]), "array b0 is described as"),
    "another size": (set_entry("b0", shape=[1, 6]), "array b0 is described as"),
    "a negative shape": (set_entry("b0", shape=[-1, -5]), "array b0 is described as"),
    "a huge shape": (set_entry("b0", shape=[10**9] * 400), "array b0 is described as"),
    "offsets that are text": (set_entry("b0", data_offsets="ab"), "array b0 is described as"),
    "an overlap": (set_entry("b0", data_offsets=[0, 20]), "begins at byte"),
    "an entry that is none": (lambda head, body: as_content(head | {"b0": None}, body), "array b0 is described as"),
    "not finite": (set_value("W0", np.nan), "W0 holds values that are not finite"),
    "a scale of nothing": (set_value("x_scale", 0.0), "x_scale holds deviations that are not above 0"),
    "newer": (set_header(version=VERSION + 1), f"version {VERSION + 1}"),
    "larger sizes": (set_header(sizes=[3, 50, 4, 3]), "claims .* bytes"),
    "smaller sizes": (set_header(sizes=[3, 4, 4, 3]), "the architecture needs"),
    "huge sizes": (set_header(sizes=[3, 10**12, 4, 3]), "claims .* bytes"),
    "sizes beyond all": (set_header(sizes=[3, 1e400, 4, 3]), "describes no network"),
    "fewer layers": (set_header(sizes=[3, 5, 3]), "describes no network"),
    "many models": (set_header(model_ids=list(range(100_000)), seeds=[0] * 100_000), "claims .* bytes"),
    "another dtype of all": (set_header(dtype="float64"), "claims .* bytes"),
    "an unknown activation": (set_header(activations=["reluu", "tanh", "softmax"]), "register your own definitions"),
    "activations that are none": (set_header(activations=3), "describes no network"),
    "scaler gone": (set_header(scaled=False), "not expected.*x_mean"),
    "classes": (set_header(classes=[1, 2]), "2 classes for 3 outputs"),
    "classes in classes": (set_header(classes=[[1], [2], [3, 4]]), "expected a list of plain values"),
    "classes that are text": (set_header(classes="abc"), "expected a list of plain values"),
    "feature names": (set_header(feature_names=5), "expected a list of plain values"),
    "target name": (set_header(target_name=["y"]), "target_name is"),
    "task": (set_header(task="guess"), "task 'guess'"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=list(WRONG))
def test_a_file_that_does_not_fit_is_refused(change, message, content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(change(*parts_of(content)))
    with pytest.raises(ModelFileError, match=message):
        load_safetensors(path)


def expect_a_model_or_its_error(content, path):
    """Load a damaged file; memory stays within a small multiple of the file."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        model = load_safetensors(path, "numpy")
    except ModelFileError:
        model = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000
    if model is not None:
        assert all(np.isfinite(x).all() for x in (*model.network.weights, *model.network.biases))
        assert model.classes is None or len(model.classes) == 3


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_that_is_cut_off_is_refused(content, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ModelFileError, match=r"cut\.safetensors"):
        load_safetensors(path)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 7)), min_size=1, max_size=4))
@example([(7, 6)])
@example([(3, 0)])
def test_flipped_bits_give_a_model_or_its_error_and_take_no_memory(content, tmp_path_factory, flips):
    bad = bytearray(content)
    for place, bit in flips:
        bad[place % len(bad)] ^= 1 << bit
    expect_a_model_or_its_error(bytes(bad), tmp_path_factory.getbasetemp() / "flipped.safetensors")


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["sizes", "activations", "cost", "dtype", "model_ids", "seeds", "dropout", "initialiser", "task",
                     "classes", "feature_names", "target_name", "scaled", "target_scaled", "version", "format",
                     "columns", "embeddings"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=12,
    ),
)  # fmt: skip
def test_any_lie_of_the_header_gives_a_model_or_its_error(content, tmp_path_factory, name, value):
    change = set_header(**{name: value})
    expect_a_model_or_its_error(change(*parts_of(content)), tmp_path_factory.getbasetemp() / "lie.safetensors")


# ---------------------------------------------------------------- places


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_safetensors(classifier(), tmp_path / "m.safetensors")
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        save_safetensors(regression(), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read model"):
            load_safetensors(path)


def test_a_definition_that_only_has_a_shipped_name_is_not_saved_under_it(tmp_path):
    net = gpumlp.Network((3, 4, 2), activation=gpumlp.Activation("tanh", lambda z: z / 2))
    with pytest.raises(ModelFileError, match="not the registered definition"):
        save_safetensors(net, tmp_path / "m")
