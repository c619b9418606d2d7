"""Training an estimator by L-BFGS, which sees the whole set at each step."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from gpumlp.estimators.inputs import Rows, drawn_again, expect_some_weight
from gpumlp.network.objective import Objective


def train(mlp: Any, rows: Rows, random: np.random.RandomState) -> None:
    """Train each model for up to max_iter iterations and publish the weights."""
    n_models = mlp.n_models
    counts = drawn_again(n_models, len(rows), int(random.randint(2**31 - 1))) if n_models > 1 else None
    done, learned = [], []
    for m in range(n_models):
        own = rows if counts is None else rows.times(counts[m])
        expect_some_weight(own, f"drawn for model {m}")
        net = mlp._build_network(seed=0, model=None if n_models == 1 else m)
        objective = Objective(net, own.X, own.targets, own.weights, l2=mlp.alpha / own.total_weight)
        n_iter = minimise(objective, mlp.max_iter, mlp.max_fun, mlp.tol, bool(mlp.verbose))
        done.append((n_iter, mlp._loss_of(objective.cost) + objective.penalty))
        learned.append(np.array(net.backend.to_host(net.parameters.theta)))
    n_iters, losses = zip(*done, strict=True)
    mlp.n_iter_, mlp.loss_ = max(n_iters), float(np.mean(losses))
    whole = mlp._build_network(seed=0)
    whole.backend.copy(whole.backend.asarray(np.concatenate(learned)), whole.parameters.theta)
    mlp._take(whole)


def minimise(objective: Objective, max_iter: int, max_fun: int, tol: float, verbose: bool) -> int:
    """Move the objective's network to a minimum by L-BFGS-B and return the number of iterations.

    Warns ConvergenceWarning if it ended before the gradient fell below `tol`.
    Source   Byrd, Lu, Nocedal and Zhu 1995
    """
    n_done = 0

    def report(intermediate_result: Any) -> None:
        nonlocal n_done
        n_done += 1
        print(f"Iteration {n_done}, loss = {intermediate_result.fun:.8f}")

    result = minimize(
        objective,
        objective.parameters(),
        method="L-BFGS-B",
        jac=True,
        callback=report if verbose else None,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    objective(result.x)  # so that the network, and the objective's cost, are those of the minimum
    n_iter = min(int(result.nit), max_iter)
    if result.status != 0:
        _warn_of_failure(result, n_iter, max_iter)
    return n_iter


def _warn_of_failure(result: Any, n_iter: int, max_iter: int) -> None:
    message = f"lbfgs failed to converge after {n_iter} iteration(s) (status={result.status}):\n{result.message}\n"
    if n_iter == max_iter:
        message += f"\nIncrease the number of iterations to improve the convergence (max_iter={max_iter})."
    message += (
        "\nYou might also want to scale the data as shown in:\n"
        "    https://scikit-learn.org/stable/modules/preprocessing.html"
    )
    warnings.warn(message, ConvergenceWarning, stacklevel=6)
