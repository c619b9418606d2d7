"""Putting the accelerated classes in the place of scikit-learn's, here and in worker processes."""

from __future__ import annotations

import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import sklearn.neural_network
from joblib.externals.loky.backend import reduction as lokys
from sklearn.neural_network import _multilayer_perceptron

from gpumlp.accel.estimators import accelerate
from gpumlp.accel.ledger import LEDGER
from gpumlp.accel.settings import SETTINGS
from gpumlp.backends.select import get_backend

PLACES = (sklearn.neural_network, _multilayer_perceptron)
NAMES = ("MLPClassifier", "MLPRegressor")


def install(backend: str | None = None, device: str | None = None) -> str:
    """Let the names in scikit-learn stand for the accelerated classes, begin to count, and return the backend's name.

    What a program imported by name before keeps scikit-learn's own class.
    Raises   BackendUnavailable, UnknownName, ConfigurationError; nothing is changed then
    """
    name = get_backend(None if backend == "auto" else backend, device).name
    SETTINGS.backend, SETTINGS.device = backend, device
    LEDGER.open()
    _replace(ACCELERATED)
    SETTINGS.active = True
    return name


def uninstall() -> None:
    """Give the names back to scikit-learn's own classes; accelerated objects that are there stay so."""
    SETTINGS.active = False
    _replace(ORIGINALS)


def _replace(classes: dict[str, Any]) -> None:
    for place in PLACES:
        for name, cls in classes.items():
            setattr(place, name, cls)


# ---------------------------------------------------------------- worker processes


class Passport:
    """What an estimator carries into a worker process ahead of itself, so that it is accelerated there, too."""

    def __reduce__(self) -> Any:
        return _enter, (SETTINGS.backend, SETTINGS.device, LEDGER.owner, str(LEDGER.folder))


def _enter(backend: str | None, device: str | None, owner: int, folder: str) -> Passport:
    """Accelerate this process as the one that an estimator comes from, and count for the same ledger."""
    if not SETTINGS.active and os.getpid() != owner:
        SETTINGS.active, SETTINGS.backend, SETTINGS.device = True, backend, device
        LEDGER.join(owner, Path(folder))
        _replace(ACCELERATED)
    return Passport()


def _depart(estimator: Any) -> Any:
    """Reduce an estimator on its way to another process; the passport is read before the class is looked up."""
    if not SETTINGS.active:
        return estimator.__reduce_ex__(4)
    return _arrive, (Passport(), type(estimator)), estimator.__getstate__()


def _arrive(passport: Passport, cls: Any) -> Any:
    return cls.__new__(cls)


def _let_travel(cls: type) -> None:
    """Let objects of exactly this class carry a passport between processes of multiprocessing and joblib."""
    ForkingPickler.register(cls, _depart)
    lokys.register(cls, _depart)


ORIGINALS: dict[str, Any] = {name: getattr(_multilayer_perceptron, name) for name in NAMES}
ACCELERATED: dict[str, Any] = {name: accelerate(original, _let_travel) for name, original in ORIGINALS.items()}
for _class in ACCELERATED.values():
    _let_travel(_class)
