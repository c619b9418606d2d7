"""SavedModel: a network with all that turns raw rows into answers, in one file without pickles."""

from gpumlp.saved_model.header import VERSION
from gpumlp.saved_model.loading import load
from gpumlp.saved_model.model import SavedModel
from gpumlp.saved_model.npz import HEADER

__all__ = ["HEADER", "VERSION", "SavedModel", "load"]
