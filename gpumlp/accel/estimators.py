"""The accelerated classes: scikit-learn's own, fitted by sgd and adam on gpumlp, and noting every call."""

from __future__ import annotations

import copyreg
import inspect
import sys
from collections.abc import Callable, Sized
from functools import wraps
from typing import Any

from gpumlp.accel.ledger import LEDGER
from gpumlp.accel.stochastic import Fitting, why_not
from gpumlp.errors import BackendUnavailable, GpumlpError, UnknownName

FORWARD = "its pass forward is left as it is"
LBFGS = 'solver="lbfgs" is left as it is'


def accelerate(original: Any, subclassed: Callable[[type], None]) -> Any:
    """Return a subclass of one of scikit-learn's classes that goes by its name.

    subclassed   called with each further subclass that a program makes
    """
    signature = inspect.signature(original._fit_stochastic)  # which differs between versions

    class Accelerated(original):  # type: ignore[misc]
        def _fit_stochastic(self, *args: Any, **kwargs: Any) -> None:
            given = signature.bind(self, *args, **kwargs).arguments
            X, incremental = given["X"], given["incremental"]
            with LEDGER.call(_method(self, "partial_fit" if incremental else "fit"), X.shape[0]) as call:
                data = (given["y"], given.get("sample_weight"), given["layer_units"], incremental)
                call.why = why_not(self, Accelerated, X, *data)
                fitting = None
                if not call.why:
                    try:
                        fitting = Fitting(self, X, *data)
                    except (BackendUnavailable, UnknownName):
                        raise
                    except GpumlpError as error:
                        call.why = str(error)
                if fitting is None:
                    super()._fit_stochastic(*args, **kwargs)
                else:
                    call.where = fitting.engine.network.backend.name
                    fitting.run()

        def _fit_lbfgs(self, X: Any, *args: Any, **kwargs: Any) -> None:
            with LEDGER.call(_method(self, "fit"), X.shape[0]) as call:
                call.why = LBFGS
                super()._fit_lbfgs(X, *args, **kwargs)

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            subclassed(cls)

        def __reduce_ex__(self, protocol: Any) -> Any:
            found = super().__reduce_ex__(protocol)
            standing = getattr(sys.modules[type(self).__module__], type(self).__qualname__, None)
            if type(self) is not Accelerated or standing is Accelerated:
                return found
            # acceleration has been ended since
            return copyreg._reconstructor, (standing, object, None), self.__getstate__()  # type: ignore[attr-defined]

    for name in ("predict", "predict_proba"):
        if hasattr(original, name):
            setattr(Accelerated, name, _noted(getattr(original, name)))
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Accelerated, name, getattr(original, name))
    return Accelerated


def _method(estimator: Any, name: str) -> str:
    return f"{type(estimator).__name__}.{name}"


def _noted(method: Any) -> Any:
    """Return a method of scikit-learn that notes its calls."""

    @wraps(method)
    def noted(self: Any, X: Any) -> Any:
        with LEDGER.call(_method(self, method.__name__), _rows(X)) as call:
            call.why = FORWARD
            return method(self, X)

    return noted


def _rows(X: Any) -> int:
    """Return how many rows X has, 0 where it is nothing that has any: scikit-learn says so in its own words."""
    if getattr(X, "shape", ()):
        return int(X.shape[0])
    return len(X) if isinstance(X, Sized) else 0
