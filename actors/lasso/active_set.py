"""Lasso on a dense Gram matrix by projected Newton steps on the active set.

    minimise  f(v) = v' G v / 2 - g' v + sum_j bound_j |v_j|      (v >= 0 on request)

Each step solves for the minimiser on the current orthant with a Cholesky factor that is extended
rather than redone, and projects what crosses zero. Coordinates that violate optimality come in only
once the support itself is close to its minimum: of those that violate at the start of a new bound,
most are near-duplicates of the support and would leave again. Those at zero that would start in the
wrong direction are left out.

References
----------
Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM J.
Control Optim. 20(2), 1982.
Lee, Battle, Raina, Ng, "Efficient sparse coding algorithms" (feature-sign search), NIPS 2006.
"""

import numpy as np
from scipy.linalg import LinAlgError

from actors.lasso.factor import StackedCholesky
from actors.lasso.problem import FloatArray

MAX_STEPS = 200
MAX_HALVINGS = 60
# Others may come in when the support's own gradients miss their bounds by no more than this share.
SETTLED = 0.01
# A coordinate is dropped though the objective cannot tell, when the move is no more than this.
ROUNDING = 1e-14


def minimise_on_gram(
    gram: FloatArray,
    target: FloatArray,
    v: FloatArray,
    bound: FloatArray,
    *,
    stop_gap: float,
    y_norm2: float,
    factor: StackedCholesky,
    positive: bool = False,
) -> tuple[FloatArray, int]:
    """Return the minimiser and the number of Newton steps.

    Parameters
    ----------
    gram : ndarray (k, k), positive semi-definite
    target : ndarray (k,), ``X_c' y_c``
    v : ndarray (k,), start
    bound : ndarray (k,), positive, ``alpha n u``
    stop_gap : float, absolute duality gap times n at which to stop
    y_norm2 : float, ``||y_c||^2``
    factor : factor of the last active set, updated in place
    positive : whether ``v`` must not be negative; the start must not be
    """
    gradient = target - gram @ v
    alone = False
    for step in range(MAX_STEPS):
        if _gap(v, gradient, target, bound, y_norm2, positive) <= stop_gap:
            return v, step
        alone = not alone and _unsettled(v, gradient, bound)
        moved = _newton_step(gram, target, v, gradient, bound, factor, positive, alone)
        if moved is None:
            return v, step
        v, gradient = moved
    return v, MAX_STEPS


def _newton_step(
    gram: FloatArray,
    target: FloatArray,
    v: FloatArray,
    gradient: FloatArray,
    bound: FloatArray,
    factor: StackedCholesky,
    positive: bool,
    alone: bool,
) -> tuple[FloatArray, FloatArray] | None:
    """Return a point of lower objective and its gradient, or None where rounding allows none.

    ``alone``: the support moves without the coordinates that violate optimality.
    """
    signs = np.where(v != 0, np.sign(v), np.sign(gradient))
    active = v != 0
    if not alone:
        active |= (np.maximum(gradient, 0.0) if positive else np.abs(gradient)) > bound
    direction = np.zeros_like(v)
    while True:
        try:
            factor.update(gram, np.flatnonzero(active))
        except LinAlgError:
            return None
        order = factor.order
        direction[:] = 0.0
        direction[order] = factor.solve((gradient - bound * signs)[order])
        astray = active & (v == 0) & (direction * signs < 0)
        if not astray.any():
            break
        active &= ~astray
    return _line_search(gram, target, v, gradient, bound, direction, signs)


def _line_search(
    gram: FloatArray,
    target: FloatArray,
    v: FloatArray,
    gradient: FloatArray,
    bound: FloatArray,
    direction: FloatArray,
    signs: FloatArray,
) -> tuple[FloatArray, FloatArray] | None:
    """Halve the step until the projected point descends, stopping over at the first zero crossing.

    Up to there nothing is projected, so descent is certain and a coordinate leaves. Without it the
    halving never ends where the Gram matrix is singular: directions are long in its null space, and
    to project one coordinate of them is to ascend.
    """
    crossing = np.full_like(v, np.inf)
    falls = v * direction < 0
    crossing[falls] = -v[falls] / direction[falls]
    first = float(crossing.min(initial=np.inf))
    length = 1.0
    for _ in range(MAX_HALVINGS):
        candidate = v + length * direction
        candidate[(np.sign(candidate) != signs) | (crossing <= length)] = 0.0
        candidate_gradient = target - gram @ candidate
        # f(candidate) - f(v) term by term: near the optimum their difference would be lost in f.
        slopes = bound * signs - 0.5 * (gradient + candidate_gradient)
        moved = candidate - v
        descends = float(moved @ slopes) < 0.0
        if descends or (length == first and np.abs(moved).max() <= ROUNDING * np.abs(v).max()):
            return candidate, candidate_gradient
        length = max(0.5 * length, first) if length > first else 0.5 * length
    return None


def _unsettled(v: FloatArray, gradient: FloatArray, bound: FloatArray) -> bool:
    on = np.flatnonzero(v)
    missed = np.abs(gradient[on] - bound[on] * np.sign(v[on]))
    return bool((missed > SETTLED * bound[on]).any())


def _gap(
    v: FloatArray,
    gradient: FloatArray,
    target: FloatArray,
    bound: FloatArray,
    y_norm2: float,
    positive: bool,
) -> float:
    """Return n times the duality gap over the columns of the Gram matrix."""
    fitted = float(v @ gradient)
    residual2 = max(y_norm2 - float(v @ target) - fitted, 0.0)
    pull = gradient if positive else np.abs(gradient)
    excess = float((pull / bound).max(initial=0.0))
    scale = 1.0 if excess <= 1.0 else 1.0 / excess
    penalty = float(np.abs(v) @ bound)
    return 0.5 * residual2 * (1 - scale) ** 2 + penalty - scale * fitted
