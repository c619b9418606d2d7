"""Who may import whom: cli -> estimators -> training -> network, data -> backends -> formulas, randomness -> shapes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpumlp

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None

PACKAGE = Path(gpumlp.__file__).parent
LEVEL = {
    "errors": 0, "shapes": 1, "atomic": 1, "tensors_file": 1, "pages": 1,
    "formulas": 2, "randomness": 2, "backends": 3, "network": 4, "data": 4, "training": 5,
    "saved_model": 6, "convert": 7, "ensembles": 7, "estimators": 8, "search": 9, "accel": 10, "bench": 10,
    "doctor": 11, "verify": 11, "report": 11, "__init__": 11, "cli": 12, "__main__": 13,
}  # fmt: skip
HEAVY = {
    "sklearn": {"data/builtin.py", "data/svmlight.py", "convert/scikit_learn.py", "estimators", "search", "accel"},
    "rich": {"cli", "training/progress.py"},
    "typer": {"cli"},
    "matplotlib": {
        "training/history.py",
        "bench/plots.py",
        "pages/figures.py",
        "report/figures.py",
        "ensembles/plot.py",
        "cli",
    },
    "pandas": {"training/history.py", "data", "cli"},
    "cupy": {"backends/cuda"},
    "nvmath": {"backends/cuda"},
    "cuda": {"backends/cuda"},
    "numba": {"backends"},
    "scipy": {"bench/compare.py", "estimators", "search/tables.py"},
    "torch": {"doctor/comparison.py", "convert/pytorch.py", "convert/torch_embedding.py", "cli/export.py"},
    "onnx": {"convert/onnx_file.py"},
    "tensorboard": {"training/tensorboard_log.py"},
    "mlflow": {"training/mlflow_log.py"},
    "ray": {"ensembles/ray_executor.py"},
    "jax": {"doctor/comparison.py"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def room(path):
    return name_of(path).split("/")[0].removesuffix(".py")


def imports(path):
    """Return every module that a file imports, at its head, inside a function or by import_module("name")."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("import_module", "__import__"):
            found += [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_the_rooms_below(path):
    own = room(path)
    assert own in LEVEL, f"{own} has no place in the table of rooms"
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "gpumlp" or own in ("__init__", "__main__", "cli") or parts[1:] in ([], ["__version__"]):
            continue
        other = parts[1]
        assert other == own or LEVEL.get(other, 99) < LEVEL[own], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_heavy_library_is_imported_only_where_it_belongs(path):
    for module in imports(path):
        allowed = HEAVY.get(module.split(".")[0])
        if allowed is not None:
            assert any(name_of(path).startswith(place) for place in allowed), f"{name_of(path)} imports {module}"


def test_only_the_selection_names_a_concrete_backend():
    for path in FILES:
        if room(path) not in ("backends", "doctor", "bench"):  # which examine and time one of them
            named = [m.split(".")[2] for m in imports(path) if m.startswith("gpumlp.backends.")]
            assert not any(name.startswith(("numpy", "numba", "cuda")) for name in named), name_of(path)


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_the_same_directions_are_configured_for_lint_imports():
    configured = PACKAGE.parent / "pyproject.toml"
    if not configured.is_file():
        pytest.skip("the package is installed without its pyproject.toml")
    contracts = tomllib.loads(configured.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    place = {name.strip(): i for i, names in enumerate(reversed(layers)) for name in names.split("|")}
    there = {room(path) for path in FILES}
    rooms = [f"gpumlp.{name}" for name in LEVEL if name in there and not name.startswith("__")]
    assert set(rooms) <= set(place)
    for one in rooms:
        for other in rooms:
            if LEVEL[one.split(".")[1]] < LEVEL[other.split(".")[1]]:
                assert place[one] < place[other]


def test_importing_gpumlp_loads_nothing_heavy():
    heavy = sorted({*HEAVY, "joblib", "threadpoolctl"})
    program = f"import sys, gpumlp; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout.strip() == "[]"
