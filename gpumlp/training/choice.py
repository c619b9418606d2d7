"""Choice: the backend and the batch size that tuning picks, with all that it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpumlp.errors import OutOfMemory

NEAR = 0.9  # share of the highest throughput that is enough: a smaller batch makes more updates in an epoch


@dataclass(frozen=True)
class Measurement:
    """What was measured of one backend and batch size.

    examples_per_second   rows of the data in a second, each seen by all models of a stack: the median of the samples
    low, high             the quartiles of the samples
    steps                 how many steps were timed; 0: nothing was measured, and the three numbers are NaN
    note                  why it was left out, or measured less than others; "" where it was not
    dropped               whether it was clearly slower than another that was measured at the same time: never chosen
    """

    backend: str
    batch_size: int
    examples_per_second: float
    low: float
    high: float
    steps: int
    note: str = ""
    dropped: bool = False


@dataclass(frozen=True)
class Choice:
    """The backend and the batch size to train with.

    measurements   of all candidates, in the order of backends and batch sizes
    notes          which backends were left out, and why
    """

    backend: str
    batch_size: int
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the choice in one line, with the throughput, and the highest of all where that is another's."""
        line = f"batch size {self.batch_size} on {self.backend}"
        measured = [m for m in self.measurements if m.steps]
        mine = [m for m in measured if (m.backend, m.batch_size) == (self.backend, self.batch_size)]
        if not mine:
            return line
        line += f": {mine[0].examples_per_second:,.0f} examples/s; {len(measured)} measured"
        best = max((m for m in measured if not m.dropped), key=lambda m: m.examples_per_second)
        if best is mine[0]:
            return line
        return f"{line}, the fastest of them {best.batch_size} on {best.backend}: {best.examples_per_second:,.0f}"

    def table(self) -> list[str]:
        """Return what was measured as lines of text, the choice marked."""
        lines = [f"{'backend':<8} {'batch':>6} {'examples/s':>12}   {'quartiles':<25} {'steps':>7}"]
        for m in self.measurements:
            figures = ("-", "-", "-")
            if m.steps:
                figures = (f"{m.examples_per_second:,.0f}", f"{m.low:,.0f} to {m.high:,.0f}", f"{m.steps}")
            rate, quartiles, steps = figures
            line = f"{m.backend:<8} {m.batch_size:>6} {rate:>12}   {quartiles:<25} {steps:>7}"
            chosen = (m.backend, m.batch_size) == (self.backend, self.batch_size)
            remark = "; ".join(part for part in ("chosen" if chosen else "", m.note) if part)
            lines.append(f"{line}   {remark}".rstrip())
        return [*lines, *self.notes]


def choose(measurements: Sequence[Measurement], notes: Sequence[str] = ()) -> Choice:
    """Return the smallest batch size whose throughput comes within 10 % of the highest, on the faster of its backends.

    What was dropped is not compared: its figures are of another moment.
    Raises OutOfMemory, with the candidates' notes, where nothing could be measured
    """
    measured = [m for m in measurements if m.steps and not m.dropped]
    if not measured:
        reasons = "; ".join(f"{m.backend} with {m.batch_size}: {m.note}" for m in measurements)
        raise OutOfMemory(f"no batch size could be tried ({reasons})")
    enough = NEAR * max(m.examples_per_second for m in measured)
    near = [m for m in measured if m.examples_per_second >= enough]
    best = min(near, key=lambda m: (m.batch_size, -m.examples_per_second))
    return Choice(best.backend, best.batch_size, tuple(measurements), tuple(notes))
