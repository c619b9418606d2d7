import devices
import emulated_gpu
import pytest


@pytest.fixture(autouse=True)
def device_as_found():
    """Start each test in eager mode; leave mode, statistics and allocators as they were, and no error behind."""
    if devices.in_use().kind != "emulated":
        yield
        return
    import cupy as cp

    mode, counted = emulated_gpu.mode(), emulated_gpu.snapshot()
    allocator = cp.cuda.get_allocator()
    emulated_gpu.set_mode("eager")
    yield
    emulated_gpu.reset_device()
    emulated_gpu.set_mode(mode)
    emulated_gpu.restore(counted)
    cp.cuda.set_allocator(allocator)
    cp.cuda.set_pinned_memory_allocator(cp.get_default_pinned_memory_pool().malloc)


@pytest.fixture
def lazy(device_as_found):
    emulated_gpu.set_mode("lazy")
