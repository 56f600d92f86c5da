"""One unit of work on several targets at once: a stretch of the alpha path on one fold."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.multitask import MultiTaskSolution, row_sparse, solve_multitask_path
from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.problem import BoolArray, FloatArray
from actors.lasso.unit import TRAIN, VALIDATION, UnitResult

# What a result holds for each target, along its last axis; the rest is common to all.
PER_TARGET = ("data", "intercepts", "train_mse", "validation_mse")


def solve_multitask_unit(
    X: sp.csc_matrix,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    alphas: Sequence[float],
    *,
    tol: float,
    previous: Mapping[str, np.ndarray] | None = None,
) -> UnitResult:
    """Solve one stretch and measure its errors.

    Parameters
    ----------
    X, roles, alphas, tol : as in `actors.lasso.unit.solve_unit`
    Y : ndarray (n_samples, n_targets)
        Rows with NaN in any target take no part.
    previous : result of the stretch before, whose last answer is the warm start

    Returns
    -------
    dict of arrays
        As of `solve_unit`, with one more axis for the targets in what ``PER_TARGET`` names; all
        targets have their coefficients at the same ``indices``. See `target_result`.
    """
    defined = np.isfinite(Y).all(axis=1)
    train, validation = (roles == TRAIN) & defined, (roles == VALIDATION) & defined
    problem = MultiTaskProblem(X, Y, train)
    start = None if previous is None else _last(previous, X.shape[1])
    solution = solve_multitask_path(problem, alphas, tol=tol, start=start)
    sizes = [support.size for support in solution.supports]
    return {
        "alphas": solution.alphas,
        "data": np.concatenate([np.zeros((0, Y.shape[1])), *solution.values]),
        "indices": np.concatenate([np.zeros(0), *solution.supports]).astype(np.int32),
        "indptr": np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        "intercepts": solution.intercepts,
        "gaps": solution.gaps,
        "gap": np.array(solution.gaps.max(initial=0.0)),
        "n_iter": solution.n_iter,
        "seconds": solution.seconds,
        "nonzeros": np.array(sizes, dtype=np.int64),
        "train_mse": _errors(X, Y, solution, train),
        "validation_mse": _errors(X, Y, solution, validation),
        "n_train": np.array(np.count_nonzero(train)),
        "n_validation": np.array(np.count_nonzero(validation)),
        "engine": np.array("newton"),
    }


def target_result(result: Mapping[str, np.ndarray], target: int) -> UnitResult:
    """Return what belongs to one target, in the form of `actors.lasso.unit.solve_unit`."""
    return {
        name: np.ascontiguousarray(value[..., target]) if name in PER_TARGET else value
        for name, value in result.items()
    }


def _last(previous: Mapping[str, np.ndarray], n_features: int) -> sp.csr_matrix:
    span = slice(int(previous["indptr"][-2]), int(previous["indptr"][-1]))
    support = previous["indices"][span].astype(np.int64)
    return row_sparse(support, previous["data"][span], n_features)


def _errors(
    X: sp.csc_matrix, Y: FloatArray, solution: MultiTaskSolution, rows: BoolArray
) -> FloatArray:
    """Return the mean squared error of each alpha and target; NaN without rows."""
    if not rows.any():
        return np.full(solution.intercepts.shape, np.nan)
    errors = np.empty(solution.intercepts.shape)
    parts = zip(solution.supports, solution.values, solution.intercepts, strict=True)
    for at, (support, values, intercepts) in enumerate(parts):
        residual = Y - X[:, support] @ values - intercepts
        errors[at] = np.mean(residual[rows] ** 2, axis=0)
    return errors
