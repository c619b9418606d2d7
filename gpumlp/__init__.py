"""gpumlp: a batched trainer for multi-layer perceptrons, one network or hundreds at once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpumlp import errors
from gpumlp.backends.select import get_backend, use_backend
from gpumlp.formulas import activations, costs
from gpumlp.formulas import update_rules as rules
from gpumlp.formulas.activations import Activation
from gpumlp.formulas.costs import Cost
from gpumlp.formulas.register import register
from gpumlp.formulas.update_rules import UpdateRule
from gpumlp.network.embedding import Embedding
from gpumlp.network.network import Network
from gpumlp.saved_model import SavedModel, load
from gpumlp.training import schedules
from gpumlp.training.checkpoints import Checkpoints
from gpumlp.training.choice import Choice, Measurement
from gpumlp.training.delta_norms import DeltaNorms
from gpumlp.training.folds import Folds
from gpumlp.training.history import History
from gpumlp.training.memory import MemoryPlan, plan_memory
from gpumlp.training.mlflow_log import MlflowLog
from gpumlp.training.monitors import CsvLog, EarlyStopping, JsonLinesLog, KeepBest, Metric, Monitor, Stop
from gpumlp.training.pools import Pool
from gpumlp.training.progress import ProgressBar
from gpumlp.training.tensorboard_log import TensorBoardLog
from gpumlp.training.trainer import Trainer
from gpumlp.training.tuning import tune

if TYPE_CHECKING:
    from gpumlp.ensembles import Sweep, SweepResult, distributions
    from gpumlp.estimators import MLPClassifier, MLPRegressor
    from gpumlp.search import FleetSearchCV, cross_validate

__version__ = "0.1.0.dev0"

__all__ = [
    "Activation",
    "Checkpoints",
    "Choice",
    "Cost",
    "CsvLog",
    "DeltaNorms",
    "EarlyStopping",
    "Embedding",
    "FleetSearchCV",
    "Folds",
    "History",
    "JsonLinesLog",
    "KeepBest",
    "MLPClassifier",
    "MLPRegressor",
    "Measurement",
    "MemoryPlan",
    "Metric",
    "MlflowLog",
    "Monitor",
    "Network",
    "Pool",
    "ProgressBar",
    "SavedModel",
    "Stop",
    "Sweep",
    "SweepResult",
    "TensorBoardLog",
    "Trainer",
    "UpdateRule",
    "__version__",
    "activations",
    "costs",
    "cross_validate",
    "distributions",
    "errors",
    "get_backend",
    "load",
    "plan_memory",
    "register",
    "rules",
    "schedules",
    "tune",
    "use_backend",
]


# loaded when asked for: some bring scikit-learn with them, and rooms below the ensembles ask this file for the version
LATER = {
    "FleetSearchCV": "gpumlp.search",
    "MLPClassifier": "gpumlp.estimators",
    "MLPRegressor": "gpumlp.estimators",
    "Sweep": "gpumlp.ensembles",
    "SweepResult": "gpumlp.ensembles",
    "cross_validate": "gpumlp.search",
    "distributions": "gpumlp.ensembles",
}


def __getattr__(name: str) -> Any:
    """Load what is not loaded from the start."""
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
