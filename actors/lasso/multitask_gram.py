"""Multi-task Lasso on a dense Gram matrix: sweeps find the rows, Newton steps their values.

    minimise  f(V) = <V, G V> / 2 - <C, V> + sum_j bound_j ||V_j.||_2

The norm of a row is smooth away from zero. So a sweep of block coordinate descent, which may take
rows in and set them to zero, comes before a Newton step on the rows that are not zero; those that
the step carries through zero become zero. A ridge that grows when the line search has to shorten
the step, and shrinks when it has not, keeps steps sensible where columns are nearly dependent.

References
----------
Qin, Scheinberg, Goldfarb, "Efficient block-coordinate descent algorithms for the group Lasso",
Mathematical Programming Computation 5(2), 2013.
"""

import numpy as np
import scipy.linalg as sl

from actors.lasso.multitask_hessian import RowHessian
from actors.lasso.multitask_problem import dual_gap, row_norms
from actors.lasso.problem import FloatArray

MAX_STEPS = 100
MAX_HALVINGS = 40
# Ridge on the Newton system, relative to the diagonal of the Gram matrix.
FIRST_RIDGE, MIN_RIDGE, MAX_RIDGE = 1e-3, 1e-6, 0.1
# A row enters when its correlation is above the bound by more than rounding.
ENTERS = 1.0 + 1e-12

Point = tuple[FloatArray, FloatArray]


def minimise_rows(
    gram: FloatArray,
    target: FloatArray,
    V: FloatArray,
    bound: FloatArray,
    *,
    stop_gap: float,
    y_norm2: float,
) -> tuple[FloatArray, int]:
    """Return the minimiser and the number of Newton steps.

    Parameters
    ----------
    gram : ndarray (k, k), positive semi-definite with a positive diagonal
    target : ndarray (k, T), ``X_c' Y_c``
    V : ndarray (k, T), start
    bound : ndarray (k,), positive, ``alpha n u``
    stop_gap : float, absolute duality gap times n at which to stop
    y_norm2 : float, ``||Y_c||_F^2``
    """
    gradient = target - gram @ V
    ridge, whole_step = FIRST_RIDGE, True
    for step in range(MAX_STEPS):
        if _gap(V, gradient, target, bound, y_norm2) <= stop_gap:
            return V, step
        swept = False
        enters = ~V.any(axis=1) & (row_norms(gradient) > ENTERS * bound)
        if enters.any() or not whole_step:
            V, gradient, swept = _sweep(gram, target, V, gradient, bound)
        moved, halvings = _newton_step(gram, V, gradient, bound, ridge)
        if moved is not None:
            V, gradient = moved
        elif not swept and ridge == MAX_RIDGE:
            return V, step
        whole_step = halvings == 0
        if whole_step:
            ridge = max(ridge / 10.0, MIN_RIDGE)
        elif halvings > 1:
            ridge = min(ridge * 4.0 ** min(halvings, 10), MAX_RIDGE)
    return V, MAX_STEPS


def _newton_step(
    gram: FloatArray, V: FloatArray, gradient: FloatArray, bound: FloatArray, ridge: float
) -> tuple[Point | None, int]:
    """Return a point of lower objective, its gradient and the halvings; None where there is none.

    ``V`` moves on its non-zero rows alone.
    """
    active = np.flatnonzero(V.any(axis=1))
    if not active.size:
        return None, MAX_HALVINGS
    rows, bound = V[active], bound[active]
    size = row_norms(rows)
    directions = rows / size[:, None]
    block = gram[np.ix_(active, active)]
    try:
        hessian = RowHessian(block, directions, bound / size, ridge=ridge)
    except sl.LinAlgError:
        return None, MAX_HALVINGS
    step = hessian.solve(gradient[active] - bound[:, None] * directions)
    moved, halvings = _line_search(gram[:, active], active, rows, gradient, bound, step)
    if moved is None:
        return None, halvings
    point = np.zeros_like(V)
    point[active] = moved[0]
    return (point, moved[1]), halvings


def _line_search(
    columns: FloatArray,
    active: np.ndarray,
    rows: FloatArray,
    gradient: FloatArray,
    bound: FloatArray,
    step: FloatArray,
) -> tuple[Point | None, int]:
    """Halve the step until the projected rows descend; return them, their gradient, the halvings.

    A row that passes zero along its own direction becomes zero. The first such passage is one of
    the lengths tried.
    """
    size = row_norms(rows)
    radial = np.einsum("jt,jt->j", step, rows) / size
    falls = radial < 0
    crossing = np.full(size.size, np.inf)
    crossing[falls] = size[falls] / -radial[falls]
    first = float(crossing.min())
    length = 1.0
    for halvings in range(MAX_HALVINGS):
        candidate = rows + length * step
        candidate[crossing <= length] = 0.0
        moved = candidate - rows
        candidate_gradient = gradient - columns @ moved
        # f(candidate) - f(V) term by term: near the optimum their difference would be lost in f.
        growth = np.einsum("jt,jt->j", moved, candidate + rows) / (row_norms(candidate) + size)
        middle = 0.5 * (gradient[active] + candidate_gradient[active])
        if float(bound @ growth) < float(np.vdot(moved, middle)):
            return (candidate, candidate_gradient), halvings
        length = max(0.5 * length, first) if length > first else 0.5 * length
    return None, MAX_HALVINGS


def _sweep(
    gram: FloatArray, target: FloatArray, V: FloatArray, gradient: FloatArray, bound: FloatArray
) -> tuple[FloatArray, FloatArray, bool]:
    """Minimise over one row after another; return the rows, their gradient, and if any has moved.

    Only rows that are non-zero or violate optimality are visited, the largest violation first: of
    proportional columns the longest then takes the weight.
    """
    pull = row_norms(gradient)
    rows = np.flatnonzero(V.any(axis=1) | (pull > ENTERS * bound))
    rows = rows[np.argsort(-pull[rows] / bound[rows], kind="stable")]
    block = gram[np.ix_(rows, rows)]
    values, left = V[rows], np.asfortranarray(gradient[rows])
    swept = False
    for j, (length2, limit) in enumerate(zip(block.diagonal(), bound[rows], strict=True)):
        wanted = left[j] + length2 * values[j]
        norm = float(np.sqrt(wanted @ wanted))
        shrunk = 1.0 - limit / norm if norm > ENTERS * limit else 0.0
        row = wanted * (shrunk / length2)
        change = row - values[j]
        if change.any():
            left = sl.blas.dger(-1.0, block[j], change, a=left, overwrite_a=1)
            values[j] = row
            swept = True
    moved = V.copy()
    moved[rows] = values
    return moved, target - gram @ moved, swept


def _gap(
    V: FloatArray, gradient: FloatArray, target: FloatArray, bound: FloatArray, y_norm2: float
) -> float:
    """Return n times the duality gap over the columns of the Gram matrix."""
    fitted = float(np.vdot(V, gradient))
    squared = max(y_norm2 - float(np.vdot(V, target)) - fitted, 0.0)
    excess = float((row_norms(gradient) / bound).max(initial=0.0))
    return dual_gap(squared, fitted, excess, float(row_norms(V) @ bound), 1.0)
