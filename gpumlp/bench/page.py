"""A run as one HTML page that needs no network: figures and style are inside, and there is no script."""

from __future__ import annotations

from html import escape
from itertools import groupby

from gpumlp import __version__
from gpumlp.bench import plots, tables
from gpumlp.bench.results import Run

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1c1c1e; --soft: #5c5c63; --rule: #d8d8de;
  --shade: #f5f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #17181a; --ink: #ececee; --soft: #a5a5ad; --rule: #3a3b40; --shade: #222327 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1160px; margin: 0 auto; padding: 16px 16px 64px }
h1 { font-size: 1.7em; margin: 16px 0 8px } h2 { font-size: 1.3em; margin: 40px 0 8px }
h3 { font-size: 1.05em; margin: 24px 0 4px } p { margin: 8px 0; max-width: 46em }
h1, h2, h3, p, td, code { overflow-wrap: anywhere }
.soft, figcaption { color: var(--soft); font-size: 0.9em }
figure { margin: 24px 0 32px } figcaption { margin: 0 0 8px; max-width: 52em }
.panel { background: #ffffff; border: 1px solid var(--rule); border-radius: 6px; padding: 8px }
.panel svg { display: block; width: 100%; height: auto; margin: 0 auto }
.narrow { display: none } .narrow svg { max-width: 460px }
.box { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: 0.86em; font-variant-numeric: tabular-nums }
th, td { padding: 4px 10px; text-align: right; border-top: 1px solid var(--rule); white-space: nowrap }
th { border-top: 0; background: var(--shade); font-weight: 600 } .word { text-align: left }
.facts td { white-space: normal; vertical-align: top } .facts { width: auto }
td[rowspan] { vertical-align: top }
pre { background: var(--shade); padding: 10px 12px; border-radius: 6px; font-size: 0.9em;
  white-space: pre-wrap; overflow-wrap: anywhere }
@media (max-width: 700px) {
  main { padding: 8px 12px 48px } .wide { display: none } .narrow { display: block } .panel { padding: 4px }
  th, td { padding: 4px 6px } td.word { white-space: normal; min-width: 7.5em; overflow-wrap: normal }
}
"""


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
        *([f"<h2>Left out</h2>\n{_table(absent, 'facts')}"] if absent.rows else []),
        f"<h2>Environment</h2>\n{_table(tables.environment(run), 'facts')}",
    ]
    title = f"gpumlp bench{f', {date}' if date else ''}"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # else a browser asks for one
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _subtitle(run: Run) -> str:
    facts = (run.environment.get(name) for name in ("date", "cpu", "device"))
    versions = run.environment.get("versions")
    version = versions.get("gpumlp", __version__) if isinstance(versions, dict) else __version__
    return ", ".join([*(str(fact) for fact in facts if fact), f"gpumlp {version}"])


def _figures(run: Run) -> list[str]:
    if plots.why_missing():
        return [f"<p>No figures are shown: {escape(plots.why_missing())}</p>"]
    return [_figure(figure) for figure in plots.figures(run)]


def _figure(figure: plots.Figure) -> str:
    shapes = "\n".join(
        f'<div class="panel {shape}">\n{svg}</div>' for shape, svg in (("wide", figure.wide), ("narrow", figure.narrow))
    )
    return (
        f'<figure>\n<h2 id="{escape(figure.name)}">{escape(figure.title)}</h2>\n'
        f"<figcaption>{escape(figure.description)}</figcaption>\n{shapes}\n</figure>"
    )


def _tables(run: Run) -> list[str]:
    parts = []
    for suite, title in tables.TITLES.items():
        found = tables.suite_tables(run, suite)
        parts += [f"<h2>{escape(title)}</h2>"] if found else []
        for table in found:
            note = f'\n<p class="soft">{escape(table.note)}</p>' if table.note else ""
            parts.append(f"<h3>{escape(table.name)}</h3>{note}\n{_table(table)}")
    return parts


def _table(table: tables.Table, kind: str = "") -> str:
    """Return a table in a box of its own, which scrolls sideways where the table is wider than the page."""
    head = "".join(_cell("th", text, i < table.labels) for i, text in enumerate(table.columns))
    groups = [list(rows) for _, rows in groupby(table.rows, key=lambda row: row[0])]
    lines = [line for rows in groups for line in _lines(rows, table.labels)]
    name = f' class="{kind}"' if kind else ""
    body = "\n".join(lines)
    box = f'<div class="box" tabindex="0" role="region" aria-label="{escape(table.name)}">'
    return f"{box}<table{name}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"


def _lines(rows: list[tuple[str, ...]], labels: int) -> list[str]:
    """Return the lines of rows that begin with the same case, which is written once."""
    lines = []
    for number, row in enumerate(rows):
        cells = [_cell("td", text, i < labels, len(rows) if i == 0 else 1) for i, text in enumerate(row)]
        lines.append(f"<tr>{''.join(cells[1:] if number else cells)}</tr>")
    return lines


def _cell(tag: str, text: str, word: bool, n_rows: int = 1) -> str:
    attributes = (' scope="col"' if tag == "th" else "") + (' class="word"' if word else "")
    attributes += f' rowspan="{n_rows}"' if n_rows > 1 else ""
    return f"<{tag}{attributes}>{escape(text)}</{tag}>"
