"""Lasso paths on a matrix that no machine holds: columns are screened where they are.

Only residuals travel to the blocks of columns, and only the columns that violate optimality most
travel back. The problem on the columns gathered so far is solved here by the newton engine; its
answer is finished when the duality gap over all columns of all blocks is small enough.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from actors.lasso.column_blocks import Blocks
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import BoolArray, FloatArray, IntArray, LassoProblem
from actors.lasso.solution import ConvergenceWarning, PathSolution

MAX_ROUNDS = 30
# Columns that a file of a block sends for each residual, at most.
LIMIT = 200
# The problem on the gathered columns is solved below the tolerance, so that it costs no round.
INNER_SHARE = 0.3
# Gathered columns that no answer uses are forgotten once they outnumber those in use so much.
STALE_RATIO, MIN_GATHERED = 4.0, 2000


def alpha_maxima(blocks: Blocks, targets: Sequence["Target"]) -> FloatArray:
    """Return for each target the smallest alpha whose coefficients are all zero."""
    walk = _Walk(blocks, targets, 1.0)
    return np.asarray(walk.screen(range(len(targets)), np.inf) / walk.sizes)


@dataclass(frozen=True, eq=False)
class Target:
    """One response on its training rows: ``y`` (n_samples,), ``train`` a mask or None for all."""

    y: FloatArray
    train: BoolArray | None = None


def solve_columns(
    blocks: Blocks,
    targets: Sequence[Target],
    alphas: Sequence[FloatArray],
    *,
    tol: float = 1e-6,
) -> list[PathSolution]:
    """Solve the path of each target (a response on a fold) over the columns of ``blocks``.

    Targets go down their alphas side by side, so that one pass over the blocks serves all.

    Parameters
    ----------
    alphas : for each target its decreasing alphas; equally many
    tol : float
        Relative duality gap over all columns.

    Raises
    ------
    ValueError
        When targets and grids do not fit each other.
    """
    if len({len(grid) for grid in alphas}) != 1 or len(alphas) != len(targets):
        raise ValueError("alphas: expected one grid a target, all equally long")
    walk = _Walk(blocks, targets, tol)
    return walk.solve(np.array([[float(alpha) for alpha in grid] for grid in alphas]))


class _Walk:
    """The gathered columns and each target's coefficients on them."""

    def __init__(self, blocks: Blocks, targets: Sequence[Target], tol: float) -> None:
        self._blocks, self._targets, self._tol = blocks, targets, tol
        self._columns: IntArray = np.zeros(0, dtype=np.int64)
        self._X = sp.csc_matrix((blocks.shape[0], 0))
        nothing = np.zeros(0, dtype=np.int64)
        self._answers: list[tuple[IntArray, FloatArray]] = [(nothing, np.zeros(0)) for _ in targets]
        self._problems: list[LassoProblem] = []
        self._state_problems()
        self._largest = np.zeros(len(targets))

    @property
    def sizes(self) -> FloatArray:
        """Training rows of each target."""
        return np.array([problem.n for problem in self._problems])

    def solve(self, alphas: FloatArray) -> list[PathSolution]:
        """Walk down ``alphas`` (n_targets, n_alphas)."""
        n_targets, n_alphas = alphas.shape
        gaps, seconds = np.zeros(alphas.shape), np.zeros(alphas.shape)
        steps, intercepts = np.zeros(alphas.shape, dtype=np.int64), np.zeros(alphas.shape)
        answers: list[list[tuple[IntArray, FloatArray]]] = [[] for _ in range(n_targets)]
        for number in range(n_alphas):
            since = time.perf_counter()
            self._forget()
            gaps[:, number], steps[:, number] = self._advance(alphas[:, number])
            seconds[:, number] = (time.perf_counter() - since) / n_targets
            for target, (support, values) in enumerate(self._answers):
                answers[target].append((self._columns[support], values))
                intercepts[target, number] = self._problems[target].intercept(support, values)
        self._warn(alphas, gaps)
        return [
            PathSolution(
                alphas=alphas[target],
                coefs=_coefs(answers[target], self._blocks.shape[1]),
                intercepts=intercepts[target],
                gaps=gaps[target],
                n_iter=steps[target],
                seconds=seconds[target],
            )
            for target in range(n_targets)
        ]

    def screen(self, which: Sequence[int], alphas: FloatArray | float) -> FloatArray:
        """Measure the targets ``which`` over all columns, and gather what violates at ``alphas``.

        Returns the largest ``|x_j' r|`` of each.
        """
        bounds = np.broadcast_to(alphas, len(which)) * self.sizes[list(which)]
        residuals = [self._problems[at].residual(*self._answers[at]) for at in which]
        found = self._blocks.screen(np.column_stack(residuals), bounds, LIMIT, self._columns)
        self._gather(
            np.concatenate([part.columns for part in found]),
            sp.hstack([part.X for part in found], format="csc"),
        )
        return np.asarray(np.max([part.largest for part in found], axis=0))

    def _advance(self, alphas: FloatArray) -> tuple[FloatArray, IntArray]:
        """Move every target to its alpha; return gaps and Newton steps."""
        gaps, steps = np.full(alphas.size, np.inf), np.zeros(alphas.size, dtype=np.int64)
        pending = np.arange(alphas.size)
        for round_ in range(MAX_ROUNDS + 1):
            largest = self.screen(pending.tolist(), alphas[pending])
            for at, strongest in zip(pending, largest, strict=True):
                problem, answer = self._problems[at], self._answers[at]
                l1_norm, residual = problem.l1_norm(*answer), problem.residual(*answer)
                gaps[at] = problem.gap_from(residual, float(strongest), l1_norm, alphas[at])
            pending = pending[gaps[pending] > self._tol]
            if not pending.size or round_ == MAX_ROUNDS:
                break
            for at in pending:
                steps[at] += self._solve_gathered(int(at), float(alphas[at]))
        return gaps, steps

    def _solve_gathered(self, at: int, alpha: float) -> int:
        start = _coefs([self._answers[at]], self._columns.size)
        inner = INNER_SHARE * self._tol
        with warnings.catch_warnings():
            # The gap over all columns is what counts, and is measured next.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = NewtonEngine().solve_path(self._problems[at], [alpha], tol=inner, start=start)
        coef = found.coefs
        self._answers[at] = (coef.indices.astype(np.int64), coef.data)
        return int(found.n_iter[0])

    def _gather(self, columns: IntArray, X: sp.csc_matrix) -> None:
        if columns.size:
            self._select(
                np.concatenate((self._columns, columns)), sp.hstack((self._X, X), format="csc")
            )

    def _forget(self) -> None:
        """Drop gathered columns that no answer uses, where they are too many."""
        used = np.unique(np.concatenate([support for support, _ in self._answers]))
        if self._columns.size > max(STALE_RATIO * used.size, MIN_GATHERED):
            self._select(self._columns[used], self._X[:, used])

    def _select(self, columns: IntArray, X: sp.csc_matrix) -> None:
        """Hold ``columns`` of all, with their values; answers keep their coefficients."""
        order = np.argsort(columns)
        held = columns[order]
        self._answers = [
            (np.searchsorted(held, self._columns[support]), values)
            for support, values in self._answers
        ]
        self._columns, self._X = held, sp.csc_matrix(X[:, order])
        self._X.sort_indices()
        self._state_problems()

    def _state_problems(self) -> None:
        self._problems = [LassoProblem(self._X, part.y, part.train) for part in self._targets]

    def _warn(self, alphas: FloatArray, gaps: FloatArray) -> None:
        for alpha, gap in zip(alphas[gaps > self._tol], gaps[gaps > self._tol], strict=True):
            warnings.warn(
                f"column shards: alpha {alpha:.3g}: relative gap {gap:.1e} is above tol "
                f"{self._tol:.1e}. Loosen tol, or raise the smallest alpha.",
                ConvergenceWarning,
                stacklevel=4,
            )


def _coefs(answers: Sequence[tuple[IntArray, FloatArray]], n_features: int) -> sp.csc_matrix:
    indptr = np.cumsum([0, *(support.size for support, _ in answers)])
    indices = np.concatenate([support for support, _ in answers])
    values = np.concatenate([values for _, values in answers])
    return sp.csc_matrix((values, indices, indptr), shape=(n_features, len(answers)))
