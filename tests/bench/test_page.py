"""The page: one file, safe whatever the names are, and readable in a real browser at any width."""

import re
from dataclasses import replace
from importlib.util import find_spec

import pytest
from made_up_run import made_up_run
from pages import Reader, measured
from test_results import a_case

from gpumlp.bench.page import as_html
from gpumlp.bench.results import Run
from gpumlp.pages import figures

drawn = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")


@pytest.fixture(scope="module")
def page():
    return as_html(made_up_run())


@drawn
def test_the_page_is_one_file_without_scripts_or_addresses(page):
    found = Reader(page)
    assert "script" not in found.tags
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#", "", page)


@drawn
def test_each_figure_is_there_in_both_shapes_and_no_id_occurs_twice(page):
    assert Reader(page).tags.count("svg") == 10
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for used in re.findall(r"url\(#([^)]+)\)", page):
        assert used in ids


def test_all_tables_and_the_environment_are_in_the_page(page):
    texts = set(Reader(page).texts)
    assert {"Training steps and epochs", "The delta recursion", "How the time grows", "Environment"} <= texts
    assert {
        "Made Up Processor 9000",
        "gpumlp bench --quick --suite recursion --suite steps --suite growth",
        "back-propagation saves",
    } <= texts


def test_whatever_comes_from_the_json_is_text():
    wild = "</title></style><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
    case = replace(a_case(), case=wild, contender=wild, checked=wild, limit_seconds=0.001)
    peer = replace(case, contender=f"peer {wild}", kind="peer")
    options = {"command": wild, "left_out": {wild: wild}}
    run = Run({wild: wild, "date": wild, "cpu": wild}, options, [case, peer])
    found = Reader(as_html(run))
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert wild in found.texts


def test_without_matplotlib_the_page_says_so_and_shows_the_tables(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    found = Reader(as_html(made_up_run(suites=("steps",))))
    assert "svg" not in found.tags
    assert any("install it: pip install" in text for text in found.texts)
    assert "table" in found.tags


def test_a_run_without_cases_is_a_page():
    assert "Environment" in Reader(as_html(Run({}, {}, ()))).texts


# ---------------------------------------------------------------- in a browser


@drawn
@pytest.mark.parametrize(("width", "shape"), [(1280, "wide"), (400, "narrow")])
def test_a_browser_shows_the_page_whole_at_any_width(page, tmp_path, width, shape):
    found, console = measured(tmp_path, page, width)
    assert console == []
    assert found["width"] == pytest.approx(width, abs=20)  # less a scroll bar
    assert found["scroll"] <= found["width"]
    assert found["shapes"] == [f"panel {shape}"] * 5
    for w, height, left, right in found["svgs"]:
        assert w > 0.75 * min(found["width"], 1100)
        assert height > 100
        assert 0 <= left < right <= found["width"]
    for _, _, left, right in found["boxes"]:
        assert 0 <= left < right <= found["width"]
    assert min(letter["size"] for letter in found["letters"]) >= 10
    assert [letter["text"] for letter in found["letters"] if letter["out"] > 0] == []


@drawn
def test_figures_keep_a_light_panel_in_the_dark(page, tmp_path):
    light, _ = measured(tmp_path, page, 1280)
    dark, _ = measured(tmp_path, page, 1280, "--blink-settings=preferredColorScheme=0")
    assert (light["ground"], dark["ground"]) == ("rgb(255, 255, 255)", "rgb(23, 24, 26)")
    assert dark["ink"] == "rgb(236, 236, 238)"
    assert light["panel"] == dark["panel"] == "rgb(255, 255, 255)"


def test_the_browser_would_tell_an_error_on_the_console(tmp_path):
    page = "<html><body><div class='panel'></div><script>undefined_function()</script></body></html>"
    found, console = measured(tmp_path, page, 400)
    assert found["svgs"] == []
    assert any("undefined_function" in line for line in console)
