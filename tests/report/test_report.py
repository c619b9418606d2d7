"""The report of a training: one file, whatever the names are, and readable in a real browser at any width."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
from pages import Reader, measured

from gpumlp.cli import main
from gpumlp.pages import figures as pages_figures
from gpumlp.report.content import Outcome
from gpumlp.report.figures import confusion, count_pairs, cut, residuals

drawn = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
RUN = ("--epochs", "4", "--quiet", "--backend", "numpy")


def report(folder, *argv):
    place = folder / "report.html"
    assert main(["train", *argv, *RUN, "--report", str(place)]) == 0
    return place.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    return report(tmp_path_factory.mktemp("classes"), "digits", "--hidden", "20,10", "--early-stopping", "3")


@pytest.fixture(scope="module")
def of_numbers(tmp_path_factory):
    return report(tmp_path_factory.mktemp("numbers"), "diabetes", "--hidden", "8", "--schedule", "cosine")


@drawn
@pytest.mark.parametrize("name", ["of_classes", "of_numbers"])
def test_the_report_is_one_file_without_scripts_or_addresses(name, request):
    page = request.getfixturevalue(name)
    found = Reader(page)
    assert "script" not in found.tags
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) == {"http://www.w3.org/2000/svg"}
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@drawn
def test_the_report_of_classes_tells_all_that_belongs_to_it(of_classes):
    texts = set(Reader(of_classes).texts)
    assert {"Cost and metrics", "Errors by layer", "Confusion", "Summary", "Architecture", "Environment"} <= texts
    assert {"cost", "accuracy", "learning rate", "training rows", "validation rows", "recall of a class"} <= texts
    assert {"layer 0", "layer 1", "layer 2", "test accuracy", "numpy on cpu", "threads", "versions numpy"} <= texts
    command = next(text for text in texts if text.startswith("gpumlp train digits"))
    assert command.split()[:7] == ["gpumlp", "train", "digits", "--hidden", "20,10", "--early-stopping", "3"]


@drawn
def test_the_report_of_numbers_shows_residuals_and_the_rows_held_out(of_numbers):
    texts = set(Reader(of_numbers).texts)
    assert {"Residuals", "predicted - true", "test rows", "test R2", "test RMSE", "progression"} <= texts
    assert "Confusion" not in texts


@drawn
@pytest.mark.parametrize("name", ["of_classes", "of_numbers"])
@pytest.mark.parametrize(("width", "shape"), [(1280, "wide"), (400, "narrow")])
def test_a_browser_shows_the_report_whole_at_any_width(name, width, shape, request, tmp_path):
    found, console = measured(tmp_path, request.getfixturevalue(name), width)
    assert console == []
    assert found["scroll"] <= found["width"]
    assert found["shapes"] == [f"panel {shape}"] * 3
    for w, height, left, right in found["svgs"]:
        assert w > 0.75 * min(found["width"], 1100)
        assert height > 100
        assert 0 <= left < right <= found["width"]
    assert min(letter["size"] for letter in found["letters"]) >= 10
    assert [letter["text"] for letter in found["letters"] if letter["out"] > 0] == []


def test_names_in_the_data_are_text(tmp_path):
    wild = "</title></style><script>alert('x')</script>&"
    place = tmp_path / "wild.csv"
    lines = [f"{i},{i % 3},{wild if i % 2 else 'tame'}" for i in range(40)]
    place.write_text("\n".join(["one,two,kind", *lines]))
    found = Reader(report(tmp_path, str(place), "--hidden", "none"))
    assert "script" not in found.tags


def test_without_matplotlib_the_report_says_so_and_shows_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_figures, "find_spec", lambda name: None)
    found = Reader(report(tmp_path, "iris"))
    assert "svg" not in found.tags
    assert any("install it: pip install" in text for text in found.texts)
    assert "table" in found.tags


def test_a_report_is_refused_before_the_training_where_it_could_not_be_written(tmp_path, capsys):
    assert main(["train", "iris", "--report", str(tmp_path / "report.txt")]) == 2
    assert "expected a name ending in .html" in capsys.readouterr().err


def test_a_confusion_counts_true_classes_by_line_and_predictions_by_column():
    y, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    assert count_pairs(y, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


@drawn
@pytest.mark.parametrize("n", [2, 15, 40])
def test_many_classes_with_long_names_still_make_a_figure(n):
    names = tuple(f"a long name of class {k}" for k in range(n))
    y = np.arange(3 * n) % n
    figure = confusion(Outcome("rows", y, y, names), names)
    assert (">3<" in figure.wide) == (n <= 15)  # each cell shows its count, where there is room
    assert cut(names[0]) in figure.narrow


@drawn
def test_several_outputs_have_a_line_of_panels_each_and_many_rows_few_dots():
    y = np.random.default_rng(0).standard_normal((20_000, 2))
    figure = residuals(Outcome("rows", y, y + 1, None, ("left", "right")))
    assert {"left", "right"} <= set(Reader(figure.wide).texts)
    assert len(figure.wide) < 2_000_000
