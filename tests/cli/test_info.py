import json

import pytest

import gpumlp as package
from gpumlp.cli.info import blas_kernels


def test_info_tells_versions_backends_and_names(gpumlp):
    ended = gpumlp("info")
    assert ended.status == 0
    for told in (package.__version__, "blas", "backend numpy", "backend numba", "auto", "leaky_relu", "adam"):
        assert told in ended.out


def test_info_as_json_parses(gpumlp):
    facts = json.loads(gpumlp("info", "--json").out)
    assert facts["backends"]["numpy"] == ""
    assert facts["auto"] == next(name for name in ("cuda", "numba", "numpy") if not facts["backends"][name])
    assert facts["threads"] >= 1
    assert "relu" in facts["activations"]


def test_help_is_there_for_each_command_and_without_any_command(gpumlp):
    for argv, status in (((), 2), (("--help",), 0), (("train", "--help"), 0), (("predict", "--help"), 0)):
        ended = gpumlp(*argv)
        assert (ended.status, ended.err) == (status, "")
        assert "Usage" in ended.out


def test_the_version_is_that_of_the_package(gpumlp):
    assert gpumlp("--version").out == f"gpumlp {package.__version__}\n"


@pytest.mark.parametrize(
    ("kernels", "flags", "advised"),
    [
        ("Haswell", "avx2 avx512f avx512bw", True),
        ("Haswell", "avx2 fma", False),
        ("SkylakeX", "avx2 avx512f", False),
        ("", "", False),
    ],
)
def test_info_advises_faster_kernels_only_where_the_processor_has_them(kernels, flags, advised):
    assert ("OPENBLAS_CORETYPE" in blas_kernels(kernels, flags)) == advised
