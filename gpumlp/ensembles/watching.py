"""Watching: the monitors of each job, told of a run of one model while a whole stack is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from gpumlp.ensembles.job import Job
from gpumlp.errors import DivergenceError
from gpumlp.network.network import Network
from gpumlp.training.history import Epoch, History
from gpumlp.training.monitors import EpochReport, Monitor, OfEachModel, PerModel, RunInfo, Stop, WeightKeeper


class OwnEpochs(Sequence[Epoch]):
    """The first n epochs of one model of a stack, made of what is kept of the stack's when they are asked for.

    kept   of each epoch with values (n_models, 1)
    """

    def __init__(self, kept: Sequence[Epoch], place: int, n_rows: int) -> None:
        self._kept, self._place, self._n_rows = kept, place, n_rows
        self.n = 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: Any) -> Any:
        epoch = self._kept[range(self.n)[i]]
        values = {name: column[self._place] for name, column in epoch.values.items()}
        return Epoch(epoch.epoch, values, epoch.seconds, self._n_rows / epoch.seconds)


class JobWatch:
    """What one job's monitors see of a stack's run, and the history that a fit of this model alone would have.

    place     of the model in the stack
    n_rows    rows that it is trained on
    kept      what is kept of the stack's epochs, which this job's history reads where no monitor adds to it
    ended     whether it trains no more: after its own epochs, or when one of its monitors stopped it
    """

    def __init__(self, job: Job, place: int, n_rows: int, kept: Sequence[Epoch]) -> None:
        self.job, self.place, self.n_rows = job, place, n_rows
        self._epochs = OwnEpochs(kept, place, n_rows)
        self.history = History((job.member.model_id,), None if job.monitors else self._epochs)
        self.ended = False
        self._network: Network | None = None
        self.told = [m for m in job.monitors if type(m).step_ended is not Monitor.step_ended]

    def begin(self, run: RunInfo, keepers: SharedKeepers, ends: ExitStack) -> None:
        """Tell the monitors of the beginning; `ends` tells them of the end, the last one first."""
        own = replace(
            run,
            n_models=1,
            model_ids=self.history.model_ids,
            epochs=self.job.epochs,
            n_rows=self.n_rows,
            keeper=keepers.of_model(self.place),
            network=lambda: self._network_of(run.network(), keepers),
        )
        for monitor in self.job.monitors:
            ends.callback(monitor.training_ended)
            monitor.training_began(own)

    def _network_of(self, stack: Network, keepers: SharedKeepers) -> Network:
        """Return the job's model as it is now; it is one network that follows the stack when it is asked for."""
        keepers.give_back(self.place)
        if self._network is None:
            self._network = stack.alone(self.place)
        else:
            self._network.put(0, stack, self.place)
        return self._network

    def after_epoch(self, report: EpochReport, predictions: Callable[[], tuple[Any, Any]]) -> dict[str, PerModel]:
        """Tell the monitors of an epoch, heed what they wish, and return the values that they added to its report."""
        self._epochs.n += 1
        added: dict[str, PerModel] = {}
        if self.job.monitors:
            own = EpochReport(
                report.epoch,
                report.step,
                dict(self._epochs[-1].values),
                np.ones(1, bool),
                report.seconds,
                self.n_rows / report.seconds,
                lambda: self._own(*predictions()),
            )
            self.history.append(own)
            for monitor in self.job.monitors:
                self._heed(monitor.epoch_ended(own))
            added = {name: value for name, value in own.values.items() if name not in report.values}
        self.ended = self.ended or report.epoch >= self.job.epochs
        return added

    def finished(self, error: DivergenceError | None) -> History:
        """Return the history, in which stands why the model diverged if it did."""
        if error is not None:
            self.history.stopped[error.model] = f"diverged in epoch {error.epoch}, step {error.step}"
        return self.history

    def _own(self, Y: Any, outputs: Any) -> tuple[Any, Any]:
        if isinstance(outputs, OfEachModel):
            return Y[self.place], outputs[self.place][None]
        return Y, outputs[self.place : self.place + 1]

    def _heed(self, wish: Stop | None) -> None:
        if wish is None or not (wish.models is None or np.asarray(wish.models).all()) or self.ended:
            return
        self.ended = True
        self.history.stopped[self.history.model_ids[0]] = wish.reason


class StackWatch(Monitor):
    """The one monitor of a stack's run, which tells those of the jobs."""

    def __init__(self, watches: Sequence[JobWatch], kept: list[Epoch]) -> None:
        self.watches, self._kept = watches, kept
        self._ends = ExitStack()
        self._keepers: SharedKeepers | None = None

    @property
    def keepers(self) -> SharedKeepers:
        """The copies of weights that the jobs' monitors share."""
        assert self._keepers is not None
        return self._keepers

    def _active(self) -> list[JobWatch]:
        return [watch for watch in self.watches if not watch.ended]

    def training_began(self, run: RunInfo) -> None:
        self._keepers = SharedKeepers(run)
        for watch in self.watches:
            watch.begin(run, self.keepers, self._ends)
        self.keepers.settle()

    def epoch_began(self, epoch: int) -> None:
        for watch in self._active():
            for monitor in watch.job.monitors:
                monitor.epoch_began(epoch)
        self.keepers.settle()

    def epoch_ended(self, report: EpochReport) -> Stop | None:
        active, predictions = report.active, _once(report.predictions)
        columns = {name: value[:, None].copy() for name, value in report.values.items()}
        self._kept.append(Epoch(report.epoch, columns, report.seconds, report.samples_per_second))
        added: dict[str, PerModel] = {}
        for watch in self.watches:
            if not active[watch.place]:
                watch.ended = True  # it diverged in the epoch before
                continue
            for name, value in watch.after_epoch(report, predictions).items():  # a schedule may follow what is added
                added.setdefault(name, np.full(len(active), np.nan))[watch.place] = value[0]
        report.values.update(added)
        self.keepers.settle()
        ended = np.zeros(len(active), bool)
        ended[[watch.place for watch in self.watches if watch.ended]] = True
        return Stop("its job has ended", ended) if (ended & active).any() else None

    def training_ended(self) -> None:
        try:
            self._ends.close()
        finally:
            if self._keepers is not None:
                self._keepers.settle()


class StepWatch(StackWatch):
    """One that tells of steps, too: a call in each step that most stacks can spare."""

    def step_ended(self, step: int) -> None:
        for watch in self._active():
            for monitor in watch.told:
                monitor.step_ended(step)
        self.keepers.settle()


def watch_stack(jobs: Sequence[Job], n_rows: Sequence[int]) -> StackWatch:
    """Return what tells the jobs' monitors, of steps only where one listens to them; n_rows of each job."""
    kept: list[Epoch] = []
    watches = [JobWatch(job, place, n, kept) for place, (job, n) in enumerate(zip(jobs, n_rows, strict=True))]
    return (StepWatch if any(watch.told for watch in watches) else StackWatch)(watches, kept)


class SharedKeepers:
    """Keepers of a whole stack, of which each job's monitors use the rows of their own model.

    What they save and give back at one moment is copied at its end, all models at once; so there is a copy of the
    stack's weights for each keeper that one job asks for, not for each job.
    """

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        self._keepers: list[WeightKeeper] = []
        self._saves: list[PerModel] = []  # of each keeper, (n_models,): what is to be saved
        self._restores: list[PerModel] = []  # likewise, what is to be given back

    def of_model(self, place: int) -> Callable[[], WeightKeeper]:
        """Return the function that gives the monitors of a model a keeper each time they ask for one."""
        numbers = count()

        def keeper() -> WeightKeeper:
            number = next(numbers)
            if number == len(self._keepers):
                self._keepers.append(self._run.keeper())
                for wishes in (self._saves, self._restores):
                    wishes.append(np.zeros(self._run.n_models, bool))
            return _OneRow(self, number, place)

        return keeper

    def save(self, number: int, place: int) -> None:
        """Keep the present weights of a model at the end of this moment."""
        self.give_back(place)
        self._saves[number][place] = True

    def restore(self, number: int, place: int) -> None:
        """Give the kept weights back to a model at the end of this moment, in place of what another keeper would."""
        if self._saves[number][place]:
            self.settle()
        for restores in self._restores:
            restores[place] = False
        self._restores[number][place] = True

    def give_back(self, place: int) -> None:
        """Give a model back now what it is to be given back, since its weights are asked for."""
        if any(restores[place] for restores in self._restores):
            self.settle()

    def kept(self, number: int, place: int) -> PerModel:
        """Return what is kept of a model, (1, n) on the host."""
        self.settle()
        return self._keepers[number].kept()[place : place + 1]

    def keep(self, number: int, place: int, weights: PerModel) -> None:
        """Keep these weights (1, n) of a model."""
        self.settle()
        whole = np.array(self._keepers[number].kept())
        whole[place] = weights[0]
        self._keepers[number].keep(whole)

    def settle(self) -> None:
        """Copy what is to be copied; what is to be saved was so before anything was to be given back."""
        for keeper, models in zip(self._keepers, self._saves, strict=True):
            if models.any():
                keeper.save(models)
                models[:] = False
        for keeper, models in zip(self._keepers, self._restores, strict=True):
            if models.any():
                keeper.restore(models)
                models[:] = False


class _OneRow(WeightKeeper):
    """The keeper of one model."""

    def __init__(self, keepers: SharedKeepers, number: int, place: int) -> None:
        self._keepers, self._number, self._place = keepers, number, place

    def save(self, models: PerModel) -> None:
        if np.asarray(models).all():
            self._keepers.save(self._number, self._place)

    def restore(self, models: PerModel) -> None:
        if np.asarray(models).all():
            self._keepers.restore(self._number, self._place)

    def kept(self) -> PerModel:
        return self._keepers.kept(self._number, self._place)

    def keep(self, weights: PerModel) -> None:
        self._keepers.keep(self._number, self._place, weights)


def _once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that computes at its first call only."""
    found: list[Any] = []

    def once() -> Any:
        if not found:
            found.append(function())
        return found[0]

    return once
