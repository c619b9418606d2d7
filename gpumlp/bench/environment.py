"""What a result depends on: the machine, its libraries, and the variables that steer them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpumlp import __version__
from gpumlp.backends import threads

PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "torch", "jax", "jaxlib")
CUDA_PACKAGES = ("cupy", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "cuda-bindings")
VARIABLES = re.compile(
    r"GPUMLP_(?!CACHE_DIR|DUMP_SOURCE)\w+|OPENBLAS_CORETYPE|\w+_NUM_THREADS|XLA_FLAGS|KMP_\w+|OMP_\w+"
)
DRIVER = Path("/proc/driver/nvidia/version")
ROOT = Path(__file__).parents[2]


def describe() -> dict[str, Any]:
    """Return the facts of this machine by name, ready for JSON: texts, whole numbers, and dicts of these.

    The variables are those that are set; the commit is that of the clone that gpumlp is imported from.
    """
    facts: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": processor(),
        "cores": os.cpu_count() or 1,
        "threads": threads.count(),
        **blas(),
        "versions": {"gpumlp": __version__, **versions((*PACKAGES, *CUDA_PACKAGES))},
        **system(),
    }
    found = commit()
    return facts | ({"commit": found} if found else {}) | {"variables": variables()}


def system() -> dict[str, str]:
    """Return what Python and the system are."""
    return {"python": platform.python_version(), "platform": platform.platform()}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {package: number for package in packages if (number := _version(package))}


def variables(names: Iterable[str] | None = None) -> dict[str, str]:
    """Return the environment variables that are set: those of these names, or all that can change a time."""
    given = (name for name in sorted(os.environ) if VARIABLES.fullmatch(name)) if names is None else names
    return {name: os.environ[name] for name in given if os.environ.get(name)}


def driver() -> dict[str, str]:
    """Return the version of the NVIDIA driver where Linux tells it."""
    if not DRIVER.is_file():
        return {}
    words = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text(encoding="utf-8", errors="replace"))
    return {"nvidia_driver": words[0] if words else "unknown"}


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""  # not Linux
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine() or "unknown"


def blas() -> dict[str, str]:
    """Return which BLAS NumPy uses, and for which processor it computes."""
    found = threads.blas_libraries()
    if not found:
        return {"blas": "unknown", "blas_kernels": "unknown"}
    first = found[0]
    return {
        "blas": f"{first['internal_api']} {first.get('version') or 'of unknown version'}",
        "blas_kernels": str(first.get("architecture") or "unknown"),
    }


def commit() -> str:
    """Return the commit of the clone that this package lies in, and whether files differ from it; "" outside one."""
    if not (ROOT / ".git").exists():
        return ""
    hash_, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    return f"{hash_}{' and changes' if changes else ''}" if hash_ else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _git(*words: str) -> str:
    try:
        ended = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""
