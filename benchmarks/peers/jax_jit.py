"""The training steps of a workload in JAX: one jitted step whose buffers are donated, or several as one lax.scan.

X lies on the device, and the step takes its rows by a permutation that is an argument. A stack of models is a vmap.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

import numpy as np

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX is not alone on a device

import jax
import jax.numpy as jnp
from jax import lax

from gpumlp.bench.workloads import BETA1, BETA2, EPSILON, LEARNING_RATE, MOMENTUM, Workload
from gpumlp.shapes import HostArray

SCAN = 64  # steps of a scan
SHORT = 1e-3  # seconds of a step of which a few are no measure
TRIES = 2


def why_absent(device: str) -> str:
    """Return why JAX cannot take part on a device, "" if it can."""
    try:
        place_of(device)
    except RuntimeError as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def place_of(device: str) -> Any:
    """Return JAX's object for "cuda:1" or "cpu"; raise RuntimeError if it sees no such device."""
    kind, _, number = device.partition(":")
    found = jax.devices("cpu" if kind == "cpu" else "cuda")
    if int(number or 0) >= len(found):
        raise RuntimeError(f"sees {len(found)} devices, not {device}")
    return found[int(number or 0)]


class Jit:
    """JAX jit."""

    name = "JAX jit"

    def __init__(self, workload: Workload, mode: str, device: str, initial: list[tuple[HostArray, HostArray]]) -> None:
        self.workload, self.place, self.launch = workload, place_of(device), 1
        self.precision = "tensorfloat32" if mode == "tf32" else "highest"
        X, y = workload.data()
        self.X, self.y = self.put(X), self.put(y.astype(np.int32))
        self.random, self.shuffle, self.position = np.random.default_rng(0), False, 0
        self.order = self.put(np.arange(len(X), dtype=np.int32))
        self.params = [(self.put(W), self.put(b)) for W, b in initial]
        zeros = [jax.tree_util.tree_map(jnp.zeros_like, self.params) for _ in range(2)]
        self.state = (*zeros[: 1 if workload.rule == "momentum" else 2], self.put(np.float32(0)))
        self.step = jax.jit(self.one, donate_argnums=(0, 1))
        self.scan = jax.jit(self.several, donate_argnums=(0, 1))
        self.numbers = [self.put(np.int32(i)) for i in range(workload.n_steps)]

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return "": it trains whatever there is."""
        return ""

    def put(self, x: Any) -> Any:
        """Return a copy of an array on the device: what is donated must be JAX's own."""
        return jax.device_put(np.array(x), self.place)

    def cost_of_model(self, params: Any, x: Any, y: Any) -> Any:
        """Return the mean cross-entropy of one model."""
        for W, b in params[:-1]:
            x = jax.nn.relu(x @ W.T + b)
        W, b = params[-1]
        log_a = jax.nn.log_softmax(x @ W.T + b)
        return -jnp.take_along_axis(log_a, y[:, None], axis=1).mean()

    def cost(self, params: Any, x: Any, y: Any) -> Any:
        """Return the sum of the models' costs."""
        if self.workload.n_models == 1:
            return self.cost_of_model([(W[0], b[0]) for W, b in params], x, y)
        return jax.vmap(self.cost_of_model, in_axes=(0, None, None))(params, x, y).sum()

    def one(self, params: Any, state: Any, X: Any, Y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        """Return parameters and state after batch i of an order."""
        rows = lax.dynamic_slice(order, (i * self.workload.batch,), (self.workload.batch,))
        with jax.default_matmul_precision(self.precision):
            g = jax.grad(self.cost)(params, X[rows], Y[rows])
        return self.momentum(params, state, g) if self.workload.rule == "momentum" else self.adam(params, state, g)

    def adam(self, params: Any, state: Any, g: Any) -> tuple[Any, Any]:
        """Return parameters and state after a step of Adam."""
        m, v, t = state
        each, t = jax.tree_util.tree_map, t + 1
        m = each(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = each(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        a, b = LEARNING_RATE / (1 - BETA1**t), 1 / (1 - BETA2**t)
        params = each(lambda w, m, v: w - a * m / (jnp.sqrt(b * v) + EPSILON), params, m, v)
        return params, (m, v, t)

    def momentum(self, params: Any, state: Any, g: Any) -> tuple[Any, Any]:
        """Return parameters and state after a step of momentum."""
        v, t = state
        v = jax.tree_util.tree_map(lambda v, g: MOMENTUM * v - LEARNING_RATE * g, v, g)
        return jax.tree_util.tree_map(jnp.add, params, v), (v, t + 1)

    def several(self, params: Any, state: Any, X: Any, Y: Any, order: Any, i: Any) -> tuple[Any, Any]:
        """Return parameters and state after SCAN batches from number i on; the last one is followed by the first."""
        n_steps = self.workload.n_steps

        def body(carried: Any, k: Any) -> tuple[Any, None]:
            return self.one(*carried, X, Y, order, (i + k) % n_steps), None

        return lax.scan(body, (params, state), jnp.arange(SCAN, dtype=jnp.int32))[0]

    def tune(self) -> str:
        """Take a new order in each epoch from now on, and the faster of step and scan; say which."""
        self.shuffle, self.position = True, 0
        if self.workload.n_steps < SCAN:
            return "a call for each step"
        step, scan = self.seconds(1, steps=8), self.seconds(SCAN)
        if step < SHORT:
            step = self.seconds(1)
        self.launch = SCAN if scan < step else 1
        return f"{SCAN} steps as one lax.scan" if scan < step else "a call for each step, which lax.scan is not below"

    def seconds(self, launch: int, steps: int = SCAN) -> float:
        """Return the shortest time of a step of several, of which so many are launched at once."""
        self.launch = launch
        self.run(steps)  # compiles
        took = []
        for _ in range(TRIES):
            began = perf_counter()
            self.run(steps)
            took.append(perf_counter() - began)
        return min(took) / steps

    def run(self, steps: int) -> None:
        """Train on so many further batches, and wait until that is done."""
        left, n_steps, data = steps, self.workload.n_steps, (self.X, self.y)
        while left:
            if self.position == 0 and self.shuffle:
                self.order = self.put(self.random.permutation(len(self.X)).astype(np.int32))
            now = self.launch if left >= self.launch else 1
            work = self.scan if now > 1 else self.step
            self.params, self.state = work(self.params, self.state, *data, self.order, self.numbers[self.position])
            following = self.position + now
            self.position, left = (following if following < n_steps else 0), left - now
        jax.block_until_ready((self.params, self.state))

    def weights(self) -> list[HostArray]:
        """Return the weights of each layer, (n_models, out, in)."""
        return [np.asarray(W) for W, _ in self.params]


PEERS = (Jit,)
