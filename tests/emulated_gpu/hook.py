"""Builds the stand-in libraries, loads them, and redirects the CUDA runtime inside CuPy's own library."""

import contextlib
import ctypes
import glob
import hashlib
import importlib.metadata
import importlib.util
import mmap
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from . import compiler

HERE = os.path.dirname(os.path.abspath(__file__))
CUDA_VERSION = {12: 12090, 13: 13000}
NOT_SUPPORTED = {"cublas": 15, "cublasLt": 15, "curand": 999, "cusolver": 9, "cusparse": 10, "cufft": 16}


class Unavailable(RuntimeError):
    """The emulated device cannot be installed here."""


class Elf:
    """The few parts of an ELF file that are needed: symbols and needed libraries."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        (shoff,) = struct.unpack_from("<Q", self.data, 0x28)
        shentsize, shnum = struct.unpack_from("<HH", self.data, 0x3A)
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", self.data, shoff + i * shentsize) for i in range(shnum)]

    def _string(self, table, offset):
        start = self.sections[table][4] + offset
        return self.data[start : self.data.find(b"\0", start)].decode()

    def symbols(self, kind):
        """(name, address, section index, type) of a symbol table: 2 for .symtab, 11 for .dynsym."""
        for s in self.sections:
            if s[1] == kind:
                for offset in range(s[4], s[4] + s[5], 24):
                    name, info, _, index, value, _ = struct.unpack_from("<IBBHQQ", self.data, offset)
                    yield self._string(s[6], name), value, index, info & 15

    def needed(self):
        for s in self.sections:
            if s[1] == 6:
                for offset in range(s[4], s[4] + s[5], 16):
                    tag, value = struct.unpack_from("<QQ", self.data, offset)
                    if tag == 1:
                        yield self._string(s[6], value)


def metadata_version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def wanted_by_nvmath(library):
    """The functions that nvmath-python, if it is installed, looks for in a library at run time."""
    spec = importlib.util.find_spec("nvmath")
    names = set()
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in glob.glob(os.path.join(folder, "bindings", "_internal", library + ".*.so")):
            with open(path, "rb") as f:
                names.update(n.decode() for n in re.findall(rb"\0(%s[A-Z]\w+)(?=\0)" % library.encode(), f.read()))
    return names


def locate_cupy():
    """Returns the libraries of the installed CuPy that contain the CUDA runtime, the version of CUDA, and
    {soname: wanted symbols} of the libraries that must exist."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unavailable("the emulated GPU needs Linux on x86-64")
    if "cupy" in sys.modules or "cupy_backends" in sys.modules:
        raise Unavailable("emulated_gpu.install() must run before cupy is imported")
    spec = importlib.util.find_spec("cupy_backends")
    if spec is None:
        raise Unavailable("CuPy is not installed: pip install cupy-cuda13x or cupy-cuda12x")
    version = next(
        (v for d, v in ((d, metadata_version(d)) for d in ("cupy-cuda13x", "cupy-cuda12x")) if v), "of another kind"
    )
    if not version.startswith("14.") and not os.environ.get("EMULATED_GPU_ANY_CUPY"):
        raise Unavailable(
            f"the emulated GPU knows cupy-cuda12x and cupy-cuda13x 14.x, not the installed CuPy {version} "
            "(EMULATED_GPU_ANY_CUPY=1 tries it all the same)"
        )
    backends = os.path.dirname(spec.origin)
    runtime = glob.glob(os.path.join(backends, "cuda", "api", "runtime.*.so"))
    wanted = {}
    for path in glob.glob(os.path.join(backends, "cuda", "libs", "*.so")) + glob.glob(
        os.path.join(os.path.dirname(backends), "cupy", "cuda", "cufft.*.so")
    ):
        elf = Elf(path)
        for soname in elf.needed():
            library = re.match(r"lib(\w+)\.so\.", soname)
            if library and library[1] in NOT_SUPPORTED:
                wanted.setdefault(soname, set()).update(
                    n for n, _, index, _ in elf.symbols(11) if index == 0 and n.startswith(library[1])
                )
    major = next((int(s.rpartition(".")[2]) for s in wanted if s.startswith("libcublas.so.")), None)
    if len(runtime) != 1 or major not in CUDA_VERSION:
        raise Unavailable(f"the emulated GPU needs a CuPy wheel for CUDA 12 or 13; {backends} is not one")
    for library in ("cublas", "cublasLt"):
        wanted.setdefault(f"lib{library}.so.{major}", set()).update(wanted_by_nvmath(library))
    cupy = os.path.join(os.path.dirname(backends), "cupy")
    precompiled = [
        p for name in ("cuda/thrust", "cuda/cub", "random/_generator_api") for p in glob.glob(f"{cupy}/{name}.*.so")
    ]
    return [*runtime, *precompiled], CUDA_VERSION[major], wanted


def cache_root():
    """Return the folder for libraries and kernels: EMULATED_GPU_CACHE, or one in the home of the user's caches."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.abspath(os.environ.get("EMULATED_GPU_CACHE") or writable(home, "emulated_gpu"))


def writable(home, *names):
    """Return the folder of these names in home, made; where that cannot be, the user's own one in the temporary folder.

    So a home that is read-only, or that does not exist, costs only the cache between two starts of the machine.
    """
    folder = os.path.join(home, *names)
    try:
        if not os.path.isabs(home):  # expanduser() leaves ~ as it is for a user without a home
            raise FileNotFoundError(home)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        own = os.path.join(tempfile.gettempdir(), f"emulated_gpu-{os.getuid()}")
        os.makedirs(own, mode=0o700, exist_ok=True)
        if os.stat(own).st_uid != os.getuid():
            raise Unavailable(f"the emulated GPU does not trust {own}, which belongs to another user") from None
        os.makedirs(os.path.join(own, *names), exist_ok=True)
        return os.path.join(own, *names)


def source_id(*more):
    h = hashlib.sha1(repr(more).encode())
    for path in sorted(glob.glob(os.path.join(HERE, "**", "*.*"), recursive=True)):
        if path.endswith((".cpp", ".h", "compiler.py", "hook.py")):
            with open(path, "rb") as f:
                h.update(f.read())
    return h.hexdigest()[:16]


def build(version, wanted, cxx):
    """Compiles the stand-in libraries once; returns their folder and the identity of this build."""
    cxx_version = subprocess.run([cxx, "--version"], capture_output=True, text=True).stdout
    identity = source_id(version, sorted((k, sorted(v)) for k, v in wanted.items()), cxx_version, compiler.cpu_flags())
    final = os.path.join(cache_root(), identity)
    if os.path.isdir(os.path.join(final, "lib")):
        return final, identity
    os.makedirs(final, exist_ok=True)
    tmp = tempfile.mkdtemp(dir=final)
    try:
        compile_libraries(version, wanted, cxx, tmp)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(tmp, os.path.join(final, "lib"))
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return final, identity


def compile_libraries(version, wanted, cxx, folder):
    major = version // 1000

    def path(name):
        return os.path.join(HERE, name)

    def link(soname, sources, *flags):
        script = os.path.join(folder, soname + ".map")  # CuPy's libraries ask for versioned symbols
        with open(script, "w") as f:
            f.write(soname + " { *; };\n")
        versioned = [f"-Wl,--version-script={script}"] if soname in wanted else []
        command = [
            cxx,
            "-shared",
            "-fPIC",
            "-std=gnu++17",
            "-w",
            f"-DEMU_CUDA_VERSION={version}",
            "-I",
            HERE,
            f"-Wl,-soname,{soname}",
            *versioned,
            *sources,
            *flags,
            "-o",
            os.path.join(folder, soname),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"the emulated GPU could not be built with {cxx}:\n{done.stderr}")

    def link_stubs(soname):
        library = re.match(r"lib(\w+)\.so", soname)[1]
        stubs = os.path.join(folder, library + "-stubs.cpp")
        with open(stubs, "w") as f:
            f.write('extern "C" int emu_fail_unsupported(const char *);\n')
            for n in sorted(wanted[soname]):
                f.write(
                    f'extern "C" __attribute__((weak)) const char *{n}(int) {{ return "{library}: not emulated"; }}\n'
                    if re.search(r"Get(Error|Status)(Name|String)$", n)
                    else f'extern "C" __attribute__((weak)) int {n}() {{ emu_fail_unsupported("{n}"); '
                    f"return {NOT_SUPPORTED[library]}; }}\n"
                )
        own = [p for p in [path(f"{library.lower()}.cpp")] if os.path.exists(p)]
        link(
            soname,
            [*own, stubs],
            "-O2",
            "-ftree-vectorize",
            "-fvect-cost-model=dynamic",
            "-fno-math-errno",
            "-fcx-limited-range",
            *compiler.cpu_flags(),
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(link_stubs, soname) for soname in sorted(wanted)]
        jobs += [
            pool.submit(link, "libcuda.so.1", [path("device.cpp"), path("exec.cpp")], "-O2", "-lpthread", "-ldl"),
            pool.submit(link, "libprecompiled.so", [path("precompiled.cpp")], "-O1"),
            pool.submit(link, f"libnvrtc.so.{major}", [path("nvrtc.cpp")], "-O1"),
            # cuda-pathfinder loads this before cuSOLVER and others
            pool.submit(link, f"libnvJitLink.so.{major}", []),
        ]
        for job in jobs:
            job.result()
    # CuPy asks this one for its version.
    link(f"libcudart.so.{major}", [], "-Wl,--no-as-needed", os.path.join(folder, "libcuda.so.1"))
    for leftover in glob.glob(os.path.join(folder, "*.map")) + glob.glob(os.path.join(folder, "*.cpp")):
        os.remove(leftover)


def redirect(path, core, precompiled):
    """Makes every cudaXxx function inside a library, and those of precompiled.cpp, jump to the emulated device.

    CuPy's wheels contain the CUDA runtime as a static library, so its functions cannot be replaced by
    the dynamic linker; but their symbols are in the file, and Python will use the very same mapping.
    """
    library = ctypes.CDLL(path)
    link_map = ctypes.POINTER(ctypes.c_size_t)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.dlinfo(ctypes.c_void_p(library._handle), 2, ctypes.byref(link_map))
    base, names = link_map[0], []
    libc.mprotect.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    unsupported = ctypes.cast(core.emu_fail_unsupported, ctypes.c_void_p).value
    for name, address, index, kind in Elf(path).symbols(2):
        if kind != 2 or not index or not re.match(r"cuda[A-Z]\w+$|_Z\d+[a-z]\w+$", name):
            continue
        own = name.startswith("_Z")
        function = getattr(precompiled if own else core, re.sub(r"_pt(sz|ds)$", "", name), None)
        if own and not function:
            continue
        code = b""
        if not function:  # mov rdi, name
            names.append(ctypes.create_string_buffer(name.encode()))
            code = b"\x48\xbf" + struct.pack("<Q", ctypes.addressof(names[-1]))
        target = ctypes.cast(function, ctypes.c_void_p).value if function else unsupported
        code += b"\xff\x25\0\0\0\0" + struct.pack("<Q", target)  # jmp *[rip]; address
        if libc.mprotect((base + address) & ~4095, 8192, 7):
            raise Unavailable(f"the emulated GPU may not change the code of {path}: {os.strerror(ctypes.get_errno())}")
        ctypes.memmove(base + address, code, len(code))
    if not names:
        raise Unavailable(f"{path} has no symbols of the CUDA runtime (was it stripped?)")
    return library, names


def install():
    """Return the core library and what must stay alive; raise Unavailable with one sentence where it cannot work."""
    try:
        return _install()
    except OSError as e:
        raise Unavailable(f"the emulated GPU cannot be set up (see EMULATED_GPU_CACHE): {e}") from None


def _install():
    with_runtime, version, wanted = locate_cupy()
    cxx = shutil.which(os.environ.get("CXX", "g++"))
    if not cxx:
        raise Unavailable("the emulated GPU needs g++")
    folder, identity = build(version, wanted, cxx)
    libraries = {}
    nvrtc = f"libnvrtc.so.{version // 1000}"
    order = [
        "libcuda.so.1",
        "libprecompiled.so",
        nvrtc,
        *(f"lib{n}.so.{version // 1000}" for n in ("cudart", "nvJitLink")),
        *sorted(wanted),
    ]
    for soname in order:  # the dynamic linker finds them by these names from now on
        libraries[soname] = ctypes.CDLL(
            os.path.join(folder, "lib", soname), mode=ctypes.RTLD_GLOBAL if soname == order[0] else ctypes.RTLD_LOCAL
        )
    core = libraries["libcuda.so.1"]
    keep = [
        libraries,
        [redirect(path, core, libraries["libprecompiled.so"]) for path in with_runtime],
        compiler.attach(libraries[nvrtc], compiler.Compiler(folder, identity, cxx)),
    ]
    # CuPy looks for the headers of CUDA; those of this package come first in any case.
    if not os.environ.get("CUDA_PATH"):
        os.environ["CUDA_PATH"] = HERE
    if not os.environ.get("CUPY_CACHE_DIR"):
        os.environ["CUPY_CACHE_DIR"] = writable(os.path.expanduser("~"), ".cupy", "kernel_cache")
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's compiled kernels need a real GPU
    return core, keep
