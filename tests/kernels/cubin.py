"""Kernels as the real NVRTC makes them: compiled, measured, disassembled. Needs no GPU."""

import ctypes
import os
import re
import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gpumlp.backends.cuda.modules import OPTIONS

# what CuPy adds to the options that it is given
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


class CompileError(Exception):
    """NVRTC refuses a text; says what NVRTC says."""


@dataclass(frozen=True)
class Kernel:
    """What a kernel became.

    stack, shared, local   bytes: a thread's, a block's (with what the system reserves), a thread's
    instructions           the operations in order, without operands: "LDG.E.128"
    """

    name: str
    registers: int
    stack: int
    shared: int
    local: int
    instructions: tuple[str, ...]


@cache
def why_unavailable():
    """Return which of the packages from PyPI is missing, "" if none."""
    needed = {"lib/libnvrtc.so.*": "nvrtc", "bin/cuobjdump": "cuobjdump", "bin/nvdisasm": "nvdisasm"}
    missing = [f"nvidia-cuda-{package}" for pattern, package in needed.items() if not _found(pattern)]
    return f"needs {' and '.join(missing)}: pip install {' '.join(missing)}" if missing else ""


def compile_text(text, arch):
    """Return the cubin of a text for sm_<arch>, and NVRTC's warnings; raise CompileError."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None)
    options = [option.encode() for option in (*OPTIONS, *CUPY_OPTIONS, f"-arch=sm_{arch}")]
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if status:
            raise CompileError(log or f"NVRTC's error {status}, for sm_{arch}")
        return _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def inspect(cubins, arch, folder):
    """Return the kernels of each cubin for sm_<arch>; `folder` is for files in between."""
    code = [_code(cubin) for cubin in cubins]
    instructions = iter(_disassemble([text for functions in code for text in functions.values()], arch, folder))
    found = []
    for cubin, functions in zip(cubins, code, strict=True):
        by_name = {name: next(instructions) for name in functions}
        usage = _usage(cubin, folder)
        found.append([Kernel(name, *usage[name], by_name[name]) for name in usage])
    return found


def _found(pattern):
    """Return the path of a file of NVIDIA's packages, None if there is none."""
    spec = find_spec("nvidia")
    roots = spec.submodule_search_locations if spec else ()
    return next((p for root in roots for p in sorted(Path(root).glob(f"*/{pattern}")) if ".alt." not in p.name), None)


@cache
def _nvrtc():
    # Bound deeply, so that it calls itself where the emulated device has functions of the same names.
    return ctypes.CDLL(str(_found("lib/libnvrtc.so.*")), mode=os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)


def _read(ask_size, ask, program):
    size = ctypes.c_size_t()
    ask_size(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    ask(program, buffer)
    return buffer.raw


def _run(tool, *arguments):
    command = [str(_found(f"bin/{tool}")), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _usage(cubin, folder):
    """Return name -> (registers, stack, shared, local)."""
    file = folder / "one.cubin"
    file.write_bytes(cubin)
    pattern = r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    found = re.findall(pattern, _run("cuobjdump", "-res-usage", file))
    return {name: tuple(map(int, numbers)) for name, *numbers in found}


def _code(cubin):
    """Return name -> machine code: the sections .text.<name> of an ELF file with 64-bit addresses."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    head_bytes, n_sections, names = struct.unpack_from("<HHH", cubin, 0x3A)
    heads = [struct.unpack_from("<I4xQQQQ", cubin, table + i * head_bytes) for i in range(n_sections)]
    found = {}
    for name_at, _, _, begin, n_bytes in heads:
        at = heads[names][3] + name_at
        name = cubin[at : cubin.index(b"\0", at)].decode()
        if name.startswith(".text."):
            found[name.removeprefix(".text.")] = cubin[begin : begin + n_bytes]
    return found


def _disassemble(code, arch, folder):
    """Return the instructions of each piece of code; all in one run, since the start takes most of nvdisasm's time."""
    file = folder / "code.bin"
    file.write_bytes(b"".join(code))
    text = _run("nvdisasm", "--no-dataflow", "--binary", f"SM{arch}", file)
    lines = iter(re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", text))
    line, begin, found = next(lines, None), 0, []
    for piece in code:
        instructions = []
        while line and int(line[0], 16) < begin + len(piece):
            instructions.append(line[1])
            line = next(lines, None)
        found.append(tuple(instructions))
        begin += len(piece)
    return found
