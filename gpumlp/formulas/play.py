"""Perform a recording again: on arrays it computes, on Terms it becomes part of another recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpumlp.formulas.term import CONSTANT, INPUT, Recording
from gpumlp.formulas.vocabulary import speak


def play(recording: Recording, *arguments: Any, instead: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Return what the recorded formula gives for these arguments: one result, or a tuple of several.

    instead   words that are said otherwise here: the function that is called in the place of each
    """
    otherwise = instead or {}
    given = dict(zip(recording.inputs, arguments, strict=True))
    values: dict[int, Any] = {}
    for number in recording.live():
        operation = recording.operations[number]
        if operation.word == INPUT:
            values[number] = given[operation.name]
        elif operation.word == CONSTANT:
            values[number] = operation.value
        else:
            word, given_to_it = operation.word, [values[i] for i in operation.arguments]
            values[number] = otherwise[word](*given_to_it) if word in otherwise else speak(word, *given_to_it)
    results = tuple(values[i] for i in recording.outputs)
    return results[0] if len(results) == 1 else results
