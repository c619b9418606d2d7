"""Trainer: fits a network to data, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from gpumlp.backends.protocol import EPOCH, STEP, StepNumbers
from gpumlp.errors import ConfigurationError, DivergenceError, ShapeError
from gpumlp.formulas.normalisation import BATCH
from gpumlp.formulas.update_rules import RULES, UpdateRule, check_rule, finished_names
from gpumlp.network.kinds import bring_values
from gpumlp.network.network import Network
from gpumlp.network.parameters import Parameters
from gpumlp.shapes import expect, is_on_device
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.choice import Choice
from gpumlp.training.folds import Folds
from gpumlp.training.history import History
from gpumlp.training.hyper_table import HyperTable
from gpumlp.training.monitors import Monitor
from gpumlp.training.pools import Pool
from gpumlp.training.ranges import are_wanted
from gpumlp.training.run import TrainingRun
from gpumlp.training.schedules import ReduceOnPlateau, Schedule, Schedules

OneSchedule = str | Schedule | ReduceOnPlateau | None


class Trainer:
    """Trains a network; each `fit` goes on where the last one ended, until `reset`.

    net                  the Network, whose parameters are overwritten
    optimizer            name of an update rule, or a configured one: gpumlp.rules.adam(beta1=0.8)
    learning_rate        a number, or one for each model; l2, l1 and a rule's numbers likewise
    batch_size           rows of a batch, or "full"; a short last batch counts by its own size. "tune": the first `fit`
                         measures for about three seconds, as `gpumlp.tune` does, which size is fastest on its data, and
                         from then on, after `reset`, too, that is the batch size. A network whose backend was chosen
                         by "auto" moves to another one if that is faster there
    reduction            "mean" of the gradients of a batch, or their "sum"
    l2, l1               penalties (l2 / 2) |W|^2 and l1 |W| in the averaged cost, on weights only; under "sum" they are
                         multiplied by the batch's rows as the cost is
    penalty              "example": each example has the penalties, as said. "batch": a batch has them once, so that its
                         mean has them divided by the weight of its rows, as scikit-learn's alpha is
    clip_norm            largest norm of a model's gradient, before penalties
    schedule             name of a schedule, or a configured one: gpumlp.schedules.cosine(warmup=2); or a list of them,
                         one for each model
    shuffle              True: each model has an order of its own in each epoch; "shared": one order for all; False: as
                         the rows stand
    train_biases         whether biases, and gamma and beta of normalised layers, are updated at all
    momentum_on_biases   whether the rule's momentum acts on these, too
    state                initial state of the rule by name: (n_models, n_params), or a list of (like W, like b) by layer
                         and zeros for all else
    on_divergence        "raise" (default for one model) or "stop" (default for several): what happens when a model's
                         cost or weights are no longer finite; its weights return to its last finite epoch
    steps_per_launch     how many steps a device is given at once; monitors are told of the last of them. More spare the
                         host time, which matters where a step takes the device some microseconds
    nvtx                 whether epochs, steps and evaluations are ranges in the timeline of NVIDIA's profilers, which
                         cuda alone does; None: as GPUMLP_NVTX=1 says
    micro_batch          rows that are on their way through the network at a time, where those of a batch do not fit
                         into memory: the gradients are added up, so that a batch is still one update, the same but for
                         rounding. "auto": all of them, halved until they fit; None: all. Not with layers that are
                         normalised over a batch, which need it as a whole

    state                afterwards, by name, what the rule keeps: (n_models, n_params) each, CuPy arrays on cuda
    choice               the Choice in use, with all that was measured; None where nothing was tuned
    history              the History of the last `fit`, also of one that an error or Ctrl-C ended
    diverged             model id -> when; has_diverged (n_models,): these models stay as they are until `reset`
    divergences          place in the stack -> the error of a model that has diverged

    Raises               ConfigurationError, UnknownName, ShapeError
    """

    def __init__(
        self,
        net: Network,
        optimizer: str | UpdateRule = "adam",
        learning_rate: Any = 1e-3,
        batch_size: int | str = 64,
        reduction: str = "mean",
        l2: Any = 0.0,
        l1: Any = 0.0,
        clip_norm: Any = None,
        schedule: OneSchedule | Sequence[OneSchedule] = None,
        shuffle: bool | str = True,
        train_biases: bool = True,
        momentum_on_biases: bool = True,
        state: Mapping[str, Any] | None = None,
        on_divergence: str | None = None,
        steps_per_launch: int = 1,
        penalty: str = "example",
        nvtx: bool | None = None,
        micro_batch: int | str | None = "auto",
    ) -> None:
        self.net = net
        self.rule = RULES.get(optimizer)
        check_rule(self.rule)
        self.batch_size = batch_size
        self.choice: Choice | None = None
        if batch_size not in ("full", "tune") and not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ConfigurationError(
                f'batch_size={batch_size!r}: expected a number of rows of at least 1, "full" or "tune"'
            )
        if not (isinstance(steps_per_launch, int | np.integer) and steps_per_launch >= 1):
            raise ConfigurationError(f"steps_per_launch={steps_per_launch!r}: expected a whole number of at least 1")
        self.steps_per_launch = int(steps_per_launch)
        self.nvtx = are_wanted(nvtx)
        self.micro_batch = _check_micro_batch(micro_batch, net)
        _one_of("reduction", reduction, ("mean", "sum"))
        _one_of("penalty", penalty, ("example", "batch"))
        _one_of("shuffle", shuffle, (True, False, "shared"))
        on_divergence = on_divergence or ("raise" if net.n_models == 1 else "stop")
        _one_of("on_divergence", on_divergence, ("raise", "stop"))
        if shuffle == "shared" and len(set(net.seeds)) > 1:
            raise ConfigurationError('shuffle="shared" needs one seed for all models; give one, or use shuffle=True')
        self.reduction, self.penalty = reduction, penalty
        self.shuffle, self.on_divergence = shuffle, on_divergence
        self.schedules = Schedules(schedule, net.n_models)
        self.hyper = HyperTable(
            self.rule,
            net.parameters.layout,
            net.n_models,
            learning_rate,
            l2,
            l1,
            clip_norm,
            train_biases,
            momentum_on_biases,
        )
        self.step_options = {  # what a step's time may depend on
            "optimizer": self.rule,
            "reduction": reduction,
            "l2": l2,
            "l1": l1,
            "clip_norm": clip_norm,
            "shuffle": shuffle,
            "train_biases": train_biases,
            "momentum_on_biases": momentum_on_biases,
            "steps_per_launch": self.steps_per_launch,
            "penalty": penalty,
        }
        self._initial_state = deepcopy(dict(state or {}))  # `reset` comes back to it, whatever becomes of the arrays
        unknown = set(self._initial_state) - set(self.rule.state)
        if unknown:
            raise ConfigurationError(
                f"state holds {sorted(unknown)}, update rule {self.rule.name} keeps {list(self.rule.state)}"
            )
        self.numbers = self.build_numbers()
        self._backend, layout = net.backend, net.parameters.layout
        self.clock = net.backend.empty((3,), np.int64)
        self.states = net.backend.empty(
            (len(self.rule.state), net.n_models, layout.n_params), what=f"the state of {self.rule.name}"
        )
        self._set_state()

    # ---------------------------------------------------------------- where it computes

    def follow(self) -> None:
        """Bring what the trainer keeps to where the network computes now; every method does so by itself."""
        before, there = self._backend, self.net.backend
        if before is there:
            return
        clock = there.asarray(before.to_host(self.clock))
        kept = np.array(before.to_host(self.states))
        for state in kept:
            state[...] = self.net.relaid(state, before.pads_models, there.pads_models)
        states = there.asarray(kept, what=f"the state of {self.rule.name}")
        numbers = self.build_numbers()
        self.clock, self.states, self.numbers, self._backend = clock, states, numbers, there

    def use(self, choice: Choice, pinned: bool = True) -> None:
        """Train with this batch size on this backend from now on.

        pinned   as of Network.move_to
        """
        if choice.backend != self.net.backend.name:
            self.net.move_to(choice.backend, pinned=pinned)
            self.follow()
        self.choice, self.batch_size = choice, choice.batch_size

    @property
    def schedule(self) -> Schedule | ReduceOnPlateau | tuple[Schedule | ReduceOnPlateau, ...]:
        """What the learning rate follows; where each model has a schedule of its own, all of them."""
        return self.schedules.of_models[0] if self.schedules.is_one else self.schedules.of_models

    def build_numbers(self) -> StepNumbers:
        """Return the table of a step's numbers."""
        names, net = finished_names(self.rule), self.net
        shape = (len(names), *self.hyper.values["eta"].shape)
        skip, table = np.zeros(net.n_models, np.bool_), net.backend.empty(shape)
        hyper, by_batch = self.hyper, self.penalty == "batch"
        return StepNumbers(self.rule, hyper.extras, hyper.values, names, table, np.ones((1, 1)), skip, by_batch)

    # ---------------------------------------------------------------- state

    def reset(self) -> None:
        """Start anew: initial weights, state of the rule, step and epoch counters; stopped models run again."""
        self.follow()
        self.net.reset()
        self._set_state()

    @property
    def state(self) -> dict[str, Any]:
        """What the rule keeps, by name: (n_models, n_params) each."""
        self.follow()
        return {name: self.states[i] for i, name in enumerate(self.rule.state)}

    def _set_state(self) -> None:
        backend = self.net.backend
        self.diverged: dict[int, str] = {}
        self.divergences: dict[int, DivergenceError] = {}
        self.has_diverged = np.zeros(self.net.n_models, np.bool_)
        self.history: History | None = None  # of the last `fit`, also of one that ended in an error
        backend.fill(self.clock, 0)
        self.numbers.skip[:] = False
        self.hyper.scale_rate(1.0)
        self.schedules.reset()
        for name, buffer in self.state.items():
            backend.fill(buffer, 0)
            if name in self._initial_state:
                self._put_state(name, self._initial_state[name], buffer)

    def _put_state(self, name: str, given: Any, buffer: Any) -> None:
        """Overwrite a state buffer with a flat array, or with pairs (like W, like b) by layer."""
        backend, p = self.net.backend, self.net.parameters
        if isinstance(given, np.ndarray) or is_on_device(given):
            array = bring_values(given, f"state[{name!r}]", backend)
            expect(array, f"state[{name!r}]", tuple(buffer.shape))
            backend.copy(backend.asarray(array), buffer)
            return
        of = Parameters(backend, p.layout, self.net.n_models, theta=buffer)
        if not isinstance(given, Sequence) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in given):
            raise ConfigurationError(
                f"state[{name!r}] is {given!r}, expected an array of shape {tuple(buffer.shape)}, or a pair "
                "(like W, like b) for each layer"
            )
        if len(given) != len(of.W):
            raise ShapeError(f"state[{name!r}] has {len(given)} layers, {self.net.architecture} has {len(of.W)}")
        for l, (pair, *outs) in enumerate(zip(given, of.W, of.b, strict=True)):
            for value, out in zip(pair, outs, strict=True):
                array = bring_values(value, f"state[{name!r}][{l}]", backend)
                if array.shape != tuple(out.shape):
                    expect(array, f"state[{name!r}][{l}]", tuple(out.shape[1:]))
                backend.copy(backend.asarray(array), out)

    @property
    def step_count(self) -> int:
        """Steps done since the last reset."""
        self.follow()
        return int(self.net.backend.to_host(self.clock)[STEP])

    @property
    def epoch_count(self) -> int:
        """Epochs done since the last reset."""
        self.follow()
        return int(self.net.backend.to_host(self.clock)[EPOCH])

    def go_on_from(self, steps: int, epochs: int) -> None:
        """Count as if `steps` steps in `epochs` epochs had been done since the last reset.

        With the `state` and the weights of that moment, training goes on as it would have without the break.
        """
        self.follow()
        for place, done in ((STEP, steps), (EPOCH, epochs)):
            self.net.backend.fill(self.clock[place : place + 1], done)

    # ---------------------------------------------------------------- fit

    def fit(
        self,
        X: Any,
        Y: Any,
        epochs: int,
        validation: tuple[Any, Any] | Folds | None = None,
        sample_weight: Any = None,
        order: Any = None,
        monitors: Sequence[Monitor] = (),
        folds: Folds | None = None,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
        pool: Pool | int | str | None = None,
    ) -> History:
        """Train for `epochs` more epochs and return what happened in them.

        X              (n_samples, in_features); kept in its own dtype and cast batch by batch. X, Y and sample_weight
                       may lie on the network's device, and stay there
        Y              (n_samples, out) targets, or (n_samples,) labels; numbers of one output
        validation     (X, Y) to evaluate after each epoch; or Folds: each model on rows of its own of the X and Y above
        sample_weight  (n_samples,), or (n_models, n_samples)
        order          (epochs, n_samples) row numbers, followed row for row instead of any shuffling; not with folds
        monitors       what watches, in this order
        folds          each model is trained on rows of its own, as a `fit` on X[rows], Y[rows] and sample_weight[rows]
                       would train it alone; all have batches of the same size, and equally many in an epoch
        checkpoints    where to keep what is needed to go on
        resume         whether to go on from the newest of the checkpoints, with all else given as it was, instead of
                       from the trainer's own state; where there is none yet, this is a beginning. `epochs` are all,
                       and the history is that of all, with those that were done before
        pool           for data larger than memory, such as mapped files or, with Y None, an iterable X of blocks (X, Y)
                       that begins anew each time: how many rows are in memory at a time, or how many bytes, such as
                       "256MB", the default for blocks. Blocks come in random order, each fills a part of a pool, and
                       rows are shuffled within a pool; a pool with room for all changes nothing. Not with order, folds
                       or batch_size="tune"
        Raises         ShapeError, DataError, ConfigurationError; DivergenceError as `on_divergence` says, and when no
                       model remains; CheckpointError for checkpoints of another training
        """
        given = (X, Y, epochs, validation, sample_weight, order, monitors, folds, checkpoints, resume, pool)
        return TrainingRun(self, *given).run()


def _check_micro_batch(given: int | str | None, net: Network) -> int | str | None:
    if given in ("auto", None):
        return given
    if not isinstance(given, int | np.integer) or given < 1:
        raise ConfigurationError(f'micro_batch={given!r}: expected a number of rows of at least 1, "auto" or None')
    over_batch = [l for l, kind in enumerate(net.architecture.normalisation) if kind == BATCH]
    if over_batch:
        raise ConfigurationError(
            f'micro_batch={given} with normalisation="batch" in layer {", ".join(map(str, over_batch))}: its '
            'statistics are those of a whole batch; leave micro_batch away, or normalise by "layer"'
        )
    return int(given)


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{name}={value!r}: expected one of {', '.join(repr(k) for k in known)}")
