"""The same training steps in PyTorch and JAX, where these are installed and see the GPU; nothing else imports them.

Every contender starts from gpumlp's initial weights, takes the same rows in the same order, and trains by Adam. Three
steps of each are compared with gpumlp's before anything is timed. All are timed alike, by the host's clock from an idle
device to an idle device, in turns, so that a change of clock rates meets everyone.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from gpumlp.doctor.report import Table, in_a_line
from gpumlp.doctor.speed import LONG_ENOUGH, MODES, SPREAD, Effort, spread
from gpumlp.doctor.workloads import LEARNING_RATE, SEVERAL, ReadyStep, Workload
from gpumlp.shapes import HostArray

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
CHECKED_STEPS = 3
ROUNDS = 7
NEAR = 0.05  # of the way that the weights went in the checked steps, on average; tf32 and Adam's division roughen it
NOTE = (
    "Host time of a step from an idle device to an idle device, in turns: {rounds} rounds. All start from the same "
    "weights and take the same rows of data on the device, one batch after the other."
)


class Contender(Protocol):
    """A training that can be repeated."""

    name: str

    def run(self, steps: int) -> None:
        """Ask for so many steps, from the first batch on, and wait until they are done."""
        ...

    def weights(self) -> list[HostArray]:
        """Return the weights of each layer, (n_models, out, in)."""
        ...


class Gpumlp:
    """This package, by replaying the graph of a step."""

    name = "gpumlp"
    per_launch = 1

    def __init__(self, workload: Workload, mode: str, device: str, initial: Any = None) -> None:
        on_gpu = device.startswith("cuda")
        backend, precision = ("cuda", mode) if on_gpu else ("numpy", None)
        self.ready = ReadyStep(workload, backend, device, precision, None, False, self.per_launch)
        self.initial = [
            (W.copy(), b.copy()) for W, b in zip(self.ready.net.weights, self.ready.net.biases, strict=True)
        ]

    def run(self, steps: int) -> None:
        self.ready.run(steps)
        self.ready.backend.synchronize()

    def weights(self) -> list[HostArray]:
        return self.ready.net.weights


class GpumlpSeveral(Gpumlp):
    """This package, by replaying a graph of several steps."""

    name = f"gpumlp, {SEVERAL} steps in a graph"
    per_launch = SEVERAL


class TorchEager:
    """PyTorch as people write it: fused Adam, gradients set to None, no waiting between steps."""

    name = "PyTorch eager"
    capturable = False

    def __init__(self, workload: Workload, mode: str, device: str, initial: list[tuple[HostArray, HostArray]]) -> None:
        self.torch: Any = import_module("torch")
        self.torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
        self.device, self.n_models = device, workload.n_models
        X, labels = (self.torch.as_tensor(x, device=device) for x in workload.data())
        self.X, self.y = X.view(workload.n_steps, workload.batch, -1), labels.view(workload.n_steps, -1)
        one = self.n_models == 1
        self.W = [self._parameter(W[0] if one else W) for W, _ in initial]
        self.b = [self._parameter(b[0] if one else b) for _, b in initial]
        self.optimizer = self.torch.optim.Adam(
            [*self.W, *self.b],
            lr=LEARNING_RATE,
            betas=(BETA1, BETA2),
            eps=EPSILON,
            fused=True,
            capturable=self.capturable,
        )

    def _parameter(self, x: HostArray) -> Any:
        return self.torch.nn.Parameter(self.torch.tensor(x, device=self.device))

    def cost(self, x: Any, y: Any) -> Any:
        """Return the mean cross-entropy, summed over the models."""
        F = self.torch.nn.functional
        if self.n_models == 1:
            for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
                x = F.relu(F.linear(x, W, b))
            return F.cross_entropy(F.linear(x, self.W[-1], self.b[-1]), y)
        x, last = x.expand(self.n_models, *x.shape), len(self.W) - 1
        for l, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            z = self.torch.baddbmm(b[:, None], x, W.transpose(1, 2))  # all models in one batched product
            x = z if l == last else F.relu(z)
        return self.n_models * F.cross_entropy(x.flatten(0, 1), y.repeat(self.n_models))

    def step(self, i: int) -> None:
        """Train on batch i."""
        self.optimizer.zero_grad(set_to_none=True)
        self.cost(self.X[i], self.y[i]).backward()
        self.optimizer.step()

    def run(self, steps: int) -> None:
        for i in range(steps):
            self.step(i % len(self.X))
        if self.device.startswith("cuda"):
            self.torch.cuda.synchronize(self.device)

    def weights(self) -> list[HostArray]:
        return [W.detach().cpu().numpy().reshape(self.n_models, *W.shape[-2:]) for W in self.W]


class TorchGraph(TorchEager):
    """PyTorch with its whole step, optimiser included, as one CUDA graph on fixed buffers."""

    name = "PyTorch whole-step graph"
    capturable = True

    def __init__(self, workload: Workload, mode: str, device: str, initial: list[tuple[HostArray, HostArray]]) -> None:
        super().__init__(workload, mode, device, initial)
        cuda = self.torch.cuda
        cuda.set_device(device)
        self.x, self.labels = self.X[0].clone(), self.y[0].clone()
        aside = cuda.Stream()
        aside.wait_stream(cuda.current_stream())
        with cuda.stream(aside):
            for _ in range(3):
                super().step(0)
        cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = cuda.CUDAGraph()
        with cuda.graph(self.graph):
            self.cost(self.x, self.labels).backward()
            self.optimizer.step()
        self._begin_anew(initial)

    def _begin_anew(self, initial: list[tuple[HostArray, HostArray]]) -> None:
        """Undo the steps of the warm-up, in place."""
        with self.torch.no_grad():
            for p, x in zip([*self.W, *self.b], [*(W for W, _ in initial), *(b for _, b in initial)], strict=True):
                p.copy_(self.torch.as_tensor(x).view(p.shape))
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def step(self, i: int) -> None:
        self.x.copy_(self.X[i])
        self.labels.copy_(self.y[i])
        self.graph.replay()


class Jax:
    """JAX: one jitted step whose buffers are donated; a stack of models is a vmap."""

    name = "JAX jit"

    def __init__(self, workload: Workload, mode: str, device: str, initial: list[tuple[HostArray, HostArray]]) -> None:
        self.jax: Any = import_module("jax")
        self.jnp: Any = import_module("jax.numpy")
        self.place = jax_device(self.jax, device)
        self.precision = "tensorfloat32" if mode == "tf32" else "highest"
        X, y = workload.data()
        self.X = self._put(X.reshape(workload.n_steps, workload.batch, -1))
        self.y = self._put(y.reshape(workload.n_steps, -1).astype(np.int32))
        self.params = [(self._put(W), self._put(b)) for W, b in initial]
        zeros = self.jax.tree_util.tree_map(self.jnp.zeros_like, self.params)
        self.state = (zeros, self.jax.tree_util.tree_map(self.jnp.zeros_like, zeros), self._put(np.float32(0)))
        self.step = self.jax.jit(self._step, donate_argnums=(0, 1))
        self.batches = [self._put(np.int32(i)) for i in range(workload.n_steps)]

    def _put(self, x: Any) -> Any:
        return self.jax.device_put(x, self.place)

    def _cost_of_model(self, params: Any, x: Any, y: Any) -> Any:
        for W, b in params[:-1]:
            x = self.jax.nn.relu(x @ W.T + b)
        W, b = params[-1]
        log_a = self.jax.nn.log_softmax(x @ W.T + b)
        return -self.jnp.take_along_axis(log_a, y[:, None], axis=1).mean()

    def _cost(self, params: Any, x: Any, y: Any) -> Any:
        return self.jax.vmap(self._cost_of_model, in_axes=(0, None, None))(params, x, y).sum()

    def _step(self, params: Any, state: Any, X: Any, Y: Any, i: Any) -> tuple[Any, Any]:
        """Return parameters and state after batch i, by Adam."""
        m, v, t = state
        with self.jax.default_matmul_precision(self.precision):
            g = self.jax.grad(self._cost)(params, X[i], Y[i])
        each, t = self.jax.tree_util.tree_map, t + 1
        m = each(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = each(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        a, b = LEARNING_RATE / (1 - BETA1**t), 1 / (1 - BETA2**t)
        params = each(lambda w, m, v: w - a * m / (self.jnp.sqrt(b * v) + EPSILON), params, m, v)
        return params, (m, v, t)

    def run(self, steps: int) -> None:
        for i in range(steps):
            batch = self.batches[i % len(self.batches)]
            self.params, self.state = self.step(self.params, self.state, self.X, self.y, batch)
        self.jax.block_until_ready((self.params, self.state))

    def weights(self) -> list[HostArray]:
        return [np.asarray(W) for W, _ in self.params]


PEERS: dict[str, Sequence[type[Any]]] = {"torch": (TorchEager, TorchGraph), "jax": (Jax,)}


def available(device: str) -> dict[str, str]:
    """Return for each library why it cannot take part; "" if it can."""
    return {name: _why_absent(name, device) for name in PEERS}


def _why_absent(name: str, device: str) -> str:
    if find_spec(name) is None:
        return "is not installed"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX is not alone on the device
    try:
        if name == "torch":
            return "" if import_module("torch").cuda.is_available() else "sees no CUDA device"
        jax_device(import_module("jax"), device)
    except Exception as error:  # a broken installation is no peer
        return in_a_line(error)
    return ""


def jax_device(jax: Any, device: str) -> Any:
    """Return JAX's object for "cuda:1" or "cpu"; raise RuntimeError if it sees no such device."""
    kind, _, number = device.partition(":")
    return jax.devices("cpu" if kind == "cpu" else "cuda")[int(number or 0)]


def comparison(effort: Effort, device: str, others: Sequence[type[Any]]) -> Table:
    """Return the time of a step of every contender on every workload in each mode."""
    rows: list[list[Any]] = []
    for workload in effort.workloads:
        for mode in MODES:
            try:
                rows += _rows(workload, mode, device, others)
            except Exception as error:  # a small device may have no room for a large workload
                rows.append(_left_out(workload, mode, f"gpumlp: {in_a_line(error)}"))
            _free_unused()
    columns = ["workload", "mode", "contender", *(f"{name}, us" for name in SPREAD), "times gpumlp's"]
    return Table("Against PyTorch and JAX", NOTE.format(rounds=ROUNDS), columns, rows)


def _rows(workload: Workload, mode: str, device: str, others: Sequence[type[Any]]) -> list[list[Any]]:
    """Build the contenders, check them against gpumlp, and time in turns those that agree with it."""
    own = Gpumlp(workload, mode, device)
    own.run(CHECKED_STEPS)
    contenders: list[Contender] = [own]
    failed: list[list[Any]] = []
    kinds: list[type[Any]] = [*([GpumlpSeveral] if workload.n_steps >= SEVERAL else []), *others]
    for kind in kinds:
        other, error = _enter(kind, own, workload, mode, device)
        if other is None:
            failed.append(_left_out(workload, mode, f"{kind.name}: {error}"))
        else:
            contenders.append(other)
    times = {name: spread(seconds, 1e6) for name, seconds in in_turns(contenders, ROUNDS).items()}
    rows = [[workload.name, mode, name, *found, found[0] / times[own.name][0]] for name, found in times.items()]
    return [*rows, *failed]


def _left_out(workload: Workload, mode: str, reason: str) -> list[Any]:
    return [workload.name, mode, reason, None, None, None, None]


def _enter(kind: type[Any], own: Gpumlp, workload: Workload, mode: str, device: str) -> tuple[Contender | None, str]:
    """Return a contender that does what gpumlp does, or None and the reason why it cannot take part."""
    try:
        other: Contender = kind(workload, mode, device, own.initial)
        other.run(CHECKED_STEPS)
        check_agreement(own, other)
    except Exception as error:  # out of memory, an installation that does not work, another result
        return None, in_a_line(error)
    return other, ""


def check_agreement(own: Gpumlp, other: Contender) -> None:
    """Raise RuntimeError unless the other's weights went where gpumlp's went."""
    for (start, _), mine, theirs in zip(own.initial, own.weights(), other.weights(), strict=True):
        way, apart = np.abs(mine - start).mean(), np.abs(mine - theirs).mean()
        if not apart <= NEAR * way:
            raise RuntimeError(
                f"its weights are {apart / way:.2g} of the way apart from gpumlp's after {CHECKED_STEPS} steps, "
                f"{NEAR:g} at most expected; not timed"
            )


def in_turns(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Return seconds of a step of each, measured in rounds in which each has its turn."""
    steps = {c.name: _enough_steps(c) for c in contenders}
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for c in contenders:
            times[c.name].append(_timed(c, steps[c.name]))
    return times


def _enough_steps(contender: Contender) -> int:
    """Return how many steps take long enough to be timed; they are run once, as a warm-up."""
    contender.run(CHECKED_STEPS)
    once = _timed(contender, CHECKED_STEPS)
    steps = max(CHECKED_STEPS, ceil(2 * LONG_ENOUGH / once))
    contender.run(steps)
    return steps


def _timed(contender: Contender, steps: int) -> float:
    """Return seconds of a step."""
    began = perf_counter()
    contender.run(steps)
    return (perf_counter() - began) / steps


def _free_unused() -> None:
    """Let PyTorch give back what it holds unused, so that the next workload finds room."""
    gc.collect()
    if find_spec("torch") is not None:
        with suppress(Exception):
            import_module("torch").cuda.empty_cache()
