"""Trained models for other libraries, and theirs for gpumlp: scikit-learn, PyTorch, safetensors, ONNX."""

from gpumlp.convert.one_model import one_of
from gpumlp.convert.onnx_file import to_onnx
from gpumlp.convert.pytorch import from_torch, to_torch
from gpumlp.convert.safetensors_file import load_safetensors, save_safetensors
from gpumlp.convert.scikit_learn import from_sklearn, hidden_activation, to_sklearn

__all__ = [
    "from_sklearn",
    "from_torch",
    "hidden_activation",
    "load_safetensors",
    "one_of",
    "save_safetensors",
    "to_onnx",
    "to_sklearn",
    "to_torch",
]
