"""The same training steps in other libraries, which benchmarks/peers/ holds: who is here, and whether they do the same.

Every peer starts from gpumlp's initial weights, takes the same rows in the same order for a few steps, and must arrive
where gpumlp does before anything is timed. Only then it shuffles.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpumlp.bench.workloads import ReadyStep, Workload
from gpumlp.errors import GpumlpError
from gpumlp.shapes import HostArray

FILES = {"torch": "pytorch.py", "jax": "jax_jit.py", "sklearn": "scikit_learn.py"}  # what a file needs -> its name
CHECKED_STEPS = 3
NEAR = 0.05  # of the way that the weights went in the checked steps, on average; tf32 and Adam's division roughen it

Initial = list[tuple[HostArray, HostArray]]


class Peer(Protocol):
    """A training elsewhere, made by kind(workload, mode, device, initial).

    name     who it is
    launch   steps that it does at once
    """

    name: str
    launch: int

    def run(self, steps: int) -> None:
        """Train on so many further batches, and return when that is done."""
        ...

    def weights(self) -> list[HostArray]:
        """Return the weights of each layer, (n_models, out, in)."""
        ...

    def tune(self) -> str:
        """Shuffle from now on, and choose the fastest way; return how it is done, in words, or ""."""
        ...


Kind = Any  # a class of peers: name, why_not(workload, device), and what Peer has


def peer_folder() -> Path:
    """Return where the peers' files are: in the installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    places = (package / "_peers", package.parent / "benchmarks" / "peers")
    for place in places:
        if all((place / name).is_file() for name in FILES.values()):
            return place
    raise FileNotFoundError(f"the peers are neither in {places[0]} nor in {places[1]}")


def available(device: str, libraries: Iterable[str] = tuple(FILES)) -> tuple[list[Kind], dict[str, str]]:
    """Return the kinds of peers that can take part on a device, and for each library that cannot, why."""
    kinds: list[Kind] = []
    absent: dict[str, str] = {}
    for library in libraries:
        if find_spec(library) is None:
            absent[library] = "is not installed"
            continue
        try:
            module = load(library)
            reason = str(module.why_absent(device))
        except Exception as error:  # a broken installation is no peer
            reason = in_a_line(error)
        if reason:
            absent[library] = reason
        else:
            kinds += module.PEERS
    return kinds, absent


@cache
def load(library: str) -> Any:
    """Return the module of a library's peers, which imports the library."""
    file = FILES[library]
    name = f"gpumlp._peers.{file.removesuffix('.py')}"
    spec = spec_from_file_location(name, peer_folder() / file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def initial_weights(ready: ReadyStep) -> Initial:
    """Return copies of the weights and biases of each layer."""
    return [(W.copy(), b.copy()) for W, b in zip(ready.net.weights, ready.net.biases, strict=True)]


def enter(
    kind: Callable[..., Any], workload: Workload, mode: str, device: str, initial: Initial, own: Sequence[HostArray]
) -> tuple[Peer, str]:
    """Return a peer that does what gpumlp does, and how near it came, in words.

    own      gpumlp's weights after the checked steps from `initial`
    Raises   GpumlpError where the peer arrives elsewhere, and whatever its library raises
    """
    peer: Peer = kind(workload, mode, device, initial)
    peer.run(CHECKED_STEPS)
    return peer, check_agreement(initial, own, peer.weights())


def check_agreement(initial: Initial, own: Sequence[HostArray], other: Sequence[HostArray]) -> str:
    """Return how far the other's weights are from gpumlp's, in words; raise GpumlpError if that is too far."""
    furthest = 0.0
    for (start, _), mine, theirs in zip(initial, own, other, strict=True):
        way, apart = float(np.abs(mine - start).mean()), float(np.abs(mine - theirs).mean())
        share = apart / way if way > 0 else float(apart > 0)
        if not share <= NEAR:
            raise GpumlpError(
                f"its weights are {share:.2g} of the way apart from gpumlp's after {CHECKED_STEPS} steps, "
                f"{NEAR:g} at most expected; not timed"
            )
        furthest = max(furthest, share)
    return f"weights {furthest:.1g} of the way apart from gpumlp's after {CHECKED_STEPS} steps"


def in_a_line(error: BaseException) -> str:
    """Spell an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
