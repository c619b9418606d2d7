import numpy as np
import pytest

from gpumlp.errors import FormulaError
from gpumlp.formulas import vocabulary as v
from gpumlp.formulas.play import play
from gpumlp.formulas.printers import cuda_function
from gpumlp.formulas.term import CONSTANT, INPUT, Recorder, record


def words_of(recording):
    return [recording.operations[i].word for i in recording.live()]


def test_a_branch_on_a_term_raises_and_advises_where():
    def relu(z):
        return z if z > 0 else 0

    with pytest.raises(FormulaError, match=r"if.*where\(condition, a, b\)"):
        record(relu, "z")


@pytest.mark.parametrize(
    "formula", [lambda x: 0 < x < 1, lambda x: x and 1, lambda x: not x, lambda x: max(x, 0), lambda x: bool(x)]
)
def test_what_python_decides_by_truth_cannot_be_recorded(formula):
    with pytest.raises(FormulaError, match="where"):
        record(formula, "x")


def test_names_of_numpy_record_as_the_words_do():
    assert record(lambda x: np.exp(x) + np.tanh(x), "x") == record(lambda x: v.exp(x) + v.tanh(x), "x")
    assert record(lambda x: np.where(x < 0, 0, x), "x") == record(lambda x: v.where(x < 0, 0, x), "x")
    assert record(lambda x: np.abs(x), "x") == record(lambda x: v.absolute(x), "x")
    assert record(lambda x: abs(x), "x") == record(lambda x: v.absolute(x), "x")
    assert record(lambda x: np.float64(2) * x, "x") == record(lambda x: 2 * x, "x")
    assert record(lambda x: np.add(x, 1), "x") == record(lambda x: x + 1, "x")


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: np.arctan(x),
        lambda x: np.maximum(x, 0),
        lambda x: np.add.reduce(x),
        lambda x: np.exp(x, out=np.empty(3)),
        lambda x: np.sum(x),
        lambda x: np.clip(x, 0, 1),
    ],
)
def test_a_function_that_is_no_word_raises(formula):
    with pytest.raises(FormulaError, match=r"not a word that a formula may use|neither a Term nor a number"):
        record(formula, "x")


@pytest.mark.parametrize("value", ["one", None, [1, 2], np.ones(3), 1j])
def test_a_value_that_is_no_number_raises(value):
    with pytest.raises(FormulaError, match="neither a Term nor a number"):
        record(lambda x: x + v.where(x < 0, value, x), "x")


def test_equal_subterms_are_recorded_once():
    recording = record(lambda x, y: v.exp(x * y) + 1 / v.exp(x * y), "x", "y")
    assert words_of(recording).count("exp") == 1
    assert words_of(recording).count("multiply") == 1


def test_terms_of_two_recordings_do_not_mix():
    stranger = Recorder().input("x")
    with pytest.raises(FormulaError, match="two recordings"):
        record(lambda x: x + stranger, "x")


def test_what_leaves_a_value_as_it_is_is_not_recorded():
    for formula in (
        lambda x: 1 * x,
        lambda x: x * 1.0,
        lambda x: x + 0,
        lambda x: x / 1,
        lambda x: x - 0,
        lambda x: 0 + x,
    ):
        assert words_of(record(formula, "x")) == [INPUT]
    for formula in (lambda x: 1 / x, lambda x: 0 - x, lambda x: x * 2, lambda x: x - 1):
        assert len(words_of(record(formula, "x"))) == 3


def test_operators_record_in_the_order_of_their_operands():
    x, y = np.array([1.5, 2.0, -3.0]), np.array([2.0, 0.5, 4.0])
    for formula in (
        lambda x, y: x - y,
        lambda x, y: 3 - x,
        lambda x, y: x / y,
        lambda x, y: 3 / y,
        lambda x, y: y**x,
        lambda x, y: 2.0**x,
        lambda x, y: y**3,
        lambda x, y: v.where(x < y, x, y) - v.where(x <= 1.5, 1.0, x),
        lambda x, y: v.where(x > y, x, -y) + v.where(x >= 2, y, x),
        lambda x, y: v.where(x == 2.0, y, x) * v.where(x != 2.0, y, x),
    ):
        assert np.array_equal(play(record(formula, "x", "y"), x, y), formula(x, y))


def test_a_square_is_a_product():
    assert words_of(record(lambda x: x**2, "x")) == [INPUT, "multiply"]


def test_a_recording_knows_what_it_reads():
    recording = record(lambda z, a: (v.exp(z), a * (1 - a))[1], "z", "a")
    assert recording.reads("a")
    assert not recording.reads("z")
    assert "exp" not in cuda_function(recording, "f")


def test_a_formula_may_give_several_results_and_numbers_among_them():
    recording = record(lambda x: (x, 2, x * x), "x")
    assert [recording.operations[i].word for i in recording.outputs] == [INPUT, CONSTANT, "multiply"]
    assert play(recording, 3.0) == (3.0, 2.0, 9.0)


def test_a_recording_played_on_terms_becomes_part_of_another():
    inner = record(lambda x, y: x * v.exp(y), "x", "y")
    outer = record(lambda t: play(inner, t, t + 1) - 1, "t")
    assert np.allclose(play(outer, np.array([0.5])), 0.5 * np.exp(1.5) - 1)
    assert "exp" in words_of(outer)


def test_a_term_cannot_be_a_key():
    with pytest.raises(TypeError, match="unhashable"):
        record(lambda x: {x: 1}, "x")
