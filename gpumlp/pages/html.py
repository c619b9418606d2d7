"""HTML pages that need no network: figures and style are inside, and there is no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from gpumlp.pages.figures import Figure

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


@dataclass(frozen=True)
class Table:
    """Rows of texts under a heading; the first `labels` columns hold words, the others numbers."""

    name: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1


def as_page(title: str, parts: Sequence[str], style: str = "") -> str:
    """Return a page of these parts, which are HTML themselves.

    style   CSS beyond what all pages have
    """
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # else a browser asks for one
            f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


def figure_part(figure: Figure) -> str:
    """Return a figure with its title and what it shows, of which a page shows the shape that suits its width."""
    shapes = "\n".join(
        f'<div class="panel {shape}">\n{svg}</div>' for shape, svg in (("wide", figure.wide), ("narrow", figure.narrow))
    )
    return (
        f'<figure>\n<h2 id="{escape(figure.name)}">{escape(figure.title)}</h2>\n'
        f"<figcaption>{escape(figure.description)}</figcaption>\n{shapes}\n</figure>"
    )


def table_part(table: Table, kind: str = "") -> str:
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
