import devices
import emulated_gpu
import pytest


@pytest.fixture(autouse=True)
def a_device_without_errors():
    """A fault of one test stays its own: on the emulated device it is forgotten, on a real one nothing can help."""
    yield
    if devices.in_use().kind == "emulated":
        emulated_gpu.reset_device()
