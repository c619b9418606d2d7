"""A run as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from gpumlp.atomic import replacing
from gpumlp.bench.results import Case, Run
from gpumlp.bench.series import AXES, Sweep, sweeps
from gpumlp.bench.statistics import Spread, ratio, share_of_limit, spread, throughput
from gpumlp.bench.tables import count_text, number_text, time_text, with_article
from gpumlp.errors import ConfigurationError
from gpumlp.pages.figures import (
    LINE,
    Figure,
    Panels,
    count_lines,
    draw_figure,
    log_axis,
    panel_title,
    short,
    why_missing,
)

# colours of Okabe and Ito, which people who see no red or no green can tell apart, and a marker for each
KNOWN = {
    "gpumlp numba": ("#0072B2", "o"),
    "gpumlp numpy": ("#E69F00", "s"),
    "gpumlp cuda": ("#009E73", "D"),
    "gpumlp cuda tf32": ("#56B4E9", "^"),
    "PyTorch eager": ("#D55E00", "v"),
    "JAX jit": ("#CC79A7", "P"),
    "matrix products alone": ("#000000", "X"),
}
OTHERS = (
    ("#8C564B", "<"),
    ("#7F7F7F", ">"),
    ("#5D3A9B", "h"),
    ("#9A9A00", "*"),
    ("#004D40", "p"),
    ("#A6761D", "d"),
    ("#660000", "H"),
    ("#88CCEE", "8"),
)
GREYS = ("#111111", "#555555", "#8a8a8a")
DASHES = ("-", "--", "-.", ":")


def figures(run: Run) -> list[Figure]:
    """Return the figures that have something to show.

    Raises   ConfigurationError if matplotlib is missing
    """
    if why_missing():
        raise ConfigurationError(why_missing())
    looks = looks_of(run)
    found = (figure(run, looks) for figure in (by_batch, of_limit, crossover, growth, to_peers))
    return [figure for figure in found if figure is not None]


def draw(run: Run, folder: str | Path) -> list[Path]:
    """Write each figure into `folder` as NAME.svg and NAME-narrow.svg, and return the files.

    Raises   ConfigurationError if matplotlib is missing or a file cannot be written
    """
    places = []
    for figure in figures(run):
        for name, text in ((figure.name, figure.wide), (f"{figure.name}-narrow", figure.narrow)):
            place = Path(folder) / f"{name}.svg"
            try:
                with replacing(place) as file:
                    file.write(text.encode())
            except OSError as error:
                raise ConfigurationError(f"cannot write {place} ({error.strerror}); choose another place") from error
            places.append(place)
    return places


def looks_of(run: Run) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each contender, the same in every figure."""
    names = list(dict.fromkeys(case.contender for case in run.cases))
    unknown = [name for name in names if name not in KNOWN]
    return {**KNOWN, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(unknown)}}


# ---------------------------------------------------------------- the figures

Looks = dict[str, tuple[str, str]]


def by_batch(run: Run, looks: Looks) -> Figure | None:
    """Draw throughput against batch size, a panel for each width."""
    shown = one_kind(sweeps((case for case in run.cases if case.suite == "recursion"), "batch"))[:6]
    if not shown:
        return None

    def panel(axes: Any, sweep: Sweep) -> None:
        for name, line in sweep.lines.items():
            rates = [throughput(case) for case in line.values()]
            _line(axes, list(line), rates, name, looks)
        _logarithmic(axes, "batch size", "examples/s", count_text)
        panel_title(axes, sweep.label)

    names = [name for sweep in shown for name in sweep.lines]
    return draw_figure(
        "throughput",
        "Throughput by batch size",
        "Examples that the delta recursion works on in a second, by mini-batch size; both axes are logarithmic. "
        "Whiskers are quartiles.",
        Panels(shown, panel, _entries(names, looks)),
    )


def of_limit(run: Run, looks: Looks) -> Figure | None:
    """Draw which share of the lower limit each contender reaches in each training step."""
    cases = [(name, [c for c in every if _has_share(c)]) for name, every in run.of("steps").items()]
    cases = [(name, some) for name, some in cases if some]
    if not cases:
        return None

    def panel(axes: Any, item: tuple[str, list[Case]]) -> None:
        name, some = item
        shares = [share_of_limit(case) or 0.0 for case in some]
        axes.barh(range(len(some)), shares, color=[looks[c.contender][0] for c in some], height=0.72)
        for i, share in enumerate(shares):
            axes.annotate(f"{share:.2f}", (share, i), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(some)), [short(c.contender) for c in some])
        axes.set_xlim(0, max(1.15, 1.15 * max(shares)))
        axes.axvline(1, color="#333333", linewidth=1, linestyle="--")
        axes.set(xlabel="share of the limit")
        panel_title(axes, name)
        axes.grid(False, axis="y")
        axes.invert_yaxis()

    row = 0.09 + LINE * count_lines(case.contender for _, some in cases for case in some)
    height = 0.75 + row * max(len(some) for _, some in cases)
    return draw_figure(
        "limit",
        "Share of the lower limit",
        "The least time that the matrix products and the bytes of a step need on this machine, divided by the time "
        "that was measured. Beyond 1 is who does the products faster than NumPy's BLAS does by itself.",
        Panels(cases, panel, (), columns=2, height=height),
    )


def crossover(run: Run, looks: Looks) -> Figure | None:
    """Draw how the times of two backends compare by batch size, for each pair of backends."""
    measured = one_kind(sweeps((case for case in run.cases if case.suite in ("recursion", "growth")), "batch"))
    names = list(dict.fromkeys(n for s in measured for n, line in s.lines.items() if _kind(line) == "gpumlp"))
    pairs = [(a, b, _both(measured, a, b)) for a, b in combinations(names, 2)]
    pairs = [pair for pair in pairs if pair[2]]
    if not pairs:
        return None
    labels = dict.fromkeys(sweep.label for _, _, both in pairs for sweep in both)
    styles = {label: (GREYS[i % len(GREYS)], "o", DASHES[i % len(DASHES)]) for i, label in enumerate(labels)}

    def panel(axes: Any, pair: tuple[str, str, list[Sweep]]) -> None:
        a, b, both = pair
        for sweep in both:
            points = {x: ratio(sweep.lines[a][x], sweep.lines[b][x]) for x in sweep.lines[a] if x in sweep.lines[b]}
            _whiskers(axes, list(points), list(points.values()), *styles[sweep.label])
        axes.axhline(1, color="#333333", linewidth=1)
        _logarithmic(axes, "batch size", "ratio of times", number_text)
        panel_title(axes, f"{a} / {b}")

    return draw_figure(
        "crossover",
        "Crossover between backends",
        "Time of one backend divided by that of the other, by mini-batch size: where a line is below 1, the first is "
        "faster. Whiskers are quartiles.",
        Panels(pairs, panel, [(label, *style) for label, style in styles.items()]),
    )


def growth(run: Run, looks: Looks) -> Figure | None:
    """Draw how the time grows with each size, a panel for each."""
    cases = [case for case in run.cases if case.suite == "growth"]
    found = [(vary, sweeps((c for c in cases if c.parameters.get("vary", vary) == vary), vary)) for vary in AXES]
    shown = [(vary, some[0]) for vary, some in found if some]
    if not shown:
        return None

    def panel(axes: Any, item: tuple[str, Sweep]) -> None:
        vary, sweep = item
        for name, line in sweep.lines.items():
            _line(axes, list(line), [spread(case.seconds) for case in line.values()], name, looks)
        unit = next(iter(next(iter(sweep.lines.values())).values())).unit
        _logarithmic(axes, AXES[vary], f"time of {with_article(unit)}", time_text)
        panel_title(axes, sweep.label)

    names = [name for _, sweep in shown for name in sweep.lines]
    return draw_figure(
        "growth",
        "How the time grows",
        "Time by batch size, width, depth, number of models and rows, each varied by itself; both axes are "
        "logarithmic. Whiskers are quartiles.",
        Panels(shown, panel, _entries(names, looks)),
    )


def to_peers(run: Run, looks: Looks) -> Figure | None:
    """Draw gpumlp's time relative to every peer's, a panel for each training step."""
    shown = []
    for name, some in run.of("steps").items():
        own, peers = ([c for c in some if c.kind == kind] for kind in ("gpumlp", "peer"))
        if own and peers:
            shown.append((name, own, peers))
    if not shown:
        return None

    def panel(axes: Any, item: tuple[str, list[Case], list[Case]]) -> None:
        name, own, peers = item
        for i, case in enumerate(own):
            colour, marker = looks[case.contender]
            for row, peer in enumerate(peers):
                found = ratio(case, peer)
                y = row + 0.7 * ((i + 0.5) / len(own) - 0.5)
                axes.plot((found.low, found.high), (y, y), color=colour, linewidth=2, solid_capstyle="butt")
                axes.plot(found.median, y, marker, color=colour, markersize=6)
        axes.set_yticks(range(len(peers)), [short(peer.contender) for peer in peers])
        axes.set_ylim(len(peers) - 0.5, -0.5)
        axes.axvline(1, color="#333333", linewidth=1)
        log_axis(axes, "x", number_text)
        axes.set_xlabel("time relative to the peer's")
        panel_title(axes, name)

    names = [case.contender for _, own, _ in shown for case in own]
    row = 0.19 + LINE * count_lines(peer.contender for _, _, peers in shown for peer in peers)
    height = 0.85 + row * max(len(peers) for _, _, peers in shown)
    return draw_figure(
        "peers",
        "Relative to other libraries",
        "gpumlp's time of a training step divided by that of another library, round by round: left of 1, gpumlp is "
        "faster. Dots are medians, bars quartiles.",
        Panels(shown, panel, _entries(names, looks, line=False), columns=2, height=height),
    )


def one_kind(found: Sequence[Sweep]) -> list[Sweep]:
    """Return the sweeps of the depth and the activation that occur most, by width."""

    def kind(sweep: Sweep) -> tuple[Any, ...]:
        fixed = sweep.fixed
        return len(fixed.get("sizes") or ()), fixed.get("activation"), fixed.get("n_models", 1), fixed.get("rule")

    counts = Counter(kind(sweep) for sweep in found)
    chosen = max(counts, key=lambda k: counts[k]) if counts else None
    return sorted(
        (s for s in found if kind(s) == chosen), key=lambda s: max((s.fixed.get("sizes") or (0,))[1:-1] or [0])
    )


def _both(found: Iterable[Sweep], a: str, b: str) -> list[Sweep]:
    return [s for s in found if len(set(s.lines.get(a, ())) & set(s.lines.get(b, ()))) > 1]


def _kind(line: dict[float, Case]) -> str:
    return next(iter(line.values())).kind


def _has_share(case: Case) -> bool:
    return case.limit_seconds is not None and case.kind in ("gpumlp", "peer")


# ---------------------------------------------------------------- drawing


def _entries(names: Iterable[str], looks: Looks, line: bool = True) -> list[tuple[str, str, str, str]]:
    return [(name, *looks[name], "-" if line else "") for name in dict.fromkeys(names)]


def _line(axes: Any, x: Sequence[float], y: Sequence[Spread], name: str, looks: Looks) -> None:
    colour, marker = looks[name]
    _whiskers(axes, x, y, colour, marker, "-")


def _whiskers(axes: Any, x: Sequence[float], y: Sequence[Spread], colour: str, marker: str, dash: str) -> None:
    """Draw a line through medians with their quartiles."""
    medians = [s.median for s in y]
    ends = [[s.median - s.low for s in y], [s.high - s.median for s in y]]
    axes.errorbar(x, medians, ends, color=colour, marker=marker, linestyle=dash, elinewidth=1, capsize=2)


def _logarithmic(axes: Any, x_label: str, y_label: str, y_text: Callable[[float], str]) -> None:
    axes.set(xlabel=x_label, ylabel=y_label)
    log_axis(axes, "x", number_text)
    log_axis(axes, "y", y_text)
