"""scikit-learn's own tests of its MLP, from the scikit-learn that is installed, pass under acceleration."""

import re

import pytest

MODULE = "sklearn.neural_network.tests.test_mlp"
DIFFERENT: set[str] = set()  # the tests that fail on purpose, with the reason beside each


@pytest.mark.parametrize("backend", ["numpy", "numba"], indirect=True)
def test_scikit_learns_own_tests_pass(backend, run_program):
    done = run_program(
        *("-m", "gpumlp.accel", "--backend", backend, "-m", "pytest", "--pyargs", MODULE),
        *("-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist"),
    )
    failed = {name.partition("[")[0] for name in re.findall(r"^(?:FAILED|ERROR) \S*::(\S+)", done.stdout, re.MULTILINE)}
    assert failed == DIFFERENT, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 40
    assert re.search(rf"MLPClassifier\.fit +\d+ calls .* {backend}", done.stderr)
