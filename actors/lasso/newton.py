"""Our own engine: working sets around Newton's method on their Gram matrices.

Each round adds the columns that correlate most with the residual, solves the small problem on their
Gram matrix and measures the duality gap over all columns in float64; one or two rounds an alpha.
Several problems on one design matrix (folds, targets) walk down their alphas side by side: one pass
over the matrix then measures all of them. Their Gram matrices are not shared: folds ask for
different columns, and the products of the union cost more than those that each fold needs.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from actors.lasso.newton_path import NewtonPath
from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_ROUNDS = 30
# Residuals that one pass over the matrix takes: what it returns is so many times a column's length.
MAX_TOGETHER = 8

ADVICE = "Loosen tol, or raise the smallest alpha."

# Told the number of alphas done and the recorders, one a problem; False ends the walk.
GoOn = Callable[[int, Sequence[PathRecorder]], bool]


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
        return self.solve_paths([problem], [alphas], tol=tol, starts=[start])[0]

    def solve_paths(
        self,
        problems: Sequence[LassoProblem],
        alphas: Sequence[Sequence[float] | FloatArray],
        *,
        tol: float = 1e-6,
        starts: Sequence[sp.csc_matrix | None] | None = None,
        go_on: GoOn | None = None,
    ) -> list[PathSolution]:
        """Solve several problems on one design matrix side by side.

        Parameters
        ----------
        alphas : for each problem its decreasing alphas; equally many
        starts : for each problem a warm start (n_features, 1), or None
        go_on : called after each alpha of all problems; False ends all paths there

        Raises
        ------
        ValueError
            When the problems differ in ``X``, or in the number of their alphas.
        """
        counts = {len(grid) for grid in alphas}
        if len(counts) != 1 or any(problem.X is not problems[0].X for problem in problems):
            raise ValueError("problems: expected one X and equally many alphas for all")
        recorders = [PathRecorder(self.name, problem, tol, ADVICE) for problem in problems]
        walk = _Walk(problems, tol, starts or [None] * len(problems))
        for number in range(counts.pop()):
            here = [float(grid[number]) for grid in alphas]
            for at, (gap, steps, seconds) in enumerate(walk.advance(here)):
                path = walk.paths[at]
                recorders[at].add(
                    here[at], path.support, path.values, gap=gap, n_iter=steps, seconds=seconds
                )
            if go_on is not None and not go_on(number + 1, recorders):
                break
        return [recorder.finish() for recorder in recorders]


class _Walk:
    """Paths that go down their alphas in step."""

    def __init__(
        self,
        problems: Sequence[LassoProblem],
        tol: float,
        starts: Sequence[sp.csc_matrix | None],
    ) -> None:
        self._tol = tol
        self.paths = [
            NewtonPath(problem, tol, start) for problem, start in zip(problems, starts, strict=True)
        ]
        self._measure(range(len(problems)))

    def advance(self, alphas: Sequence[float]) -> list[tuple[float, int, float]]:
        """Move every path to its alpha; return gaps, Newton steps and seconds.

        What is done for several paths together counts for each in equal parts.
        """
        steps, seconds = [0] * len(self.paths), [0.0] * len(self.paths)
        since = time.perf_counter()
        pending: list[int] = []
        for round_ in range(MAX_ROUNDS + 1):
            before = pending or range(len(self.paths))
            pending = [at for at in before if self.paths[at].gap(alphas[at]) > self._tol]
            if not pending or round_ == MAX_ROUNDS:
                break
            for at in pending:
                self.paths[at].extend(alphas[at])
                steps[at] += self.paths[at].descend(alphas[at])
                since = _share(seconds, [at], since)
            self._measure(pending)
            since = _share(seconds, pending, since)
        gaps = [path.gap(alpha) for path, alpha in zip(self.paths, alphas, strict=True)]
        return list(zip(gaps, steps, seconds, strict=True))

    def _measure(self, which: Sequence[int]) -> None:
        """Give the paths their residuals and correlations, by one pass over the matrix."""
        for first in range(0, len(which), MAX_TOGETHER):
            group = [self.paths[at] for at in which[first : first + MAX_TOGETHER]]
            residuals = _residuals(group)
            if len(group) == 1:
                group[0].measured(residuals[0], group[0].problem.correlations(residuals[0]))
                continue
            weighted = np.column_stack(
                [p.problem.weighted(r) for p, r in zip(group, residuals, strict=True)]
            )
            correlations = np.ascontiguousarray((group[0].problem.X.T @ weighted).T)
            for path, residual, own in zip(group, residuals, correlations, strict=True):
                path.measured(residual, own)


def _residuals(group: Sequence[NewtonPath]) -> list[FloatArray]:
    """Return the residual of each path; their supports overlap and are read once."""
    if len(group) == 1:
        return [group[0].problem.residual(group[0].support, group[0].values)]
    union = np.unique(np.concatenate([path.support for path in group]))
    coefs = np.zeros((union.size, len(group)))
    for column, path in zip(coefs.T, group, strict=True):
        column[np.searchsorted(union, path.support)] = path.values
    fitted = (group[0].problem.X[:, union] @ coefs).T
    return [
        path.problem.residual_of(own, path.support, path.values)
        for path, own in zip(group, fitted, strict=True)
    ]


def _share(seconds: list[float], which: Sequence[int], since: float) -> float:
    """Charge the time since ``since`` to the paths ``which``; return the time now."""
    now = time.perf_counter()
    for at in which:
        seconds[at] += (now - since) / len(which)
    return now
