"""A recording as nodes of an ONNX graph, which any runtime performs: plain data, for which nothing is imported."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.formulas.play import play
from gpumlp.formulas.term import CONSTANT, INPUT, Recorder, Recording, finish
from gpumlp.formulas.vocabulary import WORDS


@dataclass(frozen=True)
class OnnxNode:
    """One operator of the default domain: the names of what it reads and of what it gives."""

    operator: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class OnnxFormula:
    """A formula as nodes in the order of their dependence.

    constants   name -> value of each number that the nodes read
    result      name of what the formula gives
    """

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, float]
    result: str


def onnx_formula(recording: Recording, given: str, prefix: str) -> OnnxFormula:
    """Return the nodes that compute a recording of one input and one output, by operators of opset 13.

    given    what the input is called in the graph
    prefix   begins the name of whatever the formula adds to the graph
    """
    recording = in_onnx_words(recording)
    spelled: dict[int, str] = {}
    nodes: list[OnnxNode] = []
    constants: dict[str, float] = {}
    for number in recording.live():
        operation = recording.operations[number]
        if operation.word == INPUT:
            spelled[number] = given
        elif operation.word == CONSTANT:
            spelled[number] = f"{prefix}c{number}"
            constants[spelled[number]] = operation.value
        else:
            inputs = tuple(spelled[i] for i in operation.arguments)
            for operator in str(WORDS[operation.word].onnx).split():
                nodes.append(OnnxNode(operator, inputs, f"{prefix}t{len(nodes)}"))
                inputs = (nodes[-1].output,)
            spelled[number] = nodes[-1].output
    return OnnxFormula(tuple(nodes), constants, spelled[recording.outputs[0]])


def in_onnx_words(recording: Recording) -> Recording:
    """Return a recording with each word that ONNX lacks said in words that it has."""
    recorder = Recorder()
    words = {name: word.onnx for name, word in WORDS.items() if callable(word.onnx)}
    results = play(recording, *(recorder.input(name) for name in recording.inputs), instead=words)
    return finish(recorder, recording.inputs, results)
