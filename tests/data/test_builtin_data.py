import subprocess
import sys

import numpy as np
import pytest

from gpumlp.data import BUILTIN, check_finite, load_builtin, load_table, tell_task
from gpumlp.errors import DataError

SHAPES = {
    "digits": (1797, 64),
    "iris": (150, 4),
    "wine": (178, 13),
    "breast_cancer": (569, 30),
    "diabetes": (442, 10),
    "xor": (4, 2),
}


def test_every_built_in_data_set_is_complete_and_named():
    assert set(BUILTIN) == set(SHAPES)
    for name in BUILTIN:
        table = load_builtin(name)
        assert table.X.shape == SHAPES[name]
        assert table.X.dtype == np.float64
        assert table.target_name
        assert len(table.feature_names) == SHAPES[name][1]
        assert tell_task(table.y) == ("regression" if name == "diabetes" else "classification")
        check_finite(table)


def test_targets_are_class_names_or_numbers():
    assert sorted(set(load_builtin("iris").y.tolist())) == ["setosa", "versicolor", "virginica"]
    assert set(load_builtin("breast_cancer").y.tolist()) == {"benign", "malignant"}
    assert load_builtin("digits").y.dtype.kind == "i"
    assert load_builtin("digits").X.max() == 16
    assert load_builtin("diabetes").y.dtype == np.float64


def test_xor_is_its_truth_table():
    table = load_builtin("xor")
    assert [int(a) ^ int(b) for a, b in table.X] == table.y.tolist()


def test_a_table_is_loaded_by_name_or_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("1,2,3\n")
    assert len(load_table("iris").X) == 150
    assert load_table("iris", with_target=False).y is None
    assert len(load_table("t.csv").X) == 1
    assert load_table(tmp_path / "t.csv", target=0).y.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("digit", {}, "no built-in data set or file 'digit'; did you mean 'digits'"),
        ("mnist", {}, "known are digits, iris"),
        ("iris", {"target": "species"}, "built in and has its own target"),
        ("none.csv", {}, "no such file"),
        ("./digits", {}, "no such file"),
    ],
)
def test_what_is_wrong_with_a_name_is_told(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says):
        load_table(name, **options)


def test_an_unknown_built_in_name_is_told_with_the_nearest():
    with pytest.raises(DataError, match="did you mean 'wine'"):
        load_builtin("wines")


def test_importing_the_room_imports_nothing_heavy():
    code = "import sys, gpumlp.data; sys.exit(any(m in sys.modules for m in ('sklearn', 'scipy', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
