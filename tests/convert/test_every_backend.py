"""Wherever a network computes, it is exchanged."""

import numpy as np
from exchanged_models import classifier, rows

from gpumlp.convert import from_sklearn, load_safetensors, one_of, save_safetensors, to_sklearn


def test_a_model_on_any_backend_is_exchanged(backend, tmp_path):
    model = classifier(n_models=2, scaled=False, backend=backend)
    X = rows(model)
    alone = one_of(model, 1)
    assert alone.network.backend.name == backend
    back = from_sklearn(to_sklearn(alone), backend=backend)
    assert back.network.backend.name == backend
    assert np.abs(back.probabilities(X) - model.network.predict(X)[1]).max() <= 1e-6
    loaded = load_safetensors(save_safetensors(model, tmp_path / "m"), backend=backend)
    assert loaded.network.backend.name == backend
    assert np.array_equal(loaded.outputs(X), model.outputs(X))
