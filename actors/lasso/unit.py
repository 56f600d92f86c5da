"""One unit of work: a stretch of the alpha path for one target on one fold, with its errors."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.solution import Engine, PathSolution

# Roles of a row in a fold.
UNUSED, TRAIN, VALIDATION = 0, 1, 2

UnitResult = dict[str, np.ndarray]


def solve_unit(
    engine: Engine,
    X: sp.csc_matrix,
    y: FloatArray,
    roles: npt.NDArray[np.int8],
    alphas: Sequence[float],
    *,
    tol: float,
    previous: Mapping[str, np.ndarray] | None = None,
) -> UnitResult:
    """Solve one stretch and measure its errors.

    Parameters
    ----------
    X : csc_matrix (n_samples, n_features)
    y : ndarray (n_samples,); NaN where the target is undefined, whatever the role
    roles : ndarray (n_samples,), int8; ``TRAIN``, ``VALIDATION`` or ``UNUSED``
    alphas : decreasing
    tol : float, relative gap
    previous : result of the stretch before, whose last answer is the warm start

    Returns
    -------
    dict of arrays: ``alphas, data, indices, indptr`` (the CSC coefficients), ``intercepts, gaps,
    n_iter, seconds, nonzeros, train_mse, validation_mse`` (NaN without validation rows) and the
    scalars ``gap`` (the largest, for the progress line), ``n_train, n_validation``. Errors are on
    the scale of ``y``.
    """
    defined = np.isfinite(y)
    problem = LassoProblem(X, y, (roles == TRAIN) & defined)
    solution = engine.solve_path(problem, alphas, tol=tol, start=_last(previous, X.shape[1]))
    validation = (roles == VALIDATION) & defined
    predicted = predict(X, solution)
    return {
        "alphas": solution.alphas,
        "data": solution.coefs.data,
        "indices": solution.coefs.indices.astype(np.int32),
        "indptr": solution.coefs.indptr.astype(np.int64),
        "intercepts": solution.intercepts,
        "gaps": solution.gaps,
        "gap": np.array(solution.gaps.max(initial=0.0)),
        "n_iter": solution.n_iter,
        "seconds": solution.seconds,
        "nonzeros": np.diff(solution.coefs.indptr).astype(np.int64),
        "train_mse": _mse(y, predicted, problem.rows),
        "validation_mse": _mse(y, predicted, validation),
        "n_train": np.array(problem.n_train),
        "n_validation": np.array(np.count_nonzero(validation)),
    }


def coefficients(result: Mapping[str, np.ndarray], n_features: int) -> sp.csc_matrix:
    """Return the coefficients of a unit's result (n_features, n_alphas)."""
    shape = (n_features, result["alphas"].size)
    return sp.csc_matrix((result["data"], result["indices"], result["indptr"]), shape=shape)


def predict(X: sp.csc_matrix, solution: PathSolution) -> FloatArray:
    """Return the predictions of every alpha (n_samples, n_alphas)."""
    used = np.unique(solution.coefs.indices)
    dense = solution.coefs[used].toarray()
    return np.asarray(X[:, used] @ dense) + solution.intercepts


def _last(previous: Mapping[str, np.ndarray] | None, n_features: int) -> sp.csc_matrix | None:
    return None if previous is None else coefficients(previous, n_features)[:, [-1]]


def _mse(y: FloatArray, predicted: FloatArray, rows: npt.NDArray[np.bool_]) -> FloatArray:
    if not rows.any():
        return np.full(predicted.shape[1], np.nan)
    return np.mean((y[rows, None] - predicted[rows]) ** 2, axis=0)
