"""Cholesky factor of an active set that changes by a few coordinates a step."""

import numpy as np
import scipy.linalg as sl

from actors.lasso.problem import BoolArray, FloatArray, IntArray

# Relative ridge on the factored diagonal. It makes Newton's step a proximal one, so that a singular
# Gram matrix (duplicate columns) only costs extra steps, never a failure. Where the rounding of the
# Gram matrix is larger than the ridge, the ridge grows.
RIDGE, RIDGE_GROWTH, MAX_RIDGE = 1e-9, 30.0, 1e-2
# The tail joins the head once it is longer than this, and than this share of the head.
MIN_TAIL, TAIL_SHARE = 64, 0.25
# A coordinate that leaves the head is held at zero, up to this many and this share of the head.
MIN_HELD, HELD_SHARE = 16, 0.05


class StackedCholesky:
    """Factor ``U' U`` of ``G[order][:, order]``, kept as a settled head and a tail in motion.

    With ``U = [[H, W], [0, T]]``: ``H`` factors the head, ``W = H'^-1 G[head, tail]``, and ``T``
    factors the Schur complement ``S = G[tail, tail] - W' W``. A column of ``W`` and an entry of
    ``S`` do not depend on the other tail coordinates, so one that leaves the tail costs a small
    Cholesky, one that comes a triangular solve. One that leaves the head stays in the factor, held
    at zero by a multiplier, which costs two triangular solves; only when many are held is the head
    shortened, and those behind the cut turn into tail with the rows of ``H`` as their ``W``.
    """

    def __init__(self) -> None:
        self._ridge = RIDGE
        self._reset()

    def _reset(self) -> None:
        self._head = self._tail = np.zeros(0, dtype=np.int64)
        self._H = self._W = self._S = self._T = np.zeros((0, 0), order="F")
        self._held = np.zeros(0, dtype=np.int64)
        self._responses: FloatArray | None = None

    @property
    def order(self) -> IntArray:
        """Positions in the Gram matrix, in the order of the factor, those held at zero too."""
        return np.concatenate((self._head, self._tail))

    def update(self, gram: FloatArray, active: IntArray) -> None:
        """Refactor for the set ``active`` (positions in ``gram``).

        Raises
        ------
        scipy.linalg.LinAlgError
            When no ridge makes the matrix positive definite; the factor is then that of the empty
            set.
        """
        while True:
            try:
                return self._update(gram, active)
            except sl.LinAlgError:
                self._reset()
                if self._ridge >= MAX_RIDGE:
                    self._ridge = RIDGE
                    raise
                self._ridge *= RIDGE_GROWTH

    def _update(self, gram: FloatArray, active: IntArray) -> None:
        wanted = np.zeros(gram.shape[0], dtype=bool)
        wanted[active] = True
        changed = self._drop(gram, wanted)
        wanted[self.order] = False
        new = np.flatnonzero(wanted)
        if new.size:
            self._append(gram, new)
        if new.size or changed:
            self._responses = None
            self._T = sl.cholesky(self._S, check_finite=False)
            if self._tail.size > max(MIN_TAIL, TAIL_SHARE * self._head.size):
                self._settle()

    def solve(self, vector: FloatArray) -> FloatArray:
        """Solve ``G x = vector`` over the active set, zero where held (in the order of `order`)."""
        if not self._held.size:
            return self._solve(vector)
        if self._responses is None:
            units = np.zeros((vector.size, self._held.size))
            units[self._held, np.arange(self._held.size)] = 1.0
            self._responses = self._solve(units)
        right = vector.copy()
        right[self._held] = 0.0
        free = self._solve(right)
        multipliers = np.linalg.solve(self._responses[self._held], free[self._held])
        free -= self._responses @ multipliers
        free[self._held] = 0.0
        return free

    def _solve(self, right: FloatArray) -> FloatArray:
        k = self._head.size
        if not self._tail.size:
            return sl.cho_solve((self._H, False), right, check_finite=False)
        upper = sl.solve_triangular(self._H, right[:k], trans="T", check_finite=False)
        lower = sl.cho_solve((self._T, False), right[k:] - self._W.T @ upper, check_finite=False)
        upper = sl.solve_triangular(self._H, upper - self._W @ lower, check_finite=False)
        return np.concatenate((upper, lower))

    def _drop(self, gram: FloatArray, wanted: BoolArray) -> bool:
        """Drop or hold what is no longer wanted; tell whether the tail has changed."""
        tail_stays = wanted[self._tail]
        held = np.flatnonzero(~wanted[self._head])
        if held.size > max(MIN_HELD, HELD_SHARE * self._head.size):
            self._shorten(gram, wanted)
            return True
        if not np.array_equal(held, self._held):
            self._held, self._responses = held, None
        if tail_stays.all():
            return False
        self._tail, self._W = self._tail[tail_stays], self._W[:, tail_stays]
        self._S = self._S[np.ix_(tail_stays, tail_stays)]
        return True

    def _shorten(self, gram: FloatArray, wanted: BoolArray) -> None:
        """Cut the head before the first coordinate that is not wanted."""
        keep = int(np.argmin(wanted[self._head]))
        behind, tail_stays = wanted[self._head[keep:]], wanted[self._tail]
        self._W = np.hstack((self._H[:keep, keep:][:, behind], self._W[:keep, tail_stays]))
        self._tail = np.concatenate((self._head[keep:][behind], self._tail[tail_stays]))
        self._head, self._held = self._head[:keep], np.zeros(0, dtype=np.int64)
        self._H = np.asfortranarray(self._H[:keep, :keep])
        self._S = self._ridged(gram[np.ix_(self._tail, self._tail)]) - self._W.T @ self._W

    def _append(self, gram: FloatArray, new: IntArray) -> None:
        cross = gram[np.ix_(new, self._head)].T
        if self._head.size:
            cross = sl.blas.dtrsm(1.0, self._H, cross, trans_a=1)
        between = gram[np.ix_(self._tail, new)] - self._W.T @ cross
        corner = self._ridged(gram[np.ix_(new, new)]) - cross.T @ cross
        self._S = np.block([[self._S, between], [between.T, corner]])
        self._W = np.hstack((self._W, cross))
        self._tail = np.concatenate((self._tail, new))

    def _settle(self) -> None:
        """Let the tail join the head."""
        k, size = self._head.size, self._head.size + self._tail.size
        factor = np.zeros((size, size), order="F")
        factor[:k, :k], factor[:k, k:], factor[k:, k:] = self._H, self._W, self._T
        self._head, self._H = self.order, factor
        self._tail, self._W = np.zeros(0, dtype=np.int64), np.zeros((size, 0))
        self._S = self._T = np.zeros((0, 0))

    def _ridged(self, block: FloatArray) -> FloatArray:
        block.flat[:: block.shape[0] + 1] *= 1.0 + self._ridge
        return block
