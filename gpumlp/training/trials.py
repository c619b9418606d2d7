"""Measuring candidates beside each other: a first look at each, then rounds in which the fast ones take turns.

The machine may be busy at one moment and idle at the next, so what is compared is measured in the same rounds, and
medians decide. What is clearly slower is not measured any further, which leaves more rounds to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

import numpy as np

from gpumlp.errors import OutOfMemory
from gpumlp.training.choice import Measurement

WARM_UP = 3  # launches before anything counts: the first compiles, the second records a graph, the third replays it
LOOKS = 3  # samples of a first look
SAMPLES = 12  # of each candidate, which the time is meant to suffice for
FOR_LOOKS = 0.6  # share of the time after which no further candidate is looked at
FOR_ONE = 0.15  # share of the time that one look may take, so that a large batch does not use up that of others
LONG = 0.02  # share of the time from which a launch is so long that one sample is a look
HOPELESS = 0.5  # share of the highest throughput below which a first look suffices
SLOWER = 0.75  # share of the highest median below which a candidate is dropped after some rounds
ROUNDS = 3  # rounds before one is dropped, and before the samples of the first look no longer count
MOST_ROUNDS = 30
LONGEST = 0.02  # seconds of a sample that is more than one launch
SHORTEST = 1e-9  # seconds; what a clock may not resolve

Value = Callable[[Sequence[float]], float]  # what is compared: a number made of a candidate's samples


class Trial(Protocol):
    """One candidate: training steps that can be repeated.

    examples_per_step   rows of a step on the average over an epoch, whose last batch may be short
    launch              steps that are launched at once
    """

    backend: str
    batch_size: int
    examples_per_step: float
    launch: int

    def open(self) -> None:
        """Make ready to run; raise OutOfMemory if there is no room."""
        ...

    def run(self, n_steps: int) -> None:
        """Perform so many steps, and return when they are done."""
        ...

    def close(self) -> None:
        """Give back the memory."""
        ...


def measure(trials: Sequence[Trial], seconds: float, clock: Callable[[], float] = perf_counter) -> list[Measurement]:
    """Return what each trial's throughput is, in the order given, measured in about `seconds`.

    What a first launch takes longer than a later one, for compiling, is not counted as time.
    """
    search = _Search(trials, seconds, clock)
    try:
        search.look()
        search.rounds()
    finally:
        for entry in search.entries:
            entry.close()
    return [entry.measurement() for entry in search.entries]


class _Entry:
    """A trial with its samples.

    launch_seconds   the shortest launch of the warm-up; then the mean of the last sample, in which epochs begin, too
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.looks: list[float] = []  # examples per second of each sample before the rounds
        self.turns: list[float] = []  # and of those in the rounds
        self.steps = 0
        self.launch_seconds: float | None = None
        self.alive, self.dropped, self.note = False, False, ""

    @property
    def rates(self) -> list[float]:
        """The samples that count: those of the rounds, once there are some, as they were taken beside the others'."""
        return self.turns if len(self.turns) >= ROUNDS else self.looks + self.turns

    def close(self) -> None:
        if self.alive:
            self.trial.close()
        self.alive = False

    def measurement(self) -> Measurement:
        rates, trial = self.rates or [np.nan], self.trial
        low, middle, high = (float(q) for q in np.quantile(rates, (0.25, 0.5, 0.75)))
        return Measurement(trial.backend, trial.batch_size, middle, low, high, self.steps, self.note, self.dropped)


class _Search:
    def __init__(self, trials: Sequence[Trial], seconds: float, clock: Callable[[], float]) -> None:
        self.entries = [_Entry(trial) for trial in trials]
        self.seconds = self.left = seconds
        self.portion = min(LONGEST, seconds / (SAMPLES * len(trials)))  # seconds of a sample
        self.clock = clock
        self.no_room: dict[str, int] = {}  # backend -> the smallest batch size that had no room

    # ---------------------------------------------------------------- first look

    def look(self) -> None:
        """Look at every candidate for which there is time and room, those in the middle of the sizes first."""
        doubtful: list[_Entry] = []
        for entry in self._by_size():
            entry.note = self._why_not(entry.trial)
            if not entry.note:
                self._look_at(entry)
                doubtful = self._look_again(doubtful)

    def _by_size(self) -> list[_Entry]:
        sizes = middle_first(sorted({entry.trial.batch_size for entry in self.entries}))
        return [entry for size in sizes for entry in self.entries if entry.trial.batch_size == size]

    def _look_again(self, doubtful: list[_Entry]) -> list[_Entry]:
        """Drop what is hopeless still, a moment after its first look, and return what has begun to look so.

        A busy moment may have been as long as the first look.
        """
        for entry in doubtful:
            self._sample(entry, entry.looks)
        self._drop(HOPELESS, max, among=doubtful)
        return self._below(HOPELESS, max, self.entries)

    def _why_not(self, trial: Trial) -> str:
        """Return why a candidate is left out without a look; "" if it is not."""
        least = self.no_room.get(trial.backend)
        if least is not None and trial.batch_size >= least:
            return f"left out: no room for {least} already"
        expected = self._expected(trial)
        time = min(FOR_ONE * self.seconds, self.left - (1 - FOR_LOOKS) * self.seconds)
        if expected is not None and 3 * expected > time:
            step = f"{expected / trial.launch:.2g} s"
            return f"left out: a step may take {step}, too long to be measured, too, within {self.seconds:g} s"
        return ""

    def _expected(self, trial: Trial) -> float | None:
        """Return how long a launch may take, by others of its backend; None before the first of them."""
        known = [
            entry.launch_seconds * max(1.0, trial.batch_size / entry.trial.batch_size)
            for entry in self.entries
            if entry.trial.backend == trial.backend and entry.launch_seconds is not None
        ]
        return min(known) if known else None

    def _look_at(self, entry: _Entry) -> None:
        entry.alive = True
        try:
            entry.trial.open()
            self._warm_up(entry)
            self._sample(entry, entry.looks)
            for _ in range(LOOKS - 1):
                if not self._is_long(entry):
                    self._sample(entry, entry.looks)
        except OutOfMemory as error:
            entry.close()
            entry.looks, entry.steps, entry.launch_seconds = [], 0, None
            entry.note = f"left out: {error}"
            self.no_room[entry.trial.backend] = entry.trial.batch_size

    def _warm_up(self, entry: _Entry) -> None:
        """Run until a launch takes what all later ones take; each is counted as if it had taken no longer."""
        launches = 0
        while launches < WARM_UP - 1 or (launches < WARM_UP and not self._is_long(entry)):
            seconds = self._time(entry, entry.trial.launch)
            entry.launch_seconds = seconds if entry.launch_seconds is None else min(seconds, entry.launch_seconds)
            launches += 1
        self.left -= launches * (entry.launch_seconds or 0.0)

    def _is_long(self, entry: _Entry) -> bool:
        return entry.launch_seconds is not None and entry.launch_seconds > LONG * self.seconds

    # ---------------------------------------------------------------- rounds

    def rounds(self) -> None:
        """Let the candidates that are left take turns, until the time is over or enough is known."""
        for done in range(MOST_ROUNDS):
            alive = [entry for entry in self.entries if entry.alive]
            if sum(self._launches(entry) * (entry.launch_seconds or 0.0) for entry in alive) > self.left:
                return
            if len(alive) == 1 and len(alive[0].rates) >= SAMPLES:
                return
            for entry in alive if done % 2 == 0 else reversed(alive):
                self._sample(entry, entry.turns)
            self._drop(HOPELESS, max, among=alive)
            if done + 1 >= ROUNDS:
                self._drop(SLOWER, median, among=alive)

    # ---------------------------------------------------------------- samples

    def _sample(self, entry: _Entry, rates: list[float]) -> None:
        launches = self._launches(entry)
        n_steps = launches * entry.trial.launch
        seconds = self._time(entry, n_steps)
        self.left -= seconds
        entry.launch_seconds = seconds / launches
        rates.append(n_steps * entry.trial.examples_per_step / seconds)
        entry.steps += n_steps

    def _launches(self, entry: _Entry) -> int:
        """Return how many launches are a sample."""
        return max(1, round(self.portion / (entry.launch_seconds or SHORTEST)))

    def _time(self, entry: _Entry, n_steps: int) -> float:
        """Run so many steps and return how long that took."""
        began = self.clock()
        entry.trial.run(n_steps)
        return max(self.clock() - began, SHORTEST)

    def _below(self, share: float, value: Value, among: Sequence[_Entry]) -> list[_Entry]:
        """Return which candidates that are still measured are below a share of the highest of these.

        What is dropped was measured at another moment, when the machine may have been less busy.
        """
        best = max((value(entry.rates) for entry in self.entries if entry.alive and entry.rates), default=0.0)
        return [entry for entry in among if entry.alive and value(entry.rates) < share * best]

    def _drop(self, share: float, value: Value, among: Sequence[_Entry]) -> None:
        """Measure no further what is below a share of the highest."""
        for entry in self._below(share, value, among):
            entry.close()
            entry.dropped = True
            entry.note = f"dropped after {len(entry.looks + entry.turns)} samples: clearly slower"


def median(rates: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(rates))


def middle_first(sizes: Sequence[int]) -> list[int]:
    """Return the same sizes so that the first ones stand far apart: the middle one, those of both halves, and so on."""
    found, parts = [], [list(sizes)]
    while parts:
        part = parts.pop(0)
        if part:
            middle = len(part) // 2
            found.append(part[middle])
            parts += [part[:middle], part[middle + 1 :]]
    return found
