"""What an examination found: checks that pass or fail, tables of measurements, and both as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.atomic import replacing

FORMAT = 1
EMULATED = "This is the emulated device of the tests: kernels ran on the CPU, so there are no times or rates."


@dataclass
class Case:
    """One comparison of a check.

    differences   what was compared -> its largest relative difference
    tolerances    what was compared -> how large it may be
    error         what went wrong instead, "" if nothing
    """

    name: str
    differences: dict[str, float] = field(default_factory=dict)
    tolerances: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every difference is within its tolerance; NaN is not."""
        return not self.error and all(d <= self.tolerances[what] for what, d in self.differences.items())

    @property
    def worst(self) -> float:
        """The largest difference as a share of its tolerance."""
        shares = [d / self.tolerances[what] for what, d in self.differences.items()]
        return float("inf") if self.error or any(s != s for s in shares) else max(shares, default=0.0)


@dataclass
class Check:
    """A question of correctness, answered.

    summary   the answer in a line
    facts     numbers that belong to it
    cases     the single comparisons, if it is made of several
    error     what went wrong, "" if nothing
    """

    name: str
    passed: bool
    summary: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    error: str = ""


@dataclass
class Table:
    """Measurements under a heading.

    note      how they were taken
    columns   their names, with units
    rows      a value for each column
    error     what went wrong, "" if nothing
    """

    name: str
    note: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    error: str = ""


@dataclass
class Report:
    """All that was found on one device."""

    device: str
    emulated: bool
    environment: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    measurements: list[Table] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check of correctness passes."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_object(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        found = {"format": FORMAT, "passed": self.passed, **asdict(self)}
        for check, given in zip(found["checks"], self.checks, strict=True):
            for case, one in zip(check["cases"], given.cases, strict=True):
                case["passed"] = one.passed
        return found

    def as_json(self) -> str:
        """Return all of it as JSON, which has no NaN."""
        return json.dumps(_without_nan(self.as_object()), indent=1)

    def as_markdown(self) -> str:
        """Return what a reader of a bug report wants to see."""
        verdict = "all checks pass" if self.passed else "SOME CHECKS FAIL"
        lines = [f"# gpumlp doctor: {self.device}", "", f"**{verdict}**", ""]
        lines += [EMULATED, ""] if self.emulated else []
        lines += ["## Environment", "", *_grid(["what", "value"], self.environment.items()), ""]
        rows = [[c.name, "ok" if c.passed else "FAILED", c.error or c.summary] for c in self.checks]
        lines += ["## Checks", "", *_grid(["check", "result", "found"], rows), ""]
        lines += _failures(self.checks)
        for table in self.measurements:
            lines += [f"## {table.name}", "", table.note, ""]
            lines += [f"Failed: {table.error}", ""] if table.error else []
            lines += [*_grid(table.columns, table.rows), ""] if table.rows else []
        return "\n".join(lines)


def compared(name: str, cases: list[Case]) -> Check:
    """Return the check that passes if all its cases do."""
    failed = [case for case in cases if not case.passed]
    worst = max(cases, key=lambda case: case.worst)
    tolerances = {what: limit for case in cases for what, limit in case.tolerances.items()}
    allowed = ", ".join(f"{limit:g}" for limit in sorted(set(tolerances.values())))
    summary = f"{len(cases) - len(failed)} of {len(cases)} within {allowed}"
    if failed:
        summary += f"; the worst is {worst.name}{': ' + worst.error if worst.error else ''}"
    else:
        summary += f"; the nearest to it is {worst.name}, at {worst.worst:.2g} of it"
    return Check(name, not failed, summary, {"tolerances": tolerances}, cases)


def caught(name: str, work: Callable[[], Check]) -> Check:
    """Return the check, or one that failed with the error that `work` raised."""
    try:
        return work()
    except Exception as error:  # a doctor reports, whatever it meets
        return Check(name, False, error=in_a_line(error))


def caught_table(name: str, work: Callable[[], Table]) -> Table:
    """Return the table, or an empty one with the error that `work` raised."""
    try:
        return work()
    except Exception as error:
        return Table(name, "", error=in_a_line(error))


def in_a_line(error: BaseException) -> str:
    """Spell an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def relative_difference(found: Iterable[Any], expected: Iterable[Any]) -> float:
    """Return the largest difference between arrays, relative to the largest value of its own array; NaN counts."""
    largest = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return float("nan")
        difference, scale = float(np.abs(a - b).max()), float(np.abs(b).max())
        largest = max(largest, difference / scale if scale > 0 else float(difference > 0))
    return largest


def free_places(folder: Path, stem: str = "doctor") -> tuple[Path, Path]:
    """Create doctor.json and doctor.md, or with the first number of which both are free: doctor-2.json, doctor-2.md."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        places = folder / f"{name}.json", folder / f"{name}.md"
        if not any(place.exists() for place in places):
            for place in places:
                place.open("x").close()  # never over what another process has written meanwhile
            return places
        number += 1


def save(report: Report, places: tuple[Path, Path]) -> None:
    """Write the report as JSON and as Markdown."""
    for place, text in zip(places, (report.as_json(), report.as_markdown()), strict=True):
        with replacing(place) as file:
            file.write(f"{text}\n".encode())


def _failures(checks: list[Check]) -> list[str]:
    """Return a section with every case that failed, if there is one."""
    rows = [
        [check.name, case.name, case.error or ", ".join(f"{k} {v:.2g}" for k, v in case.differences.items())]
        for check in checks
        for case in check.cases
        if not case.passed
    ]
    return ["## Failed cases", "", *_grid(["check", "case", "found"], rows), ""] if rows else []


def _grid(columns: list[str], rows: Iterable[Any]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
