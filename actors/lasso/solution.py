"""What every engine takes and returns."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import FloatArray, IntArray, LassoProblem


@dataclass(frozen=True, eq=False)
class PathSolution:
    """Solutions along a stretch of the alpha path.

    Attributes
    ----------
    alphas : ndarray (n_alphas,), decreasing
    coefs : scipy.sparse.csc_matrix (n_features, n_alphas)
    intercepts : ndarray (n_alphas,)
    gaps : ndarray (n_alphas,)
        Float64 duality gap over all columns, relative to ``||y_c||^2 / n``.
    n_iter : ndarray (n_alphas,)
        Engine-specific count: Newton steps, epochs or sweeps.
    seconds : ndarray (n_alphas,)
        Wall seconds per alpha.
    """

    alphas: FloatArray
    coefs: sp.csc_matrix
    intercepts: FloatArray
    gaps: FloatArray
    n_iter: IntArray
    seconds: FloatArray


class Engine(Protocol):
    """A solver of Lasso paths."""

    name: str

    def solve_path(
        self,
        problem: LassoProblem,
        alphas: Sequence[float] | FloatArray,
        *,
        tol: float = 1e-6,
        start: sp.csc_matrix | None = None,
    ) -> PathSolution:
        """Solve for decreasing ``alphas``, warm-started from ``start`` (n_features, 1).

        ``tol`` bounds the relative gap. An answer that misses it is returned with its gap, and a
        ``ConvergenceWarning`` is issued.
        """
        ...


class GridEngine(Engine, Protocol):
    """An engine that solves many problems as one batch."""

    def solve_grid(
        self,
        problems: Sequence[LassoProblem],
        alphas: Sequence[FloatArray],
        *,
        tol: float = 1e-6,
        starts: Sequence[sp.csc_matrix | None] | None = None,
    ) -> list[PathSolution]:
        """Solve decreasing ``alphas[i]`` of ``problems[i]``, all over one design matrix.

        Each problem is as in `solve_path`, warm-started from ``starts[i]``.
        """
        ...


class ConvergenceWarning(UserWarning):
    """An answer misses the gap that was asked for."""


class PathRecorder:
    """Collects one answer an alpha, warns of one that misses ``tol``, and packs them.

    Parameters
    ----------
    engine : str
    problem : LassoProblem
    tol : float
    advice : str
        What a user can do about an answer above ``tol``.
    """

    def __init__(self, engine: str, problem: LassoProblem, tol: float, advice: str) -> None:
        self._engine, self._problem = engine, problem
        self._tol, self._advice = tol, advice
        self._supports: list[IntArray] = []
        self._values: list[FloatArray] = []
        self._rows: list[tuple[float, float, float, int, float]] = []

    def add(
        self,
        alpha: float,
        support: IntArray,
        values: FloatArray,
        *,
        gap: float,
        n_iter: int,
        seconds: float,
    ) -> None:
        """Append the answer at ``alpha``: ``values`` at the penalised columns ``support``, rising.

        The unpenalised columns and the intercept are added, exact for these.
        """
        support, values, intercept = self._problem.complete(support, values)
        self._supports.append(support)
        self._values.append(values)
        self._rows.append((alpha, intercept, gap, n_iter, seconds))
        if gap > self._tol:
            warnings.warn(
                f"{self._engine}: alpha {alpha:.3g}: relative gap {gap:.1e} is above tol "
                f"{self._tol:.1e} after {n_iter} iterations. {self._advice}",
                ConvergenceWarning,
                stacklevel=3,
            )

    def last(self) -> tuple[IntArray, FloatArray, float]:
        """Return support, coefficients and intercept of the answer added last."""
        return self._supports[-1], self._values[-1], self._rows[-1][1]

    def finish(self) -> PathSolution:
        """Return what was collected."""
        indptr = np.concatenate(([0], np.cumsum([s.size for s in self._supports], dtype=np.int64)))
        indices = np.concatenate([np.zeros(0, dtype=np.int64), *self._supports])
        values = np.concatenate([np.zeros(0), *self._values])
        shape = (self._problem.X.shape[1], len(self._rows))
        alphas, intercepts, gaps, n_iter, seconds = np.array(self._rows).reshape(-1, 5).T.copy()
        return PathSolution(
            alphas=alphas,
            coefs=sp.csc_matrix((values, indices, indptr), shape=shape),
            intercepts=intercepts,
            gaps=gaps,
            n_iter=n_iter.astype(np.int64),
            seconds=seconds,
        )
