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
    column j is zero at every optimum when
    ``|x_j' theta| + sqrt(2 gap / n) ||x_j|| < alpha u_j``; unpenalised and excluded columns are
    left out.
    """
    n = problem.n
    residual = problem.residual(support, values)
    strength = problem.strength(problem.correlations(residual))
    largest = float(strength.max(initial=0.0))
    gap = problem.gap_from(residual, largest, problem.l1_norm(support, values), alpha)
    scale = min(1.0, n * alpha / largest) if largest > 0 else 1.0
    lengths = problem.strength(np.sqrt(problem.squared_norms))
    bound = strength * scale / n + np.sqrt(2.0 * gap * problem.y_norm2) / n * lengths
    return np.flatnonzero(bound >= alpha * (1.0 - 1e-12))
