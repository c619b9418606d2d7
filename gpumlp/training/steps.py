"""The steps of an epoch, in parts of batches where whole ones do not fit into memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.backends.protocol import EPOCH, POSITION, BatchSource, StepNumbers, Tally
from gpumlp.errors import OutOfMemory
from gpumlp.formulas.normalisation import BATCH
from gpumlp.network.targets import Targets
from gpumlp.training.step import TrainingStep

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

log = logging.getLogger("gpumlp")


class Steps:
    """The steps of an epoch: those of a `fit`, and those that tuning times.

    clock, numbers   the trainer's, or others of the same kind
    """

    def __init__(
        self, trainer: Trainer, source: BatchSource, targets: Targets, clock: Any, numbers: StepNumbers
    ) -> None:
        net, self.backend = trainer.net, trainer.net.backend
        self.source, self.clock, self.numbers = source, clock, numbers
        self.tally = Tally(self.backend.empty((4, net.n_models), np.float64), targets.counts_hits, targets.threshold)
        numbers.factors = np.ones((source.n_steps, len(trainer.schedules.of_models)))
        self.step = self._build(trainer)

    def _build(self, trainer: Trainer) -> TrainingStep:
        """Return the step, in parts that fit where the whole does not; say so in one log line."""
        given = trainer.micro_batch
        rows = self.source.batch if given in ("auto", None) else min(int(given), self.source.batch)
        may_halve = given == "auto" and BATCH not in trainer.net.architecture.normalisation
        while True:
            if rows < self.source.batch:
                self.source = replace(self.source, part=rows)
            try:
                step = self._try(trainer)
            except OutOfMemory:
                if not may_halve or rows == 1:
                    raise
            else:
                break
            rows = -(-rows // 2)
        if rows < self.source.batch:
            log.info(
                "a batch of %d rows is done in %d parts of %d, whose gradients are added up%s",
                self.source.batch,
                self.source.n_parts,
                rows,
                ": it does not fit into memory at once" if given == "auto" else "",
            )
        return step

    def _try(self, trainer: Trainer) -> TrainingStep:
        return TrainingStep(
            trainer.net,
            self.source,
            trainer.hyper,
            self.numbers,
            trainer.states,
            self.clock,
            self.tally,
            trainer.steps_per_launch,
        )

    def begin_epoch(self) -> None:
        """Set the tables that hold for the whole epoch, of which the numbers may have changed."""
        self.begin_tally()
        self.begin_turn()

    def begin_tally(self, tally: Any = None) -> None:
        """Begin to add up; to this, if it is given."""
        self.backend.fill(self.tally.values, 0)
        if tally is not None:
            self.backend.copy(self.backend.asarray(tally), self.tally.values)

    def begin_turn(self, done: int = 0) -> None:
        """Begin with the rows that the source has now, of which so many steps are done; numbers may have changed."""
        self.backend.fill(self.clock[POSITION : POSITION + 1], done * self.source.batch)
        self.backend.bring_numbers(self.numbers)

    def end_epoch(self, epochs: int) -> None:
        """Note how many epochs are done."""
        self.backend.fill(self.clock[EPOCH : EPOCH + 1], epochs)
