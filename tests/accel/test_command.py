"""`python -m gpumlp.accel` runs a program as Python does, and says at the end what ran where."""

import json
import re

import pytest

ACCEL = ("-m", "gpumlp.accel")
FIT = """
import warnings
warnings.simplefilter("ignore")
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier, MLPRegressor
X, y = load_iris(return_X_y=True)
"""
SHOW = "import sys, pathlib; print(sys.argv, sys.path[0], __name__, __file__, __builtins__.len([1]))"


def lines(done, method):
    """Return what the report says of a method, one string for each line."""
    return [" ".join(line.split()) for line in done.stderr.splitlines() if f" {method} " in line]


def test_a_script_runs_as_by_python_itself(run_program, write, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write("elsewhere/show.py", SHOW + "\nimport beside")
    write("elsewhere/beside.py", "print('beside')")
    given = ("elsewhere/show.py", "-q", "--backend", "x y")
    accelerated, plain = run_program(*ACCEL, "--backend", "numpy", *given), run_program(*given)
    assert accelerated.stdout == plain.stdout
    assert accelerated.returncode == plain.returncode == 0, accelerated.stderr
    assert "no MLPClassifier or MLPRegressor was fitted" in accelerated.stderr


def test_a_module_runs_as_by_python_itself(run_program, write):
    write("shown.py", SHOW)
    given = ("-m", "shown", "-m", "--report", "x")
    accelerated, plain = run_program(*ACCEL, *given), run_program(*given)
    assert accelerated.stdout == plain.stdout
    assert accelerated.returncode == 0


def test_a_folder_runs_as_by_python_itself(run_program, write, tmp_path):
    (tmp_path / "program").mkdir()
    write("program/__main__.py", "import sys; print(sys.argv, __name__)\nimport beside")
    write("program/beside.py", "print('beside')")
    accelerated, plain = run_program(*ACCEL, "program", "x"), run_program("program", "x")
    assert accelerated.stdout == plain.stdout
    assert accelerated.returncode == 0


@pytest.mark.parametrize(
    "text",
    ["def f():\n    return 1 / 0\n\nf()", "1 +", "raise SystemExit(7)", "import sys\nsys.exit('gone')", "exit()"],
    ids=["error", "syntax", "status", "message", "exit"],
)
def test_a_script_ends_as_by_python_itself(run_program, write, text):
    script = write("ends.py", text)
    accelerated, plain = run_program(*ACCEL, script), run_program(script)
    assert accelerated.returncode == plain.returncode
    assert accelerated.stderr.startswith(plain.stderr)
    assert accelerated.stderr.removeprefix(plain.stderr).startswith("gpumlp.accel: no MLP")


def test_the_report_says_what_ran_where_and_why(run_program, write, tmp_path):
    write(
        "program.py",
        FIT
        + "import os; os.mkdir('away'); os.chdir('away')\n"
        + "model = MLPClassifier(max_iter=2).fit(X, y)\n"
        + "model.fit(X[:30], y[:30])\n"
        + "MLPRegressor(max_iter=2, solver='lbfgs').fit(X, y).predict(X)\n",
    )
    done = run_program(*ACCEL, "--report", "report.json", "program.py")
    assert done.returncode == 0, done.stderr
    (fit,), (lbfgs,) = lines(done, "MLPClassifier.fit"), lines(done, "MLPRegressor.fit")
    assert re.fullmatch(r"MLPClassifier.fit 2 calls 180 rows \d+\.\d{3} s numpy", fit)
    assert re.fullmatch(r'MLPRegressor.fit 1 call 150 rows \d+\.\d{3} s solver="lbfgs" is left as it is', lbfgs)
    assert "pass forward is left as it is" in lines(done, "MLPRegressor.predict")[0]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report) == {"gpumlp", "scikit_learn", "calls"}
    found = {call["method"]: call for call in report["calls"]}
    assert found["MLPClassifier.fit"].pop("seconds") > 0
    assert found["MLPClassifier.fit"] == {
        "method": "MLPClassifier.fit",
        "where": "numpy",
        "why": "",
        "calls": 2,
        "rows": 180,
        "processes": 1,
    }
    assert found["MLPRegressor.fit"]["where"] == "scikit-learn"


def test_nothing_is_left_behind(run_program, write, tmp_path):
    (tmp_path / "scratch").mkdir()
    write("program.py", "import sys\nsys.exit(3)")
    for arguments in (("program.py",), ("missing.py",), ("--backend", "cuda", "--device", "cpu", "program.py")):
        run_program(*ACCEL, *arguments, TMPDIR=str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").glob("gpumlp-accel-*")) == []


def test_a_report_is_given_of_a_program_that_fails(run_program, write):
    script = write("fails.py", FIT + "MLPClassifier(max_iter=2).fit(X, y)\nraise OSError")
    done = run_program(*ACCEL, script)
    assert done.returncode == 1
    assert lines(done, "MLPClassifier.fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a script, or a module"),
        (("-m",), "-m needs the name of a module"),
        (("--backend", "abacus", "x.py"), "invalid choice: 'abacus'"),
        (("--device", "gpu", "-m", "this"), "device 'gpu' is not known"),
        (("missing.py",), "there is no file missing.py"),
        (("--report", "no/where.json", "missing.py"), "there is no folder"),
        (("--report", ".", "missing.py"), "this is a folder; name a file"),
    ],
)
def test_wrong_input_is_said_in_a_line_and_ends_with_2(run_program, arguments, message):
    done = run_program(*ACCEL, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


WORKERS = (
    FIT
    + """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Mine(MLPClassifier):
    pass


if __name__ == "__main__":
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=3, random_state=0))
    grid = {"mlpclassifier__alpha": [0.001, 0.1]}
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=3).fit(X, y)
    assert type(search.best_estimator_[-1]) is MLPClassifier
    GridSearchCV(Mine(max_iter=3), {"alpha": [0.001, 0.1]}, n_jobs=2, cv=3).fit(X, y)
    with ProcessPoolExecutor(1, mp_context=get_context("START")) as pool:
        back = pool.submit(MLPRegressor(max_iter=3).fit, X, y).result()
    assert type(back) is MLPRegressor
"""
)


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_worker_processes_are_accelerated_and_counted(run_program, write, start):
    script = write("workers.py", WORKERS.replace("START", start))
    done = run_program(*ACCEL, script)
    assert done.returncode == 0, done.stderr
    for method, expected in (("MLPClassifier.fit", "7 calls 750 rows"), ("Mine.fit", "7 calls 750 rows")):
        (line,) = lines(done, method)
        assert expected in line
        assert re.search(r"numpy \(also in [12] worker process(es)?\)", line)
    (line,) = lines(done, "MLPRegressor.fit")
    assert "1 call 150 rows" in line
    assert line.endswith("numpy (in 1 worker process)")
    assert done.stderr.count("ran on gpumlp") == 1
