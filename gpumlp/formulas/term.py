"""Term and Recorder: a formula called with Terms instead of arrays leaves a list of operations behind.

Equal operations on equal arguments are recorded once, so a printed formula computes every subterm once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpumlp.errors import FormulaError

INPUT, CONSTANT = "input", "constant"
ARITHMETIC: dict[str, Callable[..., float]] = {  # what is computed at once where all arguments are constants
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "negative": operator.neg,
}
COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"})


@dataclass(frozen=True)
class Operation:
    """One recorded step: a word of the vocabulary and the numbers of its arguments, or an input, or a constant."""

    word: str
    arguments: tuple[int, ...] = ()
    name: str = ""  # of an input; of a constant its text, which tells 0.0 from -0.0
    value: float = 0.0  # of a constant

    @property
    def is_condition(self) -> bool:
        """Whether the step gives true or false instead of a number."""
        return self.word in COMPARISONS


class Recorder:
    """The list of operations that a formula performs on Terms."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._numbers: dict[Operation, int] = {}

    def append(self, operation: Operation) -> Term:
        """Return the Term of `operation`, recording it if it is new."""
        number = self._numbers.setdefault(operation, len(self.operations))
        if number == len(self.operations):
            self.operations.append(operation)
        return Term(self, number)

    def input(self, name: str) -> Term:
        """Return the Term of an argument of the formula."""
        return self.append(Operation(INPUT, name=name))

    def term(self, value: Any) -> Term:
        """Return `value` as a Term: itself, or a constant."""
        if isinstance(value, Term):
            if value.recorder is not self:
                raise FormulaError("a formula mixes Terms of two recordings; use its arguments only")
            return value
        try:
            number = float(value)
            return self.append(Operation(CONSTANT, name=repr(number), value=number))
        except (TypeError, ValueError) as error:
            raise FormulaError(
                f"a formula uses {value!r}, which is neither a Term nor a number; "
                "use its arguments, numbers and the words of gpumlp.formulas.vocabulary"
            ) from error

    def record(self, word: str, *arguments: Any) -> Term:
        """Return the Term of a word applied to arguments; what leaves a value as it is, is not recorded."""
        terms = [self.term(argument) for argument in arguments]
        if word == "where":
            if not terms[0].operation.is_condition:
                terms[0] = self.record("not_equal", terms[0], 0)  # as NumPy chooses by a number
            if terms[1].number == terms[2].number:
                return terms[1]
        elif any(t.operation.is_condition for t in terms):
            raise FormulaError("a formula computes with a condition; write where(condition, 1, 0) for its number")
        constants = [t.constant for t in terms]
        if word in ARITHMETIC and None not in constants:
            return self.term(ARITHMETIC[word](*constants))
        if word == "multiply" and 1.0 in constants:
            return terms[1 - constants.index(1.0)]
        if word == "add" and 0.0 in constants:
            return terms[1 - constants.index(0.0)]
        if (word == "divide" and constants[1] == 1.0) or (word == "subtract" and constants[1] == 0.0):
            return terms[0]
        if word == "negative" and terms[0].operation.word == "negative":
            return Term(self, terms[0].operation.arguments[0])
        return self.append(Operation(word, tuple(t.number for t in terms)))


class Term:
    """A number that is not known yet: operators and words of the vocabulary record what is done with it."""

    __slots__ = ("number", "recorder")

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.recorder, self.number = recorder, number

    @property
    def operation(self) -> Operation:
        """The step that gives this Term."""
        return self.recorder.operations[self.number]

    @property
    def constant(self) -> float | None:
        """The value of a constant, None for any other Term."""
        return self.operation.value if self.operation.word == CONSTANT else None

    def __bool__(self) -> bool:
        raise FormulaError("a formula cannot branch on a value with `if`, `and` or `or`; write where(condition, a, b)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Term:
        """Let np.exp(term) record as exp(term) does, so that formulas may be written with NumPy's names."""
        from gpumlp.formulas.vocabulary import WORDS

        word = next((w for w in WORDS.values() if w.numpy is ufunc), None)
        if word is None or method != "__call__" or kwargs:
            raise FormulaError(
                f"np.{ufunc.__name__} is not a word that a formula may use; known are {', '.join(sorted(WORDS))}"
            )
        return self.recorder.record(word.name, *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Term:
        """Let np.where(condition, a, b) record as where does."""
        if function.__name__ != "where" or kwargs:
            raise FormulaError(f"np.{function.__name__} is not a word that a formula may use")
        return self.recorder.record("where", *args)

    def __add__(self, other: Any) -> Term:
        return self.recorder.record("add", self, other)

    def __radd__(self, other: Any) -> Term:
        return self.recorder.record("add", other, self)

    def __sub__(self, other: Any) -> Term:
        return self.recorder.record("subtract", self, other)

    def __rsub__(self, other: Any) -> Term:
        return self.recorder.record("subtract", other, self)

    def __mul__(self, other: Any) -> Term:
        return self.recorder.record("multiply", self, other)

    def __rmul__(self, other: Any) -> Term:
        return self.recorder.record("multiply", other, self)

    def __truediv__(self, other: Any) -> Term:
        return self.recorder.record("divide", self, other)

    def __rtruediv__(self, other: Any) -> Term:
        return self.recorder.record("divide", other, self)

    def __pow__(self, other: Any) -> Term:
        if not isinstance(other, Term) and other == 2:
            return self * self  # as NumPy computes a square
        return self.recorder.record("power", self, other)

    def __rpow__(self, other: Any) -> Term:
        return self.recorder.record("power", other, self)

    def __neg__(self) -> Term:
        return self.recorder.record("negative", self)

    def __abs__(self) -> Term:
        return self.recorder.record("absolute", self)

    def __lt__(self, other: Any) -> Term:
        return self.recorder.record("less", self, other)

    def __le__(self, other: Any) -> Term:
        return self.recorder.record("less_equal", self, other)

    def __gt__(self, other: Any) -> Term:
        return self.recorder.record("greater", self, other)

    def __ge__(self, other: Any) -> Term:
        return self.recorder.record("greater_equal", self, other)

    def __eq__(self, other: object) -> Term:  # type: ignore[override]
        return self.recorder.record("equal", self, other)

    def __ne__(self, other: object) -> Term:  # type: ignore[override]
        return self.recorder.record("not_equal", self, other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Recording:
    """A formula as data: its inputs in order, its operations, and the number of the operation of each output."""

    inputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[int, ...]

    def live(self) -> list[int]:
        """Return the numbers of the operations that an output needs, in an order in which they can be performed."""
        needed, pending = set(), list(self.outputs)
        while pending:
            number = pending.pop()
            if number not in needed:
                needed.add(number)
                pending.extend(self.operations[number].arguments)
        return sorted(needed)

    def reads(self, name: str) -> bool:
        """Tell whether any output depends on the input of this name."""
        return any(self.operations[i].word == INPUT and self.operations[i].name == name for i in self.live())


def finish(recorder: Recorder, inputs: tuple[str, ...], results: Any) -> Recording:
    """Return what a recorder holds as a Recording whose outputs are `results`, one Term or number or several."""
    several = results if isinstance(results, tuple | list) else (results,)
    outputs = tuple(recorder.term(result).number for result in several)
    return Recording(inputs, tuple(recorder.operations), outputs)


def record(formula: Callable[..., Any], *inputs: str) -> Recording:
    """Return the Recording of `formula` called with one Term for each name in `inputs`."""
    recorder = Recorder()
    return finish(recorder, inputs, formula(*(recorder.input(name) for name in inputs)))
