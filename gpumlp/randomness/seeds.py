"""From a user's seed and a model's own number to generators and keys.

Every stream depends on (seed, model id) alone, never on the model's place in a stack, so that one model of a stack can
be run again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpumlp.randomness.philox import Words


def sequence(seed: int, model_id: int) -> np.random.SeedSequence:
    """Return the source of all randomness of one model."""
    return np.random.SeedSequence(seed, spawn_key=(model_id,))


def generator(seed: int, model_id: int) -> np.random.Generator:
    """Return the generator that draws one model's initial weights, on the host for every backend."""
    return np.random.Generator(np.random.PCG64(sequence(seed, model_id)))


def model_keys(seeds: Sequence[int], model_ids: Sequence[int]) -> Words:
    """Return the Philox keys of a stack, (n_models, 2) words."""
    states = [sequence(s, m).generate_state(2, np.uint32) for s, m in zip(seeds, model_ids, strict=True)]
    return np.array(states, dtype=np.uint32)


def shared_key(seed: int) -> Words:
    """Return the key (2,) of what all models of one seed share: it depends on no model's number."""
    return np.random.SeedSequence(seed).generate_state(2, np.uint32).astype(np.uint32)
