"""What makes a training the one that it is, beside how far it has come: network, options, data."""

from __future__ import annotations

from dataclasses import astuple
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.backends.protocol import Backend
from gpumlp.network.initialisers import get_initialiser, initialiser_name
from gpumlp.network.network import Network
from gpumlp.shapes import is_on_device
from gpumlp.training.schedules import ReduceOnPlateau, Schedule

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

PLAN = 64  # epochs in which a schedule is looked at
STEPS = 100  # steps of each
DIGITS = 9  # of a factor: another machine's may differ in the last ones
ROWS = 4096  # hashed at a time


def network_identity(net: Network) -> dict[str, Any]:
    """Return what two networks have in common that learn the same."""
    of_members = [
        {
            "sizes": list(member.architecture.sizes),
            "activations": [a.name for a in member.architecture.activations],
            "cost": member.architecture.cost.name,
            "normalisation": list(member.architecture.normalisation),
            "dropout": list(member.dropout),
            "initialiser": initialiser_name(get_initialiser(member.initialiser)),
            "seed": member.seed,
            "model id": member.model_id,
        }
        for member in net.members
    ]
    embeddings = (
        {"embeddings": [list(astuple(e)) for e in net.architecture.embeddings]} if net.architecture.embeddings else {}
    )
    in_common = {"dtype": net.dtype.name} | embeddings
    return in_common | {name: in_short([of[name] for of in of_members]) for name in of_members[0]}


def trainer_identity(trainer: Trainer, last_epoch: int) -> dict[str, Any]:
    """Return what two trainers have in common that train alike.

    last_epoch   of the `fit`, which counts where the schedule's plan depends on it
    """
    hyper = trainer.hyper
    of_weights = {name: values[0] for name, values in hyper.values.items() if name != "eta"}
    numbers = {"learning_rate": hyper.base_rate[0], **of_weights}
    clip_norm = None if hyper.clip_norm is None else in_short(hyper.clip_norm.tolist())
    options = {name: trainer.step_options[name] for name in ("train_biases", "momentum_on_biases")}
    return {
        "optimizer": trainer.rule.name,
        **{name: in_short(values.tolist()) for name, values in numbers.items()},
        "clip_norm": clip_norm,
        **options,
        "batch_size": trainer.batch_size,
        "reduction": trainer.reduction,
        "penalty": trainer.penalty,
        "shuffle": trainer.shuffle,
        "on_divergence": trainer.on_divergence,
        "schedule": in_short([schedule_identity(each, last_epoch) for each in trainer.schedules.of_models]),
    }


def schedule_identity(schedule: Schedule | ReduceOnPlateau, last_epoch: int) -> dict[str, Any]:
    """Return the options of a schedule that looks at results, and the course of any other one."""
    if isinstance(schedule, ReduceOnPlateau):
        return {"name": schedule.name, **schedule.options()}
    plan = schedule.epochs or PLAN
    course = _course(schedule, plan)
    depends = schedule.epochs is None and course != _course(schedule, 2 * plan)
    return {"name": schedule.name, "course": course, "epochs": last_epoch if depends else schedule.epochs}


def _course(schedule: Schedule, plan: int) -> list[float]:
    epoch = np.linspace(0.0, PLAN, PLAN, endpoint=False)
    factors = np.broadcast_to(schedule.factor(epoch * STEPS, epoch, float(plan)), epoch.shape)
    return [float(f"{factor:.{DIGITS}g}") for factor in factors]


def data_identity(backend: Backend, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return shape, dtype and checksum of each array, wherever it lies; None for those that are None."""
    return {name: None if x is None else _array_identity(backend, x) for name, x in arrays.items()}


def _array_identity(backend: Backend, x: Any) -> dict[str, Any]:
    host = backend.to_host(backend.asarray(x)) if is_on_device(x) else x
    digest = sha256()
    for start in range(0, len(host), ROWS):
        digest.update(np.ascontiguousarray(host[start : start + ROWS]).reshape(-1).view(np.uint8).data)
    return {"shape": list(host.shape), "dtype": host.dtype.name, "values": digest.hexdigest()}


def in_short(values: list[Any]) -> Any:
    """Return the one value where all are the same, else the list."""
    return values[0] if all(value == values[0] for value in values) else values
