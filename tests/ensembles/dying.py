"""A sweep of which some models end the process that trains them, in the middle of their training."""

import ctypes
import os
import signal
from dataclasses import dataclass, fields, replace
from pathlib import Path

from interrupted import small_sweep

from gpumlp.ensembles import executors
from gpumlp.ensembles.trials import Task
from gpumlp.training.monitors import Monitor

executors.MODELS_AT_A_TIME = 24  # 3 batches of 8 configurations

ENDS = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(13),
    "segfault": lambda: ctypes.string_at(0),
}


@dataclass(frozen=True, eq=False)
class Deadly(Task):
    """A task whose jobs of some configurations end their process after two epochs.

    deadly   name of the end by the text of the configuration
    mark     a file that the first end makes, after which there is none; None: there is one each time
    """

    deadly: dict[str, str]
    mark: Path | None

    def job(self, c, fold, pulse=None):
        found = super().job(c, fold, pulse)
        end = self.deadly.get(str(c))
        return found if end is None else replace(found, monitors=[*found.monitors, Ending(end, self.mark)])


class Ending(Monitor):
    """Ends its process after two epochs."""

    def __init__(self, end, mark):
        self.end, self.mark = end, mark

    def epoch_ended(self, report):
        if report.epoch == 2 and self.is_first():
            ENDS[self.end]()

    def is_first(self):
        if self.mark is None:
            return True
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def deadly_sweep(ends, mark=None):
    """Return the small sweep and its data.

    ends   name of an end by the number of the configuration
    """
    sweep, X, y = small_sweep()
    deadly = {str(sweep.configurations[i]): end for i, end in ends.items()}
    build = sweep.task

    def task(X, Y):
        plain = build(X, Y)
        return Deadly(**{f.name: getattr(plain, f.name) for f in fields(plain)}, deadly=deadly, mark=mark)

    sweep.task = task
    return sweep, X, y
