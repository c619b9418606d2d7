"""OnRay: trials as tasks of a Ray cluster; a worker that dies costs one task, a trial that ends it a row that says so.

Ray's tasks fail one by one, GPUs are among the resources that they may ask for, and what is put into its object store
lies once on each node, where all tasks read it without a copy. The driver alone writes rows.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp import __version__
from gpumlp.backends.select import asked_for, check_device, why_unavailable
from gpumlp.backends.threads import at_most, processors
from gpumlp.ensembles.ledger import Row
from gpumlp.ensembles.lone import run_alone
from gpumlp.ensembles.trials import Batch, Task, Trial, lost_row, run_trials
from gpumlp.errors import BackendUnavailable, ConfigurationError

log = logging.getLogger("gpumlp")

PATIENCE = 10.0  # seconds to wait for whoever listens at an address
MOST_DEATHS = 5  # workers that may die of a trial, or beside it, although it has a process of its own


@dataclass(frozen=True)
class Piece:
    """Trials that are one task.

    deaths   how many workers have died of them, or of more trials that they were among
    """

    trials: tuple[Trial, ...]
    deaths: int = 0

    @property
    def is_alone(self) -> bool:
        """Whether it is one trial that is under suspicion, and gets a process of its own."""
        return len(self.trials) == 1 and self.deaths > 0

    def without(self, key: str) -> Piece:
        """Return what is left once there is a row of this key."""
        return replace(self, trials=tuple(trial for trial in self.trials if trial.key != key))

    def after_death(self) -> list[Piece]:
        """Return what is run in its place after its worker has died: the same once more, but from then on halves."""
        if self.deaths == 0 or len(self.trials) == 1:
            return [replace(self, deaths=self.deaths + 1)]
        middle = len(self.trials) // 2
        return [replace(self, trials=part) for part in (self.trials[:middle], self.trials[middle:])]


class OnRay:
    """Runs batches as tasks on Ray, as many at once as the cluster has processors or GPUs for.

    Each task has a GPU where the backend is cuda, or auto and the cluster has GPUs. Trials of which a worker has died
    twice are halved until the one that does it is alone; its row has "error" and "exit_status".

    address   of a cluster, such as "10.0.0.1:6379", or "auto" for the one of this machine; None: Ray is started on this
              machine for the time of the sweep. Where the program is connected to Ray already, that is used. A program
              with several sweeps does well to call ray.init itself, once: Ray that is left and joined again by one
              process may, rarely, stand still
    cpus      processors of each task, which computes with as many threads
    """

    def __init__(self, address: str | None = None, cpus: int = 1) -> None:
        if not (isinstance(cpus, int | np.integer) and cpus >= 1):
            raise ConfigurationError(f"cpus={cpus!r}: expected a whole number of processors of at least 1")
        if address is not None and "://" in address:
            raise ConfigurationError(
                f'address={address!r}: a sweep runs on a node of the cluster, with address="auto", not through Ray '
                "Client; `ray job submit` takes it there"
            )
        if address is not None and ":" in address and not address.rpartition(":")[2].isdigit():
            raise ConfigurationError(f'address={address!r}: expected "auto" or host:port such as "10.0.0.1:6379"')
        self.address, self.cpus = address, int(cpus)

    def run(
        self, task: Task, batches: Sequence[Batch], done: Callable[[Row], None], pulse: Callable[[int], None]
    ) -> None:
        with connected(self.address, self.cpus) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            task, gpus = placed(task, nodes)
            slots = n_slots(nodes, self.cpus, gpus)
            log.info("Ray: %d nodes, %d tasks at once, each with %s", len(nodes), slots, asked(self.cpus, gpus))
            tasks = _Tasks(ray, ray.put(contiguous(task)), self.cpus, gpus)
            try:
                # the largest models are the last, and last longest
                for batch in reversed(spread(batches, slots)):
                    tasks.start(Piece(tuple(batch)))
                for row in tasks.rows(task):
                    pulse(row["samples"])
                    done(row)
            finally:
                tasks.cancel()


class _Tasks:
    """The tasks that run, and what each of them still owes."""

    def __init__(self, ray: Any, task: Any, cpus: int, gpus: int) -> None:
        self._ray, self._task, self._cpus = ray, task, cpus
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, num_returns="streaming")(rows_there)
        self._running: dict[Any, Piece] = {}

    def start(self, piece: Piece) -> None:
        self._running[self._remote.remote(self._task, piece, self._cpus, __version__)] = piece

    def rows(self, task: Task) -> Iterator[Row]:
        """Yield rows as they come in, until there is one of every trial."""
        while self._running:
            (stream,), _ = self._ray.wait(list(self._running), num_returns=1)
            piece = self._running.pop(stream)
            try:
                row: Row = self._ray.get(next(stream))
            except StopIteration:
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise raised_there(error) from error
            except self._ray.exceptions.LocalRayletDiedError as error:
                raise BackendUnavailable("Ray on this machine has died; run the same again: it goes on") from error
            except self._ray.exceptions.RayError as error:
                yield from self._after_death(task, piece, error)
            else:
                self._running[stream] = piece.without(row["key"])
                yield row

    def _after_death(self, task: Task, piece: Piece, error: Exception) -> Iterator[Row]:
        """Start what is run in the piece's place, or yield the row that ends it."""
        reason = " ".join(str(error).split())
        if not piece.trials:  # its last row had come already
            return
        if piece.deaths == MOST_DEATHS:
            yield lost_row(task, piece.trials[0], f"{MOST_DEATHS + 1} workers died: {reason}")
            return
        log.warning("a worker died with %d configurations, which are run again: %s", len(piece.trials), reason)
        for part in piece.after_death():
            self.start(part)

    def cancel(self) -> None:
        """End what still runs."""
        for stream in self._running:
            self._ray.cancel(stream, force=True)


def rows_there(task: Task, piece: Piece, n_threads: int, version: str) -> Iterator[Row]:
    """Run the trials of a piece in a worker and yield their rows."""
    if version != __version__:
        raise BackendUnavailable(
            f"gpumlp {__version__} is installed on {socket.gethostname()}, the sweep was started by {version}; install "
            "one version on all nodes"
        )
    with at_most(n_threads):
        if piece.is_alone:
            yield run_alone(task, piece.trials[0])
        else:
            yield from run_trials(task, piece.trials)


def raised_there(error: Any) -> Exception:
    """Return the error that a task raised, or one that says why it could not even begin."""
    cause = error.cause
    if isinstance(cause, ModuleNotFoundError):
        return BackendUnavailable(f"a node of the cluster cannot load what the sweep needs ({cause}); install it there")
    return cause if isinstance(cause, Exception) else RuntimeError(str(error))


# ---------------------------------------------------------------- where


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, and leave it again; yield the module ray.

    Raises   BackendUnavailable without Ray, or where no cluster is
    """
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f'the executor "ray" needs Ray ({error}); install it: pip install "gpumlp[ray]"'
        ) from error
    if ray.is_initialized():
        yield ray
        return
    with sigterm_as_before():
        connect(ray, address, cpus)
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(ray: Any, address: str | None, cpus: int) -> None:
    """Connect to a cluster, or start one; Ray says nothing of it."""
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        n_cpus = max(processors(), cpus)
        ray.init("local", num_cpus=n_cpus, include_dashboard=False, **quiet)
    else:
        expect_listener(address)
        try:
            ray.init(address, **quiet)
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            raise no_cluster(address, error) from error


@contextmanager
def sigterm_as_before() -> Iterator[None]:
    """Let SIGTERM do after the block what it did before; Ray's own way is to print a stack and to abort."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def expect_listener(address: str) -> None:
    """Raise BackendUnavailable if nobody listens at host:port, since Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception) -> BackendUnavailable:
    """Build the error for an address at which no cluster is."""
    reason = " ".join(str(error).split())
    return BackendUnavailable(
        f"there is no Ray cluster at address={address!r} ({reason}); start one with `ray start --head`, or leave the "
        "address away to run on this machine alone"
    )


def placed(task: Task, nodes: Sequence[dict[str, float]]) -> tuple[Task, int]:
    """Return the task as the nodes compute it, and how many GPUs each piece of it needs.

    Raises   BackendUnavailable if a GPU is asked for by name and no node has one
    """
    name, device = asked_for(task.backend), task.device or "auto"
    check_device(name, device)
    if device.startswith("cuda:"):
        raise ConfigurationError(f'device {device!r}: Ray gives each task a GPU; ask for "cuda"')
    n_gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    wanted = name == "cuda" or device == "cuda"
    if wanted and not n_gpus:
        raise BackendUnavailable("no node of the Ray cluster has a GPU; leave device and backend away to run on CPUs")
    if wanted and why_unavailable("cuda"):
        log.warning(
            "this machine has no GPU, so it cannot train the best network when the sweep is done; leave device and "
            "backend away, and it does so on its CPU, while the sweep is still computed on the cluster's GPUs"
        )
    if wanted or (name == "auto" and device == "auto" and n_gpus):
        return replace(task, backend="cuda", device="cuda"), 1
    return replace(task, backend=name, device="cpu"), 0


def n_slots(nodes: Sequence[dict[str, float]], cpus: int, gpus: int) -> int:
    """Return how many tasks can run at once; raise ConfigurationError if none can."""
    of_nodes = []
    for node in nodes:
        by_cpus = int(node.get("CPU", 0)) // cpus
        of_nodes.append(min(by_cpus, int(node.get("GPU", 0))) if gpus else by_cpus)
    if not sum(of_nodes):
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        raise ConfigurationError(f"no node of the Ray cluster has {asked(cpus, gpus)}; one has {most} CPUs at most")
    return sum(of_nodes)


def asked(cpus: int, gpus: int) -> str:
    """Return what a task asks for in words."""
    return f"{cpus} CPU{'s' * (cpus > 1)}" + (" and a GPU" if gpus else "")


def spread(batches: Sequence[Batch], slots: int) -> list[Batch]:
    """Return the batches, divided so that there are as many as tasks can run at once, if there are enough trials."""
    parts = -(-slots // len(batches))
    divided = [np.array_split(np.arange(len(batch)), min(parts, len(batch))) for batch in batches]
    return [[batch[i] for i in part] for batch, of_batch in zip(batches, divided, strict=True) for part in of_batch]


def contiguous(task: Task) -> Task:
    """Return the task with its data as the networks read them, which Ray then shares without a copy."""
    return replace(task, X=np.ascontiguousarray(task.X, task.dtype), Y=np.ascontiguousarray(task.Y))
