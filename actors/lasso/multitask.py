"""Multi-task Lasso paths: a working set of rows around Newton's method on its Gram matrix.

As :mod:`actors.lasso.newton`, with a row of coefficients where that has a number: each round adds
the columns that correlate most with the residuals of all targets, solves the small problem on their
Gram matrix, which the targets share, and measures the duality gap over all columns in float64.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from actors.lasso.gram import GramCache
from actors.lasso.multitask_gram import minimise_rows
from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.problem import FloatArray, IntArray
from actors.lasso.solution import ConvergenceWarning

MAX_ROUNDS = 30
MIN_WORKING_SET = 200
# The inner problem stops below the outer tolerance, so that its error does not cost a round.
INNER_SHARE = 0.3
# Columns that the path has left behind are dropped once they outnumber the working set so much.
STALE_RATIO = 3.0


@dataclass(frozen=True, eq=False)
class MultiTaskSolution:
    """Solutions along a stretch of the alpha path.

    Attributes
    ----------
    alphas : ndarray (n_alphas,)
    supports : for each alpha the non-zero rows, rising
    values : for each alpha their coefficients (k, n_targets)
    intercepts : ndarray (n_alphas, n_targets)
    gaps : ndarray (n_alphas,)
        Float64 duality gap over all columns, relative to ``||Y_c||_F^2 / n``.
    n_iter : ndarray (n_alphas,), Newton steps
    seconds : ndarray (n_alphas,), wall seconds per alpha
    n_features : int
    """

    alphas: FloatArray
    supports: tuple[IntArray, ...]
    values: tuple[FloatArray, ...]
    intercepts: FloatArray
    gaps: FloatArray
    n_iter: IntArray
    seconds: FloatArray
    n_features: int

    def coef(self, at: int) -> sp.csr_matrix:
        """Return the coefficients at alpha number ``at`` (n_features, n_targets)."""
        return row_sparse(self.supports[at], self.values[at], self.n_features)


def row_sparse(support: IntArray, values: FloatArray, n_features: int) -> sp.csr_matrix:
    """Return a matrix (n_features, n_targets) of the rows ``values`` at ``support``, rising."""
    k, n_targets = values.shape
    counts = np.zeros(n_features + 1, dtype=np.int64)
    counts[support + 1] = n_targets
    indices = np.tile(np.arange(n_targets), k)
    return sp.csr_matrix((values.ravel(), indices, np.cumsum(counts)), (n_features, n_targets))


def solve_multitask_path(
    problem: MultiTaskProblem,
    alphas: Sequence[float] | FloatArray,
    *,
    tol: float = 1e-6,
    start: sp.csr_matrix | None = None,
) -> MultiTaskSolution:
    """Solve for decreasing ``alphas``, warm-started from ``start`` (n_features, n_targets).

    ``tol`` bounds the relative gap. An answer that misses it is returned with its gap, and a
    ``ConvergenceWarning`` is issued.

    Raises
    ------
    ValueError
        When an alpha is not a positive number, or ``start`` has another shape.
    """
    alphas = np.asarray(alphas, dtype=np.float64)
    if not (np.isfinite(alphas) & (alphas > 0)).all():
        raise ValueError("alphas: expected positive numbers")
    path = _Path(problem, tol, start)
    supports, values, rows = [], [], []
    for alpha in alphas:
        started = time.perf_counter()
        gap, steps = path.advance(float(alpha))
        support, coefs, intercepts = problem.complete(path.support, path.values)
        supports.append(support)
        values.append(coefs)
        rows.append((intercepts, gap, steps, time.perf_counter() - started))
        if gap > tol:
            warnings.warn(
                f"multi-task: alpha {alpha:.3g}: relative gap {gap:.1e} is above tol {tol:.1e} "
                f"after {steps} iterations. Loosen tol, or raise the smallest alpha.",
                ConvergenceWarning,
                stacklevel=2,
            )
    return MultiTaskSolution(
        alphas=alphas,
        supports=tuple(supports),
        values=tuple(values),
        intercepts=np.array([row[0] for row in rows]).reshape(alphas.size, problem.n_targets),
        gaps=np.array([row[1] for row in rows], dtype=np.float64),
        n_iter=np.array([row[2] for row in rows], dtype=np.int64),
        seconds=np.array([row[3] for row in rows], dtype=np.float64),
        n_features=problem.X.shape[1],
    )


class _Path:
    """State of one path: the rows and the Gram matrix of the columns met so far."""

    def __init__(self, problem: MultiTaskProblem, tol: float, start: sp.csr_matrix | None) -> None:
        self._problem, self._tol = problem, tol
        self._cache = GramCache(problem.shared)
        self.support: IntArray = np.zeros(0, dtype=np.int64)
        self.values: FloatArray = np.zeros((0, problem.n_targets))
        if start is not None:
            self.support, self.values = problem.penalised_part(start)
        self._screen()

    def advance(self, alpha: float) -> tuple[float, int]:
        """Move the rows to the optimum at ``alpha``; return its gap and Newton steps."""
        steps, gap, stalled = 0, self._gap(alpha), False
        for _ in range(MAX_ROUNDS):
            if gap <= self._tol:
                break
            grown = self._extend(alpha)
            if stalled and not grown:
                break
            last = gap
            steps += self._solve_inner(alpha)
            self._screen()
            gap = self._gap(alpha)
            stalled = gap > 0.9 * last
        return gap, steps

    def _screen(self) -> None:
        """Measure the residual and its correlations with all columns, for any alpha."""
        problem = self._problem
        self._residual = problem.residual(self.support, self.values)
        self._correlations = problem.correlations(self._residual)
        self._strength = problem.strength(self._correlations)
        self._largest = float(self._strength.max(initial=0.0))

    def _gap(self, alpha: float) -> float:
        penalty = self._problem.penalty(self.support, self.values)
        return self._problem.gap_from(self._residual, self._largest, penalty, alpha)

    def _extend(self, alpha: float) -> bool:
        """Take the columns that violate optimality most into the cache; tell if any is new."""
        shared = self._problem.shared
        violates = (self._strength > 0.999 * alpha * shared.n) & (shared.squared_norms > 0)
        violates[self.support] = False
        candidates = np.flatnonzero(violates)
        limit = max(int(1.5 * self.support.size), MIN_WORKING_SET)
        if candidates.size > limit:
            strongest = np.argpartition(-self._strength[candidates], limit)[:limit]
            candidates = np.sort(candidates[strongest])
        working_set = np.union1d(self.support, candidates)
        if self._cache.columns.size > STALE_RATIO * max(working_set.size, MIN_WORKING_SET):
            self._cache.keep(working_set[self._cache.positions(working_set) >= 0])
        grown = bool((self._cache.positions(working_set) < 0).any())
        self._cache.add(working_set)
        return grown

    def _solve_inner(self, alpha: float) -> int:
        cache, problem = self._cache, self._problem
        gram, columns = cache.matrix, cache.columns
        V = np.zeros((columns.size, problem.n_targets))
        V[cache.positions(self.support)] = self.values
        bound = np.full(columns.size, alpha * problem.n)
        if problem.penalty_weights is not None:
            bound *= problem.penalty_weights[columns]
        V, steps = minimise_rows(
            gram,
            # The gradient at V is the measured one, so that the rounding of the Gram matrix
            # does not limit the answer: each round refines the last.
            self._correlations[columns] + gram @ V,
            V,
            bound,
            stop_gap=INNER_SHARE * self._tol * problem.y_norm2,
            y_norm2=problem.y_norm2,
        )
        chosen = np.flatnonzero(V.any(axis=1))
        chosen = chosen[np.argsort(columns[chosen])]
        self.support, self.values = columns[chosen], V[chosen]
        return steps
