"""`gpumlp info`: what is installed here and what of it would compute."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp import __version__
from gpumlp.backends import threads
from gpumlp.backends.select import BACKENDS, choose, why_unavailable
from gpumlp.cli.options import AsJson
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.update_rules import RULES


def info(as_json: AsJson = False) -> None:
    """Tell versions, backends and the names that options take."""
    facts = gather()
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            for key, text in value.items():
                print(f"{'backend ' + key:<16}{text or 'available'}")
        else:
            print(f"{name.replace('_', ' '):<16}{', '.join(value) if isinstance(value, list) else value}")


def gather() -> dict[str, Any]:
    """Return the facts by name, ready for JSON; backends: {name: "" or why it is unavailable}."""
    return {
        "gpumlp": __version__,
        "python": platform.python_version(),
        "numpy": f"{np.__version__} with {_blas()}",
        "scikit-learn": version("scikit-learn"),
        "threads": threads.count(),
        "blas_kernels": blas_kernels(threads.blas_kernels(), _processor_flags()),
        "backends": {name: why_unavailable(name) for name in BACKENDS},
        "auto": choose(None),
        "activations": list(ACTIVATIONS),
        "costs": list(COSTS),
        "update_rules": list(RULES),
    }


def blas_kernels(kernels: str, flags: str) -> str:
    """Return for which processor the BLAS computes, with what to do if this one can do more.

    OpenBLAS before its release of late 2026 takes an AMD Zen 5 for a processor without AVX-512.
    """
    if kernels in ("Haswell", "Zen") and "avx512f" in flags.split():
        return f"{kernels}; this processor has AVX-512: set OPENBLAS_CORETYPE=SKYLAKEX for faster products"
    return kernels or "unknown"


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux: nothing is known, nothing is advised


def _blas() -> str:
    build: Any = np.show_config(mode="dicts")
    blas = build.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'an unknown BLAS')} {blas.get('version', '')}".strip()
