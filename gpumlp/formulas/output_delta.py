"""BP1 for a cost and an output activation: the only place where the two meet.

matched pair      delta = a - y
any other pair    delta = dC/da * f'(z)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from gpumlp.errors import FormulaError
from gpumlp.formulas.activations import ACTIVATIONS, Activation, prime_recording
from gpumlp.formulas.costs import Cost
from gpumlp.formulas.derivative import chain_rule
from gpumlp.formulas.play import play
from gpumlp.formulas.term import Recorder, Recording, finish, record


@dataclass(frozen=True)
class OutputDelta:
    """The formulas of the output layer as Recordings.

    term     of (z, a, y): what one unit adds to the cost; for a matched softmax z stands for log a
    outer    of (s): cost of the example from the sum of its terms; None: the sum itself
    delta    of (z, a, y, c), c being the cost of the example: dC/dz
    cost     name of the cost
    """

    term: Recording
    outer: Recording | None
    delta: Recording
    cost: str


def is_matched(cost: Cost, activation: Activation) -> bool:
    """Tell whether delta = a - y for this pair; an activation that only has the name of the matched one is another."""
    return cost.matched is not None and ACTIVATIONS.get(cost.matched) == activation


def fits(cost: Cost, activation: Activation) -> bool:
    """Tell whether the outputs of `activation` lie where `cost` is defined and BP1 is known for the pair."""
    if is_matched(cost, activation):
        return True
    return not activation.row_wise and not cost.on_simplex and activation.range in cost.domain


def check_pair(cost: Cost, activation: Activation) -> None:
    """Raise FormulaError, naming what fits, unless the pair can be trained."""
    if fits(cost, activation):
        return
    fitting = ", ".join(a.name.partition("(")[0] for a in ACTIVATIONS.definitions() if fits(cost, a))
    if activation.row_wise:
        why = f"delta is known for {activation.name} only with a cost that it is matched to"
    elif cost.on_simplex:
        why = f"the outputs of an example must sum to 1, those of {activation.name} need not"
    else:
        why = f"the cost is defined for outputs in {cost.domain}, {activation.name} gives outputs in {activation.range}"
    raise FormulaError(f"cost {cost.name} does not fit output activation {activation.name}: {why}; use {fitting}")


@cache
def weighted_delta(delta: Recording) -> Recording:
    """Return row_weight dC/dz as a Recording of (z, a, y, c, weight)."""
    return record(lambda z, a, y, c, weight: play(delta, z, a, y, c) * weight, "z", "a", "y", "c", "weight")


@cache
def output_delta(cost: Cost, activation: Activation) -> OutputDelta:
    """Return the formulas of BP1 for a pair; raise FormulaError if they do not fit."""
    check_pair(cost, activation)
    outer = None if cost.outer is None else record(cost.outer, "s")
    if is_matched(cost, activation):
        term = record(cost.matched_term or (lambda z, a, y: cost.term(a, y)), "z", "a", "y")
        return OutputDelta(term, outer, record(lambda z, a, y, c: a - y, "z", "a", "y", "c"), cost.name)  # BP1, matched
    term = record(lambda z, a, y: cost.term(a, y), "z", "a", "y")
    return OutputDelta(term, outer, unmatched_delta(cost, activation), cost.name)


def unmatched_delta(cost: Cost, activation: Activation) -> Recording:
    """Return dC/da * f'(z) as a Recording of (z, a, y, c)."""
    recorder = Recorder()
    z, a, y, c = (recorder.input(name) for name in "zayc")
    if cost.gradient is not None:
        gradient = recorder.term(cost.gradient(a, y, c))
    elif cost.outer is None:
        gradient = chain_rule(recorder, recorder.term(cost.term(a, y)), a)
    else:
        raise FormulaError(f"cost {cost.name} has an outer function; write its gradient(a, y, c), too")
    prime = play(prime_recording(activation), z, a)
    return finish(recorder, ("z", "a", "y", "c"), gradient * prime)  # BP1
