import pytest

from gpumlp.backends.select import why_unavailable
from gpumlp.bench.workloads import SMALL
from gpumlp.doctor.speed import Effort


@pytest.fixture
def meter():
    """What measures the device in use, real or emulated."""
    reason = why_unavailable("cuda")
    if reason:
        pytest.skip(f"backend cuda {reason}")
    from gpumlp.backends.cuda.measure import Meter

    return Meter(0)


@pytest.fixture
def little():
    """Measurements that take no time; what they say means nothing."""
    return Effort(
        nodes=12,
        product=(4, 6, 5),
        megabytes=0.01,
        parameters=1000,
        square=16,
        samples=3,
        calls=2,
        workloads=(SMALL,),
    )
