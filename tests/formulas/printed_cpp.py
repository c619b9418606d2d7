"""Printed CUDA functions, compiled for the host in one go and called on arrays."""

import ctypes
import os
import shutil
import subprocess

import numpy as np

from gpumlp.formulas.printers import cuda_function

PRELUDE = """
#include <cmath>
using namespace std;
using real = {real};
#define __device__
#define __forceinline__ inline
"""
FLAGS = ("-std=c++14", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC")


def find_compiler():
    """Return the host's C++ compiler, None if there is none."""
    given = os.environ.get("CXX")
    return next((c for c in (given, "g++", "c++", "clang++") if c and shutil.which(c)), None)


def wrapper(recording, name):
    """Return a C function (n, inputs (n_inputs, n), outputs (n_outputs, n)) that loops over the printed one."""
    n_in, n_out = len(recording.inputs), len(recording.outputs)
    given = [f"x[{i} * n + k]" for i in range(n_in)]
    if n_out == 1:
        call = f"out[k] = {name}({', '.join(given)});"
    else:
        call = f"{name}({', '.join([*given, *(f'out[{i} * n + k]' for i in range(n_out))])});"
    head = f'extern "C" void run_{name}(long long n, const real* x, real* out)'
    return f"{head} {{ for (long long k = 0; k < n; ++k) {call} }}"


class Printed:
    """Recordings by name, as functions of the host."""

    def __init__(self, recordings, dtype, folder):
        self.recordings, self.dtype = recordings, np.dtype(dtype)
        real = {"float32": "float", "float64": "double"}[self.dtype.name]
        self.names = {key: f"formula_{i}" for i, key in enumerate(recordings)}
        parts = [PRELUDE.replace("{real}", real)]
        for key, recording in recordings.items():
            outputs = tuple(f"out_{i}" for i in range(len(recording.outputs))) if len(recording.outputs) > 1 else ()
            parts += [cuda_function(recording, self.names[key], outputs), wrapper(recording, self.names[key])]
        source, binary = folder / f"{real}.cpp", folder / f"{real}.so"
        source.write_text("\n".join(parts))
        subprocess.run([find_compiler(), *FLAGS, str(source), "-o", str(binary)], check=True, capture_output=True)
        self.library = ctypes.CDLL(str(binary))

    def __call__(self, key, *arrays):
        """Return the results of a recording for arrays of one length, (n_outputs, n)."""
        x = np.ascontiguousarray(np.stack([np.broadcast_to(a, arrays[0].shape) for a in arrays]), self.dtype)
        out = np.full((len(self.recordings[key].outputs), x.shape[1]), 7, self.dtype)
        run = getattr(self.library, f"run_{self.names[key]}")
        run.argtypes, run.restype = [ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p], None
        run(x.shape[1], x.ctypes.data, out.ctypes.data)
        return out
