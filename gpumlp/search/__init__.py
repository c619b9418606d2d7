"""Searching over parameters of the estimators, and validating them, with all fits of a round trained at once."""

from gpumlp.search.cross_validation import cross_validate
from gpumlp.search.fleet_search import FleetSearchCV

__all__ = ["FleetSearchCV", "cross_validate"]
