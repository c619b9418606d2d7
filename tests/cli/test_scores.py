import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score

from gpumlp.cli.scores import compare, in_words


@pytest.mark.parametrize("shape", [(20,), (20, 3)])
def test_rmse_and_r2_are_those_of_scikit_learn(shape):
    random = np.random.default_rng(1)
    y = random.normal(size=shape) * np.arange(1, 1 + shape[-1])
    predicted = y + 0.5 * random.normal(size=shape)
    scores = compare("regression", predicted, y)
    assert scores["rmse"] == pytest.approx(np.sqrt(mean_squared_error(y, predicted)))
    assert scores["r2"] == pytest.approx(r2_score(y, predicted))


@pytest.mark.parametrize("labels", [["a", "b", "b"], [3, 5, 5], [False, True, True]])
def test_accuracy_is_the_share_of_equal_labels(labels):
    y, predicted = np.array(labels), np.array(labels)[[0, 0, 2]]
    assert compare("classification", predicted, y) == {"accuracy": accuracy_score(y, predicted)}


def test_one_hot_rows_count_as_the_numbers_of_their_columns():
    assert compare("classification", np.array([0, 1, 1]), np.eye(3)[[0, 1, 2]]) == {"accuracy": 2 / 3}


@pytest.mark.parametrize(
    ("task", "predicted", "y"),
    [
        ("classification", np.array(["1", "2"]), np.array([1, 2])),
        ("regression", np.array([1.0, 2.0]), np.array(["1", "2"])),
        ("regression", np.array([1.0, 2.0]), np.ones((2, 2))),
    ],
)
def test_text_and_numbers_are_not_compared(task, predicted, y):
    assert compare(task, predicted, y) == {}


def test_scores_are_spelled_with_few_digits():
    assert in_words({"accuracy": 0.97493}) == "accuracy 97.5 %"
    assert in_words({"rmse": 53.4217, "r2": 0.51234}) == "RMSE 53.42, R2 0.512"
