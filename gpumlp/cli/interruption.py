"""Ctrl-C and SIGTERM while training: nothing is lost, and one line says how to go on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from gpumlp.cli.errors import tell
from gpumlp.training.checkpoints import Checkpoints

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def going_on(checkpoints: Checkpoints | None, arguments: Sequence[str]) -> Iterator[None]:
    """Let a signal inside the block end it at the next step, once a checkpoint is written, and tell how to go on.

    A second signal ends it at once.

    arguments   of the command line that is under way
    Raises      typer.Exit with 128 and the signal's number, as a shell counts
    """
    if checkpoints is None:
        yield
        return
    caught: list[int] = []

    def stop(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt
        checkpoints.stop()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as Ctrl-C is of a process in the background
            signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted; go on with: {command_to_go_on(arguments)}")
        raise typer.Exit(128 + (caught[0] if caught else signal.SIGINT)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_to_go_on(arguments: Sequence[str]) -> str:
    """Return the command line that goes on from the checkpoints of this one."""
    return shlex.join(["gpumlp", *arguments, *([] if "--resume" in arguments else ["--resume"])])
