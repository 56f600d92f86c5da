"""One Lasso path of the newton engine: its coefficients, working set and Gram matrix."""

import numpy as np
import scipy.sparse as sp

from actors.lasso.active_set import minimise_on_gram
from actors.lasso.factor import StackedCholesky
from actors.lasso.gram import GramCache
from actors.lasso.problem import FloatArray, IntArray, LassoProblem

MIN_WORKING_SET = 200
# The inner problem stops below the outer tolerance, so that its error does not cost a round.
INNER_SHARE = 0.3
# Columns that the path has left behind are dropped once they outnumber the working set so much.
STALE_RATIO = 3.0


class NewtonPath:
    """State of one path.

    After every change of the coefficients the caller hands in the correlations of the new residual
    (see `measured`), which serve for every alpha until the next change.
    """

    def __init__(self, problem: LassoProblem, tol: float, start: sp.csc_matrix | None) -> None:
        self.problem = problem
        self._tol = tol
        self.cache = GramCache(problem)
        self._factor = StackedCholesky()
        self.support: IntArray = np.zeros(0, dtype=np.int64)
        self.values: FloatArray = np.zeros(0)
        if start is not None:
            self.support, self.values = problem.penalised_part(start)
        self._residual = self._correlations = self._strength = np.zeros(0)
        self._largest = 0.0

    def measured(self, residual: FloatArray, correlations: FloatArray) -> None:
        """Take the residual of the present coefficients, and its ``X' S r``."""
        self._residual, self._correlations = residual, correlations
        self._strength = self.problem.strength(correlations)
        self._largest = float(self._strength.max(initial=0.0))

    def gap(self, alpha: float) -> float:
        """Return the relative gap of the present coefficients at ``alpha``."""
        l1_norm = self.problem.l1_norm(self.support, self.values)
        return self.problem.gap_from(self._residual, self._largest, l1_norm, alpha)

    def extend(self, alpha: float) -> None:
        """Take into the cache the columns that violate optimality most, and the support."""
        problem = self.problem
        violates = (self._strength > 0.999 * alpha * problem.n) & (problem.squared_norms > 0)
        violates[self.support] = False
        candidates = np.flatnonzero(violates)
        limit = max(int(1.5 * self.support.size), MIN_WORKING_SET)
        if candidates.size > limit:
            strongest = np.argpartition(-self._strength[candidates], limit)[:limit]
            candidates = np.sort(candidates[strongest])
        working_set = np.union1d(self.support, candidates)
        if self.cache.columns.size > STALE_RATIO * max(working_set.size, MIN_WORKING_SET):
            present = working_set[self.cache.positions(working_set) >= 0]
            self.cache.keep(present)
            self._factor = StackedCholesky()
        self.cache.add(working_set)

    def descend(self, alpha: float) -> int:
        """Solve the problem on the columns of the cache; return the Newton steps."""
        problem, gram, columns = self.problem, self.cache.matrix, self.cache.columns
        v = np.zeros(columns.size)
        v[self.cache.positions(self.support)] = self.values
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
