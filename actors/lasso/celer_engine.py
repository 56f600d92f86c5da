"""celer (CPU) behind our protocol: sparse, exact intercept, no hidden copies of the matrix.

What celer 0.7.4 needs from its caller: a writable CSC matrix with int32 indices (an object store
hands out read-only ones), so one copy a fold is made and kept; and no intercept of its own, because
centring sparse columns costs it O(n) a coordinate step. The intercept is solved outside instead.
"""

import time
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from celer.homotopy import celer_path

from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_INTERCEPT_UPDATES = 50
INNER_SHARE = 0.1
MAX_EPOCHS = 50_000

ADVICE = "Use the newton engine, or raise the smallest alpha."


class CelerEngine:
    """celer's working sets and extrapolation; the training rows' copy is kept between calls."""

    name = "celer"

    def __init__(self) -> None:
        self._source: tuple[sp.csc_matrix, np.ndarray] | None = None
        self._design = sp.csc_matrix((0, 0))

    def solve_path(
        self,
        problem: LassoProblem,
        alphas: Sequence[float] | FloatArray,
        *,
        tol: float = 1e-6,
        start: sp.csc_matrix | None = None,
    ) -> PathSolution:
        """See :class:`actors.lasso.solution.Engine`."""
        design = self._writable_design(problem)
        y = problem.y[problem.rows]
        recorder = PathRecorder(self.name, problem, tol, ADVICE)
        coef = np.zeros(design.shape[1]) if start is None else start.toarray().ravel()
        for alpha in alphas:
            started = time.perf_counter()
            coef, gap, epochs = _solve_with_intercept(problem, design, y, float(alpha), coef, tol)
            support = np.flatnonzero(coef)
            recorder.add(
                float(alpha),
                support,
                coef[support],
                gap=gap,
                n_iter=epochs,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()

    def _writable_design(self, problem: LassoProblem) -> sp.csc_matrix:
        source = self._source
        if source is None or source[0] is not problem.X or (source[1] != problem.rows).any():
            design = sp.csc_matrix(problem.X[np.flatnonzero(problem.rows)], copy=True)
            if design.nnz > np.iinfo(np.int32).max:
                raise ValueError(f"celer: {design.nnz} non-zeros do not fit its 32-bit indices")
            design.indices = design.indices.astype(np.int32)
            design.indptr = design.indptr.astype(np.int32)
            self._design, self._source = design, (problem.X, problem.rows.copy())
        return self._design


def _solve_with_intercept(
    problem: LassoProblem,
    design: sp.csc_matrix,
    y: FloatArray,
    alpha: float,
    coef: FloatArray,
    tol: float,
) -> tuple[FloatArray, float, int]:
    """Find the intercept as the root of ``h(b) = mean(y - X w(b)) - b``, ``w(b)`` from celer.

    ``h`` is piecewise linear with slope in [-1, 0]: secant steps, kept inside the bracket that the
    signs of ``h`` have shown so far, end in a few. The gap is ours, over all columns, with the
    intercept that is exact for the coefficients.
    """
    support = np.flatnonzero(coef)
    intercept = problem.intercept(support, coef[support])
    inner_tol = INNER_SHARE * tol
    noise = 1e-10 * float(np.sqrt(problem.y_norm2 / problem.n))
    low, high = -np.inf, np.inf
    previous: tuple[float, float] | None = None
    gap, epochs = _gap(problem, coef, alpha), 0
    for _ in range(MAX_INTERCEPT_UPDATES):
        if gap <= tol:
            break
        _, coefs, _, n_iter = celer_path(
            design,
            y - intercept,
            "lasso",
            alphas=np.array([alpha]),
            coef_init=coef,
            tol=inner_tol,
            max_iter=50,
            max_epochs=MAX_EPOCHS,
            prune=1,
            return_n_iter=True,
        )
        coef, epochs = coefs[:, 0], epochs + int(n_iter[0])
        gap = _gap(problem, coef, alpha)
        support = np.flatnonzero(coef)
        shift = problem.intercept(support, coef[support]) - intercept
        slope = -1.0
        if previous is not None and previous[0] != intercept:
            slope = min((shift - previous[1]) / (intercept - previous[0]), -1e-3)
        previous = (intercept, shift)
        low, high = (intercept, high) if shift > 0 else (low, intercept)
        if abs(shift) < noise or high - low < noise:  # what is left is celer's own error
            inner_tol *= 0.1
            low, high = -np.inf, np.inf
        intercept -= shift / slope
        if not low < intercept < high:
            intercept = 0.5 * (low + high)
    return coef, gap, epochs


def _gap(problem: LassoProblem, coef: FloatArray, alpha: float) -> float:
    support = np.flatnonzero(coef)
    residual = problem.residual(support, coef[support])
    correlations = problem.X.T @ residual
    return problem.relative_gap(residual, correlations, float(np.abs(coef).sum()), alpha)
