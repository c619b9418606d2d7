"""A run as tables: for people as Markdown that reads well as plain text, too, and for the page as rows of cells."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from gpumlp.bench.quiet import DISTURBED
from gpumlp.bench.results import Case, Run
from gpumlp.bench.series import Sweep, sweeps
from gpumlp.bench.statistics import Spread, ratio, share_of_limit, share_of_products, spread, throughput
from gpumlp.pages.html import Table

TITLES = {
    "steps": "Training steps and epochs",
    "recursion": "The delta recursion",
    "growth": "How the time grows",
}
METHOD = (
    "All contenders of a case take turns, round by round, in one process; each has given the right answer before it is "
    'timed, and is warm. A time is the median of its samples, with the quartiles in brackets. "products alone" is the '
    'share of the time that the matrix products need by themselves, measured beside each sample; "of the limit" is the '
    "share that the matrix products and the bytes that must be moved need at least."
)
REASON = 250  # characters of a reason that a table shows; bench.json has all of it
MANY = 0.1  # of the samples: so many may be disturbed before the reader is warned
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def as_markdown(run: Run) -> str:
    """Return the run as Markdown: the command, the environment, and the tables of each suite."""
    lines = ["# gpumlp bench", "", METHOD, "", f"    {command(run)}", ""]
    lines += [f"**{disturbance(run)}**", ""] if disturbance(run) else []
    lines += ["## Environment", "", *_grid(environment(run)), ""]
    for suite, title in TITLES.items():
        tables = suite_tables(run, suite)
        if tables:
            lines += [f"## {title}", ""]
        for table in tables:
            lines += [f"### {table.name}", "", *([table.note, ""] if table.note else []), *_grid(table), ""]
    absent = left_out(run)
    lines += ["## Left out", "", *_grid(absent), ""] if absent.rows else []
    return "\n".join(lines)


def command(run: Run) -> str:
    """Return the command line that measures the same again."""
    given = run.options.get("command")
    if isinstance(given, str) and given:
        return given
    words = ["gpumlp", "bench", *(["--quick"] if run.options.get("quick") else [])]
    words += [word for suite in run.options.get("suites") or () for word in ("--suite", str(suite))]
    return shlex.join(words)


def disturbance(run: Run) -> str:
    """Return a sentence if another program had the processor during many samples, else an empty text."""
    shares = [share for case in run.cases for share in case.waited or ()]
    disturbed = sum(share > DISTURBED for share in shares)
    if disturbed <= MANY * len(shares):
        return ""
    return (
        f"The machine was busy: during {disturbed / len(shares):.0%} of the samples, threads stood in line for a "
        "processor that another program had. Measure again when it is idle before you cite these times."
    )


def environment(run: Run) -> Table:
    """Return what the times depend on."""
    given = {name.replace("_", " "): value for name, value in run.environment.items()}
    rows = flat(given).items()
    return Table("Environment", "", ("what", "value"), tuple(rows), labels=2)


def left_out(run: Run) -> Table:
    """Return who took no part, and how the reason begins, which may be pages of a compiler's; no rows if all did."""
    given = run.options.get("left_out")
    reasons = flat(given) if isinstance(given, Mapping) else {}
    rows = tuple((who, why if len(why) <= REASON else f"{why[:REASON]} ...") for who, why in reasons.items())
    return Table("Left out", "", ("who", "why"), rows, labels=2)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested names and values as one level of texts: versions numpy -> 2.4."""
    found: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found.update(flat(value, f"{key} "))
        else:
            found[key] = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)
    return found


def suite_tables(run: Run, suite: str) -> list[Table]:
    """Return the tables of one suite; none if it was not measured."""
    cases = run.of(suite)
    if not cases:
        return []
    found = [sweep_table(sweep) for sweep in recursion_sweeps(run)] if suite == "recursion" else []
    found.append(times(cases))
    ratios = ratios_to_peers(cases)
    return [*found, *([ratios] if ratios.rows else [])]


def times(cases: Mapping[str, list[Case]]) -> Table:
    """Return a row for each contender of each case."""
    columns = ("case", "contender", "time", "quartiles", "examples/s", "products alone", "of the limit", "checked")
    rows = [_times_row(case) for contenders in cases.values() for case in contenders]
    kept = [i for i in range(len(columns)) if i < 5 or any(row[i] for row in rows)]
    rows = [tuple(row[i] for i in kept) for row in rows]
    return Table("Times", "", tuple(columns[i] for i in kept), tuple(rows), labels=2)


def _times_row(case: Case) -> tuple[str, ...]:
    seconds, products, limit = spread(case.seconds), share_of_products(case), share_of_limit(case)
    return (
        case.case,
        case.contender,
        f"{time_text(seconds.median)} {with_article(case.unit)}",
        quartiles_text(seconds),
        count_text(throughput(case).median),
        "" if products is None or case.kind == "limit" else f"{products.median:.2f}",
        "" if limit is None else f"{limit:.2f}",
        case.checked,
    )


def ratios_to_peers(cases: Mapping[str, list[Case]]) -> Table:
    """Return gpumlp's time in times of each peer's: below 1 where gpumlp is faster."""
    peers = list(dict.fromkeys(c.contender for contenders in cases.values() for c in contenders if c.kind == "peer"))
    rows = []
    for name, contenders in cases.items():
        others = {case.contender: case for case in contenders if case.kind == "peer"}
        for case in contenders:
            if case.kind == "gpumlp" and others:
                cells = (_ratio_text(ratio(case, others[p])) if p in others else "" for p in peers)
                rows.append((name, case.contender, *cells))
    note = "gpumlp's time divided by the other's, round by round: below 1 where gpumlp is faster."
    columns = ("case", "contender", *(f"to {peer}" for peer in peers))
    return Table("Relative to other libraries", note, columns, tuple(rows), labels=2)


# ---------------------------------------------------------------- the recursion by batch size


def recursion_sweeps(run: Run) -> list[Sweep]:
    """Return the sweeps over the batch size of the suite "recursion"; with a slow way one size says something, too."""
    found = sweeps((case for case in run.cases if case.suite == "recursion"), "batch", least=1)
    return [s for s in found if len(s.values) > 1 or (batched_contender(s) and saved(s, ""))]


def sweep_table(sweep: Sweep) -> Table:
    """Return the times by batch size and contender, with what back-propagation and batching save."""
    batched = batched_contender(sweep)
    savings = saved(sweep, batched) if batched else []
    rows = []
    for batch in sweep.values:
        times = [_median_text(line.get(batch)) for line in sweep.lines.values()]
        rows.append((f"{batch:g}", *times, *(_saved_text(sweep, batch, above, batched) for _, above in savings)))
    columns = ("batch", *sweep.lines, *(f"{what} saves" for what, _ in savings))
    said = [f"What {what} saves is the time of {above} divided by that of {batched}." for what, above in savings]
    return Table(f"{sweep.label}: time by batch size", " ".join(said), columns, tuple(rows), labels=0)


def batched_contender(sweep: Sweep) -> str | None:
    """Return whose time the slow ways are divided by: NumPy's, since they are written with NumPy, too."""
    own = [name for name, line in sweep.lines.items() if next(iter(line.values())).kind == "gpumlp"]
    return next((name for name in own if "numpy" in name), own[0] if own else None)


def saved(sweep: Sweep, batched: str) -> list[tuple[str, str]]:
    """Return what is saved, and the baseline that does without it, as far as they were measured."""
    found = []
    for what, word in (("back-propagation", "forward mode"), ("batching", "per-sample")):
        found += [(what, name) for name, line in sweep.lines.items() if word in name and name != batched][:1]
    return found


def _saved_text(sweep: Sweep, batch: float, above: str, below: str | None) -> str:
    one, other = sweep.lines[above].get(batch), sweep.lines[below or ""].get(batch)
    return "" if one is None or other is None else f"{number_text(ratio(one, other).median)} x"


# ---------------------------------------------------------------- texts


def with_article(unit: str) -> str:
    """Return a unit with its article."""
    return f"an {unit}" if unit[0] in "aeiou" else f"a {unit}"


def time_text(seconds: float) -> str:
    """Spell a time with three digits: 340 µs."""
    factor, unit = _unit(seconds)
    return f"{number_text(seconds / factor)} {unit}"


def quartiles_text(seconds: Spread) -> str:
    """Spell the quartiles of a time in the unit of its median."""
    factor, unit = _unit(seconds.median)
    return f"{number_text(seconds.low / factor)} to {number_text(seconds.high / factor)} {unit}"


def number_text(value: float) -> str:
    """Spell a positive number with three digits, never as a power of ten unless it is huge or tiny."""
    if 1000 <= value < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}"


def count_text(value: float) -> str:
    """Spell a large number with three digits: 188 k."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * factor:
            return f"{number_text(value / factor)}{unit}"
    return number_text(value)


def _unit(seconds: float) -> tuple[float, str]:
    return next((u for u in UNITS if seconds >= 0.9995 * u[0]), UNITS[-1])


def _ratio_text(found: Spread) -> str:
    median, low, high = (f"{x:.2f}" if x >= 0.1 else f"{x:.2g}" for x in (found.median, found.low, found.high))
    return f"{median} ({low} to {high})"


def _median_text(case: Case | None) -> str:
    return "" if case is None else time_text(spread(case.seconds).median)


def _grid(table: Table) -> list[str]:
    """Return a Markdown table whose columns are aligned in plain text, too."""
    lines = [table.columns, *table.rows]
    cells = [[_cell(text) for text in line] for line in lines]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(table.columns))]
    rule = ["-" * w if i < table.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    head, *rows = (_aligned(line, widths, table.labels) for line in cells)
    return ["| " + " | ".join(line) + " |" for line in (head, rule, *rows)]


def _aligned(cells: Iterable[str], widths: list[int], labels: int) -> list[str]:
    return [
        text.ljust(w) if i < labels else text.rjust(w) for i, (text, w) in enumerate(zip(cells, widths, strict=True))
    ]


def _cell(text: str) -> str:
    """Return a text that stays inside its cell, whatever is in it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
