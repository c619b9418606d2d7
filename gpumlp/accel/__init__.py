"""Acceleration: an unchanged program that uses scikit-learn's MLPClassifier or MLPRegressor trains on gpumlp.

    python -m gpumlp.accel script.py
    python -m gpumlp.accel -m module
    %load_ext gpumlp.accel

Estimators that joblib or multiprocessing carry into worker processes are accelerated and counted there, too. What was
imported by name before stays scikit-learn's own, as does what runs in processes that are started in other ways.

Nothing else in gpumlp imports this; importing it changes nothing by itself.
"""

from gpumlp.accel.installation import install, uninstall
from gpumlp.accel.notebook import load_ipython_extension, unload_ipython_extension
from gpumlp.accel.report import as_json, as_text

__all__ = ["as_json", "as_text", "install", "load_ipython_extension", "uninstall", "unload_ipython_extension"]
