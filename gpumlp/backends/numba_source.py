"""From formulas and `numba_kernels` to compiled loops.

A source is pasted from a head, the printed formulas, the loop with the functions that it calls, and an entry that takes
the arguments from cells in memory, so that every loop is called alike. It is written into the user's cache folder under
a name made from its text, where Numba keeps the machine code beside it: another process compiles nothing.
GPUMLP_CACHE_DIR names another folder; where none can be written, the code lives in memory alone.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np

from gpumlp.backends import numba_kernels, numba_machine, numba_math, numba_native
from gpumlp.backends.protocol import APART, CATEGORIES, COLUMN, COST, FIRST, FIRST_BAD, HITS, POSITION, STEP
from gpumlp.formulas.printers import numba_function
from gpumlp.formulas.term import Recording
from gpumlp.formulas.update_rules import UpdateRule, rule_recording

log = logging.getLogger("gpumlp")

Formulas = tuple[tuple[str, Recording], ...]

# what an annotation means: a number in a cell of its own, or an array's address and size in two
NUMBERS = {"Real": "{real}", "Double": "float64", "Int": "int64", "Word": "uint32", "Flag": "bool"}
ARRAYS = {
    "Reals": "{real}",
    "Doubles": "float64",
    "Ints": "int64",
    "Words": "uint32",
    "Flags": "bool",
    "Given": "{given}",  # read only
    "Labels": "int64",  # read only
}
HEAD = """from math import cos, inf, nan, sin, sqrt
from numpy import bool_, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from numba import carray, cfunc
from gpumlp.backends.numba_math import FLAGS, inline, inline_reordered, {real} as words
from gpumlp.backends.numba_native import {native}
real, double, whole, word, double_word = {real}, float64, int64, uint32, uint64
exp, expm1, log, log1p, tanh = words.exp, words.expm1, words.log, words.log1p, words.tanh
{constants}
"""
NATIVE = (
    *("add_shared", "call_at", "cycles", "gemm_at", "idle_at", "load_shared", "pointer", "relax", "store_shared"),
    "swap_shared",
)
CONSTANTS = {
    "APART": APART,
    "CATEGORIES": CATEGORIES,
    "COLUMN": COLUMN,
    "COST": COST,
    "FIRST": FIRST,
    "FIRST_BAD": FIRST_BAD,
    "HITS": HITS,
    "STEP": STEP,
    "POSITION": POSITION,
    **{name: getattr(numba_kernels, name) for name in ("AT_A_GLANCE", "ROUNDS", "SUMMED")},
    **{
        name: getattr(numba_machine, name)
        for name in ("SPINS", "YIELDS", "SHARED", "NAP", "LINE", "MAILBOX", "FINISHED")
    },
}
DOT_PANEL = 64  # rows
# sums that LLVM may take apart; their order depends on their length alone
REORDERED = frozenset({"add_squares", "dots", "normalise_rows", "normalised_delta_of_rows", "sum_of"})


@dataclass(frozen=True)
class Loop:
    """A compiled function of one address, at which its arguments lie.

    kinds     dtype and whether it is an array, for each argument
    compiled  what has to live as long as the address is used
    """

    name: str
    address: int
    kinds: tuple[tuple[np.dtype[Any], bool], ...]
    compiled: Any


def loop(
    name: str, dtype: Any, formulas: Formulas = (), stand_in: tuple[tuple[str, str], ...] = (), given: Any = np.int64
) -> Loop:
    """Return a function of `numba_kernels` or `numba_machine`, compiled.

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
    pasted = [f"@{_inlining(helper)}\n{_text(helper)}" for helper in helpers]
    aliases = [f"{of} = {other}" for of, other in stand_in]
    annotations = _function(name).__annotations__.items()
    kinds = [_kind(kind, real, given) for argument, kind in annotations if argument != "return"]
    return _compiled(name, real, kinds, [*(f"@inline\n{text}" for text in printed), *pasted, *aliases], _text(name))


def _kind(annotation: str, real: str, given: str = "") -> tuple[str, bool]:
    """Return the dtype of an annotation, and whether it is an array."""
    is_array = annotation in ARRAYS
    return (ARRAYS if is_array else NUMBERS)[annotation].format(real=real, given=given), is_array


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
    annotations = ["Int"] * 5 + ["Reals", "Flags", "Ints"] + ["Reals"] * (2 + n_states)
    kinds = [_kind(annotation, dtype) for annotation in annotations]
    body = [f"@inline\n{numba_function(recording, 'rule_step')}"]
    return _compiled("update", dtype, kinds, body, "\n".join(lines) + "\n")


UPDATE_PARAMETERS = (
    *("first", "last", "n_params", "n_groups", "n_models"),
    *("table", "skip", "bounds", "grad", "theta"),
)


def rule_loop(rule: UpdateRule, names: tuple[str, ...], extras: frozenset[str], dtype: Any) -> Loop:
    """Return the loop of a rule with what acts besides it."""
    return update_loop(rule_recording(rule, names, extras), len(rule.state), names, np.dtype(dtype).name)


@lru_cache(maxsize=8)
def dot_loop(dtype: str) -> Loop:
    """Return the loop of products of rows with rows, out[i, j] = x[i] . y[j], for some models.

    (n_rows, n_columns, inner, first, last, x, xs, xm, y, ys, ym, out, os, om): flat arrays, with the distances of their
    rows (s) and of their models (m). dot_block() rows and columns are summed at once, in registers; at the edges blocks
    overlap, so there have to be that many. Each sum runs in the same order wherever it stands. All rows of x meet
    DOT_PANEL rows of y, which stay in the cache, before they meet the next ones.
    """
    n, m = dot_block()
    cells = [(r, c) for r in range(n) for c in range(m)]
    lines = [
        "def dots(n_rows, n_columns, inner, first, last, x, xs, xm, y, ys, ym, out, os, om):",
        "    for model in range(first, last):",
        f"        for panel in range(0, n_columns, {DOT_PANEL}):",
        f"            for i0 in range(0, n_rows, {n}):",
        f"                i = min(i0, n_rows - {n})",
        *(f"                x{r} = x[model * xm + (i + {r}) * xs :]" for r in range(n)),
        f"                for j0 in range(panel, min(panel + {DOT_PANEL}, n_columns), {m}):",
        f"                    j = min(j0, n_columns - {m})",
        *(f"                    y{c} = y[model * ym + (j + {c}) * ys :]" for c in range(m)),
        *(f"                    s{r}_{c} = real(0)" for r, c in cells),
        "                    for k in range(inner):",
        *(f"                        s{r}_{c} += x{r}[k] * y{c}[k]" for r, c in cells),
        *(f"                    out[model * om + (i + {r}) * os + j + {c}] = s{r}_{c}" for r, c in cells),
    ]
    annotations = ["Int"] * 5 + ["Reals", "Int", "Int"] * 3
    return _compiled("dots", dtype, [_kind(a, dtype) for a in annotations], [], "\n".join(lines) + "\n")


@cache
def dot_block() -> tuple[int, int]:
    """Return how many rows and columns of sums the processor's vector registers hold, and room for their factors."""
    wide = platform.machine().lower() in ("aarch64", "arm64") or llvm.get_host_cpu_features().get("avx512f", False)
    return (6, 4) if wide else (4, 2)


# ---------------------------------------------------------------- text


def _function(name: str) -> Any:
    return getattr(numba_kernels, name, None) or getattr(numba_machine, name, None)


@cache
def _text(name: str) -> str:
    """Return a function's text without its annotations."""
    tree = ast.parse(inspect.getsource(_function(name)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    return ast.unparse(definition) + "\n"


@cache
def _called(name: str) -> tuple[str, ...]:
    """Return the functions of its module that a function calls, in the order of the calls."""
    calls = [node.func for node in ast.walk(ast.parse(_text(name))) if isinstance(node, ast.Call)]
    names = dict.fromkeys(call.id for call in calls if isinstance(call, ast.Name))
    own = _function(name).__module__
    return tuple(n for n in names if getattr(_function(n), "__module__", "") == own)


def _helpers(name: str, printed: Iterable[str], stand_in: dict[str, str]) -> list[str]:
    """Return the functions that have to be pasted before a function, each before those that call it."""
    found: list[str] = []
    for called in _called(name):
        called = stand_in.get(called, called)
        if called not in printed and called not in CASTS:
            found += [*_helpers(called, printed, stand_in), called]
    return list(dict.fromkeys(found))


CASTS = frozenset({"real", "double", "whole", "word", "double_word"})


def _module_text(real: str, body: list[str], entry: str) -> str:
    constants = "\n".join(f"{name} = {value}" for name, value in CONSTANTS.items())
    head = HEAD.format(real=real, native=", ".join(NATIVE), constants=constants)
    return "\n\n".join([head, *body, f'@cfunc("void(int64)", cache=kept, **FLAGS)\n{entry}'])


def _entry(name: str, kinds: Sequence[tuple[str, bool]]) -> str:
    """Return the text of the function that takes the arguments from their cells and calls the loop."""
    arguments, cell = [], 0
    for dtype, is_array in kinds:
        kind = "bool_" if dtype == "bool" else dtype
        if is_array:
            arguments.append(f"carray(pointer(c[{cell}]), (c[{cell + 1}],), {kind})")
        elif dtype == "bool":
            arguments.append(f"c[{cell}] != 0")
        elif dtype.startswith("float"):
            arguments.append(f"carray(pointer(cells + {8 * cell}), (1,), {kind})[0]")
        else:
            arguments.append(f"{kind}(c[{cell}])")
        cell += 1 + is_array
    call = f"    {name}({', '.join(arguments)})"
    return "\n".join(["def entry(cells):", f"    c = carray(pointer(cells), ({cell},), int64)", call, ""])


# ---------------------------------------------------------------- compiling


def _compiled(name: str, real: str, kinds: Sequence[tuple[str, bool]], body: list[str], text: str) -> Loop:
    """Return the loop that a text defines, behind what it calls, from the cache if it is there."""
    function = _entry_point(name, _module_text(real, [*body, f"@{_inlining(name)}\n{text}"], _entry(name, kinds)))
    return Loop(name, int(function.address), tuple((np.dtype(kind), many) for kind, many in kinds), function)


def _inlining(name: str) -> str:
    return "inline_reordered" if name in REORDERED else "inline"


def _entry_point(name: str, text: str) -> Any:
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


def _executed(name: str, key: str, text: str, file: str, kept: bool) -> Any:
    """Run the text as a module: what Numba keeps names the module, which has to be known when it is read again."""
    module = ModuleType(f"gpumlp_{key}")
    module.__file__ = file
    vars(module)["kept"] = kept
    sys.modules[module.__name__] = module
    exec(compile(text, file, "exec"), vars(module))
    return vars(module)["entry"]


@cache
def _mathematics() -> str:
    """Return the text of what the sources import, of which Numba's cache knows nothing."""
    return inspect.getsource(numba_math) + inspect.getsource(numba_native)


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
