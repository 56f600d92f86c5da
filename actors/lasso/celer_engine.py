"""celer's compiled solver (CPU) behind our protocol, on a compressed design.

Its coordinate descent runs on a pool of columns that our screening chooses. A Cholesky factor of
the pool's centred Gram matrix stands in for the design: as many rows as columns, the intercept
eliminated exactly, and steps that no longer cost O(n). That also keeps clear of what celer 0.7.4
does with the matrix of a user: it centres sparse columns at O(n) a step, refuses read-only arrays
and 64-bit indices, ignores sample weights with sparse input, trips over float32 alphas, and its
estimators and ``celer_path`` lean on private parts of scikit-learn.

References
----------
Massias, Gramfort, Salmon, "Celer: a fast solver for the Lasso with dual extrapolation", ICML 2018.
"""

import importlib
import importlib.machinery
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf
from sklearn.exceptions import ConvergenceWarning as CelerWarning

from actors.lasso.gram import GramCache
from actors.lasso.problem import FloatArray, IntArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_ROUNDS = 30
# Rounds without progress before an answer is returned with the gap it has.
MAX_STALLS = 3
MIN_POOL = 200
STALE_RATIO = 3.0
MAX_ITERATIONS = 50
MAX_EPOCHS = 50_000
# celer stops by a dual point of its own, often a better one than the residual that we go by.
INNER_SHARE = 0.1

ADVICE = "Use the newton engine, or raise the smallest alpha."


def _import_kernel() -> Callable[..., Any]:
    """Import the compiled solver, past the package's own imports where these fail.

    They reach into private modules of scikit-learn, which come and go; the solver does not.
    """
    try:
        kernel = importlib.import_module("celer.lasso_fast")
    except ImportError:
        spec = importlib.machinery.PathFinder.find_spec("celer")
        if spec is None or spec.submodule_search_locations is None:
            raise
        package = types.ModuleType("celer")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["celer"] = package
        try:
            kernel = importlib.import_module("celer.lasso_fast")
        finally:
            del sys.modules["celer"]
    solver: Callable[..., Any] = kernel.celer
    return solver


_kernel = _import_kernel()


class CelerEngine:
    """celer's working sets and extrapolation; holds nothing between calls."""

    name = "celer"

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
            gap, iterations = path.advance(float(alpha))
            recorder.add(
                float(alpha),
                path.support,
                path.values,
                gap=gap,
                n_iter=iterations,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()


class _Path:
    """State of one path: coefficients, pool, and what was last measured over all columns."""

    def __init__(self, problem: LassoProblem, tol: float, start: sp.csc_matrix | None) -> None:
        self._problem, self._tol = problem, tol
        self._cache = GramCache(problem)
        self.support: IntArray = np.zeros(0, dtype=np.int64)
        self.values: FloatArray = np.zeros(0)
        if start is not None:
            support, values = problem.penalised_part(start)
            able = problem.squared_norms[support] > 0  # celer never moves the others
            self.support, self.values = support[able], values[able]
        self._screen()

    def advance(self, alpha: float) -> tuple[float, int]:
        """Move the coefficients to the optimum at ``alpha``; return its gap and iterations."""
        self._forget()
        share, stalls, iterations, gap = INNER_SHARE, 0, 0, self._gap(alpha)
        for _ in range(MAX_ROUNDS):
            if gap <= self._tol or stalls == MAX_STALLS:
                break
            self._cache.add(self._violators(alpha))
            iterations += self._solve(alpha, share * self._tol)
            self._screen()
            last, gap = gap, self._gap(alpha)
            if gap > 0.1 * last:
                share *= 0.1
            stalls = stalls + 1 if gap > 0.9 * last else 0
        return gap, iterations

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

    def _forget(self) -> None:
        """Leave out of the pool what the path has left behind, once that is most of it."""
        present = self.support[self._cache.positions(self.support) >= 0]
        if self._cache.columns.size > STALE_RATIO * max(present.size, MIN_POOL):
            self._cache.keep(present)

    def _violators(self, alpha: float) -> IntArray:
        """Return the support and the columns that violate optimality most, rising."""
        problem = self._problem
        violates = (self._strength > 0.999 * alpha * problem.n) & (problem.squared_norms > 0)
        candidates = np.flatnonzero(violates)
        limit = max(2 * self.support.size, MIN_POOL)
        if candidates.size > limit:
            strongest = np.argpartition(-self._strength[candidates], limit)[:limit]
            candidates = candidates[strongest]
        return np.union1d(self.support, candidates)

    def _solve(self, alpha: float, tol: float) -> int:
        """Let celer minimise over the pool; return its iterations.

        ``G = R'R`` and ``q`` with ``R'q = X_c' S y_c`` give the same problem, centred, on as many
        rows as ``G`` has rank.
        """
        problem, cache = self._problem, self._cache
        gram, columns = cache.matrix, cache.columns
        v = np.zeros(columns.size)
        v[cache.positions(self.support)] = self.values
        # The gradient at v is the measured one, so that rounding in G does not limit the answer.
        target = self._correlations[columns] + gram @ v
        design, q = _compress(gram, target)
        rank = q.size
        u = problem.penalty_weights
        weights = np.ones(v.size) if u is None else u[columns]
        alpha *= problem.n / rank  # celer divides by the number of rows
        residual = q - design @ v
        pull = design.T @ residual
        strength = (pull if problem.positive else np.abs(pull)) / weights
        theta = residual / max(rank, float(strength.max(initial=0.0)) / alpha)
        empty, no_index = np.empty(1), np.empty(1, dtype=np.int32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CelerWarning)  # the gap over all columns is our judge
            v, _, gaps = _kernel(
                False, 0, design, empty, no_index, no_index, np.zeros(v.size),
                q, alpha, 1.0, v, residual, theta, np.linalg.norm(design, axis=0), weights,
                max_iter=MAX_ITERATIONS, max_epochs=MAX_EPOCHS, p0=10, prune=1,
                tol=tol * problem.y_norm2 / float(q @ q), positive=problem.positive,
            )  # fmt: skip
        on = np.flatnonzero(v)
        on = on[np.argsort(columns[on])]
        self.support, self.values = columns[on], v[on]
        return len(gaps)


def _compress(gram: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ``R`` (rank, k), Fortran order, and ``q`` (rank,) with ``R'R = gram, R'q = target``.

    By Cholesky with pivots, which stops at the rank: twins and sums of columns do no harm. Columns
    are brought to length 1 for it, so that the rank does not depend on their scale.
    """
    lengths = np.sqrt(gram.diagonal())
    factor, pivots, rank, _ = dpstrf(gram / np.outer(lengths, lengths))
    pivots -= 1
    design = np.empty((rank, lengths.size), order="F")
    design[:, pivots] = np.triu(factor)[:rank] * lengths[pivots]
    lead = pivots[:rank]
    return design, solve_triangular(design[:, lead], target[lead], trans=1)
