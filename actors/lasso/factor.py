"""Cholesky factor of an active set that changes by a few coordinates a step."""

import numpy as np
import scipy.linalg as sl

from actors.lasso.problem import FloatArray, IntArray

# Relative ridge on the factored diagonal. It makes Newton's step a proximal one, so that a singular
# Gram matrix (duplicate columns) only costs extra steps, never a failure.
RIDGE = 1e-9
# The tail joins the head once it is longer than this, and than this share of the head.
MIN_TAIL, TAIL_SHARE = 64, 0.25


class StackedCholesky:
    """Factor ``U' U`` of ``G[order][:, order]``, kept as a settled head and a tail in motion.

    With ``U = [[H, W], [0, T]]``: ``H`` factors the head, ``W = H'^-1 G[head, tail]``, and ``T``
    factors the Schur complement ``S = G[tail, tail] - W' W``. A column of ``W`` and an entry of
    ``S`` do not depend on the other tail coordinates, so one that leaves the tail costs a small
    Cholesky, one that comes a triangular solve; only a coordinate that leaves the head shortens it,
    and those behind it turn into tail with the rows of ``H`` as their ``W``.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._head = self._tail = np.zeros(0, dtype=np.int64)
        self._H = self._W = self._S = self._T = np.zeros((0, 0), order="F")

    @property
    def order(self) -> IntArray:
        """Positions in the Gram matrix, in the order of the factor."""
        return np.concatenate((self._head, self._tail))

    def update(self, gram: FloatArray, active: IntArray) -> None:
        """Refactor for the set ``active`` (positions in ``gram``).

        Raises
        ------
        scipy.linalg.LinAlgError
            When the ridge does not suffice to make the matrix positive definite; the factor is then
            that of the empty set.
        """
        wanted = np.zeros(gram.shape[0], dtype=bool)
        wanted[active] = True
        changed = self._drop(gram, wanted)
        wanted[self.order] = False
        new = np.flatnonzero(wanted)
        if new.size:
            self._append(gram, new)
        if new.size or changed:
            try:
                self._T = sl.cholesky(self._S, check_finite=False)
            except sl.LinAlgError:
                self._reset()
                raise
            if self._tail.size > max(MIN_TAIL, TAIL_SHARE * self._head.size):
                self._settle()

    def solve(self, vector: FloatArray) -> FloatArray:
        """Solve ``G[order][:, order] x = vector``."""
        k = self._head.size
        if not self._tail.size:
            return sl.cho_solve((self._H, False), vector, check_finite=False)
        upper = sl.solve_triangular(self._H, vector[:k], trans="T", check_finite=False)
        right = vector[k:] - self._W.T @ upper
        lower = sl.cho_solve((self._T, False), right, check_finite=False)
        upper = sl.solve_triangular(self._H, upper - self._W @ lower, check_finite=False)
        return np.concatenate((upper, lower))

    def _drop(self, gram: FloatArray, wanted: np.ndarray) -> bool:
        """Drop what is no longer wanted; tell whether the tail has changed."""
        head_stays, tail_stays = wanted[self._head], wanted[self._tail]
        if head_stays.all():
            if tail_stays.all():
                return False
            self._tail, self._W = self._tail[tail_stays], self._W[:, tail_stays]
            self._S = self._S[np.ix_(tail_stays, tail_stays)]
            return True
        keep = int(np.argmin(head_stays))
        behind = head_stays[keep:]
        self._W = np.hstack((self._H[:keep, keep:][:, behind], self._W[:keep, tail_stays]))
        self._tail = np.concatenate((self._head[keep:][behind], self._tail[tail_stays]))
        self._head = self._head[:keep]
        self._H = np.asfortranarray(self._H[:keep, :keep])
        self._S = _ridged(gram[np.ix_(self._tail, self._tail)]) - self._W.T @ self._W
        return True

    def _append(self, gram: FloatArray, new: IntArray) -> None:
        cross = gram[np.ix_(new, self._head)].T
        if self._head.size:
            cross = sl.blas.dtrsm(1.0, self._H, cross, trans_a=1)
        between = gram[np.ix_(self._tail, new)] - self._W.T @ cross
        corner = _ridged(gram[np.ix_(new, new)]) - cross.T @ cross
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


def _ridged(block: FloatArray) -> FloatArray:
    block.flat[:: block.shape[0] + 1] *= 1.0 + RIDGE
    return block
