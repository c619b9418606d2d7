"""Training steps on the workloads of `gpumlp bench`, as entries of pytest-benchmark.

python -m pytest benchmarks/test_steps.py --benchmark-only
"""

import pytest

from gpumlp.backends.select import why_unavailable
from gpumlp.bench.workloads import ON_CPU, ReadyStep


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("workload", ON_CPU, ids=lambda workload: workload.name)
def test_a_training_step(workload, backend, benchmark):
    reason = why_unavailable(backend)
    if reason:
        pytest.skip(f"backend {backend} {reason}")
    ready = ReadyStep(workload, backend)
    ready.run(3)  # compiles, records, replays
    benchmark.extra_info |= workload.parameters
    benchmark(lambda: ready.run(1))
