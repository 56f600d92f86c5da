"""The independent check of any multi-task answer: primal, dual and gap in float64, all columns."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from actors.lasso.certificate import Certificate
from actors.lasso.multitask_problem import MultiTaskProblem


def certify_multitask(
    problem: MultiTaskProblem, coef: Any, intercepts: Any, alpha: float
) -> Certificate:
    """Certify ``(coef, intercepts)`` at ``alpha`` from the raw data, sharing no code with a solver.

    The residual, made orthogonal to what is unpenalised and scaled by
    ``t = min(1, n alpha / max_j ||x_j' S R|| / u_j)``, is dual feasible;
    ``D = (||Y_c||_F^2 - ||Y_c - t R||_F^2) / (2 n)`` in the norm of the sample weights.

    Parameters
    ----------
    coef : ndarray or sparse matrix (n_features, n_targets)
    intercepts : ndarray (n_targets,)
        The engine's own; inexact ones show as a larger primal.
    alpha : float

    Returns
    -------
    Certificate
        An infinite gap for coefficients on an excluded column.
    """
    W = np.asarray(coef.toarray() if sp.issparse(coef) else coef, dtype=np.float64)
    given, u = problem.sample_weight, problem.penalty_weights
    weights = np.ones(problem.X.shape[0]) if given is None else given
    if problem.train is not None:
        weights = np.where(problem.train, weights, 0.0)
    rows = np.flatnonzero(weights > 0)
    X, Y, s = problem.X[rows], problem.Y[rows], weights[rows, None]
    u = np.ones(W.shape[0]) if u is None else u
    bounded = np.isfinite(u) & (u > 0)
    n = float(s.sum())
    columns = X[:, np.flatnonzero(u == 0)].toarray()
    if problem.fit_intercept:
        columns = np.column_stack((np.ones(rows.size), columns))
    residual = Y - X @ W - np.asarray(intercepts)
    centred, Y_centred = _complement(s, columns, residual), _complement(s, columns, Y)
    penalty = float(np.linalg.norm(W[bounded], axis=1) @ u[bounded])
    primal = float((s * residual**2).sum()) / (2 * n) + alpha * penalty
    strength = np.linalg.norm(X.T @ (s * centred), axis=1)[bounded] / u[bounded]
    largest = float(strength.max(initial=0.0))
    theta = centred * min(1.0, n * alpha / largest if largest > 0 else 1.0)
    total = float((s * Y_centred**2).sum())
    dual = (total - float((s * (Y_centred - theta) ** 2).sum())) / (2 * n)
    gap = np.inf if W[np.isinf(u)].any() else primal - dual
    return Certificate(primal, dual, gap, gap * n / total if total > 0 else min(gap, 0.0))


def _complement(s: Any, columns: Any, block: Any) -> Any:
    """Return ``block`` less its weighted least-squares fit by ``columns``."""
    if columns.shape[1] == 0:
        return block
    lengths = np.linalg.norm(np.sqrt(s) * columns, axis=0)
    columns = columns / np.where(lengths > 0, lengths, 1.0)
    left = block
    for _ in range(2):
        fit = np.linalg.lstsq(np.sqrt(s) * columns, np.sqrt(s) * left, rcond=1e-12)[0]
        left = left - columns @ fit
    return left
