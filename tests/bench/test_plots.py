"""Figures: what is drawn, in which colours, and that their SVG can stand in a page."""

import re
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec

import pytest
from made_up_run import made_up_run
from test_results import a_case

from gpumlp.bench import plots
from gpumlp.bench.results import Run
from gpumlp.errors import ConfigurationError
from gpumlp.pages import figures as pages_figures

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
ALL = ["throughput", "limit", "crossover", "growth", "peers"]


@pytest.fixture(scope="module")
def figures():
    return plots.figures(made_up_run())


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def by_name(figures, name):
    return next(figure for figure in figures if figure.name == name)


def test_a_whole_run_has_all_figures_in_two_shapes(figures):
    assert [figure.name for figure in figures] == ALL
    for figure in figures:
        for svg, width in ((figure.wide, 648), (figure.narrow, 270)):
            root = ElementTree.fromstring(svg)
            assert float(root.get("viewBox").split()[2]) == pytest.approx(width)


def test_a_figure_is_an_image_with_a_name(figures):
    for figure in figures:
        root = ElementTree.fromstring(figure.wide)
        assert root.get("role") == "img"
        assert root.get("aria-label") == f"{figure.title}. {figure.description}"


def test_text_is_text_of_any_font(figures):
    for figure in figures:
        for svg in (figure.wide, figure.narrow):
            assert len(texts(svg)) > 10
            assert set(re.findall(r"font-family: ([^;\"]*)", svg)) == {"sans-serif"}


def test_nothing_outside_the_file_is_named_and_no_style_leaves_it(figures):
    for figure in figures:
        for svg in (figure.wide, figure.narrow):
            assert set(re.findall(r"https?://[^\"'\s]+", svg)) == {"http://www.w3.org/2000/svg"}
            assert "<style" not in svg
            assert "<!DOCTYPE" not in svg


def test_ids_are_used_and_those_of_two_figures_never_meet(figures):
    seen = set()
    for figure in figures:
        for svg in (figure.wide, figure.narrow):
            ids = re.findall(r'\bid="([^"]+)"', svg)
            used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
            assert set(ids) == used
            assert len(ids) == len(set(ids)) > 0
            assert not seen & set(ids)
            seen |= set(ids)


def test_the_same_run_gives_the_same_figures():
    run = Run({}, {}, [a_case(limit_seconds=0.001)])
    assert plots.figures(run) == plots.figures(run)


def test_throughput_has_a_panel_for_each_width_and_a_line_for_each_contender(figures):
    shown = texts(by_name(figures, "throughput").wide)
    assert {"64-32-10, sigmoid", "64-128-10, sigmoid", "64-512-10, sigmoid"} <= set(shown)
    assert {"gpumlp numba", "gpumlp numpy", "per-sample loops", "forward mode"} <= set(shown)
    assert shown.count("batch size") == 3


def test_the_share_of_the_limit_is_written_at_each_bar():
    run = Run({}, {}, [a_case(seconds=[0.002], reference=None, limit_seconds=0.0015)])
    (figure,) = plots.figures(run)
    assert figure.name == "limit"
    assert {"0.75", "gpumlp numpy", "6-5-3, batch 4"} <= set(texts(figure.wide))


def test_each_pair_of_backends_has_a_panel_of_the_crossover(figures):
    shown = texts(by_name(figures, "crossover").wide)
    for pair in ("numba / gpumlp numpy", "numba / gpumlp cuda tf32", "numpy / gpumlp cuda tf32"):
        assert f"gpumlp {pair}" in shown


def test_growth_has_a_panel_for_all_that_was_varied(figures):
    shown = texts(by_name(figures, "growth").narrow)
    assert {"batch size", "neurons of a hidden layer", "layers", "models", "rows of the data set"} <= set(shown)
    assert "time of an epoch" in shown


def test_peers_are_compared_on_every_workload(figures):
    shown = texts(by_name(figures, "peers").wide)
    assert shown.count("JAX jit") == 4


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"suites": ("steps",)}, {"throughput", "crossover", "growth"}),
        ({"suites": ("growth",)}, {"throughput", "limit", "peers"}),
        ({"suites": ("recursion",)}, {"limit", "growth", "peers"}),
        ({"without": ("gpumlp numba", "gpumlp cuda tf32")}, {"crossover"}),
        ({"without": ("PyTorch eager", "PyTorch compiled", "JAX jit", "scikit-learn")}, {"peers"}),
    ],
)
def test_a_figure_with_nothing_to_show_is_left_out(change, missing, monkeypatch):
    monkeypatch.setattr(pages_figures, "_svg", lambda *arguments: "<svg/>")
    assert [figure.name for figure in plots.figures(made_up_run(**change))] == [n for n in ALL if n not in missing]


def test_a_contender_has_one_colour_in_every_figure_and_no_other_has_it(figures):
    run = made_up_run()
    looks = plots.looks_of(run)
    shown = {case.contender for case in run.cases}
    assert len({looks[name] for name in shown}) == len(shown)
    colour = looks["gpumlp numba"][0].lower()
    for name in ("throughput", "limit", "growth", "peers"):
        assert colour in by_name(figures, name).wide


def test_drawing_leaves_no_trace_in_a_programs_own_plots():
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert plots.figures(Run({}, {}, [a_case(limit_seconds=0.001)]))
    assert dict(matplotlib.rcParams) == before


def test_names_cannot_break_out_of_a_figure():
    wild = '"/><script>$x_$'
    run = Run({}, {}, [a_case(case=wild, contender=wild, limit_seconds=0.001)])
    (figure,) = plots.figures(run)
    for svg in (figure.wide, figure.narrow):
        assert not list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}script"))
        assert "<script" not in svg
        assert texts(svg).count(wild) == 2


def test_long_names_leave_room_for_the_figure():
    run = Run({}, {}, [a_case(case="a long case, " * 20, contender="a long name " * 20, limit_seconds=0.001)])
    (figure,) = plots.figures(run)
    assert {"a long name a long", "name a long name ..."} <= set(texts(figure.narrow))
    assert max(map(len, texts(figure.narrow))) <= 44


def test_files_are_written_in_both_shapes(tmp_path):
    run = Run({}, {}, [a_case(limit_seconds=0.001)])
    places = plots.draw(run, tmp_path)
    assert [place.name for place in places] == ["limit.svg", "limit-narrow.svg"]
    assert [place.read_text(encoding="utf-8") for place in places] == [
        svg for figure in plots.figures(run) for svg in (figure.wide, figure.narrow)
    ]
    with pytest.raises(ConfigurationError, match="cannot write"):
        plots.draw(run, tmp_path / "nowhere")


def test_without_matplotlib_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pages_figures, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install 'gpumlp"):
        plots.figures(made_up_run(suites=("steps",)))
