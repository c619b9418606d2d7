"""Ensembles: many trainings of different models as few stacks, each trained at once."""

from gpumlp.ensembles import distributions
from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.plan import Plan, Stack, plan
from gpumlp.ensembles.ray_executor import OnRay
from gpumlp.ensembles.result import SweepResult
from gpumlp.ensembles.sweep import Sweep
from gpumlp.ensembles.training import train
from gpumlp.ensembles.watcher import Watcher

__all__ = [
    "Job",
    "OnRay",
    "Outcome",
    "Plan",
    "Stack",
    "Sweep",
    "SweepResult",
    "Watcher",
    "distributions",
    "plan",
    "train",
]
