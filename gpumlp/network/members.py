"""Member: one model of a stack, which may differ from the others in everything but its input and output."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.network.architecture import Architecture
from gpumlp.network.initialisers import Initialiser


@dataclass(frozen=True)
class Member:
    """One model of a stack: what a Network of n_models=1 is built from.

    architecture   its own, of its own sizes
    dropout        by hidden layer
    """

    architecture: Architecture
    dropout: tuple[float, ...]
    seed: int = 0
    model_id: int = 0
    initialiser: str | Initialiser = "he"
