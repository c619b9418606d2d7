"""What acceleration was told, in this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Whether scikit-learn's names stand for the accelerated classes, and where these compute.

    backend, device   as of Network; None leaves it to GPUMLP_BACKEND and "auto"
    """

    active: bool = False
    backend: str | None = None
    device: str | None = None


SETTINGS = Settings()
