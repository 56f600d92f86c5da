"""Columns outside a problem that cannot enter it, proved from the answers along its path.

A problem is solved on some columns only. Its answer at ``alpha`` has residual ``r`` and relative
gap ``g``; the optimum's residual ``r*`` lies within ``sqrt(2 g) ||y_c||`` of ``r``, for the primal
is ``1/n``-strongly convex in the residual. So a column ``x`` that was left out has

    |x' S r*| <= |x' S r| + sqrt(2 g) ||y_c|| ||x||,

and where that is below ``alpha n`` it is zero at every optimum of the problem with it. With
``|x' S r| <= sum_i |x_i| s_i |r_i|`` one vector of row weights and one radius serve all columns,
and the answers of any number of folds, targets and alphas: each takes its maximum.

References
----------
Ndiaye, Fercoq, Gramfort, Salmon, "Gap safe screening rules for sparsity enforcing penalties",
JMLR 18(128), 2017.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.problem import BoolArray, FloatArray, LassoProblem

# Room for the rounding of sums.
_BELOW = 1.0 - 1e-9


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of one problem: residuals (n_samples, k), relative gaps (k,) and alphas (k,)."""

    problem: LassoProblem
    residuals: FloatArray
    gaps: FloatArray
    alphas: FloatArray

    @property
    def radii(self) -> FloatArray:
        """Distance from each residual to the optimum's, at most, over ``alpha n`` (k,)."""
        spread = np.sqrt(2.0 * np.maximum(self.gaps, 0.0) * self.problem.y_norm2)
        return np.asarray(spread / (self.alphas * self.problem.n))


@dataclass(frozen=True, eq=False)
class Reach:
    """What any column can reach of ``alpha n``: ``sum_i |x_i| rows_i + radius ||x||``, at most.

    Attributes
    ----------
    rows : ndarray (n_samples,), float64 or float32
    radius : float
    """

    rows: npt.NDArray[np.floating]
    radius: float

    def excludes(self, sums: FloatArray, norms: FloatArray) -> BoolArray:
        """Tell which columns cannot enter.

        Parameters
        ----------
        sums : ndarray (p,), ``sum_i |x_i| rows_i``
        norms : ndarray (p,), Euclidean
        """
        return np.asarray(sums + self.radius * norms < _BELOW)


def answers_of(
    problem: LassoProblem, coefs: sp.csc_matrix, gaps: FloatArray, alphas: FloatArray
) -> Answers:
    """Return the answers ``coefs`` (n_features, k) with their exact residuals."""
    residuals = np.empty((problem.y.size, alphas.size))
    for k in range(alphas.size):
        residuals[:, k] = problem.residual(*problem.penalised_part(coefs[:, [k]]))
    return Answers(problem, residuals, gaps, alphas)


def reach(answers: Answers) -> Reach:
    """Return the reach over all alphas of ``answers``."""
    weights = answers.problem.row_weights
    scaled = np.abs(answers.residuals)
    scaled /= answers.alphas * answers.problem.n
    radius = float(answers.radii.max(initial=0.0) * np.sqrt(weights.max()))
    return Reach(weights * scaled.max(axis=1, initial=0.0), radius)


def joint_reach(n_samples: int, reaches: Iterable[Reach]) -> Reach:
    """Return the reach over all of ``reaches``, which are read one at a time."""
    rows, radius = np.zeros(n_samples), 0.0
    for some in reaches:
        np.maximum(rows, some.rows, out=rows)
        radius = max(radius, some.radius)
    return Reach(rows, radius)


def excluded(X: sp.csc_matrix, answers: Iterable[Answers]) -> BoolArray:
    """Tell which columns of ``X`` (n_samples, p), all left out, cannot enter any of ``answers``.

    Sharper than `Reach`, for it takes each product with each residual, and norms over the rows of
    each problem.
    """
    left = np.ones(X.shape[1], dtype=bool)
    squared = X.multiply(X).T.tocsr()
    for some in answers:
        weights = some.problem.row_weights
        norms = np.sqrt(squared @ weights)
        products = np.abs(X.T @ (weights[:, None] * some.residuals))
        reached = products / (some.alphas * some.problem.n) + np.outer(norms, some.radii)
        left &= (reached < _BELOW).all(axis=1)
    return left
