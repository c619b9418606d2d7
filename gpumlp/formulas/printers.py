"""A recording as text: CUDA C++ for the kernels, Python that Numba compiles, and Python on whole NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import numpy as np

from gpumlp.formulas.term import CONSTANT, INPUT, Recording
from gpumlp.formulas.vocabulary import WORDS

# words of C++ and of our own sources that a user may well choose as the name of a rule's number
RESERVED = frozenset(
    """
    alignas and asm auto bool break case catch char class const continue default delete do double else enum explicit
    export extern false float for friend goto if inline int long mutable namespace new not operator or private protected
    public real register return short signed sizeof static struct switch template this throw true try typedef typename
    union unsigned using virtual void volatile while xor pow fabs select copyto maximum minimum inf nan
    abs
    """.split()  # noqa: SIM905
)


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """Return what each input is called in a printed text: its own name, with a _ behind it where that is taken."""
    safe: dict[str, str] = {}
    for name in names:
        taken = name in RESERVED or name in WORDS or iskeyword(name) or re.fullmatch(r"[rfst]\d+|\w+_(out)?", name)
        safe[name] = f"{name}_" if taken else name
    return safe


# ---------------------------------------------------------------- CUDA C++


def cuda_function(recording: Recording, name: str, outputs: tuple[str, ...] = (), kind: str = "real") -> str:
    """Return a device function that computes the recording in numbers of type `kind`.

    A formula with one result returns it; with several, they go to reference parameters named by `outputs`.
    """
    spelled: dict[int, str] = {}
    lines: list[str] = []
    names = safe_names(recording.inputs)
    for number in recording.live():
        operation = recording.operations[number]
        if operation.word == INPUT:
            spelled[number] = names[operation.name]
        elif operation.word == CONSTANT:
            spelled[number] = cuda_constant(operation.value, kind)
        else:
            expression = WORDS[operation.word].cuda.format(*(spelled[i] for i in operation.arguments))
            spelled[number] = f"t{len(lines)}"
            of = "bool" if operation.is_condition else kind
            lines.append(f"const {of} {spelled[number]} = {expression};")
    parameters = [f"const {kind} {names[name]}" for name in recording.inputs] + [f"{kind}& {name}" for name in outputs]
    if outputs:
        lines += [f"{out} = {spelled[i]};" for out, i in zip(outputs, recording.outputs, strict=True)]
    else:
        lines.append(f"return {spelled[recording.outputs[0]]};")
    head = f"__device__ __forceinline__ {'void' if outputs else kind} {name}({', '.join(parameters)}) {{"
    return "\n".join([head, *(f"    {line}" for line in lines), "}"]) + "\n"


def cuda_choice(recordings: Sequence[Recording], name: str) -> str:
    """Return device functions that compute these recordings of the same inputs, and one that computes a chosen one.

    That one is `name`, and has the number of the recording as a last parameter, which nothing reads if there is one.
    """
    functions = [cuda_function(recording, f"{name}_{i}") for i, recording in enumerate(recordings)]
    names = safe_names(recordings[0].inputs).values()
    calls = [f"return {name}_{i}({', '.join(names)});" for i in range(len(recordings))]
    if len(calls) == 1:
        number, lines = "int", [f"    {calls[0]}"]
    else:
        number, labels = "const int kind", [*(f"case {i}" for i in range(len(calls) - 1)), "default"]
        cases = [f"        {label}: {call}" for label, call in zip(labels, calls, strict=True)]
        lines = ["    switch (kind) {", *cases, "    }"]
    parameters = ", ".join([*(f"const real {x}" for x in names), number])
    head = f"__device__ __forceinline__ real {name}({parameters}) {{"
    return "\n".join(["".join(functions) + head, *lines, "}"]) + "\n"


def cuda_constant(value: float, kind: str = "real") -> str:
    """Return a number as a C++ expression of type `kind`, exact in double; whole numbers without an exponent."""
    if value != value or value in (float("inf"), float("-inf")):
        text = {"inf": "INFINITY", "-inf": "-INFINITY"}.get(str(value), "NAN")
    else:
        text = str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
    return f"{kind}({text})"


# ---------------------------------------------------------------- Numba


def numba_function(recording: Recording, name: str) -> str:
    """Return a Python function on single numbers that computes the recording, for Numba to compile.

    It returns one result, or a tuple of several. Its constants are written real(...), so that formulas in float32 stay
    in float32; the words are global names.
    """
    spelled: dict[int, str] = {}
    lines: list[str] = []
    names = safe_names(recording.inputs)
    for number in recording.live():
        operation = recording.operations[number]
        if operation.word == INPUT:
            spelled[number] = names[operation.name]
        elif operation.word == CONSTANT:
            spelled[number] = f"real({operation.value!r})"
        else:
            word = WORDS[operation.word]
            arguments = [spelled[i] for i in operation.arguments]
            spelled[number] = f"t{len(lines)}"
            expression = word.numba.format(*arguments) if word.numba else f"{word.name}({', '.join(arguments)})"
            lines.append(f"{spelled[number]} = {expression}")
    lines.append(f"return {', '.join(spelled[i] for i in recording.outputs)}")
    return "\n".join([f"def {name}({', '.join(names.values())}):", *(f"    {line}" for line in lines)]) + "\n"


# ---------------------------------------------------------------- NumPy


@dataclass(frozen=True)
class NumpyProgram:
    """A recording as a Python function over NumPy arrays.

    run           run(*inputs, *outputs, *registers, *flags); writes the outputs, allocates nothing of their size
    source        its text
    n_registers   how many scratch arrays of the outputs' shape and dtype it needs
    n_flags       how many bool scratch arrays of that shape
    """

    run: Callable[..., None]
    source: str
    n_registers: int
    n_flags: int


def numpy_program(
    recording: Recording, outputs: tuple[str, ...], over: Mapping[str, str], scalars: tuple[str, ...] = ()
) -> NumpyProgram:
    """Return the program that computes a recording on arrays.

    outputs   a name for each result; arrays that the caller gives
    over      output -> input that may be the very same array: it is overwritten only after its last use
    scalars   inputs that are numbers, or broadcast against the arrays; what depends on them alone is computed once
    """
    writer = _NumpyWriter(recording, outputs, over, scalars)
    source = writer.write()
    namespace: dict[str, Any] = {"select": select, **{w.name: w.numpy for w in WORDS.values()}, **_HELPERS}
    exec(compile(source, "<formula>", "exec"), namespace)
    return NumpyProgram(namespace["program"], source, writer.n_registers, writer.n_flags)


class _NumpyWriter:
    """Writes the program line by line, giving each intermediate result a register that is free by then."""

    def __init__(
        self, recording: Recording, outputs: tuple[str, ...], over: Mapping[str, str], scalars: tuple[str, ...]
    ) -> None:
        self.recording, self.outputs, self.over, self.scalars = recording, outputs, over, scalars
        self.live = recording.live()
        self.last_use = {i: n for n in self.live for i in recording.operations[n].arguments}
        self.last_use.update({i: len(recording.operations) for i in recording.outputs})  # a result is used at the end
        self.spelled: dict[int, str] = {}
        self.free: dict[str, list[str]] = {"r": [], "f": []}
        self.n_registers = self.n_flags = 0
        self.lines: list[str] = []

    def write(self) -> str:
        is_scalar: dict[int, bool] = {}
        names = safe_names(self.recording.inputs)
        for number in self.live:
            operation = self.recording.operations[number]
            if operation.word == INPUT:
                self.spelled[number], is_scalar[number] = names[operation.name], operation.name in self.scalars
            elif operation.word == CONSTANT:
                self.spelled[number], is_scalar[number] = repr(operation.value), True
            elif all(is_scalar[i] for i in operation.arguments):
                is_scalar[number] = True
                arguments = ", ".join(self.spelled[i] for i in operation.arguments)
                self.spelled[number] = f"s{number}"
                self.lines.append(f"s{number} = {operation.word}({arguments})")
            else:
                is_scalar[number] = False
                self._release(number)
                target = self._target(number, operation.is_condition)
                self._emit(number, target)
                self.spelled[number] = target
        self._copy_the_rest(names)
        registers = [f"r{i}" for i in range(self.n_registers)] + [f"f{i}" for i in range(self.n_flags)]
        head = f"def program({', '.join((*names.values(), *self.outputs, *registers))}):"
        return "\n".join([head, *(f"    {line}" for line in self.lines or ["pass"])]) + "\n"

    def _copy_the_rest(self, names: Mapping[str, str]) -> None:
        """Copy the results that are not in their arrays yet; an input that is a result is saved before it is lost."""
        rest = [
            (name, self.spelled[number])
            for name, number in zip(self.outputs, self.recording.outputs, strict=True)
            if self.spelled[number] != name
        ]
        for i, (name, source) in enumerate(rest):
            lost = {names[self.over[other]] for other, _ in rest if other != name and other in self.over}
            if source in lost:
                saved = f"r{self.n_registers}"
                self.n_registers += 1
                self.lines.append(f"copyto({saved}, {source})")
                rest[i] = (name, saved)
        self.lines.extend(f"copyto({name}, {source})" for name, source in rest)

    def _release(self, number: int) -> None:
        """Free the registers of arguments that nothing reads after this step; it may overwrite them itself."""
        for i in set(self.recording.operations[number].arguments):
            if self.last_use[i] == number and re.fullmatch(r"[rf]\d+", self.spelled[i]):
                self.free[self.spelled[i][0]].append(self.spelled[i])

    def _target(self, number: int, is_condition: bool) -> str:
        """Return where the result goes: straight into an output array if that harms nobody, else a register."""
        for name, output in zip(self.outputs, self.recording.outputs, strict=True):
            if output == number and not is_condition and not self._read_later(self.over.get(name), number):
                return name
        kind = "f" if is_condition else "r"
        if self.free[kind]:
            return self.free[kind].pop()
        if is_condition:
            self.n_flags += 1
            return f"f{self.n_flags - 1}"
        self.n_registers += 1
        return f"r{self.n_registers - 1}"

    def _read_later(self, name: str | None, number: int) -> bool:
        """Tell whether the input of this name is read by a step after `number`, or is itself a result."""
        return any(
            self.recording.operations[i].word == INPUT
            and self.recording.operations[i].name == name
            and self.last_use.get(i, -1) > number
            for i in self.live
        )

    def _emit(self, number: int, target: str) -> None:
        operation = self.recording.operations[number]
        arguments = [self.spelled[i] for i in operation.arguments]
        if operation.word == "where":
            self._emit_choice(operation.arguments, arguments, target)
        else:
            self.lines.append(f"{operation.word}({', '.join(arguments)}, {target})")

    def _emit_choice(self, numbers: tuple[int, ...], arguments: list[str], target: str) -> None:
        """Write where(x < bound, bound, x) as maximum, which keeps a NaN in x, too, and any other choice as select."""
        condition = self.recording.operations[numbers[0]]
        bound = self.recording.operations[numbers[1]]
        is_bound = bound.word == CONSTANT and bound.value == bound.value
        if is_bound and condition.word in ("less", "greater") and condition.arguments == (numbers[2], numbers[1]):
            word = "maximum" if condition.word == "less" else "minimum"
            comparison = f"{condition.word}({arguments[2]}, {arguments[1]}, {arguments[0]})"
            if self._uses(numbers[0]) == 1 and self.lines[-1:] == [comparison]:
                self.lines.pop()  # the comparison served this choice alone
            self.lines.append(f"{word}({arguments[2]}, {arguments[1]}, out={target})")
        elif [self.recording.operations[i].value for i in numbers[1:]] == [1.0, 0.0] and all(
            self.recording.operations[i].word == CONSTANT for i in numbers[1:]
        ):  # where(x > 0, 1, 0)
            self.lines.append(f"copyto({target}, {arguments[0]})")
        else:
            self.lines.append(f"select({', '.join(arguments)}, {target})")

    def _arguments(self, number: int) -> tuple[int, ...]:
        return self.recording.operations[number].arguments

    def _uses(self, number: int) -> int:
        return sum(self._arguments(n).count(number) for n in self.live) + self.recording.outputs.count(number)


_WORD_OF: dict[Any, Any] = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}


def select(condition: Any, x: Any, y: Any, out: Any) -> None:
    """Write x where the condition holds and y elsewhere, by bit masks: no branch, so random signs cost nothing.

    np.where takes five times as long on a condition that the processor cannot predict.
    """
    word = _WORD_OF.get(out.dtype)
    if word is None or out.size < 1024 or condition.shape != out.shape:
        np.copyto(out, np.where(condition, x, y))
        return
    mask: Any = np.negative(condition.view(np.int8), dtype=word)
    bits = out.view(word)
    x_bits, y_bits = (np.asarray(v, dtype=out.dtype).view(word) for v in (x, y))
    if np.may_share_memory(y_bits, bits):  # y is lost first: choose from x instead
        if np.may_share_memory(x_bits, bits):
            return  # both are the result already
        x_bits, y_bits = y_bits, x_bits
        np.invert(mask, mask)
    np.bitwise_xor(x_bits, y_bits, bits)
    np.bitwise_and(bits, mask, bits)
    np.bitwise_xor(bits, y_bits, bits)


_HELPERS: dict[str, Any] = {
    "copyto": np.copyto,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "inf": float("inf"),
    "nan": float("nan"),
}
