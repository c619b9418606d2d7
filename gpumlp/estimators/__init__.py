"""The scikit-learn face: MLPClassifier and MLPRegressor."""

from gpumlp.estimators.classifier import MLPClassifier
from gpumlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
