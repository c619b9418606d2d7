"""Perform a recording again: on arrays it computes, on Terms it becomes part of another recording."""

from __future__ import annotations

from typing import Any

from gpumlp.formulas.term import CONSTANT, INPUT, Recording
from gpumlp.formulas.vocabulary import speak


def play(recording: Recording, *arguments: Any) -> Any:
    """Return what the recorded formula gives for these arguments: one result, or a tuple of several."""
    given = dict(zip(recording.inputs, arguments, strict=True))
    values: dict[int, Any] = {}
    for number in recording.live():
        operation = recording.operations[number]
        if operation.word == INPUT:
            values[number] = given[operation.name]
        elif operation.word == CONSTANT:
            values[number] = operation.value
        else:
            values[number] = speak(operation.word, *(values[i] for i in operation.arguments))
    results = tuple(values[i] for i in recording.outputs)
    return results[0] if len(results) == 1 else results
