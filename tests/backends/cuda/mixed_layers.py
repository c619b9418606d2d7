"""A hidden layer of models that differ, forward and back: a case as cuda_cases.py has them.

On cuda the stack is padded; on NumPy each model is computed by itself, in its own size, and put into zeros.
"""

import numpy as np
from cuda_cases import GAP, clock_at, draw, put, tensors, unset

from gpumlp.backends.protocol import Dropout, PerModel
from gpumlp.formulas.activations import ACTIVATIONS, Activation
from gpumlp.network.workspace import build_rates
from gpumlp.randomness.seeds import model_keys


def mixed(kinds, widths, rates=0.0, batch=5, n_in=4, n_next=2, in_place=False, infinite=(), alike=False):
    """The case of one hidden layer.

    kinds      activation of each model; widths: its units. What lies beyond them in weights and biases is not zero
               here, so that a unit that is not masked shows
    rates      of each model, or of all
    infinite   models with an infinite delta of the next layer
    alike      whether the kernels of models that are alike in widths and activations are asked for
    """
    found = [f if isinstance(f, Activation) else ACTIVATIONS.get(f) for f in kinds]
    different, n_models, n_out = tuple(dict.fromkeys(found)), len(widths), max(widths)
    of_each = [rates] * n_models if isinstance(rates, float) else rates

    def case(b):
        shapes = [(n_out, n_in), (n_out,), (n_next, n_out)]
        _, (W, bias, W_next) = tensors(b, n_models, shapes, lambda *shape: draw(1, *shape))
        grad, (dW, db, _) = tensors(b, n_models, shapes, GAP)
        a_in, next_values = put(b, draw(2, n_models, batch, n_in)), draw(3, n_models, batch, n_next)
        next_values[list(infinite), 1] = np.inf
        delta_next, keys = put(b, next_values), b.asarray(model_keys([4] * n_models, range(n_models)))
        z, delta = unset(b, n_models, batch, n_out), unset(b, n_models, batch, n_out)
        a = z if in_place else unset(b, n_models, batch, n_out)
        if b.pads_models:
            f = found[0]
            if not alike:
                numbers = [different.index(f) for f in found]
                f = PerModel(different, *(b.asarray(np.array(x, np.int32)) for x in (numbers, widths)))
            drop = None
            if any(of_each):
                own = None if isinstance(rates, float) else build_rates(b, of_each)
                drop = Dropout(2, max(of_each), keys, clock_at(b, 7), rates=own)
            b.forward_layer(f, a_in, W, bias, z, a, drop)
            b.hidden_delta(f, delta_next, W_next, z, a, delta, db, drop)
            b.weight_gradient(delta, a_in, dW)
            return {"z": z, "a": a, "delta": delta, "grad": grad}
        for x in (z, a, delta, dW, db):
            x[...] = 0
        for m, (f, n) in enumerate(zip(found, widths, strict=True)):
            its_z, its_a, its_delta = (np.zeros((1, batch, n), b.dtype) for _ in range(3))
            its_dW, its_db, of_m, drop = (
                np.zeros((1, n, n_in), b.dtype),
                np.zeros((1, n), b.dtype),
                slice(m, m + 1),
                None,
            )
            if of_each[m]:
                drop = Dropout(2, of_each[m], keys[of_m], clock_at(b, 7), b.empty(its_z.shape, np.bool_))
            b.forward_layer(f, a_in[of_m], W[of_m, :n], bias[of_m, :n], its_z, its_a, drop)
            own = np.ascontiguousarray(W_next[of_m, :, :n])
            b.hidden_delta(f, delta_next[of_m], own, its_z, its_a, its_delta, its_db, drop)
            b.weight_gradient(its_delta, a_in[of_m], its_dW)
            z[m, :, :n], a[m, :, :n], delta[m, :, :n] = its_z[0], its_a[0], its_delta[0]
            dW[m, :n], db[m, :n] = its_dW[0], its_db[0]
        return {"z": z, "a": a, "delta": delta, "grad": grad}

    return case


def parts_of(found, batch, widths, n_in=4, n_next=2):
    """Return what such a case gave as z, a, delta (n_models, batch, n_out), dW (n_models, n_out, n_in) and db."""
    n_models, n_out = len(widths), max(widths)
    parts = {name: found[name][4:-4].reshape(n_models, batch, n_out) for name in ("z", "a", "delta")}
    of_W, of_b = n_out * n_in, 5 + n_out * n_in + 5
    parts["dW"] = found["grad"][:, 5 : 5 + of_W].reshape(n_models, n_out, n_in)
    parts["db"] = found["grad"][:, of_b : of_b + n_out]
    return parts
