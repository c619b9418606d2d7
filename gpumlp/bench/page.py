"""A run as one HTML page."""

from __future__ import annotations

from html import escape

from gpumlp import __version__
from gpumlp.bench import plots, tables
from gpumlp.bench.results import Run
from gpumlp.pages.figures import why_missing
from gpumlp.pages.html import as_page, figure_part, table_part


def as_html(run: Run) -> str:
    """Return the page: method, figures, tables, environment. Without matplotlib a sentence stands for the figures."""
    date = run.environment.get("date")
    absent, busy = tables.left_out(run), tables.disturbance(run)
    parts = [
        "<h1>gpumlp bench</h1>",
        f'<p class="soft">{escape(_subtitle(run))}</p>',
        f"<p>{escape(tables.METHOD)}</p>",
        f"<p>The command that measures the same again:</p>\n<pre>{escape(tables.command(run))}</pre>",
        *([f"<p><strong>{escape(busy)}</strong></p>"] if busy else []),
        *_figures(run),
        *_tables(run),
        *([f"<h2>Left out</h2>\n{table_part(absent, 'facts')}"] if absent.rows else []),
        f"<h2>Environment</h2>\n{table_part(tables.environment(run), 'facts')}",
    ]
    title = f"gpumlp bench{f', {date}' if date else ''}"
    return as_page(title, parts)


def _subtitle(run: Run) -> str:
    facts = (run.environment.get(name) for name in ("date", "cpu", "device"))
    versions = run.environment.get("versions")
    version = versions.get("gpumlp", __version__) if isinstance(versions, dict) else __version__
    return ", ".join([*(str(fact) for fact in facts if fact), f"gpumlp {version}"])


def _figures(run: Run) -> list[str]:
    if why_missing():
        return [f"<p>No figures are shown: {escape(why_missing())}</p>"]
    return [figure_part(figure) for figure in plots.figures(run)]


def _tables(run: Run) -> list[str]:
    parts = []
    for suite, title in tables.TITLES.items():
        found = tables.suite_tables(run, suite)
        parts += [f"<h2>{escape(title)}</h2>"] if found else []
        for table in found:
            note = f'\n<p class="soft">{escape(table.note)}</p>' if table.note else ""
            parts.append(f"<h3>{escape(table.name)}</h3>{note}\n{table_part(table)}")
    return parts
