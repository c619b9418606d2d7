"""`python -m gpumlp.accel script.py`: runs a program as Python would, with scikit-learn's MLPs on gpumlp."""

from __future__ import annotations

import argparse
import atexit
import builtins
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from gpumlp.accel.installation import install
from gpumlp.accel.report import tell
from gpumlp.backends.select import BACKENDS
from gpumlp.errors import GpumlpError

WRONG_INPUT, FAILED = 2, 1
BUILTINS = {"__builtins__": builtins}  # in __main__ the module, elsewhere its dictionary


def main(arguments: Sequence[str]) -> int:
    """Run the program that the arguments name, report when the process ends, and return its exit status."""
    own, module, program = _split(list(arguments))
    options = _parser().parse_args(own)
    if not program:
        _parser().error("-m needs the name of a module" if module else "name a script, or a module behind -m")
    if options.report is not None and not options.report.absolute().parent.is_dir():
        return _fail(f"--report {options.report}: there is no folder {options.report.absolute().parent}; make it first")
    if options.report is not None and options.report.is_dir():
        return _fail(f"--report {options.report}: this is a folder; name a file")
    if not module and not os.path.exists(program[0]):
        return _fail(f"there is no file {program[0]}; name a script, or a module behind -m")
    try:
        install(options.backend, options.device)
    except GpumlpError as error:
        return _fail(str(error))
    report = None if options.report is None else options.report.absolute()  # the program may go to another folder
    atexit.register(tell, report)
    sys.argv = program
    return _run(_module(program[0]) if module else _script(program[0]))


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """Return the options before the program, whether it is a module, and the program with its own arguments."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "-m":
        at += 1 if "=" in arguments[at] or arguments[at] in ("-h", "--help") else 2
    module = arguments[at : at + 1] == ["-m"]
    return arguments[:at], module, arguments[at + module :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m gpumlp.accel",
        description="Run a program as Python would, with the MLPs of sklearn.neural_network on gpumlp, and say at the "
        "end what ran where.",
        usage="%(prog)s [--backend NAME] [--device NAME] [--report FILE] (script.py | -m module) [arguments ...]",
        allow_abbrev=False,
    )
    parser.add_argument("--backend", choices=("auto", *BACKENDS), help="what computes; else GPUMLP_BACKEND, or auto")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the report as JSON, too")
    return parser


def _fail(message: str) -> int:
    print(f"gpumlp.accel: error: {message}", file=sys.stderr)
    return WRONG_INPUT


def _script(path: str) -> Callable[[], Any]:
    if pkgutil.get_importer(path) is not None or path.endswith(".pyc"):
        return lambda: runpy.run_path(path, BUILTINS, "__main__")  # a folder, an archive, compiled code
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    return lambda: _run_file(os.path.abspath(path))


def _run_file(path: str) -> None:
    """Run a file as the module __main__, which stays so until the process ends."""
    module = ModuleType("__main__")
    vars(module).update(BUILTINS, __file__=path, __loader__=SourceFileLoader("__main__", path), __cached__=None)
    sys.modules["__main__"] = module
    with io.open_code(path) as file:
        exec(compile(file.read(), path, "exec"), vars(module))


def _module(name: str) -> Callable[[], Any]:
    return lambda: runpy.run_module(name, BUILTINS, "__main__", alter_sys=True)


def _run(program: Callable[[], Any]) -> int:
    """Run a program; an error is shown as Python would, without what stands above the program's first line."""
    try:
        program()
    except Exception as error:
        error.__traceback__ = _own_lines(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return FAILED
    return 0


def _own_lines(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback from where the machinery that runs a program ends."""
    machinery = (__file__, runpy.__file__, "<frozen runpy>")
    while traceback is not None and traceback.tb_frame.f_code.co_filename in machinery:
        traceback = traceback.tb_next
    return traceback
