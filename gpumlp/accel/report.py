"""The report: what ran on gpumlp, and what ran on scikit-learn itself and why."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from gpumlp.accel.ledger import LEDGER, SCIKIT_LEARN, Entry, Total
from gpumlp.atomic import replacing


def as_text() -> str:
    """Return the report for people, one line for each kind of call."""
    found = LEDGER.gathered()
    if not found:
        return "gpumlp.accel: no MLPClassifier or MLPRegressor was fitted or asked"
    lines = []
    for title, is_own in (("ran on gpumlp", False), ("ran on scikit-learn itself", True)):
        chosen = {entry: total for entry, total in found.items() if (entry.where == SCIKIT_LEARN) == is_own}
        lines += [f"gpumlp.accel: {title}{'' if chosen else ': nothing'}", *_rows(chosen)]
    return "\n".join(lines)


def _rows(found: dict[Entry, Total]) -> list[str]:
    """Return lines of equal columns."""
    cells = [
        (
            entry.method,
            _counted(total.calls, "call"),
            _counted(total.rows, "row"),
            f"{total.seconds:.3f} s",
            (entry.why or entry.where) + _elsewhere(total),
        )
        for entry, total in sorted(found.items(), key=lambda item: -item[1].seconds)
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(4)] if cells else []
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]])
        for row in cells
    ]


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _elsewhere(total: Total) -> str:
    """Return in how many other processes these calls ran, if in any."""
    others = len(total.processes - {os.getpid()})
    if not others:
        return ""
    also = "also " if os.getpid() in total.processes else ""
    return f" ({also}in {others} worker process{'' if others == 1 else 'es'})"


def as_json() -> dict[str, Any]:
    """Return the report for programs."""
    import sklearn

    import gpumlp

    return {
        "gpumlp": gpumlp.__version__,
        "scikit_learn": sklearn.__version__,
        "calls": [
            {
                "method": entry.method,
                "where": entry.where,
                "why": entry.why,
                "calls": total.calls,
                "rows": total.rows,
                "seconds": total.seconds,
                "processes": len(total.processes),
            }
            for entry, total in LEDGER.gathered().items()
        ],
    }


def tell(file: Path | None = None) -> None:
    """Write the report on stderr and, as JSON, into a file; only in the process that counts."""
    if os.getpid() != LEDGER.owner:
        return
    sys.stdout.flush()
    print(as_text(), file=sys.stderr, flush=True)
    if file is None:
        return
    try:
        with replacing(file) as stream:
            stream.write(json.dumps(as_json(), indent=1).encode())
    except OSError as error:
        print(f"gpumlp.accel: cannot write {file}: {error.strerror}; choose another place", file=sys.stderr)
