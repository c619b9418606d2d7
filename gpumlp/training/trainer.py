"""Trainer: fits a network to data, epoch by epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends.protocol import EPOCH, FIRST_BAD, POSITION, STEP, BatchSource, StepNumbers, Tally
from gpumlp.errors import ConfigurationError, DataError, DivergenceError, OutOfMemory, ShapeError
from gpumlp.formulas.normalisation import BATCH
from gpumlp.formulas.update_rules import RULES, UpdateRule, check_rule, finished_names
from gpumlp.network.evaluation import Evaluation, build_source, read_tally
from gpumlp.network.kinds import bring
from gpumlp.network.network import Network, check_sample_weight
from gpumlp.network.places import Places
from gpumlp.network.targets import Targets, check_inputs
from gpumlp.randomness.seeds import model_keys, shared_key
from gpumlp.shapes import HostArray, expect, is_on_device
from gpumlp.training.active import Active, neighbours
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.choice import Choice
from gpumlp.training.folds import Folds, check_folds, check_weights, common_batch
from gpumlp.training.history import History
from gpumlp.training.hyper_table import HyperTable
from gpumlp.training.monitors import EpochReport, Monitor, OfEachModel, RunInfo, Stop, WeightKeeper
from gpumlp.training.pools import Feed, Pool, PooledSet, Whole, open_pools
from gpumlp.training.ranges import are_wanted, marker
from gpumlp.training.saving import BEGINNING, Saving
from gpumlp.training.schedules import ReduceOnPlateau, Schedule, Schedules
from gpumlp.training.step import TrainingStep

log = logging.getLogger("gpumlp")

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
        self._initial_state = dict(state or {})
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
        states = there.asarray(before.to_host(self.states), what=f"the state of {self.rule.name}")
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
        if isinstance(given, np.ndarray):
            expect(given, f"state[{name!r}]", tuple(buffer.shape))
            backend.copy(backend.asarray(given, backend.dtype), buffer)
            return
        views, n_layers = p.views(buffer), self.net.architecture.n_layers
        if len(given) != n_layers:
            raise ShapeError(f"state[{name!r}] has {len(given)} layers, {self.net.architecture} has {n_layers}")
        for l, pair in enumerate(given):
            for value, out in zip(pair, (views[l], views[n_layers + l]), strict=True):
                array = np.asarray(value, backend.dtype)
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
        run = _Run(self, X, Y, epochs, validation, sample_weight, order, monitors, folds, checkpoints, resume, pool)
        return run.run()


class TrainingSet(NamedTuple):
    """A user's arrays, checked; on the host, or on the device where the user has them."""

    X: HostArray
    targets: Targets
    weights: HostArray | None
    places: Places | None = None

    def take(self, models: HostArray, source: BatchSource) -> TrainingSet:
        """Return what some models are trained on, by their places; `source` has brought the arrays of all."""
        weights = self.weights if self.weights is None or len(self.weights) == 1 else self.weights[models]
        targets = replace(self.targets.take(models), Y=source.Y)
        return TrainingSet(source.X, targets, weights, None if self.places is None else self.places.of(models))

    def arrays(self) -> dict[str, Any]:
        """Return by name all that is trained on."""
        found = {"X": self.X, **self.targets.arrays("Y"), "sample_weight": self.weights}
        return found | ({} if self.places is None else self.places.arrays("folds"))

    def feed(self, trainer: Trainer, batch: int | str, explicit: bool = False) -> tuple[BatchSource, Feed]:
        """Return the set as a source, and what makes that ready for each epoch."""
        source = self.source(trainer, batch, explicit)
        return source, Whole(source)

    def source(self, trainer: Trainer, batch: int | str, explicit: bool = False) -> BatchSource:
        """Return the set on the trainer's backend, in batches, with the order in which its rows come.

        explicit   whether that is written into `rows` epoch by epoch
        """
        net, backend, n_rows = trainer.net, trainer.net.backend, len(self.X)
        counts = [n_rows] if self.places is None else self.places.counts
        keys = rows = None
        if explicit:
            rows = backend.empty((1, n_rows), np.int64)
        elif trainer.shuffle == "shared":
            n_orders = net.n_models if self.places is not None and self.places.are_own else 1
            keys = np.repeat(shared_key(net.seeds[0])[None], n_orders, axis=0)
        elif trainer.shuffle:
            keys = model_keys(net.seeds, net.model_ids)
        return build_source(
            backend,
            self.X,
            self.targets,
            common_batch(batch, counts),
            sample_weight=self.weights,
            mean=trainer.reduction == "mean",
            keys=keys,
            rows=rows,
            places=self.places,
        )


def check_training_set(
    net: Network, X: Any, Y: Any, sample_weight: Any = None, folds: Folds | None = None
) -> TrainingSet:
    """Return the arrays as this network is trained on them; raise ShapeError, DataError or ConfigurationError."""
    backend = net.backend
    with backend.session():
        X = check_inputs(bring(X, "X", backend), net.architecture)
        targets = net.check_targets(Y, len(X))
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(bring(sample_weight, "sample_weight", backend), len(X), net.n_models)
        places = None if folds is None else check_folds(folds, net.n_models, len(X))
        if weights is not None and places is not None:
            check_weights(weights, places)
    return TrainingSet(X, targets, weights, places)


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


class _Run:
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
        self.epochs, self.monitors = int(epochs), list(monitors)
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
        if resume and checkpoints is None:
            raise ConfigurationError("resume=True needs checkpoints=gpumlp.Checkpoints(folder)")
        self.saving = None if checkpoints is None else Saving(self, checkpoints, resume)
        if trainer.batch_size == "tune":
            self._tune(X, Y, sample_weight, validation)
        self.backend, self.skip = self.net.backend, trainer.numbers.skip
        self.skip[:] = trainer.has_diverged  # a monitor stops one fit only
        self.data, self.checked = data, checked
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
        self.source: BatchSource
        self.feed: Feed
        self.steps: Steps
        data = self.data if active.is_all else self.data.take(active.models, self.source)
        if not active.is_all:
            self.feed.close()
            del self.source, self.feed, self.steps  # which may take all the room that there is
        with self.backend.session():
            self.source, self.feed = data.feed(trainer, trainer.batch_size, explicit=self.order is not None)
        self.steps = Steps(trainer, self.source, data.targets, trainer.clock, trainer.numbers)
        self.source = self.feed.source = self.steps.source
        self.validation = None if self.checked is None else self._evaluation(*self.checked)

    def _keeper(self) -> WeightCopy:
        """Return a place for a copy of the weights of the whole stack."""
        return WeightCopy(self.net, lambda: self.active)

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
            lambda: self.net,
            self.epoch - self.first,
        )
        end = self.first + self.epochs
        with ExitStack() as ends:  # every monitor that began is told of the end, also where another raises
            for monitor in self.monitors:
                ends.callback(monitor.training_ended)
                monitor.training_began(info)
            ends.callback(lambda: self.feed.close())
            ends.callback(lambda: self.active.bring_all())  # before the monitors, which may give weights back
            if self.saving is not None:
                self.saving.restore_monitors()
            while self.epoch < end and not self.skip.all():
                if self.active.worth_rebuilding(self.skip):
                    self.active.bring_all()
                    self.train_only(Active(self.trainer, np.flatnonzero(~self.skip)))
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
            self._stop(monitor.epoch_ended(report))
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
        told = [*self.feed.watchers]
        told += [m.step_ended for m in self.monitors if type(m).step_ended is not Monitor.step_ended]
        if self.saving is not None:
            told.append(self.saving.step_ended)
        done, epochs = self.begun.steps, range(self.epoch, self.first + self.epochs)
        self.began, self.begun = perf_counter() - self.begun.seconds, BEGINNING
        with self.backend.session():
            for turn in self.feed.turns(epochs, done):
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

    def _stop(self, wish: Stop | None) -> None:
        """Stop the models that a monitor wants stopped."""
        if wish is None:
            return
        models = np.ones(self.net.n_models, bool) if wish.models is None else np.asarray(wish.models, bool)
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


class WeightCopy(WeightKeeper):
    """Keeps a copy of theta on the backend."""

    def __init__(self, net: Network, active: Callable[[], Active]) -> None:
        self._backend, self._theta, self._active = net.backend, net.parameters.theta, active
        self._kept = net.backend.empty(tuple(self._theta.shape), what="a copy of the parameters")

    def save(self, models: Any) -> None:
        self._active().bring_weights()
        self._move(models, self._theta, self._kept)

    def restore(self, models: Any) -> None:
        self._move(models, self._kept, self._theta)
        self._active().send_weights()

    def kept(self) -> Any:
        return self._backend.to_host(self._kept)

    def keep(self, weights: Any) -> None:
        self._backend.copy(self._backend.asarray(weights), self._kept)

    def _move(self, models: Any, src: Any, out: Any) -> None:
        with self._backend.session():
            for _, places in neighbours(np.flatnonzero(models)):
                self._backend.copy(src[places], out[places])


def divergence(model: int, epoch: int, step: int) -> DivergenceError:
    """Build the error of a model whose cost or weights are no longer finite."""
    return DivergenceError(
        f"model {model} diverged in epoch {epoch}: its cost or weights are not finite from step {step} on; its "
        "weights are those of its last finite epoch. Lower learning_rate, set clip_norm, or scale the data",
        model,
        epoch,
        step,
    )


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


def check_order(order: Any, epochs: int, n_rows: int) -> HostArray:
    """Return an explicit order as (epochs, n_rows) int64; raise ShapeError or DataError."""
    if is_on_device(order):
        raise DataError("order lies on a CUDA device, but is read on the host; pass order.get()")
    array = np.asarray(order)
    expect(array, "order", (epochs, n_rows), "one line of row numbers for each epoch")
    if array.dtype.kind not in "iu":
        raise DataError(f"order has dtype {array.dtype}, expected whole row numbers")
    if array.size and not (array.min() >= 0 and array.max() < n_rows):
        raise DataError(f"order names rows {array.min()} to {array.max()}, the data have rows 0 to {n_rows - 1}")
    return array.astype(np.int64)


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{name}={value!r}: expected one of {', '.join(repr(k) for k in known)}")
