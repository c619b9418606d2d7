"""The emulated device as a tool: installing it, its folders, what several processes do at once."""

import os
import subprocess
import sys
import textwrap

import emulated_gpu
import pytest
from gpu_code import run

SOURCE = 'extern "C" __global__ void f(float *x) { x[threadIdx.x] = threadIdx.x; }  // %s'


def test_it_is_installed_here():
    assert emulated_gpu.installed()
    with pytest.raises(ValueError, match="quick"):
        emulated_gpu.set_mode("quick")


def test_children():
    done = run("""
        import emulated_gpu; emulated_gpu.install(children=True)
        import subprocess, sys
        subprocess.check_call([sys.executable, '-c', 'import cupy; assert cupy.arange(4).sum() == 6'])
    """)
    assert done.returncode == 0, done.stderr


def test_a_script_and_a_module_run_on_it(tmp_path):
    (tmp_path / "sums.py").write_text("import cupy, sys; print(cupy.arange(int(sys.argv[1])).sum())")
    for how in (["sums.py"], ["-m", "sums"]):
        path = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-m", "emulated_gpu", *how, "4"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


def test_install_after_cupy_is_refused():
    done = run("import cupy, emulated_gpu; emulated_gpu.install()")
    assert done.returncode
    assert "must run before cupy is imported" in done.stderr


@pytest.mark.parametrize("home", ["/dev/null/nobody", "~nobody-has-this-name"])
def test_a_home_that_cannot_be_written_to(home, tmp_path):
    """CuPy keeps its kernels in the temporary folder then."""
    done = run(
        """
        import os, emulated_gpu; emulated_gpu.install()
        import cupy
        assert cupy.arange(4).sum() == 6
        print(os.environ["CUPY_CACHE_DIR"])
        """,
        HOME=home,
        XDG_CACHE_HOME="",
        TMPDIR=str(tmp_path),
        CUPY_CACHE_DIR="",
        EMULATED_GPU_CACHE=os.environ.get("EMULATED_GPU_CACHE") or emulated_gpu.hook.cache_root(),
    )
    assert done.returncode == 0, done.stderr
    folder = done.stdout.strip()
    assert folder.startswith(str(tmp_path))
    assert os.listdir(folder)


def test_the_cache_falls_back_to_the_temporary_folder(tmp_path):
    done = run(
        "from emulated_gpu import hook; print(hook.cache_root())",
        HOME="/dev/null/nobody",
        XDG_CACHE_HOME="",
        EMULATED_GPU_CACHE="",
        TMPDIR=str(tmp_path),
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr


def test_a_compiler_that_is_not_there_is_a_sentence(tmp_path):
    code = """
        import emulated_gpu
        try:
            emulated_gpu.install()
        except emulated_gpu.Unavailable as e:
            print(e)
    """
    assert run(code, CXX="no-such-compiler").stdout == "the emulated GPU needs g++\n"
    assert "could not be built" in run(code, CXX="false", EMULATED_GPU_CACHE=str(tmp_path)).stdout


def test_processes_that_compile_the_same_kernel_at_once(tmp_path):
    """With an empty cache of kernels: all of them work, and nothing half-written stays."""
    code = f"""
        import os, emulated_gpu, emulated_gpu.compiler as compiler
        class Elsewhere(compiler.Compiler):
            def __init__(self, cache, *rest):
                super().__init__({str(tmp_path)!r}, *rest)
        compiler.Compiler = Elsewhere
        emulated_gpu.install()
        import cupy as cp
        x = cp.zeros(4, "f")
        for i in range(3):
            cp.RawKernel({SOURCE!r} % i, "f")((1,), (4,), (x,))
            assert x.get().tolist() == [0, 1, 2, 3]
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUPY_CACHE_DIR": str(tmp_path / "cupy")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [p.communicate(timeout=120)[1] for p in processes]
    assert [p.returncode for p in processes] == [0] * 4, said
    kernels = [name for name in os.listdir(tmp_path / "kernels") if not name.startswith("pch-")]
    assert all(name.endswith(".so") for name in kernels), kernels
    assert len(kernels) == 3
