"""Our own engine: a working set around Newton's method on its Gram matrix.

Each round adds the columns that correlate most with the residual, solves the small problem on their
Gram matrix and measures the duality gap over all columns in float64; one or two rounds an alpha.
"""

import time
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from actors.lasso.active_set import minimise_on_gram
from actors.lasso.factor import StackedCholesky
from actors.lasso.gram import GramCache
from actors.lasso.problem import FloatArray, IntArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_ROUNDS = 30
MIN_WORKING_SET = 200
# The inner problem stops below the outer tolerance, so that its error does not cost a round.
INNER_SHARE = 0.3
# Columns that the path has left behind are dropped once they outnumber the working set so much.
STALE_RATIO = 3.0

ADVICE = "Loosen tol, or raise the smallest alpha."


class NewtonEngine:
    """Working-set Newton; holds nothing between calls."""

    name = "newton"

    def solve_path(
        self,
        problem: LassoProblem,
        alphas: Sequence[float] | FloatArray,
        *,
        tol: float = 1e-6,
        start: sp.csc_matrix | None = None,
    ) -> PathSolution:
        """See :class:`actors.lasso.solution.Engine`."""
        recorder = PathRecorder(self.name, problem, tol, ADVICE)
        path = _Path(problem, tol, start)
        for alpha in alphas:
            started = time.perf_counter()
            gap, steps = path.advance(float(alpha))
            recorder.add(
                float(alpha),
                path.support,
                path.values,
                gap=gap,
                n_iter=steps,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()


class _Path:
    """State of one path: the coefficients and the Gram matrix of the columns met so far."""

    def __init__(self, problem: LassoProblem, tol: float, start: sp.csc_matrix | None) -> None:
        self._problem = problem
        self._tol = tol
        self._cache = GramCache(problem)
        self._factor = StackedCholesky()
        self.support: IntArray = np.zeros(0, dtype=np.int64)
        self.values: FloatArray = np.zeros(0)
        if start is not None:
            self.support, self.values = problem.penalised_part(start)
        self._screen()

    def advance(self, alpha: float) -> tuple[float, int]:
        """Move the coefficients to the optimum at ``alpha``; return its gap and Newton steps."""
        steps = 0
        for _ in range(MAX_ROUNDS):
            gap = self._gap(alpha)
            if gap <= self._tol:
                break
            self._extend(alpha)
            steps += self._solve_inner(alpha)
            self._screen()
        return self._gap(alpha), steps

    def _screen(self) -> None:
        """Measure the residual and its correlations with all columns, for any alpha."""
        problem = self._problem
        self._residual = problem.residual(self.support, self.values)
        self._correlations = problem.correlations(self._residual)
        self._strength = problem.strength(self._correlations)
        self._largest = float(self._strength.max(initial=0.0))

    def _gap(self, alpha: float) -> float:
        l1_norm = self._problem.l1_norm(self.support, self.values)
        return self._problem.gap_from(self._residual, self._largest, l1_norm, alpha)

    def _extend(self, alpha: float) -> None:
        """Take into the cache the columns that violate optimality most, and the support."""
        problem = self._problem
        violates = (self._strength > 0.999 * alpha * problem.n) & (problem.squared_norms > 0)
        violates[self.support] = False
        candidates = np.flatnonzero(violates)
        limit = max(int(1.5 * self.support.size), MIN_WORKING_SET)
        if candidates.size > limit:
            strongest = np.argpartition(-self._strength[candidates], limit)[:limit]
            candidates = np.sort(candidates[strongest])
        working_set = np.union1d(self.support, candidates)
        if self._cache.columns.size > STALE_RATIO * max(working_set.size, MIN_WORKING_SET):
            present = working_set[self._cache.positions(working_set) >= 0]
            self._cache.keep(present)
            self._factor = StackedCholesky()
        self._cache.add(working_set)

    def _solve_inner(self, alpha: float) -> int:
        cache, problem = self._cache, self._problem
        gram, columns = cache.matrix, cache.columns
        v = np.zeros(columns.size)
        v[cache.positions(self.support)] = self.values
        bound = np.full(columns.size, alpha * problem.n)
        if problem.penalty_weights is not None:
            bound *= problem.penalty_weights[columns]
        v, steps = minimise_on_gram(
            gram,
            # The gradient at v is the measured one, so that the rounding of the Gram matrix
            # does not limit the answer: each round refines the last.
            self._correlations[columns] + gram @ v,
            v,
            bound,
            stop_gap=INNER_SHARE * self._tol * problem.y_norm2,
            y_norm2=problem.y_norm2,
            factor=self._factor,
            positive=problem.positive,
        )
        chosen = np.flatnonzero(v)
        chosen = chosen[np.argsort(columns[chosen])]
        self.support, self.values = columns[chosen], v[chosen]
        return steps
