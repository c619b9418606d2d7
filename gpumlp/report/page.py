"""A training as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from gpumlp import __version__
from gpumlp.bench.tables import flat
from gpumlp.pages.figures import why_missing
from gpumlp.pages.html import Table, as_page, figure_part, table_part
from gpumlp.report.content import Training, layers
from gpumlp.report.figures import figures

STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px; margin: 20px 0;
  padding: 0; list-style: none }
.tiles li { background: var(--shade); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px }
.tiles b { display: block; font-size: 1.5em; line-height: 1.25; font-weight: 650; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums }
.tiles li:first-child { border-left: 4px solid #0072B2 } .tiles span { color: var(--soft); font-size: 0.82em }
.facts { width: 100% } .facts td:first-child { width: 15em }
@media (max-width: 700px) { .facts td:first-child { width: auto } }
"""


def as_html(training: Training) -> str:
    """Return the page: scores, figures, tables. Without matplotlib a sentence stands for the figures."""
    date = str(training.environment.get("date", "")).partition("T")[0]
    parts = [
        f"<h1>{escape(training.name)}</h1>",
        f'<p class="soft">{escape(", ".join(x for x in (f"{training.network.architecture}", date) if x))}, '
        f"gpumlp {escape(__version__)}</p>",
        _tiles(training.tiles),
        f"<p>The command that trains the same again:</p>\n<pre>{escape(training.command)}</pre>",
        *_figures(training),
        f"<h2>Summary</h2>\n{facts('Summary', training.summary)}",
        f"<h2>Architecture</h2>\n{table_part(layers(training.network))}",
        f"<h2>Environment</h2>\n{facts('Environment', training.environment)}",
    ]
    return as_page(f"{training.name}, gpumlp train", parts, STYLE)


def facts(name: str, values: Mapping[str, Any]) -> str:
    """Return names and values as a table."""
    rows = flat({key.replace("_", " "): value for key, value in values.items()}).items()
    return table_part(Table(name, "", ("what", "value"), tuple(rows), labels=2), "facts")


def _tiles(tiles: tuple[tuple[str, str], ...]) -> str:
    items = "\n".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in tiles)
    return f'<ul class="tiles">\n{items}\n</ul>'


def _figures(training: Training) -> list[str]:
    if why_missing():
        return [f"<p>No figures are shown: {escape(why_missing())}</p>"]
    return [figure_part(figure) for figure in figures(training)]
