"""What a network has learned, and whether two have learned the same."""

import numpy as np


def theta(net):
    """Return a copy of all parameters, (n_models, n_params), padding included."""
    return np.array(net.backend.to_host(net.parameters.theta))


def set_theta(net, values):
    """Overwrite all parameters, (n_models, n_params), padding included."""
    net.backend.copy(net.backend.asarray(values, net.dtype), net.parameters.theta)


def is_same_model(x, y, backend):
    """Tell whether two models that differ in their stacks alone are the same.

    NumPy computes one product for each model, so the bits are equal. cuBLAS may choose another kernel for another
    number of models, so on a device only what is not a product is equal bit for bit.
    """
    if backend == "cuda":
        tolerance = 1e-4 if x.dtype == np.float32 else 1e-11
        return np.allclose(x, y, rtol=tolerance, atol=tolerance * max(1e-3, np.abs(y).max()), equal_nan=True)
    return x.tobytes() == y.tobytes()
