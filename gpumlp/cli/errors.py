"""What went wrong, in one line on stderr, and the exit status that tells it to a script."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import typer

from gpumlp.errors import GpumlpError, printable

DONE, UNEXPECTED, WRONG_INPUT, SOME_LOST = 0, 1, 2, 3
INTERRUPTED, READER_LEFT = 128 + 2, 128 + 13  # as a shell counts SIGINT and SIGPIPE


def exit_status(run: Callable[[], None]) -> int:
    """Run a command and return its exit status.

    0     done
    1     an error that gpumlp did not foresee; GPUMLP_DEBUG=1 shows where
    2     wrong data, names or options
    3     done, but some of what was to be tried ended the process that ran it
    130   Ctrl-C
    141   whoever read stdout has left
    """
    try:
        status = _status(run)
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    return status


def tell(text: str) -> None:
    """Write a line on stderr, so that stdout holds results alone."""
    print(text, file=sys.stderr, flush=True)


def _status(run: Callable[[], None]) -> int:
    try:
        run()
    except typer.Exit as wish:
        return wish.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except GpumlpError as error:
        return _fail(str(error), WRONG_INPUT)
    except Exception as error:
        # Typer's usage errors; newer versions of it bring their own copy of click, so no class names them all
        if hasattr(error, "format_message"):
            return _fail(f"{error.format_message()} {_help_hint(error)}", WRONG_INPUT)
        debug = "" if _debugging() else "; set GPUMLP_DEBUG=1 to see where"
        return _fail(f"{type(error).__name__}: {error}{debug}", UNEXPECTED)
    return DONE


def _fail(message: str, status: int) -> int:
    if _debugging():
        traceback.print_exc()
    tell("gpumlp: error: " + printable(" ".join(message.split())))
    return status


def _debugging() -> bool:
    return os.environ.get("GPUMLP_DEBUG", "") not in ("", "0")


def _help_hint(error: Exception) -> str:
    ctx = getattr(error, "ctx", None)
    return f"(see {ctx.command_path if ctx else 'gpumlp'} --help)"
