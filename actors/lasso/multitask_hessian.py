"""Newton's system of the multi-task Lasso, solved at a cost that hardly grows with the targets.

On rows V of non-zero norm, with directions u_j = V_j / ||V_j|| and curvatures
d_j = lambda_j / ||V_j||, the Hessian of ``<V, G V> / 2 + sum_j lambda_j ||V_j||`` is

    H = I_T (x) G + blockdiag(d_j (I - u_j u_j')) = I_T (x) (G + diag d) - E E'

where column j of ``E`` holds ``sqrt(d_j) u_j`` in the places of row j. By Woodbury's identity its
inverse needs ``K = (G + diag d)^-1`` and the inverse of ``I - E' (I_T (x) K) E``, with entries
``delta_ij - sqrt(d_i d_j) K_ij <u_i, u_j>``: two matrices of the size of G, whatever T is.
"""

import numpy as np
import scipy.linalg as sl

from actors.lasso.problem import FloatArray

# A larger curvature than this many times G_jj would leave no digits in the correction.
MAX_CURVATURE = 1e7
_ROUNDING = 1e-13
REFINED_TO, MAX_REFINEMENTS = 1e-8, 10


class RowHessian:
    """Factored Hessian on the non-zero rows.

    Parameters
    ----------
    gram : ndarray (k, k), positive semi-definite with a positive diagonal; taken over
    directions : ndarray (k, T), rows of norm 1
    curvature : ndarray (k,), positive, ``lambda_j / ||V_j||``
    ridge : float
        Added to the diagonal, relative to it: a proximal step where G is singular.

    Raises
    ------
    scipy.linalg.LinAlgError
        When the ridge does not suffice to make the matrix positive definite.
    """

    def __init__(
        self, gram: FloatArray, directions: FloatArray, curvature: FloatArray, *, ridge: float
    ) -> None:
        diagonal = gram.diagonal().copy()
        k, n_targets = directions.shape
        gram.flat[:: k + 1] += ridge * diagonal
        # With one target a row has no direction to turn to.
        self._curvature = np.minimum(curvature, MAX_CURVATURE * diagonal) * (n_targets > 1)
        self._root = np.sqrt(self._curvature)[:, None] * directions
        self._gram = gram
        shifted = gram.copy()
        shifted.flat[:: k + 1] += self._curvature
        upper = sl.cholesky(shifted, overwrite_a=True, check_finite=False)
        inverse = np.triu(sl.lapack.dpotri(upper, overwrite_c=True)[0])
        inverse += np.triu(inverse, 1).T
        self._inverse = inverse
        correction = -inverse * (self._root @ self._root.T)
        correction.flat[:: k + 1] += 1.0 + _ROUNDING
        self._correction = sl.cholesky(correction, overwrite_a=True, check_finite=False)

    def solve(self, right: FloatArray) -> FloatArray:
        """Solve ``H x = right`` (k, T): conjugate gradients make up for what rounding left."""
        x = np.zeros_like(right)
        left = right
        goal = REFINED_TO * float(np.linalg.norm(right))
        direction, last = np.zeros_like(right), np.inf
        for _ in range(MAX_REFINEMENTS):
            solved = self._woodbury(left)
            slope = float(np.vdot(left, solved))
            if not slope > 0:
                break
            direction = solved + (slope / last) * direction
            image = self._product(direction)
            length = slope / float(np.vdot(direction, image))
            x = x + length * direction
            left = left - length * image
            if np.linalg.norm(left) <= goal:
                break
            last = slope
        return x

    def _product(self, x: FloatArray) -> FloatArray:
        along = np.einsum("jt,jt->j", self._root, x)
        return self._gram @ x + self._curvature[:, None] * x - along[:, None] * self._root

    def _woodbury(self, right: FloatArray) -> FloatArray:
        x = self._inverse @ right
        along = np.einsum("jt,jt->j", self._root, x)
        along = sl.cho_solve((self._correction, False), along, check_finite=False)
        return x + self._inverse @ (along[:, None] * self._root)
