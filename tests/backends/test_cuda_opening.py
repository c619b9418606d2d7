"""What has to work before a device is used, and how what is compiled for it is called."""

import pytest

from gpumlp.backends.select import get_backend, why_unavailable

if why_unavailable("cuda"):
    pytest.skip(f"backend cuda {why_unavailable('cuda')}", allow_module_level=True)

from gpumlp.backends.cuda import device, sources
from gpumlp.errors import BackendUnavailable
from gpumlp.formulas.activations import ACTIVATIONS
from gpumlp.formulas.costs import COSTS
from gpumlp.formulas.output_delta import fits, output_delta


def test_a_device_for_which_nothing_compiles_is_not_used(monkeypatch):
    monkeypatch.setattr(device, "_devices", {})
    monkeypatch.setattr(device, "PROBE", '#include "headers_that_are_missing.h"')
    with pytest.raises(BackendUnavailable, match=r'backend "cuda" cannot compile a kernel for .*: pip install'):
        get_backend("cuda")
    assert get_backend("auto").name != "cuda"


def test_no_two_output_layers_are_written_into_the_same_file():
    pairs = [(c, f) for c in COSTS.definitions() for f in ACTIVATIONS.definitions() if fits(c, f)]
    names = [sources.output_delta(output_delta(c, f), f, "float32").name for c, f in pairs]
    assert len(set(names)) == len(names)
    assert "output_delta categorical_cross_entropy softmax float32" in names
