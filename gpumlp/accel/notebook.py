"""`%load_ext gpumlp.accel` and `%unload_ext gpumlp.accel`."""

from __future__ import annotations

import sys
from typing import Any

from gpumlp.accel.installation import ORIGINALS, install, uninstall
from gpumlp.accel.report import as_text


def load_ipython_extension(shell: Any) -> None:
    """Accelerate what the notebook imports from now on, and name what it imported before, which stays as it is."""
    name = install()
    _say(f"gpumlp.accel: MLPClassifier and MLPRegressor, imported from now on, train on gpumlp ({name})")
    earlier = sorted(own for own, value in shell.user_ns.items() if any(value is cls for cls in ORIGINALS.values()))
    if earlier:
        _say(f"gpumlp.accel: imported before and not accelerated: {', '.join(earlier)}; import again")


def unload_ipython_extension(shell: Any) -> None:
    """Give the names back to scikit-learn's own classes, and report."""
    uninstall()
    _say(as_text())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
