"""The cells (problem, alpha) of one problem while the batched engine solves them."""

import numpy as np
import scipy.sparse as sp

from actors.lasso.problem import BoolArray, FloatArray, IntArray, LassoProblem
from actors.lasso.solution import PathRecorder

MIN_WORKING_SET, GROWTH = 200, 1.5
# A cell whose gap no longer halves, though no column came in, gets this many more rounds.
PATIENCE = 3


class Path:
    """One problem: its working set, and the block of alphas in flight.

    Attributes
    ----------
    columns : ndarray (k,)
        Working set, in the order of the Gram matrix.
    block : ndarray (A,), the alphas in flight
    values : ndarray (A, k), their coefficients
    gaps, steps, seconds, rounds : what was measured and spent on them
    gradients, residual2 : ndarrays (open cells, k) and (open cells,), of the last measure
    """

    def __init__(
        self,
        problem: LassoProblem,
        alphas: FloatArray,
        recorder: PathRecorder,
        start: sp.csc_matrix | None,
    ) -> None:
        self.problem, self.recorder = problem, recorder
        self.alphas = np.asarray(alphas, dtype=np.float64)
        self.columns: IntArray = np.zeros(0, dtype=np.int64)
        self._last: FloatArray = np.zeros(0)
        if start is not None:
            self.columns, self._last = problem.penalised_part(start)
        self.gradients: FloatArray = np.zeros((0, 0))
        self.residual2: FloatArray = np.zeros(0)
        self.open(slice(0))

    def open(self, part: slice) -> None:
        """Begin with some of the alphas, at the last answer."""
        self.block = self.alphas[part]
        size = self.block.size
        self.values = np.tile(self._last, (size, 1))
        self.gaps, self._best = np.full(size, np.inf), np.full(size, np.inf)
        self._patience = np.full(size, PATIENCE)
        self.steps, self.seconds = np.zeros(size, dtype=np.int64), np.zeros(size)
        self._finished = np.zeros(size, dtype=bool)
        self.rounds = 0

    @property
    def open_cells(self) -> IntArray:
        """Numbers of the cells that are not finished."""
        return np.flatnonzero(~self._finished)

    @property
    def penalties(self) -> FloatArray:
        """``u`` of the working set (k,)."""
        u = self.problem.penalty_weights
        return np.ones(self.columns.size) if u is None else u[self.columns]

    @property
    def growth(self) -> int:
        """Most columns that a round takes in."""
        used = np.count_nonzero(self.values[~self._finished], axis=1)
        return max(int(GROWTH * used.max(initial=0)), MIN_WORKING_SET)

    def judge(self, gaps: FloatArray, tol: float, *, last: bool) -> BoolArray:
        """Finish open cells within ``tol``, those that get no nearer, and all after the ``last``.

        Returns the mask of those of ``gaps`` that stay open.
        """
        cells = self.open_cells
        self.gaps[cells] = gaps
        nearer = gaps <= 0.5 * self._best[cells]
        self._best[cells] = np.where(nearer, gaps, self._best[cells])
        self._patience[cells] = np.where(nearer, PATIENCE, self._patience[cells] - 1)
        stays = (gaps > tol) & (self._patience[cells] > 0) & (not last)
        self._finished[cells] = ~stays
        return stays

    def extend(self, score: FloatArray) -> IntArray:
        """Take in the columns of the highest ``score`` above 1 and return them, rising."""
        violates = (score > 0.999) & (self.problem.squared_norms > 0)
        violates[self.columns] = False
        new = np.flatnonzero(violates)
        limit = self.growth
        if new.size > limit:
            new = np.sort(new[np.argpartition(-score[new], limit)[:limit]])
        if new.size:
            self._patience[:] = PATIENCE
            self.columns = np.concatenate((self.columns, new))
            self.values = np.pad(self.values, ((0, 0), (0, new.size)))
        return new

    def close(self) -> None:
        """Record the answers, and keep the last one to start from."""
        order = np.argsort(self.columns)
        for i, alpha in enumerate(self.block):
            chosen = order[self.values[i, order] != 0]
            self.recorder.add(
                float(alpha),
                self.columns[chosen],
                self.values[i, chosen],
                gap=float(self.gaps[i]),
                n_iter=int(self.steps[i]),
                seconds=float(self.seconds[i]),
            )
        if self.block.size:
            used = np.flatnonzero(self.values[-1])
            self.columns, self._last = self.columns[used], self.values[-1, used]
