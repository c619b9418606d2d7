"""Compiles a kernel with the real NVRTC from PyPI, to find what only g++ accepts. Needs no GPU."""

import ctypes
import glob
import importlib.util
import os


def _find():
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations) if spec else []
    libraries = [p for r in roots for p in glob.glob(os.path.join(r, "*", "lib", "libnvrtc.so.*")) if ".alt." not in p]
    if not libraries:
        raise RuntimeError(
            "the real NVRTC is not installed: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt "
            "(CUDA 12: nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12)"
        )
    library = sorted(libraries)[-1]
    includes = [p for r in roots for p in glob.glob(os.path.join(r, "*", "include"))]
    return library, includes


def check(source, name_expressions=(), options=("--std=c++17",), architectures=(80, 90), include_cupy=True):
    path, includes = _find()
    # Deep binding keeps its own calls away from the stand-in, which has the same function names.
    nvrtc = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
    if include_cupy:
        import cupy

        cupy_include = os.path.join(os.path.dirname(cupy.__file__), "_core", "include")
        cccl = os.path.join(cupy_include, "cupy", "_cccl")
        includes = [*(os.path.join(cccl, d) for d in ("cub", "thrust", "libcudacxx")), cupy_include, *includes]
    for arch in architectures:
        program = ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        for expression in name_expressions:
            nvrtc.nvrtcAddNameExpression(program, expression.encode())
        flags = [*options, "--device-as-default-execution-space", f"-arch=sm_{arch}", *(f"-I{i}" for i in includes)]
        status = nvrtc.nvrtcCompileProgram(
            program, len(flags), (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
        )
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        if status:
            raise RuntimeError(f"NVRTC for sm_{arch}:\n{log.value.decode()}")
