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

    The residual, centred and scaled by ``s = min(1, n alpha / max_j |x_j' r|)``, is dual feasible;
    ``D = (||y_c||^2 - ||y_c - s r||^2) / (2 n)``.

    Parameters
    ----------
    coef : ndarray (n_features,) or sparse vector
    intercept : float
        The engine's own; an inexact one shows as a larger primal.
    alpha : float
    """
    w = np.asarray(coef.toarray() if sp.issparse(coef) else coef, dtype=np.float64).ravel()
    X = problem.X[np.flatnonzero(problem.rows)]
    y = problem.y[problem.rows]
    n = y.size
    residual = y - X @ w - intercept
    centred = residual - residual.mean()
    y_centred = y - y.mean()
    primal = float(residual @ residual) / (2 * n) + alpha * float(np.abs(w).sum())
    largest = float(np.abs(X.T @ centred).max(initial=0.0))
    theta = centred * min(1.0, n * alpha / largest if largest > 0 else 1.0)
    dual = float(y_centred @ y_centred - (y_centred - theta) @ (y_centred - theta)) / (2 * n)
    scale = float(y_centred @ y_centred) / n
    gap = primal - dual
    return Certificate(primal, dual, gap, gap / scale if scale > 0 else 0.0)
