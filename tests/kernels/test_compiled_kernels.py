"""Every kernel, compiled by the real NVRTC for the architectures that gpumlp supports: what CI proves without a GPU.

All sources for all architectures would take half an hour on two cores. For sm_90 all are compiled, with two exceptions.
gather_batch copies X in other blocks than those that compute a rule's numbers: there each dtype of X meets each other
choice, but not each rule. For long rows of output_delta each cost and each activation occurs, but not each pair; of
the normalising ways forward, which compute what bias_activation does, each choice, but not each pair of them. For the
other architectures those are compiled in which every activation, cost, rule and dtype, dropout on and off, each
penalty on and off, ... occurs in each kernel. That takes about two minutes.
"""

import inspect
import re

import cubin
import gates
import pytest
from every_source import covering, every_source

from gpumlp.backends.cuda import sources
from gpumlp.backends.cuda.modules import parse_signatures

THOROUGH = 90
AT_ONCE = 30  # sources of a test

needs_nvrtc = pytest.mark.skipif(bool(cubin.why_unavailable()), reason=cubin.why_unavailable() or "nothing is missing")


def sources_for(arch):
    made = every_source()
    if arch != THOROUGH:
        return covering(made)
    gathering = [m for m in made if m.maker == "gather_batch"]
    forward = [m for m in made if m.maker in ("normalise_rows", "normalise_batch")]
    long_rows = [m for m in made if m.maker == "output_delta" and "long rows True" in m.parts]
    rest = [m for m in made if m not in gathering and m not in long_rows and m not in forward]
    return rest + covering(gathering, together=2, apart=("X", "rule")) + covering(long_rows) + covering(forward)


def groups():
    """Sources of one file for one architecture, AT_ONCE at most, so that processes can share the work."""
    for arch in gates.ARCHITECTURES:
        made = sources_for(arch)
        for maker in dict.fromkeys(m.maker for m in made):
            of_maker = [m.source for m in made if m.maker == maker]
            for begin in range(0, len(of_maker), AT_ONCE):
                yield pytest.param(arch, of_maker[begin : begin + AT_ONCE], id=f"sm_{arch}-{maker}-{begin}")


def compile_all(texts, arch, folder):
    """Return NVRTC's warnings and the kernels of each text."""
    made = [cubin.compile_text(text, arch) for text in texts]
    return [log for _, log in made], cubin.inspect([image for image, _ in made], arch, folder)


@needs_nvrtc
@pytest.mark.parametrize(("arch", "group"), list(groups()))
def test_every_source_compiles_without_warnings_and_its_kernels_keep_to_their_budgets(arch, group, tmp_path):
    logs, compiled = compile_all([source.text for source in group], arch, tmp_path)
    found = [f"{source.name}: {log}" for source, log in zip(group, logs, strict=True) if log]
    for source, kernels in zip(group, compiled, strict=True):
        assert {k.name for k in kernels} == set(parse_signatures(source))
        for kernel in kernels:
            wrong = gates.complaints(kernel, gates.BUDGETS[kernel.name])
            found += [f"{kernel.name} of {source.name!r} for sm_{arch}: {text}" for text in wrong]
    assert not found, "\n".join(found)


# ---------------------------------------------------------------- nothing is forgotten


def test_every_function_that_makes_a_source_is_covered():
    makers = {
        name
        for name, function in vars(sources).items()
        if callable(function)
        and not name.startswith("_")
        and not inspect.isclass(function)
        and inspect.signature(function).return_annotation == "Source"
    }
    assert {m.maker for m in every_source()} == makers - {"paste"}


def test_every_kernel_file_is_covered_and_every_kernel_has_a_budget():
    made = every_source()
    assert {f"{m.source.name.split()[0]}.cu" for m in made} == {p.name for p in sources.kernel_folder().glob("*.cu")}
    assert {name for m in covering(made) for name in parse_signatures(m.source)} == set(gates.BUDGETS)


def test_sources_differ_in_name_and_text():
    made = every_source()
    assert len({m.source.name for m in made}) == len({m.source.text for m in made}) == len(made)


@pytest.mark.parametrize("together", [1, 2])
def test_a_covering_set_is_smaller_and_lacks_no_part(together):
    made = [m for m in every_source() if m.maker in ("gather_batch", "update")]
    chosen = covering(made, together)
    assert len(chosen) < len(made) / 2

    def parts(of):
        return {(m.maker, *sorted({p, q})) for m in of for p in m.parts for q in (m.parts if together == 2 else [p])}

    assert parts(chosen) == parts(made)


def test_budgets_have_the_threads_that_the_kernels_heads_name():
    for file in sources.kernel_folder().glob("*.cu"):
        text = file.read_text(encoding="utf-8")
        (threads,) = re.findall(r"^// launch +(\d+) threads", text, re.MULTILINE)
        for name in re.findall(r"__global__ void (\w+)", text):
            assert gates.BUDGETS[name].threads == int(threads), name


# ---------------------------------------------------------------- each gate refuses what it is there for

COPY = "for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i];"
LOCAL_ARRAY = "float sums[64] = {}; for (int i = 0; i < n; ++i) sums[(int)x[i] & 63] += x[i]; y[n] = sums[n & 63];"
SPILLING = """
    float kept[300];
#pragma unroll
    for (int i = 0; i < 300; ++i) kept[i] = x[i * n];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 300; ++i) y[i * n] = kept[299 - i];
"""
SHARED_SUM = "__shared__ float sum; atomicAdd(&sum, x[n]); __syncthreads(); y[n] = sum;"
EXCHANGED = "atomicCAS((unsigned*)y, __float_as_uint(x[0]), __float_as_uint(x[1]));"
TICKET = "__shared__ bool last; last = atomicAdd((unsigned*)y, 1u) == n; __syncthreads(); if (last) y[1] = x[1];"
REGISTERS = """
    float kept[120];
#pragma unroll
    for (int i = 0; i < 120; ++i) kept[i] = x[i * n];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 120; ++i) y[i * n] = kept[119 - i];
"""
PLAIN = gates.Budget(threads=256, registers=64)


@pytest.fixture(params=gates.ARCHITECTURES, ids="sm_{}".format)
def compiled(request, tmp_path):
    """compiled(body): the kernel f(const float* x, float* y, int n) { body }, for each architecture."""
    if cubin.why_unavailable():
        pytest.skip(cubin.why_unavailable())

    def build(body):
        text = f'extern "C" __global__ void f(const float* __restrict__ x, float* y, int n) {{ {body} }}'
        _, ((kernel,),) = compile_all([text], request.param, tmp_path)
        return kernel

    return build


def test_a_plain_kernel_passes(compiled):
    assert gates.complaints(compiled(COPY), PLAIN) == []


def test_an_array_in_local_memory_is_found(compiled):
    assert "LDL" in gates.uses_local_memory(compiled(LOCAL_ARRAY), PLAIN)


def test_spilled_registers_are_found(compiled):
    found = gates.uses_local_memory(compiled(SPILLING), PLAIN)
    assert "LDL" in found
    assert "STL" in found


def test_a_streaming_kernel_that_moves_single_numbers_is_found(compiled):
    wide = PLAIN._replace(wide_loads=True, wide_stores=True)
    assert gates.lacks_wide_access(compiled(COPY), wide) == "no 128-bit LDG and no 128-bit STG"
    loads = compiled("const float4 v = ((const float4*)x)[n]; y[n] = v.x + v.y + v.z + v.w;")
    assert gates.lacks_wide_access(loads, wide) == "no 128-bit STG"


@pytest.mark.parametrize(
    "body",
    [
        "atomicAdd(y, x[n]);",
        "y[1] = atomicAdd(y, x[n]);",
        "atomicAdd((double*)y, (double)x[n]);",
        "y[1] = atomicAdd((double*)y, (double)x[n]);",
        SHARED_SUM,
        EXCHANGED,
    ],
)
def test_atomics_on_floating_point_numbers_are_found(compiled, body):
    assert gates.uses_atomics(compiled(body), PLAIN)


def test_a_ticket_is_no_such_atomic(compiled):
    kernel = compiled(TICKET)
    assert any(gates.is_atomic(i) for i in kernel.instructions)
    assert gates.uses_atomics(kernel, PLAIN) == ""


def test_too_many_registers_are_found(compiled):
    kernel = compiled(REGISTERS)
    assert "expected at most 64" in gates.exceeds_registers(kernel, PLAIN)
    assert "cannot be launched" in gates.exceeds_registers(kernel, PLAIN._replace(threads=1024, registers=255))


@needs_nvrtc
def test_a_warning_is_found(tmp_path):
    text = 'extern "C" __global__ void f(float* y) { int unused; y[0] = 1; }'
    (log,), _ = compile_all([text], THOROUGH, tmp_path)
    assert "warning" in log


@needs_nvrtc
@pytest.mark.parametrize("file", sorted(p.name for p in sources.kernel_folder().glob("*.cu*")))
def test_a_syntax_error_is_reported_with_its_file_and_line(file, monkeypatch):
    def with_error(name):
        text = sources.kernel_folder().joinpath(name).read_text(encoding="utf-8")
        return f"\n\nint here is no type;\n{text}" if name == file else text

    monkeypatch.setattr(sources, "read_kernel", with_error)
    source = sources.paste("softmax.cu" if file == "common.cuh" else file, "a test", "float32")
    with pytest.raises(cubin.CompileError, match=re.escape(f"kernels/{file}(3): error")):
        cubin.compile_text(source.text, THOROUGH)
