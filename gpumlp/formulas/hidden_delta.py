"""BP2 for a unit of a hidden layer, and dropout behind one."""

from __future__ import annotations

from functools import cache
from typing import Any

from gpumlp.formulas.activations import Activation, prime_recording
from gpumlp.formulas.play import play
from gpumlp.formulas.term import Recording, record
from gpumlp.formulas.vocabulary import where


@cache
def dropout_recording() -> Recording:
    """a <- a mask / keep as a Recording of (a, mask, grow): mask is 1 for a unit that stays, grow is 1 / keep."""
    return record(lambda a, mask, grow: a * mask * grow, "a", "mask", "grow")


@cache
def hidden_delta_recording(activation: Activation, dropout: bool) -> Recording:
    """Return d f'(z) as a Recording of (d, z, a), d being the unit's part of W^T delta.

    Under dropout it is one of (d, z, a, mask, grow, keep), where a holds f(z) mask / keep: d f'(z) / keep for a unit
    that stayed, and 0 for the others, whose f' may be anything.
    """
    prime = prime_recording(activation)
    if not dropout:
        return record(lambda d, z, a: d * play(prime, z, a), "d", "z", "a")

    def formula(d: Any, z: Any, a: Any, mask: Any, grow: Any, keep: Any) -> Any:
        return where(mask, d * grow * play(prime, z, a * keep), 0)

    return record(formula, "d", "z", "a", "mask", "grow", "keep")
