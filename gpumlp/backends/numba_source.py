"""From formulas and `numba_kernels` to compiled loops.

A source is pasted from a head, the printed formulas, and the loop with the functions that it calls. It is written into
the user's cache folder under a name made from its text, where Numba keeps the machine code beside it: another process
compiles nothing. GPUMLP_CACHE_DIR names another folder; where none can be written, the code lives in memory alone.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

from gpumlp.backends import numba_kernels, numba_math
from gpumlp.backends.protocol import COST, FIRST_BAD, HITS, STEP
from gpumlp.formulas.printers import numba_function
from gpumlp.formulas.term import Recording
from gpumlp.formulas.update_rules import UpdateRule, rule_recording

log = logging.getLogger("gpumlp")

Loop = Callable[..., None]
Formulas = tuple[tuple[str, Recording], ...]

GIVEN_DTYPES = frozenset(
    "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split()  # noqa: SIM905
)
TYPES = {
    "Real": "{real}",
    "Double": "float64",
    "Int": "int64",
    "Word": "uint32",
    "Flag": "boolean",
    "Reals": "{real}[::1]",
    "Doubles": "float64[::1]",
    "Ints": "int64[::1]",
    "Words": "uint32[::1]",
    "Flags": "boolean[::1]",
    "Given": "Array({given}, 1, 'C', readonly=True)",
    "Labels": "Array(int64, 1, 'C', readonly=True)",
}
HEAD = """from math import cos, inf, nan, sin, sqrt
from numpy import {real} as real, float64 as double, int64 as whole, uint32 as word, uint64 as double_word
from numba import njit
from gpumlp.backends.numba_math import FLAGS, inline, {real} as words
exp, expm1, log, log1p, tanh = words.exp, words.expm1, words.log, words.log1p, words.tanh
COST, FIRST_BAD, HITS, STEP = {rows}
ROUNDS, SUMMED = {constants}
"""
REORDERED = frozenset({"add_squares"})  # sums that LLVM may take apart; their order depends on their length alone


def loop(
    name: str, dtype: Any, formulas: Formulas = (), stand_in: tuple[tuple[str, str], ...] = (), given: Any = np.int64
) -> Loop:
    """Return a function of `numba_kernels`, compiled.

    formulas   what is printed in place of the functions declared there
    stand_in   (name, other): the function of another name takes the place of this one
    given      dtype of the arrays called Given
    """
    return _loop(name, np.dtype(dtype).name, formulas, stand_in, np.dtype(given).name)


@lru_cache(maxsize=1024)
def _loop(name: str, real: str, formulas: Formulas, stand_in: tuple[tuple[str, str], ...], given: str) -> Loop:
    printed = [numba_function(recording, of) for of, recording in formulas]
    others = dict(stand_in)
    helpers = _helpers(name, frozenset(of for of, _ in formulas), others)
    texts = [*printed, *(_text(helper) for helper in helpers)]
    aliases = [f"{of} = {other}" for of, other in stand_in]
    kinds = [kind for argument, kind in _function(name).__annotations__.items() if argument != "return"]
    types = [TYPES[kind].format(real=real, given={"bool": "boolean"}.get(given, given)) for kind in kinds]
    body = [*(f"@inline\n{text}" for text in texts), *aliases]
    return _compiled(name, _module_text(real, body, _text(name), types, name in REORDERED))


@lru_cache(maxsize=256)
def update_loop(recording: Recording, n_states: int, numbers: tuple[str, ...], dtype: str) -> Loop:
    """Return the loop of an update rule: (first, last, sizes, table, skip, bounds, grad, theta, state...)."""
    states = [f"s{j}" for j in range(n_states)]
    read = [i for i, name in enumerate(numbers) if recording.reads(name)]
    lines = [
        f"def update({', '.join([*UPDATE_PARAMETERS, *states])}):",
        "    for m in range(first // n_params, (last + n_params - 1) // n_params):",
        "        if skip[m]:",
        "            continue",
        "        for group in range(n_groups):",
        "            begin, end = m * n_params + bounds[group], m * n_params + bounds[group + 1]",
        "            begin, end = first if begin < first else begin, last if end > last else end",
        "            if begin >= end:",
        "                continue",
        *(f"            h{i} = table[({i} * n_groups + group) * n_models + m]" for i in read),
        *(f"            {x}_part = {x}[begin:end]" for x in ("theta", "grad", *states)),
        "            for i in range(end - begin):",
    ]
    parts = [f"{x}_part[i]" for x in ("theta", *states)]
    arguments = [parts[0], "grad_part[i]", *parts[1:]]
    arguments += [f"h{i}" if i in read else "real(0)" for i in range(len(numbers))]
    lines.append(f"                {', '.join(parts)} = rule_step({', '.join(arguments)})")
    reals = f"{dtype}[::1]"
    types = ["int64"] * 5 + [reals, "boolean[::1]", "int64[::1]"] + [reals] * (2 + n_states)
    body = [f"@inline\n{numba_function(recording, 'rule_step')}"]
    return _compiled("update", _module_text(dtype, body, "\n".join(lines) + "\n", types, False))


UPDATE_PARAMETERS = (
    *("first", "last", "n_params", "n_groups", "n_models"),
    *("table", "skip", "bounds", "grad", "theta"),
)


def rule_loop(rule: UpdateRule, names: tuple[str, ...], extras: frozenset[str], dtype: Any) -> Loop:
    """Return the loop of a rule with what acts besides it."""
    return update_loop(rule_recording(rule, names, extras), len(rule.state), names, np.dtype(dtype).name)


# ---------------------------------------------------------------- text


def _function(name: str) -> Any:
    return getattr(numba_kernels, name)


@cache
def _text(name: str) -> str:
    """Return a function of `numba_kernels` without its annotations."""
    tree = ast.parse(inspect.getsource(_function(name)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    return ast.unparse(definition) + "\n"


@cache
def _called(name: str) -> tuple[str, ...]:
    """Return the functions of `numba_kernels` that a function calls, in the order of the calls."""
    calls = [node.func for node in ast.walk(ast.parse(_text(name))) if isinstance(node, ast.Call)]
    names = dict.fromkeys(call.id for call in calls if isinstance(call, ast.Name))
    own = numba_kernels.__name__
    return tuple(n for n in names if getattr(getattr(numba_kernels, n, None), "__module__", "") == own)


def _helpers(name: str, printed: Iterable[str], stand_in: dict[str, str]) -> list[str]:
    """Return the functions that have to be pasted before a function, each before those that call it."""
    found: list[str] = []
    for called in _called(name):
        called = stand_in.get(called, called)
        if called not in printed and called not in CASTS:
            found += [*_helpers(called, printed, stand_in), called]
    return list(dict.fromkeys(found))


CASTS = frozenset({"real", "double", "whole", "word", "double_word"})


def _module_text(real: str, body: list[str], text: str, types: list[str], reordered: bool) -> str:
    head = HEAD.format(
        real=real,
        rows=f"{COST}, {FIRST_BAD}, {HITS}, {STEP}",
        constants=f"{numba_kernels.ROUNDS}, {numba_kernels.SUMMED}",
    )
    flags = 'error_model="numpy", fastmath={"contract", "reassoc"}' if reordered else "**FLAGS"
    signature = f'"void({", ".join(types)})"'
    return "\n\n".join([head, *body, f"@njit({signature}, nogil=True, cache=kept, {flags})\n{text}"])


# ---------------------------------------------------------------- compiling


def _compiled(name: str, text: str) -> Loop:
    """Return the function of this name that the text defines, from the cache if it is there."""
    key = hashlib.sha256((text + _mathematics() + numba.__version__).encode()).hexdigest()[:24]
    folder = cache_folder()
    path = None if folder is None else folder / f"{name}_{key}.py"
    if path is None or not path.is_file():
        _say_once(folder)
    if path is not None:
        try:
            _write(path, text)
            return _executed(name, key, text, str(path), kept=True)
        except Exception as error:  # a full disk, a broken file; what is wrong with the text itself is raised below
            log.info("the cache folder %s cannot be used (%r): compiling in memory", folder, error)
    return _executed(name, key, text, f"<gpumlp {name} {key}>", kept=False)


def _executed(name: str, key: str, text: str, file: str, kept: bool) -> Loop:
    """Run the text as a module: what Numba keeps names the module, which has to be known when it is read again."""
    module = ModuleType(f"gpumlp_{key}")
    module.__file__ = file
    vars(module)["kept"] = kept
    sys.modules[module.__name__] = module
    exec(compile(text, file, "exec"), vars(module))
    function: Loop = getattr(module, name)
    return function


@cache
def _mathematics() -> str:
    """Return the text of what the sources import, of which Numba's cache knows nothing."""
    return inspect.getsource(numba_math)


@cache
def _say_once(folder: Path | None) -> None:
    log.info("numba compiles its loops, each once; the code is kept in %s", folder or "memory alone")


def cache_folder() -> Path | None:
    """Return where compiled code is kept, None where nothing can be written."""
    given = os.environ.get("GPUMLP_CACHE_DIR")
    try:
        return _usable((Path(given) if given else _user_cache() / "gpumlp") / "numba")
    except RuntimeError:  # a user without a home
        return None


@cache
def _usable(folder: Path) -> Path | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _write(path: Path, text: str) -> None:
    """Write a source, all of it or nothing, and always with the same time, by which Numba knows its own files."""
    if path.is_file():
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        file.write(text)
    os.utime(file.name, (10**9, 10**9))
    os.replace(file.name, path)
