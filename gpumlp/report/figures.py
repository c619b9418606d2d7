"""A training as figures: curves by epoch, and how predictions compare with what is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.pages.figures import Figure, Panels, draw_figure, log_axis, panel_title
from gpumlp.report.content import Outcome, Training
from gpumlp.training.history import History

TRAINING, HELD_OUT, BEST = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito, whom all can tell apart
LAYERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
HELD_OUT_DASH = (0, (4, 1.5))
INK = "#333333"
WIDE_RANGE = 20.0  # largest by smallest value, beyond which an axis is logarithmic
NUMBERED = 15  # classes up to which each cell of a matrix shows its count
TICKS = 16  # names of classes along an axis at most
DOTS = 1500  # of a scatter plot, so that the page stays small
OUTPUTS = 3  # of a regression that are drawn


def figures(training: Training) -> list[Figure]:
    """Return the figures that have something to show."""
    found = (curves(training), delta_norms(training), of_outcome(training.outcome))
    return [figure for figure in found if figure is not None]


# ---------------------------------------------------------------- by epoch


def curves(training: Training) -> Figure:
    """Draw cost, metrics and learning rate by epoch."""
    history = training.history
    names = [n for n in history.names if not n.startswith(("validation_", "delta_", "learning_rate"))]
    items = [(name, [n for n in (name, f"validation_{name}") if n in history.names]) for name in names]

    def panel(axes: Any, item: tuple[str, list[str]]) -> None:
        name, series = item
        for key in series:
            held_out = key.startswith("validation_")
            by_epoch(axes, history, key, HELD_OUT if held_out else TRAINING, HELD_OUT_DASH if held_out else "-")
        if training.best_epoch is not None:
            axes.axvline(training.best_epoch, color=BEST, linewidth=1, linestyle=":")
        epochs_axis(axes, name.replace("_", " "))
        values = np.concatenate([history[key].ravel() for key in series])
        if name == "learning_rate":
            axes.set_ylim(0, 1.1 * np.nanmax(values) or 1)
        elif "cost" in name:
            spread_axis(axes, values[np.isfinite(values)])

    legend: list[tuple[str, str, str, Any]] = [("training rows", TRAINING, "", "-")]
    if any(len(series) > 1 for _, series in items):
        legend.append((training.held_out, HELD_OUT, "", HELD_OUT_DASH))
    if training.best_epoch is not None:
        legend.append((f"best epoch, {training.best_epoch}", BEST, "", ":"))
    if "learning_rate" in history.names:
        items.append(("learning_rate", ["learning_rate"]))
    description = "Means over the rows, epoch by epoch; those of the training rows are taken while the weights move."
    return draw_figure("curves", "Cost and metrics", description, Panels(items, panel, legend))


def delta_norms(training: Training) -> Figure | None:
    """Draw the mean |delta[l]| of each layer by epoch, if it was measured."""
    history = training.history
    names = [name for name in history.names if name.startswith("delta_")]
    if not names:
        return None
    looks = {name: (LAYERS[i % len(LAYERS)], "-" if i < len(LAYERS) else "--") for i, name in enumerate(names)}

    def panel(axes: Any, item: str) -> None:
        for name, (colour, dash) in looks.items():
            by_epoch(axes, history, name, colour, dash)
        epochs_axis(axes, "mean |delta|")
        values = np.concatenate([history[name].ravel() for name in names])
        if (values > 0).all():
            log_axis(axes, "y", "{:.2g}".format)

    legend = [(f"layer {name.removeprefix('delta_')}", colour, "", dash) for name, (colour, dash) in looks.items()]
    description = (
        "Mean |dC/dz| of each layer over some training rows, after each epoch; the last layer is the output. Lines "
        "that lie far below it tell of errors that fade on their way back."
    )
    return draw_figure("deltas", "Errors by layer", description, Panels([""], panel, legend, columns=1, height=3.0))


def by_epoch(axes: Any, history: History, name: str, colour: str, dash: Any) -> None:
    """Draw a value of each model by epoch."""
    values = history[name]
    marker = "o" if len(values) == 1 else ""
    axes.plot(
        history.epochs, values, color=colour, linestyle=dash, marker=marker, alpha=1 if values.shape[1] == 1 else 0.5
    )


def epochs_axis(axes: Any, label: str) -> None:
    """Name the axes of a panel by epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel_title(axes, label)


def spread_axis(axes: Any, values: NDArray[Any]) -> None:
    """Let the axis of the values be logarithmic where they are far apart."""
    if values.size and values.min() > 0 and values.max() > WIDE_RANGE * values.min():
        log_axis(axes, "y", "{:.2g}".format)


# ---------------------------------------------------------------- predictions


def of_outcome(outcome: Outcome | None) -> Figure | None:
    """Draw predictions beside what is true."""
    if outcome is None or not len(outcome.y):
        return None
    return residuals(outcome) if outcome.classes is None else confusion(outcome, outcome.classes)


def count_pairs(y: NDArray[Any], predicted: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Return how many rows of each class (a line) were taken for each class (a column)."""
    return np.bincount(y * n + predicted, minlength=n * n).reshape(n, n)


def confusion(outcome: Outcome, classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix, and the share of right answers of each class."""
    n = len(classes)
    counts = count_pairs(outcome.y, outcome.predicted, n)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = [cut(name) for name in classes]
    every = -(-n // TICKS)
    places = range(0, n, every)

    def matrix(axes: Any) -> None:
        axes.pcolormesh(np.arange(n + 1) - 0.5, np.arange(n + 1) - 0.5, shares, cmap="Blues", vmin=0, vmax=1)
        for true, taken in zip(*np.nonzero(counts), strict=True) if n <= NUMBERED else ():
            ink = "#ffffff" if shares[true, taken] > 0.55 else "#1c1c1e"
            axes.text(taken, true, f"{counts[true, taken]}", color=ink, ha="center", va="center", fontsize=8)
        axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
        axes.set_xticks(places, [shown[i] for i in places], rotation=0 if n <= 10 and widest(shown) <= 3 else 90)
        axes.set_yticks(places, [shown[i] for i in places])
        axes.grid(False)
        panel_title(axes, "rows of each class, by prediction")

    def rates(axes: Any) -> None:
        recall = np.diag(shares)
        taken = counts.sum(axis=0)
        precision = np.diag(counts) / np.maximum(taken, 1)
        for values, colour, shift in ((recall, TRAINING, -0.2), (precision, HELD_OUT, 0.2)):
            axes.barh(np.arange(n) + shift, values, 0.36, color=colour)
        axes.set(xlabel="share", xlim=(0, 1), ylim=(n - 0.5, -0.5))
        axes.set_yticks(places, [shown[i] for i in places])
        axes.grid(False, axis="y")
        panel_title(axes, "recall and precision by class")

    panels: list[Callable[[Any], None]] = [matrix, rates]
    legend = [
        ("recall of a class", TRAINING, "s", ""),
        ("precision", HELD_OUT, "s", ""),
    ]
    height = min(5.2, max(2.6, 1.1 + 0.32 * n))
    return draw_figure(
        "confusion",
        "Confusion",
        f"Of {outcome.rows}: which class each row has, and which one the network says. The colour is the share of the "
        "class; all in the diagonal would be right.",
        Panels(panels, lambda axes, draw: draw(axes), legend, columns=2, height=height),
    )


def residuals(outcome: Outcome) -> Figure:
    """Draw what is predicted and what is left over against what is true."""
    y, predicted = (np.asarray(x, np.float64).reshape(len(outcome.y), -1) for x in (outcome.y, outcome.predicted))
    chosen = np.unique(np.linspace(0, len(y) - 1, min(DOTS, len(y))).astype(int))
    names = outcome.targets or tuple(f"target {k}" for k in range(y.shape[1]))
    dots = {"color": TRAINING, "markersize": 3, "alpha": 0.55, "markeredgewidth": 0}

    def against(axes: Any, k: int) -> None:
        low, high = limits(y[:, k], predicted[:, k])
        axes.plot((low, high), (low, high), color=INK, linewidth=1)
        axes.plot(y[chosen, k], predicted[chosen, k], "o", **dots)
        axes.set(xlabel="true", ylabel="predicted")
        panel_title(axes, cut(names[k], 34))

    def left(axes: Any, k: int) -> None:
        axes.axhline(0, color=INK, linewidth=1)
        axes.plot(predicted[chosen, k], (predicted - y)[chosen, k], "o", **dots)
        axes.set(xlabel="predicted", ylabel="predicted - true")
        panel_title(axes, "residuals")

    def spread(axes: Any, k: int) -> None:
        low, high = limits((predicted - y)[:, k])
        room = 1e-6 * max(abs(low), abs(high), 1e-300)  # all may be the same
        bins = np.linspace(low - room, high + room, min(30, max(5, int(len(y) ** 0.5))) + 1)
        axes.hist((predicted - y)[:, k], bins=bins.tolist(), color=TRAINING)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(xlabel="predicted - true", ylabel="rows")
        panel_title(axes, "how they are spread")

    items = [(draw, k) for k in range(min(OUTPUTS, y.shape[1])) for draw in (against, left, spread)]
    return draw_figure(
        "residuals",
        "Residuals",
        f"Of {outcome.rows}, in the data's units: predictions beside what is true. On the line they would be right.",
        Panels(items, lambda axes, item: item[0](axes, item[1]), (), columns=3),
    )


def limits(*values: NDArray[Any]) -> tuple[float, float]:
    """Return the smallest and the largest of all."""
    return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def cut(name: str, most: int = 12) -> str:
    """Return a name in at most so many letters."""
    return name if len(name) <= most else f"{name[: most - 2]}.."


def widest(names: Sequence[str]) -> int:
    """Return the length of the longest name."""
    return max(map(len, names), default=0)
