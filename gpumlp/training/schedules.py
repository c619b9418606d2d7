"""Schedules: what the learning rate is multiplied with as training goes on.

A schedule is a function of time, computed for all steps of an epoch at once; ReduceOnPlateau alone looks at results.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpumlp.errors import ConfigurationError
from gpumlp.formulas.registry import Registry
from gpumlp.training.monitors import EpochReport, is_better, mode_of

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """A factor for the learning rate.

    factor   factor(step, epoch, epochs): step and epoch count from 0, epoch with a fraction, both (n_steps,); epochs is
             the length of the whole plan
    epochs   the length of the plan, None: to the end of the `fit` under way
    """

    name: str
    factor: Callable[[Times, Times, float], Any]
    epochs: int | None = None

    def factors(self, first_step: int, epoch: int, n_steps: int, last_epoch: int) -> Times:
        """Return the factor of each step of an epoch, (n_steps,)."""
        within = np.arange(n_steps, dtype=np.float64)
        plan = float(self.epochs or last_epoch)
        values = np.asarray(self.factor(first_step + within, epoch + within / n_steps, plan), np.float64)
        if values.shape not in ((), (1,), (n_steps,)):
            raise ConfigurationError(
                f"schedule {self.name} gives factors of shape {values.shape}; expected one for each of {n_steps} steps"
            )
        return np.ascontiguousarray(np.broadcast_to(values, (n_steps,)))


def _expect_at_least(low: float, **numbers: Any) -> None:
    for name, value in numbers.items():
        if not (isinstance(value, int | float | np.number) and value >= low):
            raise ConfigurationError(f"{name}={value!r}: expected a number of at least {low:g}")


def _expect_plan(epochs: Any) -> None:
    if epochs is not None:
        _expect_at_least(1, epochs=epochs)


def constant() -> Schedule:
    """Return the factor 1."""
    return Schedule("constant", lambda step, epoch, epochs: 1.0)


def step(every: int = 10, factor: float = 0.1) -> Schedule:
    """Return factor ** (epochs done // every)."""
    _expect_at_least(1, every=every)
    _expect_at_least(0, factor=factor)
    return Schedule("step", lambda t, epoch, epochs: factor ** np.floor(np.floor(epoch) / every))


def exponential(rate: float = 0.95) -> Schedule:
    """Return rate ** (epochs done)."""
    _expect_at_least(0, rate=rate)
    return Schedule("exponential", lambda t, epoch, epochs: rate ** np.floor(epoch))


def inverse_scaling(power: float = 0.5) -> Schedule:
    """Return 1 / (steps done + 1) ** power."""
    return Schedule("inverse_scaling", lambda t, epoch, epochs: (t + 1) ** -power)


def cosine(warmup: float = 0.0, floor: float = 0.0, epochs: int | None = None) -> Schedule:
    """Return a linear rise over `warmup` epochs, then half a cosine from 1 to `floor` (Loshchilov and Hutter 2017)."""
    _expect_at_least(0, warmup=warmup, floor=floor)
    _expect_plan(epochs)

    def factor(t: Times, epoch: Times, total: float) -> Times:
        share = np.clip((epoch - warmup) / max(total - warmup, 1e-12), 0, 1)
        falling = floor + (1 - floor) * 0.5 * (1 + np.cos(pi * share))
        # the first step of a warm-up already moves: (t + 1) / steps of the warm-up
        per_step = (epoch[-1] - epoch[0]) / (len(epoch) - 1) if len(epoch) > 1 else 1.0
        return np.where(epoch < warmup, np.minimum((epoch + per_step) / max(warmup, 1e-12), 1), falling)

    return Schedule("cosine", factor, epochs)


def one_cycle(peak_at: float = 0.3, start: float = 0.04, end: float = 1e-4, epochs: int | None = None) -> Schedule:
    """Return a rise from `start` to 1 over the share `peak_at` of the plan, a fall to `end` (Smith and Topin 2019)."""
    if not 0 < peak_at < 1:
        raise ConfigurationError(f"peak_at={peak_at}: expected a share of the plan between 0 and 1")
    _expect_at_least(0, start=start, end=end)
    _expect_plan(epochs)

    def factor(t: Times, epoch: Times, total: float) -> Times:
        share = np.clip(epoch / total, 0, 1)
        rising = start + (1 - start) * 0.5 * (1 - np.cos(pi * np.minimum(share / peak_at, 1)))
        falling = end + (1 - end) * 0.5 * (1 + np.cos(pi * np.maximum((share - peak_at) / (1 - peak_at), 0)))
        return np.where(share < peak_at, rising, falling)

    return Schedule("one_cycle", factor, epochs)


class ReduceOnPlateau:
    """Multiplies a model's learning rate by `factor` when a metric has not improved for more than `patience` epochs.

    metric      a name in the reports: "validation_cost", or "cost" where there is no validation set
    mode        "min" or "max"; None: by the metric's name
    threshold   by how much it must improve
    floor       the rate never falls below this share of its first value
    """

    name = "reduce_on_plateau"

    def __init__(
        self,
        metric: str = "cost",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        floor: float = 0.0,
        mode: str | None = None,
    ) -> None:
        if not 0 < factor < 1:
            raise ConfigurationError(f"factor={factor}: expected a number between 0 and 1")
        _expect_at_least(0, patience=patience, floor=floor)
        mode_of(metric, mode)  # raises before anything is trained
        self.metric, self.factor, self.patience = metric, factor, patience
        self.threshold, self.floor, self.mode = threshold, floor, mode
        self.reset()

    def options(self) -> dict[str, Any]:
        """Return what it was made with, by name."""
        names = ("metric", "factor", "patience", "threshold", "floor", "mode")
        return {name: getattr(self, name) for name in names}

    def reset(self) -> None:
        """Forget what was seen."""
        self._best: Any = None
        self._waited: Any = None
        self._scale: Any = None

    def state(self) -> dict[str, Any]:
        """Return what was seen, for a checkpoint: arrays, or None each."""
        return {"best": self._best, "waited": self._waited, "scale": self._scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._best, self._waited, self._scale = state["best"], state["waited"], state["scale"]

    def after_epoch(self, report: EpochReport) -> NDArray[np.float64]:
        """Return what each model's learning rate is multiplied with from now on, (n_models,)."""
        value = report.metric(self.metric)
        if self._best is None:
            self._best, self._waited = value.copy(), np.zeros(len(value), int)
            self._scale = np.ones(len(value))
            return self._scale  # type: ignore[no-any-return]
        better = is_better(value, self._best, self.metric, self.mode, self.threshold)
        self._best = np.where(better, value, self._best)
        self._waited = np.where(better, 0, self._waited + 1)
        due = self._waited > self.patience
        self._scale = np.where(due, np.maximum(self._scale * self.factor, self.floor), self._scale)
        self._waited[due] = 0
        return self._scale  # type: ignore[no-any-return]


SCHEDULES: Registry[Schedule | ReduceOnPlateau] = Registry("schedule", Schedule, ReduceOnPlateau)
for _maker in (constant, step, exponential, inverse_scaling, cosine, one_cycle, ReduceOnPlateau):
    SCHEDULES.register(_maker)


def get_schedule(given: str | Schedule | ReduceOnPlateau | None) -> Schedule | ReduceOnPlateau:
    """Return the schedule of a name such as "step" or "step(every=5)", or a schedule itself; None is constant."""
    return constant() if given is None else SCHEDULES.get(given)


class Schedules:
    """The schedules of a stack: one for all models, or one for each.

    given      as of Trainer
    of_models  one, or one for each model; look_at_results: whether one of them does
    Raises     ConfigurationError, UnknownName
    """

    def __init__(self, given: Any, n_models: int) -> None:
        self.is_one = not isinstance(given, list | tuple)
        several = [given] if self.is_one else given
        if len(several) not in (1, n_models):
            raise ConfigurationError(f"{len(several)} schedules for {n_models} models; give one, or one for each model")
        found = [get_schedule(each) for each in several]
        self.look_at_results = any(isinstance(schedule, ReduceOnPlateau) for schedule in found)
        # one that looks at results belongs to one trainer
        self.of_models = tuple(copy(s) if isinstance(s, ReduceOnPlateau) else s for s in found)

    def take(self, models: Any) -> Schedules:
        """Return the schedules of some models, by their places; what has been seen of results is shared."""
        part = copy(self)
        if len(self.of_models) > 1:
            part.of_models = tuple(self.of_models[m] for m in models)
        return part

    def reset(self) -> None:
        """Forget what was seen of results."""
        for schedule in self.of_models:
            if isinstance(schedule, ReduceOnPlateau):
                schedule.reset()

    def state(self) -> list[dict[str, Any]]:
        """Return what was seen of results, for a checkpoint."""
        return [schedule.state() for schedule in self.of_models if isinstance(schedule, ReduceOnPlateau)]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go on from what `state` returned."""
        looking = [schedule for schedule in self.of_models if isinstance(schedule, ReduceOnPlateau)]
        for schedule, seen in zip(looking, state, strict=True):
            schedule.restore(seen)

    def factors(self, first_step: int, epoch: int, n_steps: int, last_epoch: int) -> Times:
        """Return the factor of each step of an epoch, (n_steps, 1 or n_models); 1 where results alone matter."""
        plan = (first_step, epoch, n_steps, last_epoch)
        different = {id(s): s for s in self.of_models}  # many models may share one
        of = {key: s.factors(*plan) if isinstance(s, Schedule) else np.ones(n_steps) for key, s in different.items()}
        return np.stack([of[id(s)] for s in self.of_models], axis=1)

    def after_epoch(self, report: EpochReport) -> NDArray[np.float64]:
        """Return what each model's learning rate is multiplied with from now on, as far as results matter."""
        scale = np.ones(len(report.active))
        for m, schedule in enumerate(self.of_models):
            if isinstance(schedule, ReduceOnPlateau):
                models = slice(None) if len(self.of_models) == 1 else slice(m, m + 1)
                values = {schedule.metric: report.metric(schedule.metric)[models]}
                scale[models] = schedule.after_epoch(replace(report, values=values, active=report.active[models]))
        return scale
