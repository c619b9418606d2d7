import inspect
import logging
import re
from importlib.util import find_spec

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import select
from gpumlp.backends.protocol import Backend
from gpumlp.backends.select import asked_for, get_backend, why_unavailable
from gpumlp.errors import BackendUnavailable, ConfigurationError, UnknownName


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.delenv("GPUMLP_BACKEND", raising=False)


def test_an_argument_beats_the_context_which_beats_the_environment(monkeypatch):
    assert asked_for(None) == "auto"
    monkeypatch.setenv("GPUMLP_BACKEND", "cuda")
    assert asked_for(None) == "cuda"
    with gpumlp.use_backend("numba"):
        assert asked_for(None) == "numba"
        assert asked_for("numpy") == "numpy"
        with gpumlp.use_backend("numpy"):
            assert asked_for(None) == "numpy"
        assert asked_for(None) == "numba"
    assert asked_for(None) == "cuda"


def test_the_context_ends_with_an_exception():
    with pytest.raises(RuntimeError), gpumlp.use_backend("cuda"):
        raise RuntimeError
    assert asked_for(None) == "auto"


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setattr(select, "why_no_numba", lambda: 'needs Numba, which is not installed; install "gpumlp[cpu]"')


@pytest.mark.usefixtures("without_numba")
def test_a_network_computes_where_the_context_says(monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", "numba")
    with gpumlp.use_backend("numpy"):
        assert gpumlp.Network((2, 2)).backend.name == "numpy"
    assert gpumlp.Network((2, 2), backend="numpy").backend.name == "numpy"
    with pytest.raises(BackendUnavailable):
        gpumlp.Network((2, 2))


def test_an_empty_environment_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("GPUMLP_BACKEND", "")
    assert asked_for(None) == "auto"


@pytest.mark.usefixtures("without_numba")
def test_a_backend_that_cannot_work_raises_with_the_reason():
    with pytest.raises(BackendUnavailable, match=r'backend "numba" needs Numba.*use backend="numpy" or "auto"'):
        gpumlp.Network((2, 2), backend="numba")


def test_a_device_that_is_asked_for_is_not_replaced():
    with pytest.raises(BackendUnavailable, match='backend "cuda"'):
        get_backend("auto", device="cuda:77")


def test_an_unknown_backend_gives_the_nearest(monkeypatch):
    message = r"unknown backend.*'nunpy'; did you mean 'numpy'"
    with pytest.raises(UnknownName, match=message):
        get_backend("nunpy")
    with pytest.raises(UnknownName, match=message), gpumlp.use_backend("nunpy"):
        pass
    monkeypatch.setenv("GPUMLP_BACKEND", "nunpy")
    with pytest.raises(UnknownName, match=message):
        get_backend()


@pytest.mark.parametrize(
    ("name", "device"), [("numpy", "cuda"), ("cuda", "cpu"), ("auto", "gpu"), ("auto", "cuda:x"), ("numpy", "cpu:1")]
)
def test_a_device_that_contradicts_the_backend_raises(name, device):
    with pytest.raises(ConfigurationError, match="device"):
        get_backend(name, device=device)


def test_auto_chooses_and_says_why_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(select, "why_unavailable", lambda name, number=0: "" if name == "numpy" else "is missing")
    with caplog.at_level(logging.INFO, logger="gpumlp"):
        assert get_backend("auto").name == "numpy"
    assert [r.getMessage() for r in caplog.records] == ["backend numpy on the CPU: cuda is missing; numba is missing"]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="gpumlp"):
        get_backend("numpy")
    assert not caplog.records


def test_auto_takes_numba_where_there_is_no_device_and_says_so_in_one_line(caplog, monkeypatch):
    if why_unavailable("numba"):
        pytest.skip(f"backend numba {why_unavailable('numba')}")
    monkeypatch.setattr(select, "why_unavailable", lambda name, number=0: "is missing" if name == "cuda" else "")
    for device in (None, "cpu"):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="gpumlp"):
            backend = get_backend("auto", device=device)
        assert (backend.name, backend.device) == ("numba", "cpu")
        (line,) = [r.getMessage() for r in caplog.records]
        assert line.startswith("backend numba on the CPU")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [("find_spec", r'pip install "gpumlp\[cpu\]"'), ("import_module", "cannot load Numba .too new")],
)
def test_a_numba_that_cannot_be_loaded_is_not_taken(break_it, told, monkeypatch):
    def fails(name):
        raise ImportError("too new")

    monkeypatch.setattr(select, break_it, (lambda name: None) if break_it == "find_spec" else fails)
    select.why_no_numba.cache_clear()
    try:
        if break_it == "import_module" and not find_spec("numba"):
            pytest.skip("Numba is not installed")
        assert re.search(told, why_unavailable("numba"))
    finally:
        select.why_no_numba.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("float64"), None, float])
def test_a_backend_computes_in_the_dtype_asked_for(dtype):
    backend = get_backend("numpy", dtype=dtype)
    wanted = np.dtype("float32" if dtype is None else dtype)
    assert backend.dtype == wanted
    assert backend.precision == wanted.name
    assert backend.empty((2,)).dtype == wanted


@pytest.mark.parametrize("dtype", ["float16", "int32", "single precision", complex, "f4,)", "2,("])
def test_a_dtype_that_cannot_be_computed_in_raises(dtype):
    with pytest.raises(UnknownName, match="unknown dtype"):
        get_backend("numpy", dtype=dtype)


def test_a_precision_that_is_not_the_backends_raises():
    with pytest.raises(ConfigurationError, match="precision='tf32'"):
        get_backend("numpy", precision="tf32")
    assert get_backend("numpy", precision="float32").precision == "float32"


def test_auto_takes_a_device_that_works_and_says_which_in_one_line(caplog):
    if why_unavailable("cuda"):
        pytest.skip(f"backend cuda {why_unavailable('cuda')}")
    with caplog.at_level(logging.INFO, logger="gpumlp"):
        backend = get_backend("auto")
    assert (backend.name, backend.device) == ("cuda", "cuda:0")
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("backend cuda on cuda:0, ")


def test_a_backend_has_every_method_of_the_protocol_with_its_signature(backend):
    own = type(get_backend(backend))
    for name, method in vars(Backend).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            wanted, found = inspect.signature(method).parameters, inspect.signature(getattr(own, name)).parameters
            assert list(found) == list(wanted), name
            assert [p.default for p in found.values()] == [p.default for p in wanted.values()], name
