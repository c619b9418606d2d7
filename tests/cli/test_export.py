import re
import sys

import joblib
import numpy as np
import pytest

from gpumlp import load
from gpumlp.convert import load_safetensors


@pytest.fixture
def model(gpumlp, flowers, tmp_path):
    place = tmp_path / "flowers.npz"
    gpumlp("train", flowers[0], "--quiet", "--epochs", 20, "--standardise", "--save", place)
    return place


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_a_scikit_learn_object_is_loaded_by_the_line_that_is_printed(gpumlp, model, flowers):
    ended = gpumlp("export", model, "--to", "sklearn")
    place = model.with_suffix(".joblib")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"joblib.load({str(place)!r})  # MLPClassifier, a pickle of scikit-learn ")
    assert joblib.load(place).predict(flowers[1]).tolist() == load(model).predict(flowers[1]).tolist()


def test_safetensors_hold_the_same_model(gpumlp, model, flowers, tmp_path):
    ended = gpumlp("export", model, "--to", "safetensors", "--out", tmp_path / "other.safetensors")
    assert (ended.status, ended.err) == (0, "")
    assert str(tmp_path / "other.safetensors") in ended.out
    found = load_safetensors(tmp_path / "other.safetensors")
    assert np.array_equal(found.probabilities(flowers[1]), load(model).probabilities(flowers[1]))
    assert not model.with_suffix(".safetensors").exists()


def test_onnx_answers_the_same(gpumlp, model, flowers):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed, which would run what is exported"
    )
    ended = gpumlp("export", model, "--to", "onnx")
    assert (ended.status, ended.err) == (0, "")
    session = runtime.InferenceSession(model.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    label, shares = session.run(None, {"X": flowers[1].astype(np.float32)})
    assert label.tolist() == load(model).predict(flowers[1]).tolist()
    assert np.abs(shares - load(model).probabilities(flowers[1])).max() <= 1e-5


@pytest.mark.parametrize(
    ("dtype", "activation"), [("float32", "softplus"), ("float64", "leaky_relu(0.3)"), ("float64", "gelu")]
)
def test_a_file_of_torch_is_loaded_by_the_line_that_is_printed(gpumlp, flowers, tmp_path, dtype, activation):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, for which the file would be")
    model = tmp_path / "m.npz"
    options = ("--epochs", 5, "--dtype", dtype, "--dropout", 0.1, "--activation", activation)
    gpumlp("train", flowers[0], "--quiet", *options, "--save", model)
    ended = gpumlp("export", model, "--to", "torch")
    assert (ended.status, ended.err) == (0, "")
    known = {"torch": torch, "nn": torch.nn}
    exec(ended.out, known)
    with torch.no_grad():
        shares = known["net"](torch.from_numpy(flowers[1].astype(dtype))).numpy()
    near = {"float32": 1e-6, "float64": 1e-12}[dtype]
    assert np.abs(shares - load(model).probabilities(flowers[1])).max() <= near
    content = torch.load(model.with_suffix(".pt"), weights_only=True)
    assert content["classes"] == ["lily", "rose"]
    assert content["feature_names"] == ["tall", "wide", "red"]
    assert content["module"] in ended.out


def test_an_old_file_is_replaced_and_a_failed_export_leaves_it(gpumlp, model, tmp_path, monkeypatch):
    place = tmp_path / "m.joblib"
    place.write_text("old")
    assert gpumlp("export", model, "--to", "sklearn", "-o", place).status == 0
    assert joblib.load(place).classes_.tolist() == ["lily", "rose"]
    place.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpumlp.atomic.os.replace", full)
    ended = gpumlp("export", model, "--to", "sklearn", "-o", place)
    assert ended.status == 2
    assert "No space left" in ended.err
    assert place.read_text() == "old"


WRONG = {
    "no such format": (["--to", "onx"], "unknown format 'onx'; did you mean 'onnx'?"),
    "no format": ([], "Missing option '--to'"),
    "another ending": (["--to", "onnx", "--out", "m.npz"], "--out m.npz: expected a name ending in .onnx"),
    "no folder": (["--to", "onnx", "--out", "no/m.onnx"], "there is no folder no"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=list(WRONG))
def test_wrong_options_end_in_one_line_and_status_2(gpumlp, model, options, message):
    ended = gpumlp("export", model, *options)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_file_that_is_no_model_is_refused(gpumlp, tmp_path):
    (tmp_path / "m.npz").write_text("?")
    ended = gpumlp("export", tmp_path / "m.npz", "--to", "safetensors")
    assert ended.status == 2
    assert re.fullmatch(r"gpumlp: error: .*no gpumlp model.*\n", ended.err)


def test_a_model_that_the_format_cannot_hold_is_refused_and_nothing_is_written(gpumlp, flowers, tmp_path):
    place = tmp_path / "m.npz"
    gpumlp("train", flowers[0], "--quiet", "--epochs", 1, "--activation", "gelu", "--save", place)
    ended = gpumlp("export", place, "--to", "sklearn")
    assert ended.status == 2
    assert "no activation gelu" in ended.err
    assert not place.with_suffix(".joblib").exists()


@pytest.mark.parametrize(("to", "library"), [("torch", "torch"), ("onnx", "onnx")])
def test_a_library_that_is_missing_is_named_with_what_to_install(gpumlp, model, monkeypatch, to, library):
    monkeypatch.setitem(sys.modules, library, None)
    ended = gpumlp("export", model, "--to", to)
    assert ended.status == 2
    assert "pip install" in ended.err
    assert len(ended.err.splitlines()) == 1
