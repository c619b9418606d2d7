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


# ---------------------------------------------------------------- normalised layers


def standardised(values, epsilon=1e-5):
    """Mean and variance of some numbers, zhat = (z - mean) / sqrt(variance + epsilon), and dzhat/dz as a matrix.

    Source: Ioffe and Szegedy 2015, algorithm 1; Ba, Kiros and Hinton 2016, eq. 3.
    """
    n = len(values)
    mean = sum(values) / n
    variance = sum((z - mean) ** 2 for z in values) / n
    s = np.sqrt(variance + epsilon)
    zhat = np.array([(z - mean) / s for z in values])
    return mean, variance, zhat, (np.eye(n) - 1 / n - np.outer(zhat, zhat) / n) / s


def groups_of(kind, n_units, counting):
    """What is normalised together in a batch, as (rows, units): each row, or each unit over the rows that count."""
    if kind == "layer":
        return [([row], list(range(n_units))) for row in counting]
    return [(counting, [unit]) for unit in range(n_units)]


def normalised_gradient(net, kinds, activations, cost_name, X, Y, weights):
    """dC/dW, dC/db, dC/dgamma and dC/dbeta of the weighted sum of costs, that sum, and mean and variance by layer.

    net     {"W": [...], "b": [...], "gamma": [...], "beta": [...]}, gamma and beta None where kinds[l] is None
    kinds   "layer", "batch" or None for each layer, of which the last one is None
    Rows of weight 0 are left out: they count nowhere.
    """
    counting = [row for row, weight in enumerate(weights) if weight > 0]
    A, U, jacobians, statistics = [np.array(X, np.float64)], [], [], []
    for l, kind in enumerate(kinds):
        Z = np.array([net["W"][l] @ a + net["b"][l] for a in A[l]])
        Zhat, of_group, found = Z.copy(), [], []
        if kind is not None:
            for rows, units in groups_of(kind, Z.shape[1], counting):
                mean, variance, zhat, matrix = standardised(Z[rows, units])
                Zhat[rows, units] = zhat
                of_group.append((rows, units, matrix))
                found.append((mean, variance))
            U.append(net["gamma"][l] * Zhat + net["beta"][l])
        else:
            U.append(Z)
        jacobians.append((of_group, Zhat))
        statistics.append(found)
        A.append(np.array([activate(activations[l], u) for u in U[l]]))
    total = sum(weights[row] * cost(cost_name, A[-1][row], Y[row]) for row in counting)
    gradient = {name: [None if v is None else np.zeros_like(v) for v in net[name]] for name in net}
    D = np.zeros_like(A[-1])  # dC/da of the layer
    for row in counting:
        D[row] = weights[row] * cost_gradient(cost_name, A[-1][row], Y[row])
    for l in range(len(kinds) - 1, -1, -1):
        for row in counting:
            D[row] = jacobian(activations[l], U[l][row]).T @ D[row]
        of_group, Zhat = jacobians[l]
        if kinds[l] is not None:
            for row in counting:
                gradient["gamma"][l] += D[row] * Zhat[row]
                gradient["beta"][l] += D[row]
            D = D * net["gamma"][l]
            for rows, units, matrix in of_group:
                D[rows, units] = matrix.T @ D[rows, units]
        before = np.zeros_like(A[l])
        for row in counting:
            gradient["b"][l] += D[row]
            gradient["W"][l] += np.outer(D[row], A[l][row])
            before[row] = net["W"][l].T @ D[row]
        D = before
    return gradient, total, statistics


def train_normalised(net, kinds, activations, cost_name, X, Y, *, order, batch_size, eta, sample_weight=None):
    """Return the network and the running (mean, variance) of each layer after plain gradient descent on means.

    A running statistic keeps 0.9 of itself at each step and takes 0.1 of the batch's: of the mean where a row counts,
    of the variance as an estimate from a sample where two rows count.
    """
    net = {name: [None if v is None else np.array(v, np.float64) for v in net[name]] for name in net}
    running = [(np.zeros(len(v)), np.ones(len(v))) for v in net["b"]]
    weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    for rows_of_epoch in order:
        for start in range(0, len(rows_of_epoch), batch_size):
            rows = rows_of_epoch[start : start + batch_size]
            n, total = sum(weights[rows] > 0), weights[rows].sum()
            if n == 0:
                continue
            gradient, _, statistics = normalised_gradient(
                net, kinds, activations, cost_name, X[rows], Y[rows], weights[rows]
            )
            for l, kind in enumerate(kinds):
                if kind == "batch":
                    for unit, (mean, variance) in enumerate(statistics[l]):
                        running[l][0][unit] = 0.9 * running[l][0][unit] + 0.1 * mean
                        if n > 1:
                            running[l][1][unit] = 0.9 * running[l][1][unit] + 0.1 * variance * n / (n - 1)
            for name, tensors in net.items():
                for l, tensor in enumerate(tensors):
                    if tensor is not None:
                        tensor -= eta * gradient[name][l] / total
    return net, running
