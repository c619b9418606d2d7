"""Which cases of a run belong on one line: those that differ in one parameter alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpumlp.bench.results import Case

# what `vary` names -> the axis of a plot
AXES = {
    "batch": "batch size",
    "width": "neurons of a hidden layer",
    "depth": "layers",
    "n_models": "models",
    "rows": "rows of the data set",
}


@dataclass
class Sweep:
    """Cases that differ in one parameter.

    label   what they have in common: "784-128-10, relu"
    fixed   the same for programs
    lines   contender -> its cases by the value of the parameter, in order
    """

    label: str
    fixed: Mapping[str, Any]
    lines: dict[str, dict[float, Case]] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """All values of the parameter that any contender has."""
        return sorted({x for line in self.lines.values() for x in line})


def sweeps(cases: Iterable[Case], vary: str, least: int = 2) -> list[Sweep]:
    """Return the cases grouped by all that they have in common but `vary`, where it takes so many values at least."""
    found: dict[str, Sweep] = {}
    for case in cases:
        x = value_of(case, vary)
        if x is None:
            continue
        fixed = _fixed(case, vary)
        key = json.dumps([fixed, case.unit], sort_keys=True, default=str)
        sweep = found.setdefault(key, Sweep(_label(fixed), fixed))
        sweep.lines.setdefault(case.contender, {})[x] = case
    for sweep in found.values():
        sweep.lines = {name: dict(sorted(line.items())) for name, line in sweep.lines.items()}
    return [sweep for sweep in found.values() if len(sweep.values) >= least]


def value_of(case: Case, vary: str) -> float | None:
    """Return the value of a parameter, read from the sizes where it is not among the parameters; None if unknown."""
    given = case.parameters.get(vary)
    if given is None:
        given = _from_sizes(case, vary)
    return given if isinstance(given, int | float) and given > 0 else None


def size_text(sizes: Any) -> str:
    """Spell the sizes of a network: 784-128-10, or 2048 x 4 for four layers of equal sizes."""
    if len(sizes) > 3 and len(set(sizes)) == 1:
        return f"{sizes[0]} x {len(sizes) - 1}"
    return "-".join(str(n) for n in sizes)


def _from_sizes(case: Case, vary: str) -> Any:
    sizes = case.parameters.get("sizes") or ()
    if vary == "width" and len(sizes) > 2:
        return max(sizes[1:-1])
    if vary == "depth" and len(sizes) > 1:
        return len(sizes) - 1
    if vary == "rows" and case.unit == "epoch":
        return case.examples / case.parameters.get("n_models", 1)
    return None


def _fixed(case: Case, vary: str) -> dict[str, Any]:
    """Return the parameters that `vary` does not touch; the rows may follow the batch, and only an epoch feels them."""
    touched = {vary, "vary"} | ({"sizes", "width", "depth"} if vary in ("width", "depth") else set())
    touched |= set() if case.unit == "epoch" else {"rows"}
    return {name: value for name, value in case.parameters.items() if name not in touched}


def _label(fixed: Mapping[str, Any]) -> str:
    parts = [size_text(fixed["sizes"])] if "sizes" in fixed else []
    parts += [f"batch {fixed['batch']}"] if "batch" in fixed else []
    parts += [f"{fixed['n_models']} models"] if fixed.get("n_models", 1) != 1 else []
    parts += [str(fixed[name]) for name in ("activation", "rule") if fixed.get(name)]
    return ", ".join(parts)
