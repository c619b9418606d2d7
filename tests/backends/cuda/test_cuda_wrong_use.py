"""What cannot work is refused in one sentence that says what to do."""

import os
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_cases import draw, opened, put
from cuda_runs import run_python
from devices import in_use

import gpumlp
from gpumlp.backends.cuda import device
from gpumlp.backends.select import get_backend, why_unavailable
from gpumlp.errors import BackendUnavailable, ConfigurationError, OutOfMemory

emulated_only = pytest.mark.skipif(in_use().kind != "emulated", reason="needs settings of the emulated device")
INSTALL = r"pip install \"gpumlp\[cuda13\]\", or gpumlp\[cuda12\] for a driver older than 580"


@pytest.fixture
def unopened(monkeypatch):
    """No device has been opened and CuPy has not been imported, as far as the backend knows."""
    opened("cuda", "float32")
    monkeypatch.setattr(device, "_devices", {})
    forget = device.import_cupy.cache_clear
    forget()
    yield
    forget()


def expect_refusal(message):
    """Refused with this message by name; under "auto" the CPU takes over."""
    with pytest.raises(BackendUnavailable, match=f'^backend "cuda" {message}; or use backend="numpy" or "auto"$'):
        gpumlp.Network((2, 2), backend="cuda")
    assert get_backend("auto").device == "cpu"


def without(name):
    return lambda module: None if module == name else object()


def importing(name, result):
    """import_module, but for one module: an error to raise, or what it returns."""

    def find(module):
        if module != name:
            return import_module(module)
        if isinstance(result, BaseException):
            raise result
        return result

    return find


def test_without_cupy(unopened, monkeypatch):
    monkeypatch.setattr(device, "find_spec", without("cupy"))
    expect_refusal(f"needs CuPy, which is not installed: {INSTALL}")


def test_with_two_wheels_of_cupy(unopened, monkeypatch):
    wheels = [SimpleNamespace(metadata={"Name": name}) for name in ("cupy-cuda13x", "numpy", None, "cupy-cuda12x")]
    monkeypatch.setattr(device, "distributions", lambda: wheels)
    uninstall = "pip uninstall -y cupy-cuda12x cupy-cuda13x"
    expect_refusal(f"finds 2 CuPy wheels, which break each other: {uninstall}; then {INSTALL}")


def test_with_a_cupy_that_cannot_be_imported(unopened, monkeypatch):
    monkeypatch.setattr(device, "import_module", importing("cupy", ImportError("libcudart.so.13: no such file")))
    expect_refusal(f"cannot import CuPy: libcudart.so.13: no such file; install it anew: {INSTALL}")


def runtime(driver, built, count, message="cudaErrorInsufficientDriver: too old"):
    """CuPy with this driver, built for that CUDA; without devices it raises, as the real one does."""

    class CUDARuntimeError(RuntimeError):
        pass

    def count_devices():
        if not count:
            raise CUDARuntimeError(message)
        return count

    return SimpleNamespace(
        cuda=SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                driverGetVersion=lambda: driver,
                runtimeGetVersion=lambda: built,
                getDeviceCount=count_devices,
            )
        )
    )


DRIVERS = [
    pytest.param(
        (0, 13000, 0),
        r"finds no NVIDIA driver \(libcuda.so.1\) here: install one, or in a container pass the GPU in "
        r"\(docker run --gpus all\)",
        id="none",
    ),
    pytest.param(
        (12090, 13000, 0),
        r"finds a driver for CUDA 12.9, but CuPy is built for CUDA 13.0: update the driver, or pip uninstall -y "
        r"cupy-cuda13x and install gpumlp\[cuda12\]",
        id="too old",
    ),
    pytest.param(
        (13000, 13000, 0, "cudaErrorNoDevice: no CUDA-capable device is detected"),
        r"finds no usable device \(driver for CUDA 13.0: cudaErrorNoDevice: .* is detected\); see what nvidia-smi "
        r"says, and whether CUDA_VISIBLE_DEVICES hides it",
        id="without a device",
    ),
    pytest.param((13000, 13000, 1), "finds no device cuda:1: the only one is cuda:0", id="one device"),
    pytest.param((13000, 13000, 3), "finds no device cuda:3: there are cuda:0 to cuda:2", id="three devices"),
]


@pytest.mark.parametrize(("given", "message"), DRIVERS)
def test_without_a_driver_or_device_that_fits(given, message, unopened, monkeypatch):
    monkeypatch.setattr(device, "import_cupy", lambda: runtime(*given))
    number = given[2]
    with pytest.raises(BackendUnavailable, match=f'^backend "cuda" {message}; or use backend="numpy" or "auto"$'):
        get_backend("cuda", device=f"cuda:{number}" if number else None)


def test_a_device_that_is_not_there():
    with pytest.raises(BackendUnavailable, match="finds no device cuda:77: "):
        get_backend("auto", device="cuda:77")


def test_a_process_without_a_device_says_so_and_computes_on_the_cpu():
    """With the real CuPy, to which a device is hidden if there is one."""
    code = """
    import gpumlp
    from gpumlp.errors import BackendUnavailable
    print(gpumlp.Network((2, 2)).backend.device)
    try:
        gpumlp.Network((2, 2), backend="cuda")
    except BackendUnavailable as error:
        print(error)
    """
    code = "\n".join(line[4:] for line in code.splitlines())
    said = run_python(["-c", code], CUDA_VISIBLE_DEVICES="-1", GPUMLP_BACKEND="auto").splitlines()
    assert said[0] == "cpu"
    assert said[1].startswith('backend "cuda" finds no ')
    assert "install one, or in a container" in said[1] or "CUDA_VISIBLE_DEVICES hides it" in said[1]
    assert len(said) == 2


def test_without_nvrtc(unopened, monkeypatch):
    nvrtc = SimpleNamespace(getVersion=lambda: 1 / 0)
    cupy = opened("cuda", "float32")._device.cupy
    monkeypatch.setattr(cupy.cuda, "nvrtc", nvrtc)
    expect_refusal(rf"cannot load NVRTC, which compiles kernels \(division by zero\): {INSTALL}, which brings it")


def test_without_nvmath(unopened, monkeypatch):
    monkeypatch.setattr(device, "find_spec", without("nvmath"))
    expect_refusal(f"needs nvmath-python, which is not installed: {INSTALL}")


@pytest.mark.parametrize("message", ["Failed to dlopen libcublas.so.13\nand more", ""])
def test_without_cublas(message, unopened, monkeypatch):
    def create():
        raise RuntimeError(message)

    fake = SimpleNamespace(create=create)
    monkeypatch.setattr(device, "import_module", importing("nvmath.bindings.cublas", fake))
    said = message.partition("\n")[0] or "RuntimeError"
    both = "which brings both for one version of CUDA"
    expect_refusal(rf"cannot load cuBLAS through nvmath-python \({said}\): {INSTALL}, {both}")


def test_with_a_device_that_cannot_be_opened(unopened, monkeypatch):
    cupy = opened("cuda", "float32")._device.cupy

    def refuse(number):
        raise cupy.cuda.runtime.CUDARuntimeError(46)  # devices unavailable

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", refuse)
    expect_refusal(
        r"cannot open cuda:0 \(cudaError.*\): see in nvidia-smi whether other processes "
        "hold it"
    )


FULL = """
import devices
devices.in_use()
from gpumlp.backends.select import why_unavailable
print(why_unavailable("cuda"))
"""


@emulated_only
def test_on_a_device_that_is_full():
    said = run_python(["-c", FULL], GPUMLP_TEST_DEVICE="emulated", EMULATED_GPU_MEMORY_MB="16")
    assert said == (
        "finds 16 MiB of 16 MiB free on the device, of which the workspace of cuBLAS alone takes 32 MiB: end what else "
        "uses the device, as nvidia-smi lists it\n"
    )


# ---------------------------------------------------------------- out of memory

HUGE = 2**21


def test_an_array_without_room_says_how_much_for_what_and_what_is_free():
    b = opened("cuda", "float32")
    with pytest.raises(OutOfMemory) as raised:
        b.empty((3, HUGE, HUGE), what="the state of adam")
    needs, _, rest = str(raised.value).partition(", ")
    assert needs == "no room for the state of adam: 48 TiB needed (3 x 2097152 x 2097152 values of float32)"
    assert rest.startswith(b._device.name)
    assert rest.endswith("free; take a smaller batch_size, fewer models or smaller layers")
    assert isinstance(raised.value, MemoryError)
    assert b.to_host(put(b, draw(1, 3))).tolist() == draw(1, 3).tolist()


def test_a_network_without_room_says_so_and_leaves_the_device_as_it_was():
    with pytest.raises(
        OutOfMemory, match=r"no room for the parameters: 8 TiB needed .*free; take a smaller batch_size"
    ):
        gpumlp.Network((HUGE, HUGE // 4), backend="cuda", dtype="float64", initialiser="zeros")
    net = gpumlp.Network((4, 2), backend="cuda")
    assert np.allclose(net.predict(draw(1, 5, 4)).sum(axis=2), 1)


TIGHT = """
import devices
devices.in_use()
import cupy, numpy as np
import gpumlp
from gpumlp.backends.select import get_backend
from gpumlp.errors import OutOfMemory

def said(work):
    try:
        work()
    except OutOfMemory as error:
        print(error)

b = get_backend("cuda")
full = cupy.zeros((3, 2, 2**20))
said(lambda: b.asarray(full, np.float32, what="X"))
said(lambda: b.asarray(np.zeros(2**22), what="Y"))
said(lambda: b._arena.scratch("sums", 2**30, np.float32))
net = gpumlp.Network((4, 1000, 2), "tanh", "identity", "quadratic", backend="cuda")
X, Y = np.zeros((3000, 4)), np.zeros((3000, 2))
said(lambda: gpumlp.Trainer(net, batch_size="full", micro_batch=None).fit(X, Y, 1))
gpumlp.Trainer(net, batch_size=100).fit(X, Y, 1)
print("goes on")
"""


@emulated_only
def test_arrays_of_every_kind_say_what_they_are_for():
    said = run_python(["-c", TIGHT], GPUMLP_TEST_DEVICE="emulated", EMULATED_GPU_MEMORY_MB="100").splitlines()
    free = " of 100 MiB free; take a smaller batch_size, fewer models or smaller layers"
    assert [line.partition(" values")[0] for line in said[:3]] == [
        "no room for X: 24 MiB needed (3 x 2 x 1048576",
        "no room for Y: 32 MiB needed (4194304",
        "no room for scratch of sums: 4 GiB needed (1073741824",
    ]
    assert ": 11.44 MiB needed (1 x 3000 x 1000 values of float32)" in said[3]  # of the network's own
    assert said[4:] == ["goes on"]
    assert all(line.endswith(free) for line in said[:-1])


# ---------------------------------------------------------------- other processes and threads


def error_of(work):
    """What `work` says, be it by returning or by raising."""
    try:
        return work()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that of Python 3.12 about forking with threads
def test_a_forked_process_is_refused_the_device_of_its_parent_and_computes_on_the_cpu():
    net, X = gpumlp.Network((4, 2), backend="cuda"), draw(1, 5, 4)
    wanted = net.predict(X)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = [error_of(lambda: net.predict(X)), error_of(lambda: gpumlp.Network((4, 2), backend="cuda"))]
        said.append(error_of(lambda: get_backend("auto").device))
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read().splitlines()
    name = opened("cuda", "float32")._device.name
    why = (
        f'BackendUnavailable: backend "cuda" cannot be used in a process that was forked from one that uses {name}: '
        'start processes with multiprocessing.get_context("spawn"); or use backend="numpy"'
    )
    assert said == [why, f'{why} or "auto"', "cpu"]
    assert np.array_equal(net.predict(X), wanted)


def test_the_callers_stream_and_device_stay_current_also_after_an_error():
    b = opened("cuda", "float32")
    cupy = b._device.cupy
    own = cupy.cuda.Stream(non_blocking=True)
    with own:
        b.to_host(put(b, draw(1, 3)))
        with pytest.raises(OutOfMemory):
            b.empty((HUGE, HUGE))
        with b.session():
            assert cupy.cuda.get_current_stream() == b._device.stream
        assert cupy.cuda.get_current_stream() == own


ORDER = """
import devices
devices.in_use()
import cupy, numpy as np
import gpumlp
from gpumlp.backends.select import get_backend

b, own = get_backend("cuda"), cupy.cuda.Stream(non_blocking=True)
with own:
    x = cupy.arange(1000, dtype="float32")
    x *= 2
    y = b.empty((1, 1000))
    b.copy(b.asarray(x), y)  # waits for what the caller's stream was given
    assert (b.to_host(y) == 2 * np.arange(1000)).all()
    z = b.empty((1, 1000))
    b.copy(x, z)
    x *= 0  # waits for the backend
    assert (z == 2 * cupy.arange(1000)).all()
print("right")
"""


@emulated_only
def test_arrays_of_the_callers_stream_are_read_after_they_are_written_and_before_they_change():
    assert run_python(["-c", ORDER], GPUMLP_TEST_DEVICE="emulated", EMULATED_GPU_MODE="lazy") == "right\n"


TWO_DEVICES = """
import devices
devices.in_use()
import cupy, numpy as np
from cuda_cases import draw
from cuda_runs import TRAININGS, expect_same_bits, train
from gpumlp.backends.select import get_backend
from gpumlp.errors import DataError

for options in TRAININGS.values():
    expect_same_bits(train("cuda", device="cuda:1", **options), train("cuda", device="cuda:0", **options))
first, second = get_backend("cuda"), get_backend("auto", device="cuda:1")
assert (first.device, second.device) == ("cuda:0", "cuda:1")
with cupy.cuda.Device(1):
    there = cupy.asarray(draw(1, 3, 4))
    first.empty((2, 2))
    assert cupy.cuda.Device().id == 1
try:
    first.asarray(there, what="X")
except DataError as error:
    print(error)
assert np.array_equal(second.to_host(second.asarray(there.T)), there.get().T)
assert second.asarray(there) is there
assert second.asarray(there, np.float64).device.id == 1
assert second.empty((2,)).device.id == 1
assert cupy.cuda.Device().id == 0
"""


@emulated_only
def test_a_second_device_computes_the_same_bits_on_arrays_of_its_own():
    said = run_python(["-c", TWO_DEVICES], GPUMLP_TEST_DEVICE="emulated", EMULATED_GPU_DEVICES="2")
    assert said == (
        'X lies on cuda:1, but this network computes on cuda:0; make it with device="cuda:1", or copy the array there\n'
    )


# ---------------------------------------------------------------- steps that cannot be captured


def run_thrice(b, step):
    with b.session():
        captured = b.capture(step)
        for _ in range(3):
            captured()


@pytest.mark.parametrize("kind", ["allocates", "waits", "copies out"])
def test_a_step_that_cannot_be_a_graph_is_refused_and_the_backend_goes_on(kind):
    b = get_backend("cuda", dtype="float32")
    x = put(b, draw(1, 3))
    step, error, message = {
        "allocates": (lambda: b.empty((2, 2)), RuntimeError, "would be allocated while a step is captured: a defect"),
        "waits": (b.synchronize, BackendUnavailable, 'backend "cuda": .* could not record .* GPUMLP_CUDA_GRAPHS=off'),
        "copies out": (lambda: b.to_host(x), RuntimeError, "the current stream is capturing"),
    }[kind]
    with pytest.raises(error, match=message):
        run_thrice(b, step)
    y = put(b, np.zeros(3))
    run_thrice(b, lambda: b.copy(x, y))
    assert b.to_host(y).tolist() == draw(1, 3).tolist()


def test_an_unknown_choice_about_graphs_is_refused(monkeypatch):
    monkeypatch.setenv("GPUMLP_CUDA_GRAPHS", "maybe")
    b = opened("cuda", "float32")
    x = put(b, draw(1, 3))
    with pytest.raises(ConfigurationError, match='GPUMLP_CUDA_GRAPHS=\'maybe\': expected "on" or "off"'):
        run_thrice(b, lambda: b.fill(x, 0.0))


def test_a_reason_is_the_end_of_a_sentence():
    assert why_unavailable("cuda") == ""
    assert why_unavailable("cuda", 77).startswith("finds no device cuda:77: ")
