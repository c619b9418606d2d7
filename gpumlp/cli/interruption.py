"""Ctrl-C and SIGTERM in what takes long: nothing is lost, and one line says how to go on."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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

    with handled_by(stop):
        try:
            yield
        except KeyboardInterrupt:
            tell(f"interrupted; go on with: {command_to_go_on(arguments)}")
            raise typer.Exit(128 + (caught[0] if caught else signal.SIGINT)) from None


@contextmanager
def ending_early() -> Iterator[Callable[[], None]]:
    """Let the first of Ctrl-C and SIGTERM end what is done in the block by KeyboardInterrupt; later ones are ignored.

    It gives a function after whose call none ends it any more, so that what there is can be written.
    """
    is_over = False

    def be_over() -> None:
        nonlocal is_over
        is_over = True

    def end(number: int, frame: Any) -> None:
        if not is_over:
            be_over()
            raise KeyboardInterrupt

    with handled_by(end):
        yield be_over


@contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function answer the signals within the block, but for those that are ignored; only in the main thread."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    answered = {n: there for n, there in before.items() if there not in (None, signal.SIG_IGN)}  # in the background
    if threading.current_thread() is not threading.main_thread():
        answered = {}
    for number in answered:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, there in answered.items():
            signal.signal(number, there)


def command_to_go_on(arguments: Sequence[str]) -> str:
    """Return the command line that goes on from the checkpoints of this one."""
    return shlex.join(["gpumlp", *arguments, *([] if "--resume" in arguments else ["--resume"])])
