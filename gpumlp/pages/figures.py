"""Figures for pages: SVG of two shapes, wide and narrow, so that the text can be read on a page of either width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from textwrap import fill
from typing import Any

WIDE, NARROW = 9.0, 3.75  # inches; a page shows them at some 900 and 360 pixels, so text of 9 points has 12 pixels
PANEL = 2.7  # inches that a panel is high
TITLE, NAME = 40, 20  # letters of a line over a panel, and of one of the two lines that a name in a legend may take
LINE = 0.15  # inches of a line of text
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name is a name, even with dollar signs
    "axes.unicode_minus": False,
}


@dataclass(frozen=True)
class Figure:
    """A figure in two shapes.

    name          of its files
    title         what stands above it
    description   what it shows, for those who read and for those who cannot see it
    wide          SVG for pages from 700 pixels
    narrow        SVG for less
    """

    name: str
    title: str
    description: str
    wide: str
    narrow: str


def why_missing() -> str:
    """Return why no figure can be drawn here, or an empty text."""
    if find_spec("matplotlib") is None:
        return "figures need matplotlib, which is not installed; install it: pip install 'gpumlp[plot]'"
    return ""


@dataclass(frozen=True)
class Panels:
    """What a figure consists of.

    items     what each panel shows
    draw      draws one item on axes
    legend    (name, colour, marker, dash) of each line of the legend above the panels
    columns   of panels in the wide shape; in the narrow one there is one
    height    of a panel, in inches
    """

    items: Sequence[Any]
    draw: Callable[[Any, Any], None]
    legend: Sequence[tuple[str, str, str, str]]
    columns: int = 3
    height: float = PANEL


def draw_figure(name: str, title: str, description: str, panels: Panels) -> Figure:
    """Draw a figure in both shapes."""
    wide, narrow = (_svg(f"{name}-{shape}", panels, shape == "wide") for shape in ("wide", "narrow"))
    return Figure(name, title, description, *(labelled(text, f"{title}. {description}") for text in (wide, narrow)))


def _svg(name: str, panels: Panels, wide: bool) -> str:
    """Draw all panels, without any state that a program's own plots could see afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    columns = min(panels.columns, len(panels.items)) if wide else 1
    rows = -(-len(panels.items) // columns)
    legend_columns = 4 if wide else 2
    legend_rows = -(-len(panels.legend) // legend_columns)
    legend_row = 0.07 + LINE * count_lines(name for name, *_ in panels.legend)
    size = (WIDE if wide else NARROW, rows * panels.height + legend_rows * legend_row + 0.1)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(canvas)
        for number, item in enumerate(panels.items, 1):
            panels.draw(canvas.add_subplot(rows, columns, number), item)
        if panels.legend:
            _legend(canvas, panels.legend, legend_columns)
        written = io.StringIO()
        canvas.savefig(written, format="svg", metadata={"Date": None})
    return self_contained(written.getvalue(), name)


def _legend(canvas: Any, entries: Sequence[tuple[str, str, str, str]], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, marker=m, linestyle=dash, label=short(name)) for name, c, m, dash in entries]
    canvas.legend(handles=handles, loc="outside upper left", ncol=columns, frameon=False, handlelength=2)


def panel_title(axes: Any, text: str) -> None:
    """Put a title over a panel, in two lines if it is long."""
    axes.set_title(fill(text, TITLE, max_lines=2, placeholder=" ..."), loc="left")


def short(name: str) -> str:
    """Return the name in at most two lines, since a longer one would leave no room for the figure."""
    return fill(name, NAME, max_lines=2, placeholder=" ...")


def count_lines(names: Iterable[str]) -> int:
    """Return how many lines the longest name takes."""
    return max((short(name).count("\n") + 1 for name in names), default=0)


def log_axis(axes: Any, which: str, text: Callable[[float], str]) -> None:
    """Let an axis be logarithmic, with ticks that are words and not powers, which no text in SVG can hold in one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis, set_scale = (axes.xaxis, axes.set_xscale) if which == "x" else (axes.yaxis, axes.set_yscale)
    set_scale("log")
    low, high = sorted(axis.get_view_interval())
    subs = (1, 1.5, 2, 3, 5, 7) if high / low < 6 else (1, 2, 5) if high / low < 100 else (1,)
    axis.set_major_locator(LogLocator(10, subs=subs, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------- SVG


def self_contained(svg: str, name: str) -> str:
    """Return an SVG that can stand in a page beside others: no address of anything, and ids that begin with `name`."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.DOTALL)  # of the whole page
    svg = svg.replace("<svg", '<svg stroke-linejoin="round" stroke-linecap="butt"', 1)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))

    def renamed(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    svg = re.sub(r'\sid="([^"]+)"', renamed, svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    return re.sub(r"('[^']*', )*sans-serif", "sans-serif", svg)


def labelled(svg: str, text: str) -> str:
    """Return the SVG as an image with a name for those who cannot see it."""
    from xml.sax.saxutils import quoteattr

    return svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(text)}', 1)
