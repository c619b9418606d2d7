"""Network: one multi-layer perceptron or a stack of them, with its parameters and the backend that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp.backends.protocol import Array, Backend, Tally
from gpumlp.backends.select import BACKENDS, asked_for, get_backend
from gpumlp.errors import ConfigurationError
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.costs import Cost
from gpumlp.formulas.normalisation import BATCH
from gpumlp.network.architecture import build_architecture
from gpumlp.network.backpropagation import backpropagation
from gpumlp.network.embedding import Embedding
from gpumlp.network.evaluation import ROWS_AT_A_TIME, Evaluation
from gpumlp.network.feedforward import feedforward, feedforward_to_output
from gpumlp.network.initialisers import Initialiser, draw_layer, get_initialiser
from gpumlp.network.kinds import bring, bring_values, in_kind_of
from gpumlp.network.members import Member, find_runs, stacked_architecture
from gpumlp.network.parameters import Parameters, layout_of
from gpumlp.network.targets import Targets, check_inputs, check_sample_weight, check_targets
from gpumlp.network.workspace import Workspace
from gpumlp.randomness.seeds import generator
from gpumlp.shapes import HostArray, expect, is_on_device


@dataclass(frozen=True)
class Forward:
    """What a pass forward gives, by layer.

    z   z[l]: (n_models, n_samples, sizes[l + 1]), before the activation, and before a normalisation
    a   a[0]: (1, n_samples, in_features), the inputs, or (n_models, n_samples, n_embedded), as the first layer reads
        them where columns are embedded; a[l + 1] = f(z[l]), or f of what z[l] is normalised to
    """

    z: list[HostArray]
    a: list[HostArray]


@dataclass(frozen=True)
class Gradients:
    """What back-propagation gives, by layer.

    delta   delta[l]: (n_models, n_samples, sizes[l + 1]): each example's own dC/dz[l]
    dW, db  (n_models, out, in) and (n_models, out), means over the examples; or one for each example, with n_samples
            behind n_models
    dgamma, dbeta   the same of the hidden layers, like db; None where a layer is not normalised
    dE      (n_models, n_categories, n_units) of each embedding, means over the examples
    """

    delta: list[HostArray]
    dW: list[HostArray]
    db: list[HostArray]
    dgamma: list[HostArray | None]
    dbeta: list[HostArray | None]
    dE: list[HostArray] = field(default_factory=list)


NORMALISING = ("gamma", "beta", "running_mean", "running_variance")


class Network:
    """A multi-layer perceptron, or `n_models` of them that are trained at once.

    sizes        neurons of each layer from input to output, for example (64, 32, 10)
    activation   name or definition for all hidden layers, or one for each
    output       activation of the output layer
    cost         what training makes small
    n_models     how many networks stand in the stack
    initialiser  "he", "glorot", "lecun", "nielsen", "zeros" or a function (generator, out, in) -> W or (W, b)
    dropout      share of hidden units dropped while training, for all hidden layers or one for each
    dtype        "float32" or "float64"
    backend      "auto", "numpy", "numba", "cuda"; device: "auto", "cpu", "cuda", "cuda:1"
    precision    how products are computed, None for the dtype's own; "tf32" on cuda rounds their factors to 10 bits of
                 mantissa
    seed         an int, or one for each model
    model_ids    the models' own numbers, 0 to n_models - 1 by default: everything random about a model depends on its
                 seed and its number alone, so that one of a stack can be run again by itself
    normalisation   None, "layer" or "batch", for all hidden layers or one for each: before the activation, z is
                 normalised over the units of a row or over the rows of a batch, and then scaled by gamma and shifted by
                 beta, which are learned as biases are. In the statistics of a batch all rows with a sample weight above
                 0 count alike. What predicts and evaluates takes running means and variances instead, which follow
                 those of the batches by a tenth each step, the variances as estimates from a sample
    embeddings   columns of X that hold codes of categories: the first layer reads learned numbers in place of each

    members      what each model of the stack is
    alternatives the backends among which a trainer with batch_size="tune" may choose: those that "auto" and the device
                 leave open, or the one that was asked for

    Raises       ConfigurationError, UnknownName, FormulaError, BackendUnavailable
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output: str | Activation = "softmax",
        cost: str | Cost = "categorical_cross_entropy",
        n_models: int = 1,
        initialiser: str | Initialiser = "he",
        dropout: float | Sequence[float] = 0.0,
        dtype: Any = "float32",
        backend: str | None = "auto",
        device: str | None = None,
        precision: str | None = None,
        seed: int | Sequence[int] = 0,
        model_ids: Sequence[int] | None = None,
        normalisation: str | Sequence[str | None] | None = None,
        embeddings: Sequence[Embedding] = (),
    ) -> None:
        architecture = build_architecture(sizes, activation, output, cost, normalisation, embeddings)
        if not isinstance(n_models, int | np.integer) or n_models < 1:
            raise ConfigurationError(f"n_models={n_models!r}: expected a whole number of at least 1")
        ids = _whole_numbers(range(n_models) if model_ids is None else model_ids, "model_ids")
        if not ids or (model_ids is not None and n_models not in (1, len(ids))):
            raise ConfigurationError(f"n_models={n_models} with {len(ids)} model_ids; give equally many, at least 1")
        several = [seed] * len(ids) if isinstance(seed, int | np.integer) else seed
        seeds = _whole_numbers(several, "seed")
        if len(seeds) != len(ids):
            raise ConfigurationError(f"{len(seeds)} seeds for {len(ids)} models; give one int, or one for each model")
        rates = _rates(dropout, architecture.n_layers - 1)
        members = tuple(Member(architecture, rates, s, m, initialiser) for s, m in zip(seeds, ids, strict=True))
        self._begin(members, get_backend(None if backend == "auto" else backend, device, dtype, precision))
        self.alternatives = _alternatives(self.backend, None if backend == "auto" else backend, device)
        self.reset()

    def _begin(self, members: tuple[Member, ...], backend: Backend, room: tuple[int, ...] = ()) -> None:
        """Be a stack of these members, all of whose parameters are zero."""
        self.members, self.backend = members, backend
        self.architecture, runs = stacked_architecture(members), find_runs(members)
        if room:
            self.architecture = replace(self.architecture, sizes=room)
        self.runs = runs if len(runs) > 1 or runs[0].architecture.sizes != self.sizes else ()
        self.n_models = len(members)
        self.seeds, self.model_ids = tuple(m.seed for m in members), tuple(m.model_id for m in members)
        self.parameters = Parameters(backend, layout_of(self.architecture), self.n_models)

    @classmethod
    def mixed(
        cls,
        members: Sequence[Member],
        dtype: Any = "float32",
        backend: str | None = "auto",
        device: str | None = None,
        precision: str | None = None,
    ) -> Network:
        """Return a stack of models that may differ in hidden sizes, activations, dropout, seeds and initialisers.

        Each of them computes what a network of its own would. Number of layers, input and output sizes, output
        activation, cost but for its label smoothing, normalisation and embeddings are the same for all; so is
        everything where a layer is normalised. What is fastest has members that are alike side by side.

        members  in the order of the stack; the other arguments as of Network
        Raises   ConfigurationError, BackendUnavailable
        """
        name = None if backend == "auto" else backend
        net = cls._of(tuple(members), get_backend(name, device, dtype, precision))
        net.alternatives = _alternatives(net.backend, name, device)
        net.reset()
        return net

    @classmethod
    def _of(cls, members: tuple[Member, ...], backend: Backend, room: tuple[int, ...] = ()) -> Network:
        net = cls.__new__(cls)
        net._begin(members, backend, room)
        net.alternatives = (backend.name,)
        return net

    @classmethod
    def hollow(cls, members: Sequence[Member], backend: Backend) -> Network:
        """Return a stack of these members whose parameters are not drawn, for what looks at its sizes alone."""
        return cls._of(tuple(members), backend)

    @property
    def initialiser(self) -> Initialiser:
        """What draws the initial weights, in a mixed stack those of its first model; setting it sets it for all."""
        return get_initialiser(self.members[0].initialiser)

    @initialiser.setter
    def initialiser(self, given: str | Initialiser) -> None:
        self.members = tuple(replace(m, initialiser=get_initialiser(given)) for m in self.members)

    @property
    def dropout(self) -> tuple[float, ...]:
        """Share of units dropped, by hidden layer; raises ConfigurationError for a mixed stack."""
        self._check_alike("dropout")
        return self.members[0].dropout

    @property
    def is_mixed(self) -> bool:
        """Whether models of the stack differ in sizes, activations or dropout."""
        return bool(self.runs)

    def take(self, models: Sequence[int], room: tuple[int, ...] = ()) -> Network:
        """Return a stack of some models, by their places from 0, on the same backend, with copies of their weights.

        room     sizes for which each model has room; () for those of the largest of them
        Raises   ConfigurationError for a place that there is not
        """
        places = _whole_numbers(models, "models")
        for place in places:
            if place >= self.n_models:
                raise ConfigurationError(f"model {place} does not exist; the stack has 0 to {self.n_models - 1}")
        net = Network._of(tuple(self.members[m] for m in places), self.backend, room)
        net.alternatives = self.alternatives
        for out, m in enumerate(places):
            net.put(out, self, m)
        return net

    def put(self, model: int, other: Network, its_model: int = 0) -> None:
        """Overwrite what a model of this stack knows with what a model of another one does, which has its sizes.

        Raises   ConfigurationError where it has others
        """
        mine, its = self.members[model].architecture, other.members[its_model].architecture
        if layout_of(mine) != layout_of(its):
            raise ConfigurationError(
                f"model {model} is a {mine}, what it is to know a {its}; sizes, "
                "normalisation and embeddings must be equal"
            )
        if other.backend is self.backend and other.sizes == self.sizes:
            self.backend.copy(other.parameters.theta[its_model], self.parameters.theta[model])
            return
        for x, out in zip(other._tensors(its_model), self._tensors(model), strict=True):
            self._put(other.backend.to_host(x), out)

    def alone(self, model: int) -> Network:
        """Return one model of the stack, by its place from 0, as a network of its own, with a copy of its weights."""
        return self.take([model])

    def line_of(self, model: int, kept: HostArray) -> HostArray:
        """Return what is kept for each parameter of a model as a network of it alone would keep it, (1, n_params).

        kept   (n_models, n_params) of this stack
        """
        layout = layout_of(self.members[model].architecture)
        line = np.zeros((1, layout.n_params), kept.dtype)
        own = layout.of_model(line[0], layout.sizes, False)
        for x, out in zip(self._tensors_in(kept, model), own, strict=True):
            out[...] = x
        return line

    def relaid(self, kept: HostArray, before: bool, padded: bool) -> HostArray:
        """Return what is laid out as theta (n_models, n_params) as it is where models are padded, or are not.

        before   whether the one pads them that it comes from; where that changes nothing, it is `kept` itself
        """
        if not self.is_mixed or before == padded:
            return kept
        found, layout = np.zeros(kept.shape, kept.dtype), self.parameters.layout
        for m, member in enumerate(self.members):
            tensors, outs = (
                layout.of_model(x[m], member.architecture.sizes, p) for x, p in ((kept, before), (found, padded))
            )
            for x, out in zip(tensors, outs, strict=True):
                out[...] = x
        return found

    def _tensors(self, model: int) -> list[Array]:
        """Return views of all that a model knows, in its own sizes and in the order of `ParameterLayout.shapes`."""
        return self._tensors_in(self.parameters.theta, model)

    def _tensors_in(self, theta: Array, model: int) -> list[Array]:
        sizes = self.members[model].architecture.sizes
        return self.parameters.layout.of_model(theta[model], sizes, self.backend.pads_models)

    # ---------------------------------------------------------------- parameters

    def reset(self) -> None:
        """Draw the initial weights and biases again; what normalises begins anew, too."""
        p, n_layers = self.parameters, self.architecture.n_layers
        n_weights = n_layers + len(p.E)
        theta = np.zeros(p.theta.shape, self.dtype)  # a device is slow at many small copies
        for m, member in enumerate(self.members):
            source, tensors = generator(member.seed, member.model_id), self._tensors_in(theta, m)
            initialiser = get_initialiser(member.initialiser)
            for l, (n_in, n_out) in enumerate(pairwise(member.architecture.widths)):
                tensors[l][...], tensors[n_weights + l][...] = draw_layer(initialiser, source, n_out, n_in)
            for E in tensors[n_layers:n_weights]:  # of unit variance, as initialisers expect of inputs
                E[...] = source.standard_normal(E.shape)
        self._put(theta, p.theta)
        for tensors, value in ((p.gamma, 1), (p.beta, 0), (p.running_mean, 0), (p.running_variance, 1)):
            for tensor in tensors:
                if tensor is not None:
                    self.backend.fill(tensor, value)

    def _put(self, x: HostArray, out: Array) -> None:
        self.backend.copy(self.backend.asarray(x, self.backend.dtype), out)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of each layer, the input first."""
        return self.architecture.sizes

    @property
    def dtype(self) -> np.dtype[Any]:
        """What parameters and activations are stored in."""
        return self.backend.dtype

    @property
    def weights(self) -> list[HostArray]:
        """weights[l]: (n_models, out, in). On a CPU backend a view: writing into it changes the network.

        Of a mixed stack a copy in which models have zeros beyond their own sizes; `take` and `set_weights` of `alone`
        networks are the way to single models.
        """
        if not self.is_mixed or self.backend.pads_models:
            return [self.backend.to_host(W) for W in self.parameters.W]
        padded = [np.zeros(W.shape, self.dtype) for W in self.parameters.W]
        for m in range(self.n_models):
            for W, out in zip(self._tensors(m), padded, strict=False):  # W by layer come first
                out[m][tuple(map(slice, W.shape))] = W
        return padded

    @property
    def biases(self) -> list[HostArray]:
        """biases[l]: (n_models, out). On a CPU backend a view: writing into it changes the network."""
        return [self.backend.to_host(b) for b in self.parameters.b]

    @property
    def embeddings(self) -> list[HostArray]:
        """Tables, (n_models, n_categories, n_units), in the order of their columns; views as `weights` are."""
        return [self.backend.to_host(E) for E in self.parameters.E]

    @property
    def normalising(self) -> list[dict[str, HostArray]]:
        """What normalises each hidden layer: gamma, beta, running_mean and running_variance, as far as it has them.

        (n_models, out) each. On a CPU backend views, as of `weights`.
        """
        p, n_hidden = self.parameters, self.architecture.n_layers - 1
        found = [{name: getattr(p, name)[l] for name in NORMALISING} for l in range(n_hidden)]
        return [{name: self.backend.to_host(x) for name, x in of.items() if x is not None} for of in found]

    def set_weights(self, layer: int, W: Any, b: Any | None = None) -> None:
        """Overwrite the weights of a layer and, if given, its biases.

        W        (out, in) for all models, or (n_models, out, in)
        b        (out,) for all models, or (n_models, out)
        Raises   ShapeError
        """
        self._check_alike("set_weights")
        n_layers = self.architecture.n_layers
        if not 0 <= layer < n_layers:
            raise ConfigurationError(
                f"layer {layer} does not exist; {self.architecture} has layers 0 to {n_layers - 1}"
            )
        self._set(layer, W=(W, self.parameters.W), b=(b, self.parameters.b))

    def set_embedding(self, number: int, E: Any) -> None:
        """Overwrite the table of an embedding, by its place among them.

        E        (n_categories, n_units) for all models, or (n_models, n_categories, n_units)
        Raises   ShapeError
        """
        if not 0 <= number < len(self.parameters.E):
            raise ConfigurationError(f"embedding {number} does not exist; this network has {len(self.parameters.E)}")
        self._set(number, E=(E, self.parameters.E))

    def set_normalisation(
        self,
        layer: int,
        gamma: Any | None = None,
        beta: Any | None = None,
        running_mean: Any | None = None,
        running_variance: Any | None = None,
    ) -> None:
        """Overwrite what normalises a hidden layer, as far as it is given.

        gamma, beta, ...   (out,) for all models, or (n_models, out)
        Raises             ShapeError; ConfigurationError where the layer has no such thing
        """
        p, given = self.parameters, (gamma, beta, running_mean, running_variance)
        there = dict(zip(NORMALISING, zip(given, (getattr(p, name) for name in NORMALISING), strict=True), strict=True))
        for name, (value, tensors) in there.items():
            if value is not None and not (0 <= layer < len(tensors) and tensors[layer] is not None):
                raise ConfigurationError(
                    f"layer {layer} has no {name}; normalisation is {self.architecture.normalisation}, by hidden layer"
                )
        if running_variance is not None:
            running_variance = bring_values(running_variance, f"running_variance[{layer}]", self.backend)
            if bool((running_variance < 0).any()):
                raise ConfigurationError(f"running_variance[{layer}] holds values below 0, which no variance has")
        self._set(layer, **there)

    def _check_alike(self, what: str) -> None:
        if self.is_mixed:
            raise ConfigurationError(
                f"{what} works on models that are alike, this is a stack of {len(self.runs)} kinds; take one out of "
                "it: net.alone(0)"
            )

    def _set(self, layer: int, **there: tuple[Any, list[Array]]) -> None:
        """Overwrite tensors of a layer: name=(value or None, the tensors by layer); all are checked before any."""
        checked = []
        for name, (given, tensors) in there.items():
            if given is None:
                continue
            out = tensors[layer]
            array, shape = bring_values(given, f"{name}[{layer}]", self.backend), tuple(out.shape)
            if array.shape != shape:
                expect(array, f"{name}[{layer}]", shape[1:], f"or {shape} with one for each model")
            checked.append((array, out))
        for array, out in checked:
            self._put(array, out)

    def move_to(
        self, backend: str, device: str | None = None, precision: str | None = None, pinned: bool = True
    ) -> None:
        """Compute on another backend from now on, with the same parameters, bit for bit, and the same seeds and ids.

        A trainer of this network brings along what it keeps. Arrays that `weights` and `biases` gave before are no
        longer the network's. Not while it is trained.

        precision  how products are computed there; None: as they are here
        pinned     whether it has been asked for by name, so that a trainer with batch_size="tune" leaves it there
        Raises     BackendUnavailable, OutOfMemory, ConfigurationError; the network is then as it was
        """
        name = None if backend == "auto" else backend
        there = get_backend(name, device, self.dtype, self._precision_at(name, device, precision))
        parameters = Parameters(there, self.parameters.layout, self.n_models)
        before = copy(self)
        self.backend, self.parameters = there, parameters
        kept = self.relaid(
            before.backend.to_host(before.parameters.theta), before.backend.pads_models, there.pads_models
        )
        there.copy(there.asarray(kept), parameters.theta)
        if pinned:
            self.alternatives = _alternatives(there, name, device)

    def _precision_at(self, name: str | None, device: str | None, precision: str | None) -> str | None:
        """Return the precision asked for, else the one that products are computed in; raise if that would be lost."""
        here = self.backend.precision
        if precision is not None or here == self.dtype.name:
            return precision
        if asked_for(name) in ("numpy", "numba") or device == "cpu":
            raise ConfigurationError(
                f'this network computes its products as {here}, which only cuda does; move_to("{name or "auto"}", '
                f'precision="{self.dtype.name}") gives that up'
            )
        return here

    # ---------------------------------------------------------------- passes

    def predict(self, X: Any) -> Any:
        """Return the output activations, (n_models, n_samples, out), never labels.

        X        (n_samples, in_features); if it lies on the network's device, so does what is returned, as an array of
                 the same library
        Raises   ShapeError, DataError
        """
        given = X
        ws: Workspace | None = None
        with self.backend.session():
            X = self._inputs(given)
            on_device = is_on_device(X)
            shape = (self.n_models, len(X), self.sizes[-1])
            outputs = self.backend.empty(shape, what="the outputs") if on_device else np.empty(shape, self.dtype)
            for start in range(0, len(X), ROWS_AT_A_TIME):
                rows = X[start : start + ROWS_AT_A_TIME]
                if ws is None or ws.batch.a0.shape[1] != len(rows):
                    ws = self._workspace(len(rows), in_place=True)
                self._feed(rows, ws)
                part = outputs[:, start : start + len(rows)]
                if on_device:
                    self.backend.copy(ws.a[-1], part)
                else:
                    part[:] = self.backend.to_host(ws.a[-1])
        return in_kind_of(outputs, given) if on_device else outputs

    def _inputs(self, X: Any) -> HostArray:
        return check_inputs(bring(X, "X", self.backend), self.architecture)

    def forward(self, X: Any) -> Forward:
        """Return z and a of every layer, on the host, for all rows of X (n_samples, in_features).

        As when predicting: a layer that is normalised over a batch takes its running statistics. Not of a mixed stack.
        """
        self._check_alike("forward")
        with self.backend.session():
            X = self._inputs(X)
            ws = self._workspace(len(X))
            self._feed(X, ws)
        return Forward([self.backend.to_host(z) for z in ws.z], [self.backend.to_host(a) for a in ws.a])

    def _feed(self, X: HostArray, ws: Workspace) -> None:
        self._put(X, ws.batch.a0[0])
        feedforward(self.backend, ws)

    def _workspace(self, batch: int, **options: Any) -> Workspace:
        return Workspace(self.backend, self.architecture, self.parameters, batch, runs=self.runs, **options)

    def cost_of(self, X: Any, Y: Any, sample_weight: Any = None) -> HostArray:
        """Return each model's mean cost (n_models,) without penalties.

        X, Y   as in `backpropagate`
        """
        return self.evaluate(X, Y, sample_weight)["cost"]

    def evaluate(self, X: Any, Y: Any, sample_weight: Any = None) -> dict[str, HostArray]:
        """Return {"cost": (n_models,)} and, where Y names classes, "accuracy", the share of right answers."""
        with self.backend.session():
            X, targets = self._check(X, Y)
            weights = None
            if sample_weight is not None:
                sample_weight = bring(sample_weight, "sample_weight", self.backend)
                weights = check_sample_weight(sample_weight, len(X), self.n_models)
            net, p = self.architecture, self.parameters
            return Evaluation(self.backend, net, p, X, targets, weights, runs=self.runs).run()

    def backpropagate(self, X: Any, Y: Any, per_sample: bool = False) -> Gradients:
        """Return every layer's delta, and the gradients of all that is learned; nothing is changed.

        The rows are one batch of a training, whose own statistics a layer that is normalised over a batch takes.

        X            (n_samples, in_features)
        Y            (n_samples, out) targets, or (n_samples,) labels
        per_sample   gradients of each example instead of their mean
        Raises       ShapeError, DataError; ConfigurationError for a mixed stack, and for per_sample where layers are
                     normalised over a batch or columns are embedded
        """
        self._check_alike("backpropagate")
        if per_sample and BATCH in self.architecture.normalisation:
            raise ConfigurationError(
                'per_sample=True with normalisation="batch": each example\'s cost depends on all rows of its batch, so '
                'that it has no gradient of its own; leave per_sample away, or normalise by "layer"'
            )
        if per_sample and self.architecture.embeddings:
            raise ConfigurationError(
                "per_sample=True with embeddings: the gradient of each example would be a table for each; leave "
                "per_sample away, or give one example at a time"
            )
        with self.backend.session():
            X, targets = self._check(X, Y)
            return self._backpropagate(X, targets, per_sample)

    def _backpropagate(self, X: HostArray, targets: Targets, per_sample: bool) -> Gradients:
        backend, p = self.backend, self.parameters
        ws = self._workspace(len(X), backward=True, n_codes=targets.n_codes)
        grad = Parameters(backend, p.layout, self.n_models, "the gradients")
        tally = Tally(backend.empty((4, self.n_models), np.float64))
        clock = backend.empty((3,), np.int64)
        for table in (tally.values, clock):
            backend.fill(table, 0)
        self._put(X, ws.batch.a0[0])
        self._put(targets.rows(backend.asarray), ws.batch.y)
        backend.fill(ws.batch.row_weight, 1)
        backend.fill(ws.batch.scale, 1)
        feedforward_to_output(backend, ws)
        backpropagation(backend, ws, grad, tally, clock)
        if per_sample:
            return self._gradients_of_each(ws)
        means: list[list[Any]] = [
            [None if x is None else np.array(backend.to_host(x)) / len(X) for x in tensors]
            for tensors in (grad.W, grad.b, grad.gamma, grad.beta, grad.E)
        ]
        return Gradients(self._deltas(ws), *means)

    def _gradients_of_each(self, ws: Workspace) -> Gradients:
        """Take each example as a batch of its own in a stack of n_models * n_samples."""
        dW = []
        for l, delta in enumerate(ws.delta):
            n_models, n, n_out = delta.shape
            a_in = self.backend.empty((n_models, n, self.sizes[l]))
            self.backend.copy(ws.a[l], a_in)
            out = self.backend.empty((n_models * n, n_out, self.sizes[l]))
            self.backend.weight_gradient(delta.reshape(-1, 1, n_out), a_in.reshape(n_models * n, 1, -1), out)
            dW.append(self.backend.to_host(out).reshape(n_models, n, n_out, -1))
        deltas = self._deltas(ws)
        of_norms = [self._normalising_gradients_of_each(ws, l) for l in range(len(ws.norms))]
        dgamma, dbeta = ([pair[i] for pair in of_norms] for i in range(2))
        return Gradients(deltas, dW, [d.copy() for d in deltas], dgamma, dbeta)

    def _normalising_gradients_of_each(self, ws: Workspace, l: int) -> tuple[HostArray | None, HostArray | None]:
        """Return dC/dgamma and dC/dbeta of each example, (n_models, n_samples, out), for a layer normalised by rows."""
        norm, backend, p = ws.norms[l], self.backend, self.parameters
        if norm is None:
            return None, None
        shape = n_models, n, n_out = ws.delta[l].shape
        d, gamma, dgamma, dbeta = (backend.empty(shape) for _ in range(4))
        unused = backend.empty((n_models * n, n_out))
        f = self.architecture.activations[l]
        backend.hidden_delta(f, ws.delta[l + 1], p.W[l + 1], ws.u[l], ws.a[l + 1], d, unused[:n_models])
        backend.copy(d, dbeta)
        backend.copy(p.gamma[l][:, None], gamma)
        each = replace(norm, mean=norm.mean.reshape(-1, 1), variance=norm.variance.reshape(-1, 1))
        z, d = (x.reshape(-1, 1, n_out) for x in (ws.z[l], d))
        gammas, betas, gradients = (x.reshape(-1, n_out) for x in (gamma, dbeta, dgamma))
        backend.normalised_delta(each, z, gammas, betas, d, gradients, unused)
        return backend.to_host(dgamma), backend.to_host(dbeta)

    def _deltas(self, ws: Workspace) -> list[HostArray]:
        return [self.backend.to_host(d) for d in ws.delta]

    def _check(self, X: Any, Y: Any) -> tuple[HostArray, Targets]:
        X = self._inputs(X)
        return X, self.check_targets(Y, len(X))

    def check_targets(self, Y: Any, n_rows: int, name: str = "Y") -> Targets:
        """Return the targets of `n_rows` examples as the costs of the models want them.

        Raises   ShapeError, DataError; ConfigurationError where models smooth differently what are no labels
        """
        targets = check_targets(bring(Y, name, self.backend), n_rows, self.architecture, self.dtype, name)
        return targets.of_costs([member.architecture.cost for member in self.members])

    def __repr__(self) -> str:
        stack = f"{self.n_models} models " if self.n_models > 1 else ""
        hidden = ", ".join(a.name for a in self.architecture.activations)
        if self.is_mixed:
            stack, hidden = f"{self.n_models} models of {len(self.runs)} kinds up to ", "mixed"
        return (
            f"<Network {stack}{self.architecture} ({hidden}; {self.architecture.cost.name}) "
            f"{self.dtype.name} on {self.backend.name}>"
        )


def _alternatives(backend: Backend, name: str | None, device: str | None) -> tuple[str, ...]:
    """Return the backends that an argument, use_backend, GPUMLP_BACKEND, device and precision leave open."""
    if asked_for(name) != "auto" or backend.precision != backend.dtype.name:
        return (backend.name,)
    if device in (None, "auto"):
        return BACKENDS
    return ("numpy", "numba") if device == "cpu" else ("cuda",)


def _whole_numbers(values: Any, name: str) -> tuple[int, ...]:
    try:
        given = tuple(values)
        found = tuple(int(v) for v in given)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}={values!r}: expected whole numbers of at least 0") from error
    if any(f != v or f < 0 for f, v in zip(found, given, strict=True)):
        raise ConfigurationError(f"{name}={values!r}: expected whole numbers of at least 0")
    return found


def _rates(dropout: float | Sequence[float], n_hidden: int) -> tuple[float, ...]:
    try:
        several = [dropout] * n_hidden if isinstance(dropout, int | float | np.number) else dropout
        rates = [float(r) for r in several]
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"dropout={dropout!r}: expected a share, or one for each hidden layer") from error
    if len(rates) != n_hidden:
        raise ConfigurationError(f"{len(rates)} dropout rates for {n_hidden} hidden layers; give one, or one for each")
    for rate in rates:
        if not 0 <= rate < 1:
            raise ConfigurationError(f"dropout={rate} is no share; expected 0 (keep all) up to, but not, 1 (drop all)")
    return tuple(rates)
