"""A kernel is launched with what its text asks for, or refused before it runs."""

import re
from dataclasses import replace

import numpy as np
import pytest
from cuda_cases import draw, opened, put

from gpumlp.backends.cuda import sources
from gpumlp.backends.cuda.modules import Kernel, parse_signatures
from gpumlp.backends.cuda.sources import Source
from gpumlp.errors import BackendUnavailable, FormulaError, KernelCompileError
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import output_delta
from gpumlp.formulas.update_rules import RULES

TANH = ACTIVATIONS.get("tanh")


def every_source(dtype):
    """A module of each file in kernels/, by the file's name."""
    pair = COSTS.get("quadratic"), ACTIVATIONS.get("identity")
    return {
        "bias_activation": sources.bias_activation((TANH,), dtype, True, True),
        "hidden_delta": sources.hidden_delta((TANH,), dtype, True),
        "normalise_rows": sources.normalise_rows(TANH, dtype, True, True),
        "normalise_batch": sources.normalise_batch(TANH, dtype, True, True),
        "batch_statistics": sources.batch_statistics(dtype),
        "rows_delta": sources.rows_delta(dtype),
        "output_delta": sources.output_delta(output_delta(*pair), pair[1], dtype),
        "softmax": sources.softmax(dtype),
        "embed": sources.embed(dtype),
        "gather_batch": sources.gather_batch("uint8", "int64", True, RULES.get("adam"), dtype),
        "update": sources.update(RULES.get("adam"), frozenset(["l2"]), dtype),
        "gradient_norm": sources.gradient_norm(dtype),
        "finite_models": sources.finite_models(dtype),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_signature_of_every_kernel_is_read_to_the_end(dtype):
    modules = every_source(np.dtype(dtype))
    assert set(modules) == {path.stem for path in sources.kernel_folder().glob("*.cu")}
    for name, source in modules.items():
        text = re.sub(r"//[^\n]*", "", sources.read_kernel(f"{name}.cu"))
        signatures = parse_signatures(source)
        assert len(signatures) == text.count("__global__")
        assert name in signatures
        for kernel, parameters in signatures.items():
            between = text[text.index(f"void {kernel}(") :].partition("(")[2].partition(")")[0]
            assert len(parameters) == between.count(",") + 1
            assert len({p.name for p in parameters}) == len(parameters)
            assert all(p.name.isidentifier() for p in parameters)
            assert sum(p.is_pointer for p in parameters) == between.count("*")
            for p in parameters:
                words = re.search(rf"([^,]*)\b{p.name}\s*(,|$)", between)[1].replace("*", " ").split()
                kind = " ".join(w for w in words if w not in ("const", "__restrict__"))
                stored = {"real": dtype, "x_type": "uint8", "y_type": "int64", "long long": "int64", "int": "int32"}
                stored |= {"unsigned": "uint32", "double": "float64", "unsigned char": "uint8"}
                assert p.dtype == np.dtype(stored[kind]), (kernel, p.name)


KERNEL = r"""
struct Wide { int x; };
extern "C" __global__ void takes(
    const real* __restrict__ x, long long x_stride, const int* counts, int n, unsigned seed, double share, real scale,
    long long rows, real* out)  // a comment, with a comma
{
    out[0] = x[n * x_stride] * scale * (real)share + counts[0] + seed + (real)rows;
}
"""


def kernel():
    """A kernel, and arguments that it takes."""
    b = opened("cuda", "float32")
    x = put(b, draw(1, 2, 8))
    good = {
        "x": x,
        "counts": b.asarray(np.array([3], np.int32)),
        "n": 1,
        "seed": 7,
        "share": 0.5,
        "scale": 2.0,
        "rows": 2**40,
        "out": put(b, np.zeros(1)),
    }
    source = Source("takes", f"using real = float;\n{KERNEL}", "float32")
    return b._modules.kernel(source, "takes"), good


def test_arguments_become_what_the_kernel_asks_for():
    takes, good = kernel()
    b = opened("cuda", "float32")
    with b.session():
        for share in (0.5, np.float32(0.5)):
            for n in (1, np.int64(1), np.uint8(1), True):
                takes(1, 1, {**good, "share": share, "n": n, "scale": np.float64(2)})
                wanted = draw(1, 2, 8)[1, 0] + 3 + 7 + np.float32(2.0**40)
                assert b.to_host(good["out"]).tolist() == [wanted]


STRANGE = [
    pytest.param({"n_rows": 3}, r"missing or unknown arguments \['n_rows'\]", id="a wrong name"),
    pytest.param({"share": None, "-": "share"}, r"missing or unknown arguments \['share'\]", id="a missing argument"),
    pytest.param({"n": 1.0}, "n is float, expected a whole number", id="a float for an integer"),
    pytest.param({"rows": "3"}, "rows is str, expected a whole number", id="a text for an integer"),
    pytest.param({"n": None}, "n is NoneType, expected a whole number", id="nothing for an integer"),
    pytest.param({"n": 2**31}, "n=2147483648 does not fit int32", id="an integer that overflows int"),
    pytest.param({"seed": -1}, "seed=-1 does not fit uint32", id="a negative number for an unsigned one"),
    pytest.param({"rows": 2**63}, "rows=.* does not fit int64", id="an integer that overflows long long"),
    pytest.param({"scale": "2"}, "scale is str, expected a number", id="a text for a number"),
    pytest.param({"share": None}, "share is NoneType, expected a number", id="nothing for a number"),
    pytest.param({"counts": np.zeros(1, np.int32)}, "counts is ndarray, expected an array on", id="a NumPy array"),
    pytest.param({"counts": 5}, "counts is int, expected an array on", id="a number for an array"),
]


@pytest.mark.parametrize(("change", "message"), STRANGE)
def test_an_argument_that_does_not_fit_is_refused_by_its_name(change, message):
    takes, good = kernel()
    arguments = {**good, **change}
    arguments.pop(arguments.pop("-", None), None)
    with pytest.raises(TypeError, match=f"kernel takes: {message}"):
        takes(1, 1, arguments)


def test_an_array_of_another_dtype_or_layout_is_refused_by_its_name():
    takes, good = kernel()
    b = opened("cuda", "float32")
    wide = b.asarray(np.zeros((4, 8), np.float32))
    for name, bad, message in (
        ("x", b.asarray(np.zeros((2, 8))), "x has dtype float64, expected float32"),
        ("counts", b.asarray(np.zeros(2, np.uint32)), "counts has dtype uint32, expected int32"),
        ("counts", b.asarray(np.zeros(4, np.int32))[::2], "counts has strides"),
        ("out", wide[:, :3], "out has strides"),
        ("x", wide[:, ::2], "x has strides"),
        ("x", wide.T, "x has strides"),
        ("x", wide[:, 1:5], "x does not begin at a multiple of 16 bytes"),
    ):
        with pytest.raises(TypeError, match=f"kernel takes: {message}"):
            takes(1, 1, {**good, name: bad})


def test_rows_that_lie_apart_are_taken_where_the_kernel_has_a_stride():
    takes, good = kernel()
    b = opened("cuda", "float32")
    with b.session():
        for x, wanted in ((put(b, draw(1, 3, 12))[:2, 4:8], draw(1, 3, 12)[1, 4]), (put(b, draw(1, 1, 8)), None)):
            takes(1, 1, {**good, "x": x, "counts": b.asarray(np.zeros(1, np.int32)), "seed": 0, "rows": 0})
            wanted = draw(1, 1, 8)[0, 0] if wanted is None else wanted  # one row serves all models
            assert b.to_host(good["out"]).tolist() == [wanted]


def test_the_arguments_of_every_launch_are_checked_though_they_come_from_the_backend(monkeypatch):
    seen = []
    monkeypatch.setattr(Kernel, "_typed", lambda self, p, value, strided: seen.append((self.name, p.name)))
    b = opened("cuda", "float32")
    monkeypatch.setattr(Kernel, "__call__", unlaunched(Kernel.__call__))
    with b.session():
        b.finite_models(put(b, np.ones((1, 4))))
    assert [name for _, name in seen] == ["x", "x_stride", "n", "blocks_of_model", "not_finite"]


def unlaunched(call):
    def only_checked(self, blocks, threads, arguments):
        function, self._function = self._function, lambda *_: None
        try:
            call(self, blocks, threads, arguments)
        finally:
            self._function = function

    return only_checked


# ---------------------------------------------------------------- modules that do not compile


def test_a_kernel_that_does_not_compile_is_named_with_file_and_line():
    good = sources.finite_models(np.dtype("float32"))
    bad = replace(good, text=good.text.replace("bool found = false;", "bool found = nothing;"))
    line = sources.read_kernel("finite_models.cu").splitlines().index("    bool found = false;") + 1
    with pytest.raises(KernelCompileError) as raised:
        opened("cuda", "float32")._modules.kernel(bad, "finite_models")
    message = str(raised.value)
    assert f"kernel module {good.name!r} does not compile" in message
    assert re.search(rf"kernels/finite_models\.cu[:(]{line}\b", message)
    assert "nothing" in message
    assert "GPUMLP_DUMP_SOURCE" in message


def test_a_formula_that_does_not_compile_is_named():
    good = sources.bias_activation((TANH,), np.dtype("float32"), True, False)
    bad = replace(good, text=good.text.replace("tanh(", "tnah("))
    with pytest.raises(KernelCompileError, match="the formulas of tanh"):
        opened("cuda", "float32")._modules.kernel(bad, "bias_activation")


def test_the_text_of_a_module_can_be_written_to_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUMLP_DUMP_SOURCE", str(tmp_path / "texts"))
    source = Source("takes for you/1", f"using real = float; // written\n{KERNEL}", "float32")
    opened("cuda", "float32")._modules.kernel(source, "takes")
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["takes_for_you_1.cu"]
    assert (tmp_path / "texts/takes_for_you_1.cu").read_text(encoding="utf-8") == source.text


def test_an_activation_of_ones_own_that_couples_a_row_has_no_kernel():
    own = Activation("maxout", lambda z: z / z.sum(axis=-1, keepdims=True), row_wise=True)
    with pytest.raises(FormulaError, match=r'activation maxout .* use backend="numpy"'):
        sources.is_softmax(own)


def test_an_installation_without_its_kernels_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "a/b/c/sources.py"))
    with pytest.raises(BackendUnavailable, match=r"misses its kernels, in .* install gpumlp anew"):
        sources.kernel_folder.__wrapped__()
