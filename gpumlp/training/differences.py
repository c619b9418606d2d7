"""Whether a checkpoint belongs to the training that is to go on from it, and what differs if it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import methodcaller
from typing import Any

from gpumlp.errors import CheckpointError

MOST = 4  # differences that are told
LONGEST = 60  # characters of a value that is told


def expect_same(what: str, saved: Any, here: Any) -> None:
    """Raise CheckpointError, naming what differs, unless two trees of plain values are the same as JSON."""
    found = list(_differences(saved, json.loads(json.dumps(here, default=methodcaller("item"))), ""))
    if found:
        told = "; ".join(found[:MOST]) + ("; and more" if len(found) > MOST else "")
        raise CheckpointError(
            f"the checkpoint is one of another training, {what} differs: {told}. Give what it was trained with, or "
            "start anew in another folder"
        )


def _differences(saved: Any, here: Any, name: str) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*saved, *here]):
            yield from _differences(saved.get(key), here.get(key), f"{name} {key}".strip())
    elif saved != here:
        yield f"{name} is {_short(saved)} in the checkpoint and {_short(here)} here"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
