"""Compiles CUDA C++ with g++ into a shared library that device.cpp loads as a module."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

MAX_SHARED, CANARY, STATIC_LIMIT = 232448, 256, 49152  # as in core.h
HERE = os.path.dirname(os.path.abspath(__file__))
INCLUDE = os.path.join(HERE, "include")
OK, INVALID_OPTION, COMPILATION, INTERNAL = 0, 5, 6, 11

# Options of NVRTC that mean nothing here.
IGNORED = re.compile(
    r"-{1,2}(ftz|prec-div|prec-sqrt|use_fast_math|use-fast-math|extra-device-vectorization|maxrregcount|G|lineinfo|"
    r"device-debug|generate-line-info|device-as-default-execution-space|default-device|pch|rdc|relocatable-device-code|"
    r"dc|device-c|dw|device-w|restrict|w|disable-warnings|split-compile|minimal|"
    r"extensible-whole-program|ewp|dopt|Ofast-compile|diag-\w+|modify-stack-limit|time|no-source-include|"
    r"builtin-\S+|optimization-info|opt-info|version-ident|display-error-number|no-display-error-number)(=.*)?$"
)
KERNEL = re.compile(r"__attribute__\(\(emu_global\)\)")
# A GPU compiler takes alignas behind __shared__ (which is thread_local here), g++ only before it.
SHARED_ALIGNAS = re.compile(r"((?:\bextern\s+)?\bthread_local)\s+(alignas\s*\((?:[^()]|\([^()]*\))*\))")
PREFIX = "emu_kernel_"
TLS_USE = re.compile(r"([\w.$]+)@(?:tlsgd|tlsld|dtpoff|gottpoff)")


class CompileError(Exception):
    def __init__(self, log, status=COMPILATION):
        super().__init__(log)
        self.status = status


class Compiler:
    def __init__(self, cache_dir, toolchain_id, cxx="g++"):
        self.cxx = cxx
        self.cache_dir = os.path.join(cache_dir, "kernels")
        os.makedirs(self.cache_dir, exist_ok=True)
        self.flags = [
            "-fPIC",
            "-w",
            os.environ.get("EMULATED_GPU_OPT", "-O1"),
            "-fno-strict-aliasing",
            "-fwrapv",
            "-fno-math-errno",
            "-fno-asynchronous-unwind-tables",
            "-fno-extern-tls-init",
            "-fno-gnu-unique",
            "-fno-threadsafe-statics",
            "-fno-semantic-interposition",
            "-fsanitize=alignment",  # an access that a GPU would refuse becomes a trap, see exec.cpp
            "-fsanitize-undefined-trap-on-error",
            *cpu_flags(),
            *os.environ.get("EMULATED_GPU_CXXFLAGS", "").split(),
        ]
        self.id = hashlib.sha1(repr((toolchain_id, self.flags)).encode()).hexdigest()[:16]
        self.pch = {}

    def compile(self, source, name="", expressions=(), options=(), headers=()):
        """Returns the module and the lowered names of the name expressions."""
        std, args, contract = "gnu++17", [], "fast"
        options = iter(options)
        for o in options:
            if o in (
                "-I",
                "-D",
                "-U",
                "--include-path",
                "--define-macro",
                "--undefine-macro",
                "-arch",
                "-std",
                "--std",
            ):
                o = o + ("=" if o.startswith("--") or len(o) > 2 else "") + next(options, "")
            if m := re.match(r"(-I|-D|-U|--include-path=|--define-macro=|--undefine-macro=)(.*)", o, re.S):
                kind = m[1].strip("-")[0].upper()
                # The headers of a real CUDA would meet those of this package.
                if kind != "I" or not os.path.exists(os.path.join(m[2].strip(), "cuda_runtime_api.h")):
                    args.append(f"-{kind}{m[2].strip()}")
            elif m := re.match(r"--?std=c\+\+(\d+)", o):
                std = "gnu++" + ("20" if m[1] in ("20", "2a", "23") else "17")
            elif m := re.match(r"--?fmad=(true|false)", o):
                contract = {"true": "fast", "false": "off"}[m[1]]
            elif re.match(r"--?d?lto$", o):
                raise CompileError("emulated GPU: link-time optimisation is not emulated\n")
            elif m := re.match(r"--?(?:arch|gpu-architecture)=(.*)", o):
                if not re.match(
                    r"(sm|compute)_(50|52|53|60|61|62|70|72|75|80|86|87|88|89|90a?|100[af]?|103[af]?|110[af]?|120[af]?|121[af]?)$",
                    m[1],
                ):
                    raise CompileError("nvrtc: error: invalid value for --gpu-architecture (-arch)\n", INVALID_OPTION)
            elif not IGNORED.match(o):
                raise CompileError(f"nvrtc: error: unrecognized option {o.split('=')[0]} found\n", INVALID_OPTION)
        if not source.strip():  # CuPy asks for the version of the compiler
            return f"// emulated GPU {self.id}\n".encode(), []
        flags = [*self.flags, f"-std={std}", f"-ffp-contract={contract}"]
        key = hashlib.sha1(
            repr(
                (self.id, source, name and os.path.basename(name), tuple(expressions), flags, args, tuple(headers))
            ).encode()
        ).hexdigest()
        path = os.path.join(self.cache_dir, key + ".so")
        lowered = [f"_Z{len(e)}emu_{hashlib.sha1(e.encode()).hexdigest()[:12]}" for e in expressions]
        try:
            with open(path, "rb") as f:
                return f.read(), lowered
        except FileNotFoundError:
            pass
        with tempfile.TemporaryDirectory() as tmp:
            for include_name, text in headers:
                os.makedirs(os.path.dirname(os.path.join(tmp, "h", include_name)), exist_ok=True)
                with open(os.path.join(tmp, "h", include_name), "w") as f:
                    f.write(text)
            includes = [f"-I{INCLUDE}", f"-I{tmp}/h", *args]
            kernel_cu, module = os.path.join(tmp, "kernel.cpp"), os.path.join(tmp, "module.so")
            # CCCL's headers take __CUDA_ARCH__ as a sign that they may use instructions of the GPU.
            arch = "" if re.search(r"#\s*include\s*<(cuda/|cub/|thrust/)", source) else "#define __CUDA_ARCH__ 900\n"
            with open(kernel_cu, "w") as f:
                f.write(f'{arch}#line 1 "{os.path.basename(name) or "kernel.cu"}"\n{source}\n')
            prefix = self.precompiled(source, flags, includes)
            text = self.run([self.cxx, "-E", "-fpch-preprocess", *flags, *includes, *prefix, kernel_cu])
            text, kernels = find_kernels(SHARED_ALIGNAS.sub(r"\2 \1", text))
            text += footer(kernels, expressions, lowered)
            with open(os.path.join(tmp, "kernel.ii"), "w") as f:
                f.write(text)
            self.run(
                [self.cxx, "-S", "-fpreprocessed", *flags, os.path.join(tmp, "kernel.ii"), "-o", f"{tmp}/kernel.s"]
            )
            with open(f"{tmp}/kernel.s", "r+") as f:
                f.write(shared_memory(f.read(), kernels + list(expressions)))
            self.run([self.cxx, "-shared", "-Wl,-Bsymbolic", f"{tmp}/kernel.s", "-o", module])
            with open(module, "rb") as f:
                image = f.read()
        write_atomically(path, image)
        return image, lowered

    def run(self, command):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=300,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise CompileError(f"emulated GPU: {command[0]} took longer than 5 minutes\n") from None
        if done.returncode:
            raise CompileError(done.stderr)
        return done.stdout

    def precompiled(self, source, flags, includes):
        """-include options; the headers that start nearly every kernel of CuPy are precompiled."""
        names = re.findall(
            r"^#include <(cupy/(?:complex|carray|atomics|float16)\.cuh|cupy/math_constants\.h)>$", source, re.M
        )
        macros = [i for i in includes if not i.startswith("-I")]
        key = hashlib.sha1(
            repr((self.id, flags, macros, names, [i for i in includes if names and "/h" not in i])).encode()
        ).hexdigest()
        directory = os.path.join(self.cache_dir, "pch-" + key[:16])
        header = os.path.join(directory, "prefix.h")
        if not os.path.exists(header + ".gch"):
            # A damaged precompiled header can make g++ run wild, so it appears complete or not at all.
            os.makedirs(self.cache_dir, exist_ok=True)
            building = tempfile.mkdtemp(dir=self.cache_dir)
            with open(os.path.join(building, "prefix.h"), "w") as f:
                f.write("".join(f"#include <{n}>\n" for n in ["emu_shim.h", *names]))
            try:
                self.run(
                    [
                        self.cxx,
                        "-x",
                        "c++-header",
                        *flags,
                        *includes,
                        f"{building}/prefix.h",
                        "-o",
                        f"{building}/prefix.h.gch",
                    ]
                )
                os.rename(building, directory)
            except (CompileError, OSError):  # the source will tell, or another process was faster
                shutil.rmtree(building)
                if not os.path.exists(header + ".gch"):
                    return ["-include", "emu_shim.h"]
        return ["-include", header]


def cpu_flags():
    """Uses fused multiply-add, which GPUs do, and fast conversions of float16 where the CPU has them."""
    with open("/proc/cpuinfo") as f:
        cpu = set(re.search(r"^flags\s*:(.*)$", f.read(), re.M)[1].split())
    return [f"-m{flag}" for flag in ("avx2", "fma", "f16c") if {"avx2", "fma", "f16c"} <= cpu]


def write_atomically(path, data):
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    os.replace(temporary, path)


def find_kernels(text):
    """Names of the extern "C" kernels of a preprocessed source; the others need a name expression.

    Also renames them in the source, because a kernel may share its name with overloaded functions.
    """
    blocks = []  # of extern "C" { ... }
    for m in re.finditer(r'extern\s+"C"\s*\{', text):
        depth, end = 1, m.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        blocks.append(range(m.end(), end))
    names, renamed = [], []
    for m in KERNEL.finditer(text):
        declaration = re.split(r"[;{}]|\n#[^\n]*\n", text[max(0, m.start() - 2000) : m.start()])[-1]
        extern_c = '"C"' in declaration or any(m.start() in block for block in blocks)
        rest = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", text[m.end() : m.end() + 2000], flags=re.S)
        name = re.match(r"[\s\w)]*?(\w+)\s*\(", rest)
        if name and extern_c and "template" not in declaration:
            renamed.append(re.compile(rf"\b{name[1]}(?=\s*\()").search(text, m.end()).start())
            if name[1] not in names:
                names.append(name[1])
    for position in reversed(renamed):
        text = f"{text[:position]}{PREFIX}{text[position:]}"
    return text, names


def footer(kernels, expressions, lowered):
    rows = [f'emu_entry<(&{PREFIX}{k})>("{k}")' for k in kernels]
    rows += [f'emu_entry<(&{e.strip().lstrip("&")})>("{name}")' for e, name in zip(expressions, lowered, strict=True)]
    return (
        '\nextern "C" __attribute__((used, visibility("default"))) const EmuEntry emu_kernels[];\n'
        "const EmuEntry emu_kernels[] = {"
        + "".join(r + ", " for r in rows)
        + "{nullptr, nullptr, nullptr, 0, nullptr}};\n"
    )


def shared_memory(assembly, kernels):
    """Return the definition of the dynamic shared memory, at whose start all undefined thread-local arrays are."""
    used = set(TLS_USE.findall(assembly))
    if not used:
        return ""
    dynamic = sorted(used - set(re.findall(r"^([\w.$]+):", assembly, re.M)))
    static = static_shared(assembly)
    for kernel, size in zip(kernels, static, strict=True):
        if size > STATIC_LIMIT:
            raise CompileError(
                f"ptxas error   : Entry function '{kernel}' uses too much shared data "
                f"({size:#x} bytes, {STATIC_LIMIT:#x} max)\n"
            )
    capacity = MAX_SHARED if dynamic else 0
    return f"""
\t.section .tbss,"awT",@nobits
\t.p2align 7
{"".join(f"{name}:{chr(10)}" for name in ["emu_dynamic_start", *dynamic])}\t.zero {capacity + CANARY}
\t.text
\t.globl emu_dynamic_shared
\t.type emu_dynamic_shared, @function
emu_dynamic_shared:
\tsubq $8, %rsp
\tdata16 leaq emu_dynamic_start@tlsgd(%rip), %rdi
\t.value 0x6666
\trex64
\tcall __tls_get_addr@PLT
\taddq $8, %rsp
\tret
\t.data
\t.globl emu_dynamic_capacity, emu_static_shared
\t.p2align 3
emu_dynamic_capacity: .quad {capacity}
emu_static_shared: .quad {", ".join(map(str, static))}
"""


def static_shared(assembly):
    """Return the bytes of __shared__ variables of each kernel in the table emu_kernels: its own and its callees'."""
    sizes = dict(re.findall(r"\.type\s+([\w.$]+), @object\s+\.size\s+\1, (\d+)", assembly))
    sizes.update(re.findall(r"\.(?:comm|lcomm)\s+([\w.$]+),\s*(\d+)", assembly))
    functions = dict(re.findall(r"\.type\t([\w.$]+), @function\n\1:\n(.*?)\n\t\.size\t\1, ", assembly, re.S))
    functions.update((new, functions.get(old, "")) for new, old in re.findall(r"\.set\t([\w.$]+),([\w.$]+)", assembly))
    table = re.search(r"^emu_kernels:\n((?:\t\.(?:quad|long|zero)\t.*\n)*)", assembly, re.M)[1]
    found = []
    for run in re.findall(r"\.quad\t(\S+)", table)[1:-4:4]:  # name, run, address and params of each
        reached, variables, todo = set(), set(), [run]
        while todo:
            function = todo.pop()
            if function in functions and function not in reached:
                reached.add(function)
                variables.update(TLS_USE.findall(functions[function]))
                todo += re.findall(r"[\w.$]+", functions[function])
        found.append(sum(int(sizes.get(v, 0)) for v in variables))
    return found


def attach(library, compiler):
    """Makes a Compiler the one behind the NVRTC stand-in."""
    library.emu_program_get.restype = ctypes.c_char_p
    library.emu_program_get.argtypes = [ctypes.c_void_p, ctypes.c_char, ctypes.c_int]
    library.emu_program_set.argtypes = [ctypes.c_void_p, ctypes.c_char, ctypes.c_char_p, ctypes.c_size_t]

    def texts(program, what):
        i = 0
        while (text := library.emu_program_get(program, what, i)) is not None:
            yield text.decode()
            i += 1

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    def callback(program):
        def put(what, data):
            library.emu_program_set(program, what, data, len(data))

        try:
            get = library.emu_program_get
            image, lowered = compiler.compile(
                get(program, b"s", 0).decode(),
                get(program, b"n", 0).decode(),
                list(texts(program, b"e")),
                list(texts(program, b"o")),
                list(zip(texts(program, b"i"), texts(program, b"h"), strict=True)),
            )
            put(b"m", image)
            for name in lowered:
                put(b"l", name.encode())
            return OK
        except CompileError as e:
            put(b"g", str(e).encode())
            return e.status
        except Exception as e:  # nothing may leave a C callback
            put(b"g", f"emulated GPU: {type(e).__name__}: {e}".encode())
            return INTERNAL

    library.emu_set_compiler(callback)
    return callback  # must stay alive
