"""Saving: what a `fit` writes into a checkpoint, and how another one is put to where it was."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from gpumlp.backends.protocol import Array
from gpumlp.errors import CheckpointError, DivergenceError
from gpumlp.shapes import HostArray
from gpumlp.training.active import Active
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.choice import Choice
from gpumlp.training.differences import expect_same
from gpumlp.training.identity import data_identity, network_identity, trainer_identity

if TYPE_CHECKING:
    from gpumlp.training.run import TrainingRun

log = logging.getLogger("gpumlp")

PADDED_SINCE = 2  # version from which models that differ are written as a backend that pads them lays them out


class Begun(NamedTuple):
    """What is done already of the epoch under way.

    tally   (4, n_models) float64 on the host; None at its beginning
    """

    steps: int = 0
    seconds: float = 0.0
    tally: Any = None


BEGINNING = Begun()


class Saving:
    """The checkpoints of one `fit`.

    found   the one to go on from; None: from the beginning
    """

    def __init__(self, run: TrainingRun, checkpoints: Checkpoints, resume: bool) -> None:
        self.run, self.checkpoints = run, checkpoints
        self.found = checkpoints.open(resume)

    def choice(self) -> Choice | None:
        """Return what batch_size="tune" chose before, on the same backend where that is left open."""
        if self.found is None:
            return None
        backend, net = self.found["backend"], self.run.net
        return Choice(backend if backend in net.alternatives else net.backend.name, self.found["batch_size"])

    # ---------------------------------------------------------------- where a fit goes on

    def restore(self, arrays: dict[str, Any]) -> None:
        """Put the run to where the checkpoint was written, if there is one; monitors are for `restore_monitors`.

        arrays   name -> data, as checked
        Raises   CheckpointError for another network, other options or other data
        """
        run, trainer, found = self.run, self.run.trainer, self.found
        self.data = data_identity(run.backend, arrays)
        if found is not None:
            self._check(found)
            self._put(found)
        step, epoch = trainer.step_count, run.epoch
        self._epoch_began = step - run.begun.steps
        self.checkpoints.count_from(step, epoch)
        self._tell(step)

    def _check(self, found: dict[str, Any]) -> None:
        run, first, epoch = self.run, found["first"], found["epoch"]
        if found["version"] < PADDED_SINCE and run.net.is_mixed:
            raise CheckpointError(
                "the checkpoint is of an earlier gpumlp, which wrote stacks of models that differ in another way; "
                "start anew in another folder"
            )
        expect_same("the network", found["network"], network_identity(run.net))
        expect_same("an option", found["trainer"], trainer_identity(run.trainer, first + run.epochs))
        expect_same("the data", found["data"], self.data)
        if first + run.epochs < epoch + (found["steps"] > 0):
            raise CheckpointError(
                f"the checkpoint is in epoch {epoch + 1}, this training would end with epoch {first + run.epochs}; "
                "give more epochs: all, with those that are done"
            )

    def _put(self, found: dict[str, Any]) -> None:
        run, trainer = self.run, self.run.trainer
        backend = run.backend
        backend.copy(backend.asarray(found["clock"]), trainer.clock)
        for padded, out in (
            (found["theta"], run.net.parameters.theta),
            *((found["state"][name], out) for name, out in trainer.state.items()),
        ):
            backend.copy(backend.asarray(run.net.relaid(padded, True, backend.pads_models)), out)
        run.last_finite.keep(found["last_finite"])
        run.skip[:], trainer.has_diverged[:] = found["skip"], found["has_diverged"]
        trainer.diverged = {int(model): why for model, why in found["diverged"].items()}
        trainer.divergences = {m: DivergenceError(*of_error) for m, of_error in found["divergences"]}
        run.history.restore(found["history"])
        trainer.schedules.restore(found["schedules"])
        trainer.hyper.values["eta"][:] = found["rates"]
        if len(found["active"]) < run.net.n_models:
            run.train_only(Active(trainer, found["active"]))
        run.first, run.epoch = found["first"], found["epoch"]
        if found["steps"]:
            run.begun = Begun(found["steps"], found["seconds"], found["tally"])

    def _tell(self, step: int) -> None:
        run, found, checkpoints = self.run, self.found, self.checkpoints
        if found is None:
            log.info("training begins; its checkpoints come to %s", checkpoints.folder)
            return
        log.info("goes on from %s: %d epochs and %d steps are done", checkpoints.newest, run.epoch, step)
        if found["backend"] != run.backend.name:
            log.info("it was written by %s; results agree but for rounding", found["backend"])

    def restore_monitors(self) -> None:
        """Give each monitor, which was told that training began, the state that one of its kind had.

        Raises   CheckpointError if one has no counterpart
        """
        if self.found is None:
            return
        states, monitors = self.found["monitors"], self._monitors()
        expect_same("what watches it", [kind for kind, _ in states], [kind for kind, _, _ in monitors])
        for (_, state), (_, monitor, _) in zip(states, monitors, strict=True):
            monitor.restore(state)

    def _monitors(self) -> list[tuple[str, Any, dict[str, Any]]]:
        """Return kind and state of the monitors that remember anything."""
        states = [(type(monitor).__name__, monitor, monitor.state()) for monitor in self.run.monitors]
        return [entry for entry in states if entry[2]]

    # ---------------------------------------------------------------- while it goes on

    def step_ended(self, step: int) -> None:
        """Write within an epoch if that is due; end the run if that is wanted."""
        checkpoints, run = self.checkpoints, self.run
        if step == run.feed.n_steps:
            return  # `epoch_ended` follows
        of_all = self._epoch_began + step
        if checkpoints.stopping or checkpoints.are_due(of_all, run.epoch):
            began = perf_counter()
            checkpoints.write(of_all, run.epoch, self._tree(step))
            run.began += perf_counter() - began  # an epoch's time is that of its steps
        checkpoints.end_if_wanted()

    def epoch_ended(self, last: bool) -> None:
        """Write between two epochs if that is due, and after the last one; end the run if that is wanted."""
        checkpoints, run = self.checkpoints, self.run
        self._epoch_began = run.trainer.step_count
        if last or checkpoints.stopping or checkpoints.are_due(self._epoch_began, run.epoch):
            checkpoints.write(self._epoch_began, run.epoch, self._tree(0))
        if not last:
            checkpoints.end_if_wanted()

    def _padded(self, of_models: Array) -> HostArray:
        """Return what is laid out as theta on the host, so that any backend can go on with it."""
        backend = self.run.backend
        return self.run.net.relaid(backend.to_host(of_models), backend.pads_models, padded=True)

    def _tree(self, steps: int) -> dict[str, Any]:
        """Return all that a checkpoint holds, `steps` steps into the present epoch."""
        run, trainer = self.run, self.run.trainer
        backend = run.backend
        run.active.bring_all()
        backend.synchronize()
        return {
            "network": network_identity(run.net),
            "trainer": trainer_identity(trainer, run.first + run.epochs),
            "data": self.data,
            "backend": backend.name,
            "batch_size": trainer.batch_size,
            "first": run.first,
            "epoch": run.epoch,
            "steps": steps,
            "seconds": perf_counter() - run.began if steps else 0.0,
            "clock": backend.to_host(trainer.clock),
            "tally": backend.to_host(run.steps.tally.values),
            "theta": self._padded(run.net.parameters.theta),
            "state": {name: self._padded(buffer) for name, buffer in trainer.state.items()},
            "last_finite": run.last_finite.kept(),
            "active": run.active.models,
            "skip": run.skip,
            "has_diverged": trainer.has_diverged,
            "diverged": {str(model): why for model, why in trainer.diverged.items()},
            "divergences": [
                [m, [str(error), error.model, error.epoch, error.step]] for m, error in trainer.divergences.items()
            ],
            "schedules": trainer.schedules.state(),
            "rates": trainer.hyper.values["eta"],
            "history": run.history.state(),
            "monitors": [[kind, state] for kind, _, state in self._monitors()],
        }
