import pytest

from gpumlp.backends.select import why_unavailable

if why_unavailable("numba"):
    collect_ignore_glob = ["test_*"]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param
