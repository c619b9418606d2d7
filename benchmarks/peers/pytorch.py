"""The training steps of a workload in PyTorch, as its performance guide says.

Data stay in memory (or on the device), each epoch has a new permutation, a batch is X[rows]; the optimiser is the fused
one; gradients are set to None; nothing waits between two steps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional

from gpumlp.backends import threads
from gpumlp.bench.workloads import BETA1, BETA2, EPSILON, LEARNING_RATE, MOMENTUM, Workload
from gpumlp.shapes import HostArray

Initial = list[tuple[HostArray, HostArray]]  # W (n_models, out, in) and b (n_models, out) of each layer


def why_absent(device: str) -> str:
    """Return why PyTorch cannot take part on a device, "" if it can."""
    return "sees no CUDA device" if device.startswith("cuda") and not torch.cuda.is_available() else ""


class TorchPeer:
    """A training in PyTorch that can go on and on; a subclass says what a step is."""

    name = ""
    launch = 1
    capturable = False

    def __init__(self, workload: Workload, mode: str, device: str, initial: Initial) -> None:
        self.precision = "high" if mode == "tf32" else "highest"
        torch.set_num_threads(threads.count())
        self.workload, self.device, self.n_models = workload, device, workload.n_models
        X, labels = workload.data()
        self.X, self.y = torch.from_numpy(X).to(device), torch.from_numpy(labels).to(device)
        self.order = torch.arange(len(X), device=device)
        self.shuffle, self.position = False, 0
        self.build(initial)

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why there is no such training of a workload, "" if there is."""
        return "" if workload.n_models == 1 else "is for one model"

    def build(self, initial: Initial) -> None:
        """Make the parameters and the optimiser."""
        self.W = [self.parameter(W) for W, _ in initial]
        self.b = [self.parameter(b) for _, b in initial]
        self.optimizer = self.new_optimizer([*self.W, *self.b])

    def parameter(self, x: HostArray) -> Any:
        """Return a copy of an array as a parameter, without the axis of models if there is one model."""
        return torch.nn.Parameter(torch.tensor(x[0] if self.n_models == 1 else x, device=self.device))

    def new_optimizer(self, parameters: Any) -> Any:
        """Return the fused optimiser of the workload's rule."""
        if self.workload.rule == "momentum":
            return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
        betas = (BETA1, BETA2)
        return torch.optim.Adam(
            parameters, lr=LEARNING_RATE, betas=betas, eps=EPSILON, fused=True, capturable=self.capturable
        )

    def cost(self, x: Any, y: Any) -> Any:
        """Return the mean cross-entropy."""
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            x = functional.relu(functional.linear(x, W, b))
        return functional.cross_entropy(functional.linear(x, self.W[-1], self.b[-1]), y)

    def step(self, rows: Any) -> None:
        """Train on some rows."""
        self.optimizer.zero_grad(set_to_none=True)
        self.cost(self.X[rows], self.y[rows]).backward()
        self.optimizer.step()

    def tune(self) -> str:
        """Take a new order in each epoch from now on; return a remark, of which there is none."""
        self.shuffle, self.position = True, 0
        return ""

    def run(self, steps: int) -> None:
        """Train on so many further batches, and wait until that is done."""
        batch, n_rows = self.workload.batch, len(self.X)
        torch.set_float32_matmul_precision(self.precision)  # others may have set another
        for _ in range(steps):
            if self.position == 0 and self.shuffle:
                self.order = torch.randperm(n_rows, device=self.device)
            self.step(self.order[self.position : self.position + batch])
            self.position = (self.position + batch) % n_rows
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def events(self, work: Callable[[], None]) -> float:
        """Return the device's seconds of some work."""
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000

    def weights(self) -> list[HostArray]:
        """Return the weights of each layer, (n_models, out, in)."""
        return [W.detach().cpu().numpy().reshape(self.n_models, *W.shape[-2:]) for W in self.W]


class Eager(TorchPeer):
    """PyTorch as it comes."""

    name = "PyTorch eager"


class Compiled(TorchPeer):
    """PyTorch with forward and backward pass compiled; the fused optimiser is one call already."""

    name = "PyTorch compile"

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why nothing is compiled here."""
        if device.startswith("cuda"):
            return super().why_not(workload, device) or ("" if find_spec("triton") else "needs Triton")
        compilers = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
        found = any(name and shutil.which(name) for name in compilers)
        return super().why_not(workload, device) or ("" if found else "needs a C++ compiler, and finds none")

    def build(self, initial: Initial) -> None:
        """Compile for these shapes alone; the shapes of other workloads are other programs."""
        super().build(initial)
        torch._dynamo.config.recompile_limit = 64
        self.cost = torch.compile(super().cost, dynamic=False, fullgraph=True)  # type: ignore[method-assign]


class Stacked(TorchPeer):
    """A stack of models: each layer of all of them is one batched product, as one cost whose terms are independent."""

    name = "PyTorch stacked baddbmm"

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why there is no stack."""
        return "" if workload.n_models > 1 else "is for several models"

    def cost(self, x: Any, y: Any) -> Any:
        """Return the sum over the models of the mean cross-entropy."""
        x, last = x.expand(self.n_models, *x.shape), len(self.W) - 1
        for l, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            z = torch.baddbmm(b[:, None], x, W.transpose(1, 2))
            x = z if l == last else functional.relu(z)
        return self.n_models * functional.cross_entropy(x.flatten(0, 1), y.repeat(self.n_models))


class Loop(TorchPeer):
    """A stack of models as people have it: a module and an optimiser for each, one after the other."""

    name = "PyTorch loop over modules"

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why there is no loop."""
        return "" if workload.n_models > 1 else "is for several models"

    def build(self, initial: Initial) -> None:
        """Make a module and an optimiser for each model."""
        self.nets = [self.module(initial, m).to(self.device) for m in range(self.n_models)]
        self.optimizers = [self.new_optimizer(net.parameters()) for net in self.nets]
        self.entropy = torch.nn.CrossEntropyLoss()

    def module(self, initial: Initial, m: int) -> Any:
        """Return model m."""
        layers: list[Any] = []
        for W, b in initial:
            linear = torch.nn.Linear(W.shape[2], W.shape[1])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(W[m]))
                linear.bias.copy_(torch.from_numpy(b[m]))
            layers += [linear, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def step(self, rows: Any) -> None:
        """Train every model on the same rows, which are gathered once."""
        x, y = self.X[rows], self.y[rows]
        for net, optimizer in zip(self.nets, self.optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            self.entropy(net(x), y).backward()
            optimizer.step()

    def weights(self) -> list[HostArray]:
        """Return the weights of each layer, (n_models, out, in)."""
        layers = [[m.weight for m in net if isinstance(m, torch.nn.Linear)] for net in self.nets]
        return [torch.stack(Ws).detach().cpu().numpy() for Ws in zip(*layers, strict=True)]


class WholeStepGraph(Stacked):
    """The whole step, optimiser included, as one CUDA graph on fixed buffers."""

    name = "PyTorch whole-step graph"
    capturable = True

    @classmethod
    def why_not(cls, workload: Workload, device: str) -> str:
        """Return why there is no graph."""
        return "" if device.startswith("cuda") else "needs a CUDA device"

    def cost(self, x: Any, y: Any) -> Any:
        """Return the cost of one model, or of the stack."""
        return TorchPeer.cost(self, x, y) if self.n_models == 1 else super().cost(x, y)

    def build(self, initial: Initial) -> None:
        """Warm up beside the current stream, capture, and begin anew."""
        super().build(initial)
        torch.set_float32_matmul_precision(self.precision)
        torch.cuda.set_device(self.device)
        rows = self.order[: self.workload.batch]
        self.x, self.labels = self.X[rows].clone(), self.y[rows].clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                TorchPeer.step(self, rows)
        torch.cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.cost(self.x, self.labels).backward()
            self.optimizer.step()
        self.begin_anew(initial)

    def begin_anew(self, initial: Initial) -> None:
        """Undo the steps of the warm-up, in place."""
        with torch.no_grad():
            for p, x in zip([*self.W, *self.b], [*(W for W, _ in initial), *(b for _, b in initial)], strict=True):
                p.copy_(torch.as_tensor(x).view(p.shape))
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def step(self, rows: Any) -> None:
        """Gather into the graph's own buffers and replay it."""
        torch.index_select(self.X, 0, rows, out=self.x)
        torch.index_select(self.y, 0, rows, out=self.labels)
        self.graph.replay()


PEERS = (Eager, Compiled, WholeStepGraph, Stacked, Loop)
