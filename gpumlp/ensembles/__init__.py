"""Ensembles: many trainings of different models as few stacks, each trained at once."""

from gpumlp.ensembles.job import Job, Outcome
from gpumlp.ensembles.plan import Plan, Stack, plan
from gpumlp.ensembles.training import train

__all__ = ["Job", "Outcome", "Plan", "Stack", "plan", "train"]
