"""The delta recursion alone, by mini-batch size, as entries of pytest-benchmark.

python -m pytest benchmarks/test_recursion.py --benchmark-only
"""

import pytest

from gpumlp.backends.select import why_unavailable
from gpumlp.bench.contest import Own
from gpumlp.bench.recursion import Size, own_runner


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("batch", [1, 16, 128, 1024, 8192])
def test_the_deltas_of_a_batch(batch, backend, benchmark):
    reason = why_unavailable(backend)
    if reason:
        pytest.skip(f"backend {backend} {reason}")
    size = Size("batch", batch)
    runner = own_runner(size, Own(f"gpumlp {backend}", backend))  # checked against NumPy in float64
    runner.work(3)
    benchmark.extra_info["size"] = size.name
    benchmark(lambda: runner.work(1))
