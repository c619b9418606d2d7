"""Executors: who runs the trials that a ledger lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.ray_executor import OnRay
from gpumlp.ensembles.trials import Batch, Task, Trial, run_trials
from gpumlp.errors import unknown_name

MODELS_AT_A_TIME = 256  # of a batch of trials, so that a stack is wide and a sweep that is killed loses little


class Executor(Protocol):
    """Runs batches of trials, each anywhere, in any order."""

    def run(
        self, task: Task, batches: Sequence[Batch], done: Callable[[Row], None], pulse: Callable[[int], None]
    ) -> None:
        """Run all trials.

        done    done(row) is called in the calling thread for each trial as soon as it has finished
        pulse   pulse(rows) may be called now and then with the number of rows that models were trained on since
        """
        ...


class Local:
    """Runs batch after batch in this process."""

    def run(
        self, task: Task, batches: Sequence[Batch], done: Callable[[Row], None], pulse: Callable[[int], None]
    ) -> None:
        for batch in batches:
            for row in run_trials(task, batch, pulse):
                done(row)


EXECUTORS: dict[str, Callable[[], Executor]] = {"local": Local, "ray": OnRay}


def get_executor(given: str | Executor) -> Executor:
    """Return the executor of a name, or an executor itself; raise UnknownName."""
    if not isinstance(given, str):
        return given
    if given not in EXECUTORS:
        raise unknown_name("executor", given, EXECUTORS)
    return EXECUTORS[given]()


def batches_of(trials: Sequence[Trial], n_folds: int) -> list[Batch]:
    """Return the trials in batches of a bounded number of models, those that may share a stack side by side."""
    alike = sorted(trials, key=_kin)
    size = max(1, MODELS_AT_A_TIME // n_folds)
    return [alike[start : start + size] for start in range(0, len(alike), size)]


def _kin(trial: Trial) -> tuple[object, ...]:
    c = trial.configuration
    return (
        len(c["hidden"]),
        str(c["batch_size"]),
        c["optimizer"],
        str(c["normalisation"]),
        sum(c["hidden"]),
        trial.number,
    )
