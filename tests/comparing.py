"""What a network has learned, and whether two have learned the same."""

import devices
import numpy as np

ROUNDING = {"float32": 1e-4, "float64": 1e-11}  # how far sums in another order may lead, as a share of the largest


def theta(net):
    """Return a copy of all parameters, (n_models, n_params), padding included."""
    return np.array(net.backend.to_host(net.parameters.theta))


def set_theta(net, values):
    """Overwrite all parameters, (n_models, n_params), padding included."""
    net.backend.copy(net.backend.asarray(values, net.dtype), net.parameters.theta)


def is_same_model(x, y, backend, dtype=None):
    """Tell whether two models that differ in their stacks alone are the same.

    They are bit for bit where each model's products are computed by themselves: on a CPU, and on the emulated device.
    On a real device cuBLAS may choose another kernel for another number of models, whose sums run in another order.
    One product differs by some units in the last place of its largest value; a few steps, in which an update rule
    divides by small gradients, make more of that, so a hundred or a thousand times as much is allowed, and no more: a
    model that has seen another one's number is off by a tenth or by ten times.

    dtype   the networks'; where `x` and `y` are costs, which are float64 whatever the network computes in
    """
    if backend != "cuda" or devices.in_use().kind == "emulated":
        return x.tobytes() == y.tobytes()
    allowed = ROUNDING[np.dtype(dtype or x.dtype).name] * max(1e-3, np.abs(y[np.isfinite(y)]).max(initial=0))
    return bool(np.allclose(x, y, rtol=0, atol=allowed, equal_nan=True))
