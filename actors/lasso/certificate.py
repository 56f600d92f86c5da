"""The independent check of any answer: primal, dual and gap in float64 over all columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import LassoProblem


@dataclass(frozen=True)
class Certificate:
    """Proof of how far an answer can be from the optimum.

    ``relative_gap`` is ``gap / (||y_c||^2 / n)``, the scale on which scikit-learn and celer stop.
    """

    primal: float
    dual: float
    gap: float
    relative_gap: float


def certify(problem: LassoProblem, coef: Any, intercept: float, alpha: float) -> Certificate:
    """Certify ``(coef, intercept)`` at ``alpha`` from the raw data, sharing no code with a solver.

    The residual, made orthogonal to what is unpenalised and scaled by
    ``t = min(1, n alpha / max_j |x_j' S r| / u_j)``, is dual feasible;
    ``D = (||y_c||^2 - ||y_c - t r||^2) / (2 n)`` in the norm of the sample weights.

    Parameters
    ----------
    coef : ndarray (n_features,) or sparse vector
    intercept : float
        The engine's own; an inexact one shows as a larger primal.
    alpha : float

    Returns
    -------
    Certificate
        An infinite gap for coefficients that the problem forbids: negative where they must be
        positive, or non-zero on an excluded column. For a target that the unpenalised part
        explains, but for rounding, the relative gap is zero or infinite.
    """
    w = np.asarray(coef.toarray() if sp.issparse(coef) else coef, dtype=np.float64).ravel()
    rows = np.flatnonzero(problem.rows)
    X, y = problem.X, problem.y
    if rows.size < y.size:  # a copy of a large matrix for every alpha would be felt
        X, y = X[rows], y[rows]
    given = problem.sample_weight
    s = np.ones(y.size) if given is None else given[rows]
    u = problem.penalty_weights
    u = np.ones(w.size) if u is None else u
    excluded, free = np.isinf(u), u == 0
    n = float(s.sum())
    root = np.sqrt(s)
    unpenalised = X[:, np.flatnonzero(free)].toarray()
    if problem.fit_intercept:
        unpenalised = np.column_stack((np.ones(y.size), unpenalised))
    residual = y - X @ w - intercept
    centred = _complement(root, unpenalised, residual)
    y_centred = _complement(root, unpenalised, y)
    forbidden = w[excluded].any() or (problem.positive and (w[~free] < 0).any())
    penalty = float(np.abs(w[~excluded]) @ u[~excluded])
    primal = float((s * residual) @ residual) / (2 * n) + alpha * penalty
    correlations = X.T @ (s * centred)
    bounded = ~excluded & ~free
    strength = correlations[bounded] if problem.positive else np.abs(correlations[bounded])
    largest = float((strength / u[bounded]).max(initial=0.0))
    theta = centred * min(1.0, n * alpha / largest if largest > 0 else 1.0)
    total = float((s * y_centred) @ y_centred)
    left = y_centred - theta
    dual = (total - float((s * left) @ left)) / (2 * n)
    gap = np.inf if forbidden else primal - dual
    # A target that the unpenalised part explains, but for rounding: zero is the answer.
    rounding = n * (64.0 * np.finfo(np.float64).eps * float(np.abs(y).max())) ** 2
    if total <= rounding:
        return Certificate(primal, dual, gap, 0.0 if gap <= rounding / n else np.inf)
    return Certificate(primal, dual, gap, gap * n / total)


def _complement(root: Any, columns: Any, vector: Any) -> Any:
    """Return ``vector`` less its weighted least-squares fit by ``columns``."""
    if columns.shape[1] == 0:
        return vector
    lengths = np.linalg.norm(root[:, None] * columns, axis=0)
    columns = columns / np.where(lengths > 0, lengths, 1.0)
    left = vector
    for _ in range(2):
        fit = np.linalg.lstsq(root[:, None] * columns, root * left, rcond=1e-12)[0]
        left = left - columns @ fit
    return left
