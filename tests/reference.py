"""The slow truth: one model, one example at a time, in float64, to be read beside the package.

Nothing here knows of the package. An example is a vector, W[l] is (out, in) and leads from a[l] to a[l + 1].

    BP1   delta[L] = dC/da * f'(z[L])
    BP2   delta[l] = (W[l + 1]^T delta[l + 1]) * f'(z[l])
    BP3   dC/db[l] = delta[l]
    BP4   dC/dW[l] = delta[l] a[l]^T

Source: Nielsen, Neural Networks and Deep Learning, ch. 2; sums and means over a batch as in ch. 1 and Rojas, ch. 7.
"""

import numpy as np

# ---------------------------------------------------------------- formulas


def activate(name, z):
    if name == "sigmoid":
        return 1 / (1 + np.exp(-z))
    if name == "tanh":
        return np.tanh(z)
    if name == "relu":
        return np.array([max(value, 0.0) for value in z])
    if name == "identity":
        return z.copy()
    if name == "softmax":
        return np.exp(z) / np.sum(np.exp(z))
    raise ValueError(name)


def jacobian(name, z):
    """da/dz as a matrix: diagonal but for softmax, in which each output depends on every z."""
    a = activate(name, z)
    if name == "softmax":
        return np.diag(a) - np.outer(a, a)
    if name == "sigmoid":
        return np.diag(a * (1 - a))
    if name == "tanh":
        return np.diag(1 - np.tanh(z) ** 2)
    if name == "relu":
        return np.diag([1.0 if value > 0 else 0.0 for value in z])
    if name == "identity":
        return np.eye(len(z))
    raise ValueError(name)


def cost(name, a, y):
    if name == "quadratic":
        return 0.5 * np.sum((a - y) ** 2)
    if name == "cross_entropy":
        return -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a))
    if name == "categorical_cross_entropy":
        return -np.sum(y * np.log(a))
    raise ValueError(name)


def cost_gradient(name, a, y):
    """dC/da."""
    if name == "quadratic":
        return a - y
    if name == "cross_entropy":
        return (a - y) / (a * (1 - a))
    if name == "categorical_cross_entropy":
        return -y / a
    raise ValueError(name)


# ---------------------------------------------------------------- one example


def forward(W, b, activations, x):
    """z and a of every layer; a[0] is the input."""
    z, a = [], [np.array(x, np.float64)]
    for l in range(len(W)):
        z.append(W[l] @ a[l] + b[l])
        a.append(activate(activations[l], z[l]))
    return z, a


def backward(W, b, activations, cost_name, x, y):
    """delta, dC/dW and dC/db of every layer for one example."""
    z, a = forward(W, b, activations, x)
    last = len(W) - 1
    delta = [None] * len(W)
    delta[last] = jacobian(activations[last], z[last]).T @ cost_gradient(cost_name, a[-1], y)  # BP1
    for l in range(last - 1, -1, -1):
        delta[l] = jacobian(activations[l], z[l]).T @ (W[l + 1].T @ delta[l + 1])  # BP2
    db = [d.copy() for d in delta]  # BP3
    dW = [np.outer(delta[l], a[l]) for l in range(len(W))]  # BP4
    return delta, dW, db


def directional_derivative(W, b, activations, x, layer, row, column):
    """da/dw of every layer for one weight, carried forward: the derivative taken directly, first layer first."""
    z, a = forward(W, b, activations, x)
    da = [np.zeros_like(value) for value in a]
    for l in range(len(W)):
        dz = W[l] @ da[l]
        if l == layer:
            dz[row] += a[l][column]
        da[l + 1] = jacobian(activations[l], z[l]) @ dz
    return da


# ---------------------------------------------------------------- many examples


def mean_cost(W, b, activations, cost_name, X, Y):
    return np.mean([cost(cost_name, forward(W, b, activations, x)[1][-1], y) for x, y in zip(X, Y, strict=True)])


def batch_gradient(W, b, activations, cost_name, X, Y, weights, reduction):
    """Sum of the weighted gradients of the examples, divided by the sum of the weights if the mean is wanted."""
    dW, db = [np.zeros_like(w) for w in W], [np.zeros_like(v) for v in b]
    for x, y, weight in zip(X, Y, weights, strict=True):
        _, dW_of_one, db_of_one = backward(W, b, activations, cost_name, x, y)
        for l in range(len(W)):
            dW[l] += weight * dW_of_one[l]
            db[l] += weight * db_of_one[l]
    total = sum(weights)
    if reduction == "mean" and total > 0:
        dW, db = [g / total for g in dW], [g / total for g in db]
    return dW, db


def train(
    W,
    b,
    activations,
    cost_name,
    X,
    Y,
    *,
    order,
    batch_size,
    eta,
    reduction="mean",
    l2=0.0,
    momentum=0.0,
    before=None,
    momentum_on_biases=True,
    train_biases=True,
    sample_weight=None,
    penalty="example",
):
    """Return weights and biases after len(order) epochs, each of which takes the rows that its line names.

    momentum   with two points of the past: w(t + 1) = w(t) - eta g + momentum (w(t) - w(t - 1))
    before     (W, b) at t - 1; the same as W and b if nothing is given, so that the first step is a plain one
    l2         penalty (l2 / 2) |W|^2 of the averaged cost, so that a sum over n rows has it n times; not on biases
    penalty    "batch": a batch's summed cost has it once, so that the mean has it divided by the weight of its rows
    """
    W, b = [np.array(w, np.float64) for w in W], [np.array(v, np.float64) for v in b]
    W_before, b_before = ([w.copy() for w in W], [v.copy() for v in b]) if before is None else before
    weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    for rows_of_epoch in order:
        for start in range(0, len(rows_of_epoch), batch_size):
            rows = rows_of_epoch[start : start + batch_size]
            dW, db = batch_gradient(W, b, activations, cost_name, X[rows], Y[rows], weights[rows], reduction)
            total = len(rows) if penalty == "example" else weights[rows].sum()
            penalties = 1 if (reduction == "mean") == (penalty == "example") else total
            if penalty == "batch" and reduction == "mean":
                penalties = 1 / total if total > 0 else 0
            W_next, b_next = [], []
            for l in range(len(W)):
                g = dW[l] + penalties * l2 * W[l]
                W_next.append(W[l] - eta * g + momentum * (W[l] - W_before[l]))
                step = -eta * db[l] + (momentum * (b[l] - b_before[l]) if momentum_on_biases else 0)
                b_next.append(b[l] + step if train_biases else b[l])
            W_before, b_before, W, b = W, b, W_next, b_next  # all layers move at once
    return W, b
