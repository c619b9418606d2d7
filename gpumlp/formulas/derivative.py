"""The derivative of a recorded formula by the chain rule, simplified as it is built.

Reverse mode: walking the operations backwards, each hands its adjoint times its partial derivatives to its arguments -
back-propagation itself, on a formula instead of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.formulas.term import CONSTANT, INPUT, Operation, Recorder, Recording, Term, finish
from gpumlp.formulas.vocabulary import WORDS


def differentiate(
    formula: Callable[..., Any], inputs: tuple[str, ...], by: str, result: str | None = None
) -> Recording:
    """Return the Recording of d formula / d `by`.

    inputs   the names of the formula's arguments
    result   a name for the formula's own value: where the derivative uses it, it becomes an input of that name
             (tanh' = 1 - a * a), and the value is not computed again
    """
    recorder = Recorder()
    arguments = [recorder.input(name) for name in inputs]
    value = recorder.term(formula(*arguments))
    gradient = chain_rule(recorder, value, arguments[inputs.index(by)])
    if result is None:
        return finish(recorder, inputs, gradient)
    recording = finish(recorder, (*inputs, result), gradient)
    if value.operation.word in (INPUT, CONSTANT):
        return recording
    operations = list(recording.operations)
    operations[value.number] = Operation(INPUT, name=result)
    return Recording(recording.inputs, tuple(operations), recording.outputs)


def chain_rule(recorder: Recorder, value: Term, variable: Term) -> Term:
    """Return d value / d variable as a Term of the same recorder."""
    depends = depends_on(recorder, variable.number)
    adjoint: dict[int, Term] = {value.number: recorder.term(1)}
    for number in range(value.number, variable.number, -1):
        if number not in adjoint or not depends[number]:
            continue
        operation = recorder.operations[number]
        arguments = tuple(Term(recorder, i) for i in operation.arguments)
        partials = WORDS[operation.word].partials(arguments, Term(recorder, number))
        for argument, partial in zip(arguments, partials, strict=True):
            if partial is not None and depends[argument.number]:
                share = times(adjoint[number], recorder.term(partial))
                known = adjoint.get(argument.number)
                adjoint[argument.number] = share if known is None else plus(known, share)
    return adjoint.get(variable.number, recorder.term(0))


def depends_on(recorder: Recorder, variable: int) -> list[bool]:
    """Tell for each operation whether it depends on the operation with number `variable`."""
    depends: list[bool] = []
    for number, operation in enumerate(recorder.operations):
        depends.append(number == variable or any(depends[i] for i in operation.arguments))
    return depends


def times(x: Term, y: Term) -> Term:
    """Return x * y, written as a person would: signs and zeros pulled out, 1/u as a division."""
    if 0.0 in (x.constant, y.constant):
        return x.recorder.term(0)  # a derivative that is zero, whatever the other factor
    if x.constant is not None and y.constant is not None:
        return x.recorder.term(x.constant * y.constant)
    for factor, other in ((x, y), (y, x)):
        if factor.constant == -1.0:
            return -other
        if factor.operation.word == "negative":
            return -times(Term(x.recorder, factor.operation.arguments[0]), other)
        if is_choice(factor):
            condition, if_true, if_false = (Term(x.recorder, i) for i in factor.operation.arguments)
            return x.recorder.record("where", condition, times(if_true, other), times(if_false, other))
    if y.operation.word == "divide":
        numerator, denominator = (Term(x.recorder, i) for i in y.operation.arguments)
        return times(x, numerator) / denominator
    return x * y


def is_choice(x: Term) -> bool:
    """Tell whether x chooses between 0, 1 and -1, as the derivatives of where and absolute do."""
    if x.operation.word != "where":
        return False
    return all(Term(x.recorder, i).constant in (0.0, 1.0, -1.0) for i in x.operation.arguments[1:])


def plus(x: Term, y: Term) -> Term:
    """Return x + y, with a negative summand as a difference and two halves of one choice as one choice."""
    if x.constant == 0.0:
        return y
    if y.constant == 0.0:
        return x
    if x.constant is not None and y.constant is not None:
        return x.recorder.term(x.constant + y.constant)
    if y.operation.word == "negative":
        return x - Term(x.recorder, y.operation.arguments[0])
    if x.operation.word == "negative":
        return y - Term(x.recorder, x.operation.arguments[0])
    if x.operation.word == y.operation.word == "where" and x.operation.arguments[0] == y.operation.arguments[0]:
        condition, *xs = (Term(x.recorder, i) for i in x.operation.arguments)
        _, *ys = (Term(x.recorder, i) for i in y.operation.arguments)
        return x.recorder.record("where", condition, plus(xs[0], ys[0]), plus(xs[1], ys[1]))
    return x + y
