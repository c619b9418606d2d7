"""One `fit`, from the arrays that are given to the history of what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.backends.protocol import FIRST_BAD, BatchSource
from gpumlp.errors import ConfigurationError, DivergenceError, OutOfMemory
from gpumlp.network.evaluation import Evaluation, read_tally
from gpumlp.network.kinds import bring
from gpumlp.network.network import Network
from gpumlp.network.places import Places
from gpumlp.network.targets import Targets, check_inputs
from gpumlp.shapes import HostArray, expect, is_on_device
from gpumlp.training.active import Active
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.data_set import TrainingSet, check_order, check_training_set
from gpumlp.training.folds import Folds, check_folds
from gpumlp.training.history import History
from gpumlp.training.monitors import EpochReport, Monitor, OfEachModel, RunInfo, Stop, check_monitors
from gpumlp.training.pools import Feed, Pool, PooledSet, open_pools
from gpumlp.training.ranges import marker
from gpumlp.training.saving import BEGINNING, Saving
from gpumlp.training.steps import Steps
from gpumlp.training.weight_copy import WeightCopy

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer


class TrainingRun:
    """One `fit`: validates, builds the step, and goes through the epochs."""

    def __init__(
        self,
        trainer: Trainer,
        X: Any,
        Y: Any,
        epochs: int,
        validation: tuple[Any, Any] | Folds | None,
        sample_weight: Any,
        order: Any,
        monitors: Sequence[Monitor],
        folds: Folds | None,
        checkpoints: Checkpoints | None,
        resume: bool,
        pool: Pool | int | str | None,
    ) -> None:
        self.trainer, self.net = trainer, trainer.net
        trainer.follow()
        if not (isinstance(epochs, int | np.integer) and epochs >= 0):
            raise ConfigurationError(f"epochs={epochs!r}: expected a whole number of at least 0")
        self.epochs, self.monitors = int(epochs), check_monitors(monitors)
        self.validation_places: Places | None = None
        if trainer.has_diverged.all() and not resume:
            raise ConfigurationError("every model has diverged; trainer.reset() starts anew, then lower learning_rate")
        data: TrainingSet | PooledSet | None = None
        if pool is not None or Y is None:
            if order is not None or folds is not None or isinstance(validation, Folds):
                raise ConfigurationError("rows that come by pools go with no `order` and no folds; leave these away")
            X, Y, data = open_pools(trainer, X, Y, sample_weight, pool)
        if data is None:
            data = check_training_set(self.net, X, Y, sample_weight, folds)
        if folds is not None and (order is not None or trainer.batch_size == "tune"):
            raise ConfigurationError('folds go with no `order`, and not with batch_size="tune"; leave one of them away')
        self.order = None if order is None else check_order(order, self.epochs, len(X))
        checked = self._check_validation(validation, Y, data)
        if not isinstance(checkpoints, Checkpoints | None):
            raise ConfigurationError(f"checkpoints={checkpoints!r}: expected gpumlp.Checkpoints(folder)")
        if resume and checkpoints is None:
            raise ConfigurationError("resume=True needs checkpoints=gpumlp.Checkpoints(folder)")
        self.saving = None if checkpoints is None else Saving(self, checkpoints, resume)
        if trainer.batch_size == "tune":
            self._tune(X, Y, sample_weight, validation)
        self.backend, self.skip = self.net.backend, trainer.numbers.skip
        self.skip[:] = trainer.has_diverged  # a monitor stops one fit only
        self.data, self.checked = data, checked
        self._present: list[Active] = []  # the one there is, for those that may not hold on to the run and its buffers
        self._under_way = ExitStack()  # closes the feed there is
        self.train_only(Active(trainer))
        self.history = trainer.history = History(self.net.model_ids)
        self.history.stopped.update(trainer.diverged)
        self.mark = marker(self.backend, trainer.nvtx)
        self.last_finite = self._keeper()
        self.last_finite.save(np.ones(self.net.n_models, bool))
        self.first = self.epoch = trainer.epoch_count  # epochs done before this `fit`, and until now
        self.begun, self.began = BEGINNING, 0.0
        if self.saving is not None:
            self.saving.restore(self._arrays())

    def _arrays(self) -> dict[str, Any]:
        """Return by name all that the user gave to train on and to evaluate, as checked."""
        found = self.data.arrays() | {"order": self.order}
        if self.checked is not None:
            validation_X, its_targets, its_places = self.checked
            found |= {} if its_places is None else its_places.arrays("validation")
            found |= {"validation X": validation_X, **its_targets.arrays("validation Y")} if its_places is None else {}
        return found

    def train_only(self, active: Active) -> None:
        """Build what trains and evaluates these models."""
        self.active, trainer = active, active.trainer
        self._present[:] = [active]
        self.source: BatchSource
        self.feed: Feed
        self.steps: Steps
        data = self.data if active.is_all else self.data.take(active.models, self.source)
        if not active.is_all:
            self._under_way.close()
            self.validation: Evaluation | None = None
            del self.source, self.feed, self.steps  # which may take all the room that there is
        with self.backend.session():
            self.source, self.feed = data.feed(trainer, trainer.batch_size, explicit=self.order is not None)
        self._under_way.callback(self.feed.close)
        self.steps = Steps(trainer, self.source, data.targets, trainer.clock, trainer.numbers)
        self.source = self.feed.source = self.steps.source
        self.validation = None if self.checked is None else self._evaluation(*self.checked)

    def _train_fewer(self) -> None:
        """Train without the models that have stopped, if there is room for the others beside the whole stack."""
        self.active.bring_all()
        try:
            fewer = Active(self.trainer, np.flatnonzero(~self.skip))
        except OutOfMemory:
            return
        self.train_only(fewer)

    def _come_together(self) -> None:
        """Let the whole stack have all, and be what those see from now on who look at the run's models."""
        self.active.bring_all()
        self.active = Active(self.trainer)
        self._present[:] = [self.active]

    def _network(self) -> Callable[[], Network]:
        """Return what gives the network, with the weights that its models have at that moment."""
        net, present = self.net, self._present

        def network() -> Network:
            present[0].bring_weights()
            return net

        return network

    def _keeper(self) -> WeightCopy:
        """Return a place for a copy of the weights of the whole stack."""
        present = self._present
        return WeightCopy(self.net, lambda: present[0])

    def _check_validation(
        self, validation: tuple[Any, Any] | Folds | None, Y: Any, data: TrainingSet | PooledSet
    ) -> tuple[HostArray, Targets, Places | None] | None:
        """Return what is evaluated after each epoch: X, targets, and the rows of each model.

        Y, data   those that are trained on
        """
        if validation is None:
            return None
        if isinstance(validation, Folds):
            assert isinstance(data, TrainingSet)
            places = check_folds(validation, self.net.n_models, len(data.X), "validation")
            self.validation_X, self.validation_Y, self.validation_places = data.X, Y, places
            return data.X, data.targets, places
        if not (isinstance(validation, tuple | list) and len(validation) == 2):
            raise ConfigurationError("validation: expected a pair (X, Y), or gpumlp.Folds")
        net, backend = self.net, self.net.backend
        self.validation_X, self.validation_Y = validation
        with backend.session():
            X = check_inputs(bring(self.validation_X, "validation X", backend), net.architecture, "validation X")
            return X, net.check_targets(self.validation_Y, len(X), "validation Y"), None

    def _evaluation(self, X: HostArray, targets: Targets, places: Places | None) -> Evaluation:
        """Return what evaluates a data set; where that is the one that is trained on, its arrays are there already."""
        net, models = self.active.trainer.net, self.active.models
        targets = targets.take(models)
        with self.backend.session():
            if places is not None:
                X, targets, places = self.source.X, replace(targets, Y=self.source.Y), places.of(models)
            return Evaluation(self.backend, net.architecture, net.parameters, X, targets, places=places, runs=net.runs)

    def _tune(self, X: Any, Y: Any, sample_weight: Any, validation: tuple[Any, Any] | Folds | None) -> None:
        """Find the batch size, and the backend where that is free, and use both from now on."""
        from gpumlp.training.tuning import backends_for, tune  # which builds trainers itself

        before = None if self.saving is None else self.saving.choice()
        if before is not None:
            self.trainer.use(before, pinned=False)
            return
        arrays = (X, Y, sample_weight, *(validation if isinstance(validation, tuple | list) else ()))
        backends = backends_for(self.net, stays=any(is_on_device(x) for x in arrays))
        options = self.trainer.step_options | ({} if self.order is None else {"shuffle": False})
        choice = tune(self.net, X, Y, backends=backends, sample_weight=sample_weight, **options)
        self.trainer.use(choice, pinned=False)

    def run(self) -> History:
        """Go through the epochs; monitors are told of the end whatever happens."""
        info = RunInfo(
            self.net.n_models,
            self.net.model_ids,
            self.first,
            self.epochs,
            self.feed.n_rows,
            self.feed.n_steps,
            self.source.batch,
            f"{self.backend.name} on {self.backend.device}",
            self._keeper,
            self._network(),
            self.epoch - self.first,
        )
        end = self.first + self.epochs
        with ExitStack() as ends:  # every monitor that began is told of the end, also where another raises
            for monitor in self.monitors:
                ends.callback(monitor.training_ended)
                monitor.training_began(info)
            ends.callback(self._under_way.close)
            ends.callback(self._come_together)  # before the monitors, which may give weights back
            if self.saving is not None:
                self.saving.restore_monitors()
            while self.epoch < end and not self.skip.all():
                if not self.begun.steps and self.active.worth_rebuilding(self.skip):  # never within an epoch
                    self._train_fewer()
                self.mark("epoch", self._epoch)(self.epoch, self.first)
                self.epoch += 1
                if self.saving is not None:
                    self.saving.epoch_ended(last=self.epoch == end or bool(self.skip.all()))
        return self.history

    def _epoch(self, epoch: int, first: int) -> None:
        """Train for one epoch, numbered from 0, evaluate, report, and stop what is to be stopped."""
        self._begin_epoch(epoch, first)
        if not self.begun.steps:
            for monitor in self.monitors:
                monitor.epoch_began(epoch + 1)
        active = ~self.skip
        seconds = self._steps()
        self.steps.end_epoch(epoch + 1)
        self.active.bring_weights()
        means = read_tally(self.backend, self.steps.tally)
        values = {name: np.where(active, self.active.spread(value), np.nan) for name, value in means.items()}
        rate = self.trainer.hyper.values["eta"][0] * self.factors[-1]
        values["learning_rate"] = np.where(active, rate, np.nan)
        diverged = self._diverged(active, values["cost"])
        if self.validation is not None:
            for name, value in self.mark("evaluate", self.validation.run)().items():
                values[f"validation_{name}"] = np.where(active & ~diverged, self.active.spread(value), np.nan)
        report = EpochReport(
            epoch + 1,
            self.trainer.step_count,
            values,
            active,
            seconds,
            self.feed.n_rows / seconds,
            self._predictions,
        )
        self.history.append(report)
        for monitor in self.monitors:
            self._stop(monitor.epoch_ended(report), type(monitor).__name__)
        if self.trainer.schedules.look_at_results:
            self.trainer.hyper.scale_rate(self.trainer.schedules.after_epoch(report))
        self._stop_diverged(diverged, epoch + 1)

    def _begin_epoch(self, epoch: int, first: int) -> None:
        """Set the tables that hold for the whole epoch."""
        self.factors = self.trainer.schedules.factors(
            self.trainer.step_count - self.begun.steps, epoch, self.feed.n_steps, first + self.epochs
        )
        self.steps.begin_tally(self.begun.tally)
        if self.order is not None:
            self.backend.copy(self.backend.asarray(self.order[epoch - first][None]), self.source.rows)

    def _steps(self) -> float:
        """Perform the steps of an epoch and return how long they took, in seconds."""
        step = self.mark("step", self.steps.step)
        told = self.feed.watchers()
        told += [m.step_ended for m in self.monitors if type(m).step_ended is not Monitor.step_ended]
        if self.saving is not None:
            told.append(self.saving.step_ended)
        done, epochs = self.begun.steps, range(self.epoch, self.first + self.epochs)
        self.began, self.begun = perf_counter() - self.begun.seconds, BEGINNING
        for turn in self.feed.turns(epochs, done):
            with self.backend.session():
                self.active.begin_turn(turn.factors(self.factors))
                self.steps.begin_turn(done - turn.begin)
                while done < turn.end:
                    done += step(turn.end - done)
                    for tell in told:
                        tell(done)
        self.backend.synchronize()
        return perf_counter() - self.began

    def _diverged(self, active: Any, cost: Any) -> Any:
        """Return which models' cost or weights are not finite; keep the weights of the others."""
        finite = np.isfinite(cost) & self.backend.finite_models(self.net.parameters.theta)
        diverged = active & ~finite
        if (active & finite).any():
            self.last_finite.save(active & finite)
        if diverged.any():
            self.last_finite.restore(diverged)
        return diverged

    def _stop(self, wish: Stop | None, monitor: str) -> None:
        """Stop the models that a monitor wants stopped."""
        if wish is None:
            return
        if not isinstance(wish, Stop):
            raise ConfigurationError(f"{monitor}.epoch_ended returned {wish!r}; expected a gpumlp.Stop or None")
        models = np.ones(self.net.n_models, bool) if wish.models is None else np.asarray(wish.models, bool)
        expect(models, f"models of the Stop of {monitor}", (self.net.n_models,), "true for each model that is to stop")
        for m in np.flatnonzero(models & ~self.skip):
            self.history.stopped[self.net.model_ids[m]] = wish.reason
        self.skip |= models

    def _stop_diverged(self, diverged: Any, epoch: int) -> None:
        """Stop models that diverged, and raise if that is wanted or none remains."""
        if not diverged.any():
            return
        first_bad = self.active.spread(self.backend.to_host(self.steps.tally.values)[FIRST_BAD], missing=0)
        for m in np.flatnonzero(diverged):
            error = divergence(self.net.model_ids[m], epoch, int(first_bad[m]) or self.trainer.step_count)
            why = f"diverged in epoch {epoch}, step {error.step}"
            self.history.stopped[error.model] = self.trainer.diverged[error.model] = why
            self.trainer.divergences[int(m)] = error
        self.skip |= diverged
        self.trainer.has_diverged |= diverged
        if self.trainer.on_divergence == "raise" or self.skip.all():
            raise self.trainer.divergences[int(np.flatnonzero(diverged)[0])]

    def _predictions(self) -> tuple[Any, Any]:
        """Return targets and outputs of the validation set, on the host."""
        if self.validation is None:
            raise ConfigurationError("a metric of the validation set needs fit(..., validation=(X, Y))")
        if self.validation_places is not None:
            return self._predictions_of_each(self.validation_places)
        return self._on_host(self.validation_Y), self._on_host(self.net.predict(self.validation_X))

    def _predictions_of_each(self, places: Places) -> tuple[Any, Any]:
        """Return targets and outputs of the rows that each model is evaluated on."""
        Y, n_models = np.asarray(self._on_host(self.validation_Y)), self.net.n_models
        outputs = OfEachModel([None] * n_models)
        for fold in range(len(places.rows)):
            models = np.flatnonzero(places.fold == fold)
            X = self.validation_X[places.of_model(models[0])]
            found = self._on_host(self.net.take(models.tolist()).predict(X))
            for m, own in zip(models, found, strict=True):
                outputs[m] = own
        return OfEachModel(Y[places.of_model(m)] for m in range(n_models)), outputs

    def _on_host(self, x: Any) -> Any:
        return self.backend.to_host(self.backend.asarray(x)) if is_on_device(x) else x


def divergence(model: int, epoch: int, step: int) -> DivergenceError:
    """Build the error of a model whose cost or weights are no longer finite."""
    return DivergenceError(
        f"model {model} diverged in epoch {epoch}: its cost or weights are not finite from step {step} on; its "
        "weights are those of its last finite epoch. Lower learning_rate, set clip_norm, or scale the data",
        model,
        epoch,
        step,
    )
