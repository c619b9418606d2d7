"""Lone: a trial in a process of its own, so that how that process ends is an answer."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.trials import Task, Trial, lost_row, run_trials

LAST_WORDS = 1000  # characters of what a process wrote before it ended


def run_alone(task: Task, trial: Trial) -> Row:
    """Run a trial in a process of its own; return its row, or one that says how the process ended without one.

    Raises   what the trial raises there
    """
    with TemporaryDirectory(prefix="gpumlp-") as folder:
        answer = Path(folder) / "answer"
        program = f"import sys; sys.path[:] = {sys.path!r}; from gpumlp.ensembles.lone import reply; reply({folder!r})"
        (Path(folder) / "question").write_bytes(pickle.dumps((task, trial)))
        command = [sys.executable, "-X", "faulthandler", "-c", program]
        with (Path(folder) / "said").open("w+b") as said:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said) as process:
                status = process.wait()
            said.seek(0)
            last = last_words(said.read().decode(errors="replace").strip())
        if status:
            return lost_row(task, trial, how_it_ended(status, last), status)
        row, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    assert isinstance(row, dict)
    return row


def reply(folder: str) -> None:
    """Run the trial that lies in a folder, and leave its row there, or the error that it raised."""
    task, trial = pickle.loads((Path(folder) / "question").read_bytes())
    threading.Thread(target=end_with_parent, args=[folder], daemon=True).start()
    row: Row | None = None
    error: Exception | None = None
    try:
        (row,) = run_trials(task, [trial])
    except Exception as raised:
        error = raised
    (Path(folder) / "answer").write_bytes(pickle.dumps((row, error)))


def end_with_parent(folder: str) -> None:
    """Wait until stdin is closed, as it is when the parent process ends, and end this process; take the folder away."""
    os.read(0, 1)  # a read of sys.stdin would hold a lock that the interpreter needs to end
    rmtree(folder, ignore_errors=True)  # a parent that was killed has not
    os._exit(1)


def last_words(said: str) -> str:
    """Return the end of what a process said; of Python's report of a crash the beginning."""
    crash = said.rfind("Fatal Python error")
    return said[crash:][:LAST_WORDS] if crash >= 0 else said[-LAST_WORDS:]


def how_it_ended(status: int, said: str) -> str:
    """Return in words how a process ended, by its exit status and what it said last."""
    words = f"its process ended with exit status {status}"
    if status < 0 and os.name == "posix":
        name = signal.Signals(-status).name
        words = f"its process was killed by {name}"
        if name == "SIGKILL":
            words += ", as a system does that is out of memory"
    return f"{words}; it said last: {said}" if said else words
