"""Columns that are provably zero at the optimum.

References
----------
Ndiaye, Fercoq, Gramfort, Salmon, "Gap safe screening rules for sparsity enforcing penalties",
JMLR 18(128), 2017.
"""

import numpy as np

from actors.lasso.problem import FloatArray, IntArray, LassoProblem


def gap_safe_columns(
    problem: LassoProblem, support: IntArray, values: FloatArray, alpha: float
) -> IntArray:
    """Return the columns that may be non-zero at the optimum for ``alpha``, rising.

    With a dual-feasible point ``theta`` and the gap of the coefficients ``values`` at ``support``,
    column j is zero at every optimum when ``|x_j' theta| + sqrt(2 gap / n) ||x_j|| < alpha``.
    """
    n = problem.n_train
    residual = problem.residual(support, values)
    correlations = problem.X.T @ residual
    l1_norm = float(np.abs(values).sum())
    gap = problem.relative_gap(residual, correlations, l1_norm, alpha) * problem.y_norm2 / n
    largest = float(np.abs(correlations).max(initial=0.0))
    scale = min(1.0, n * alpha / largest) if largest > 0 else 1.0
    # A held-out row only lengthens a column, so the norm over all rows is safe for any fold.
    norms = np.sqrt(problem.X.multiply(problem.X).sum(axis=0)).A1
    bound = np.abs(correlations) * scale / n + np.sqrt(2.0 * gap / n) * norms
    return np.flatnonzero(bound >= alpha * (1.0 - 1e-12))
