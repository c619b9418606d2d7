"""A sweep as a figure: who came out where, and by which parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.ensembles.configurations import told
from gpumlp.ensembles.ledger import Row
from gpumlp.errors import BackendUnavailable, ConfigurationError
from gpumlp.training.monitors import mode_of

if TYPE_CHECKING:
    from gpumlp.ensembles.result import SweepResult

COLUMNS = 3
PANEL = (3.6, 2.8)  # inches
DOT, BEST = "#0072B2", "#D55E00"  # of Okabe and Ito, told apart by people who see no red or no green
MANY = 9  # options beyond which a panel would have no room for their names
SKEW = 0.3  # numbers of which half lie below this share of the largest are shown on a logarithmic axis
LONG = 50.0  # ratio of its ends from which on powers of ten are enough as labels
SHOWN = 0.9  # share of the configurations, from the best on, that fills a panel; the others lie at its edge


def draw(result: SweepResult, path: str | Path | None = None) -> Any:
    """Return the figure, and save it if a path is given; see SweepResult.plot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable('SweepResult.plot needs matplotlib; pip install "gpumlp[plot]"') from error
    ranked = result.ranked
    if not ranked:
        raise ConfigurationError("SweepResult.plot has no configuration to show; each has diverged, or none is done")
    names = result.varied
    rows = -(-(1 + len(names)) // COLUMNS)
    columns = min(COLUMNS, 1 + len(names))
    figure = Figure(figsize=(columns * PANEL[0], rows * PANEL[1]), layout="constrained")
    limits = _limits(result.metric, [row[result.metric] for row in ranked])
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(1 + len(names))]
    for axes in panels:
        axes.set_ylim(*limits)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    _draw_ranks(panels[0], result.metric, ranked)
    for axes, name in zip(panels[1:], names, strict=True):
        _draw_parameter(axes, name, [row["configuration"][name] for row in ranked], _clipped(ranked, result, limits))
    for i in range(0, len(panels), columns):
        panels[i].set_ylabel(f"{result.metric}, mean over folds" if len(result.task.folds) > 1 else result.metric)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_ranks(axes: Any, metric: str, ranked: list[Row]) -> None:
    """Draw every configuration from the best on, with its deviation over the folds."""
    values = np.array([row[metric] for row in ranked])
    deviations = np.array([row["deviation"] for row in ranked], np.float64)
    places = np.arange(1, len(ranked) + 1)
    axes.fill_between(places, values - deviations, values + deviations, color=DOT, alpha=0.2, linewidth=0)
    axes.plot(places, values, color=DOT, marker="o", markersize=3, linewidth=1)
    axes.plot(places[:1], values[:1], "o", color=BEST, markersize=7)
    axes.annotate(f"{values[0]:.4g}", (places[0], values[0]), (7, 5), textcoords="offset points", color=BEST)
    axes.set_xlabel(f"rank of {len(ranked)} configurations")


def _draw_parameter(axes: Any, name: str, given: list[Any], scores: Any) -> None:
    """Draw the metric by a parameter; the best configuration comes first."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    options: list[Any] = sorted(set(given) if numeric else {told(value) for value in given})
    if name == "hidden" and len(options) > MANY:  # widths of any depth lie on one axis by their sum
        units = [float(sum(value)) for value in given]
        _scatter(axes, units, scores)
        name = "hidden units"
    elif numeric and len(options) > MANY:
        _scatter(axes, given, scores)
    elif len(options) > MANY:
        axes.text(0.5, 0.5, f"{len(options)} values", transform=axes.transAxes, ha="center")
    else:
        labels = [value if numeric else told(value) for value in given]
        _dots(axes, _spread([options.index(label) for label in labels]), scores)
        axes.set_xticks(range(len(options)), [told(option) for option in options])
        axes.set_xlim(-0.6, len(options) - 0.4)
    axes.set_xlabel(name.replace("_", " "))


def _scatter(axes: Any, x: Any, scores: Any) -> None:
    """Draw the metric by numbers, on a logarithmic axis where most of them are small."""
    if min(x) > 0 and np.median(x) < SKEW * max(x):
        _logarithmic(axes, max(x) / min(x))
    _dots(axes, x, scores)


def _dots(axes: Any, x: Any, scores: Any) -> None:
    axes.plot(x[1:], scores[1:], "o", color=DOT, alpha=0.5, markersize=4, markeredgewidth=0, clip_on=False)
    axes.plot(x[:1], scores[:1], "o", color=BEST, markersize=7)


def _logarithmic(axes: Any, ratio: float) -> None:
    """Make the lower axis logarithmic, with labels that do not run into each other."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < LONG else (1,)))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _spread(places: list[int]) -> Any:
    """Return places moved sideways a little, by the golden ratio, so that equal ones are told apart; not the first."""
    return np.array(places) + 0.5 * ((np.arange(len(places)) * 0.618034 + 0.5) % 1 - 0.5)


def _limits(metric: str, values: list[float]) -> tuple[float, float]:
    """Return the range of the metric that is shown: without the worst tenth, which would flatten all others."""
    best, worst = values[0], values[min(len(values) - 1, int(SHOWN * len(values)))]
    margin = 0.08 * abs(best - worst) or 0.01 * (abs(best) or 1.0)
    low, high = sorted((best, worst))
    return (low - margin, high + 2 * margin) if mode_of(metric) == "max" else (low - 2 * margin, high + margin)


def _clipped(ranked: list[Row], result: SweepResult, limits: tuple[float, float]) -> Any:
    return np.clip([row[result.metric] for row in ranked], *limits)
