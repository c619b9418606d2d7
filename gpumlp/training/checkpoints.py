"""Checkpoints: a folder of the last few moments from which a training can go on."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from gpumlp.errors import CheckpointError, ConfigurationError
from gpumlp.training.checkpoint_file import DamagedCheckpoint, read_checkpoint, write_checkpoint

log = logging.getLogger("gpumlp")

PREFIX, SUFFIX, DAMAGED = "step-", ".safetensors", ".damaged"
UNITS = {"steps": "steps", "step": "steps", "epochs": "epochs", "epoch": "epochs"}
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
NEVER = float("inf")


class Every(NamedTuple):
    """How far apart checkpoints are, in one of three measures."""

    steps: float = NEVER
    epochs: float = NEVER
    seconds: float = NEVER


class Checkpoints:
    """Writes what a `fit` needs to go on into a folder, time and again, and keeps the last few.

    folder    made if it is missing; for one training alone
    every     "1000steps", "5min", "1epoch", also in s and h: how far apart, at the end of a step
    keep      how many stay

    newest    the last one that was written or read, None before

    Raises    ConfigurationError
    """

    def __init__(self, folder: str | Path, every: str = "1min", keep: int = 3) -> None:
        if not (isinstance(keep, int) and keep >= 1):
            raise ConfigurationError(f"keep={keep!r}: expected a whole number of checkpoints of at least 1")
        self.folder, self.every, self.keep = Path(folder), read_every(every), keep
        self.newest: Path | None = None
        self.stopping = False
        self.count_from(0, 0)

    def stop(self) -> None:
        """End the `fit` under way by KeyboardInterrupt at the end of its next step, once a checkpoint is written.

        A handler of signals may call it. Before a `fit` it ends the next one after a step.
        """
        self.stopping = True

    def end_if_wanted(self) -> None:
        """Raise KeyboardInterrupt if `stop` was called."""
        if self.stopping:
            self.stopping = False
            raise KeyboardInterrupt

    # ---------------------------------------------------------------- before a fit

    def open(self, resume: bool) -> dict[str, Any] | None:
        """Make the folder ready for a `fit`, and return the newest sound checkpoint if that is to go on from it.

        None without `resume`, and where there is none yet.
        Raises   ConfigurationError for a folder that cannot be used, or holds another training; CheckpointError
        """
        self.make_folder()
        for left in self.folder.glob(f".{PREFIX}*{SUFFIX}.*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        there = self._files()
        if there and not resume:
            raise ConfigurationError(
                f"{self.folder} holds checkpoints already, the newest {there[-1].name}; go on from it with resume=True "
                "(--resume), or take another folder"
            )
        return self._read_newest(there)

    def make_folder(self) -> None:
        """Make the folder if it is missing; raise ConfigurationError if nothing can be written into it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise ConfigurationError(
                f"cannot keep checkpoints in {self.folder} ({error.strerror}); choose another folder"
            ) from error

    @property
    def have_begun(self) -> bool:
        """Whether there is a checkpoint in the folder."""
        return bool(self._files())

    def _files(self) -> list[Path]:
        """Return the checkpoints in the folder, the newest last."""
        return sorted(p for p in self.folder.iterdir() if re.fullmatch(rf"{PREFIX}\d+{SUFFIX}", p.name))

    def _read_newest(self, there: list[Path]) -> dict[str, Any] | None:
        reason = ""
        for path in reversed(there):
            try:
                found = read_checkpoint(path)
            except (DamagedCheckpoint, OSError) as error:
                reason = str(error)
                log.warning("checkpoint %s is damaged, the one before it is taken (%s)", path.name, reason)
                continue
            self.newest = path
            self._set_aside(there[there.index(path) + 1 :])
            return found
        if there:
            raise CheckpointError(f"no checkpoint in {self.folder} is sound ({reason}); start anew in another folder")
        return None

    def _set_aside(self, damaged: list[Path]) -> None:
        """Rename what is damaged, so that it does not count as one of those to keep."""
        for path in damaged:
            path.rename(path.with_name(path.name + DAMAGED))

    # ---------------------------------------------------------------- in a fit

    def are_due(self, step: int, epoch: int) -> bool:
        """Tell whether it is time to write, after so many steps and epochs."""
        every = self.every
        return (
            step - self._step >= every.steps
            or epoch - self._epoch >= every.epochs
            or perf_counter() - self._time >= every.seconds
        )

    def write(self, step: int, epoch: int, tree: dict[str, Any]) -> None:
        """Write a checkpoint and remove those beyond the last few.

        Where that fails, as on a full disk, a warning is logged, what is there stays, and the next one is tried when it
        is due.
        """
        self.count_from(step, epoch)
        path = self.folder / f"{PREFIX}{step:012d}{SUFFIX}"
        try:
            write_checkpoint(path, tree)
            self.newest = path
            for old in self._files()[: -self.keep]:
                old.unlink()
        except OSError as error:
            log.warning(
                "no checkpoint at step %d: cannot write into %s (%s); training goes on, and tries again when the next "
                "one is due",
                step,
                self.folder,
                error.strerror or error,
            )

    def count_from(self, step: int, epoch: int) -> None:
        """Count from here to when the next one is due."""
        self._step, self._epoch, self._time = step, epoch, perf_counter()


def read_every(text: str) -> Every:
    """Read "1000steps", "1epoch", "5min", "30s" or "2h"; raise ConfigurationError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text) if isinstance(text, str) else None
    if match is not None and float(match[1]) > 0:
        amount, unit = float(match[1]), match[2]
        if unit in UNITS:
            return Every(**{UNITS[unit]: amount})
        if unit in SECONDS:
            return Every(seconds=amount * SECONDS[unit])
    raise ConfigurationError(f'every={text!r}: expected a number and its unit, such as "1000steps", "1epoch" or "5min"')
