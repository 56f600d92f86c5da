"""Units of work: a stretch of the alpha path for one target or all, on one fold or on all."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.safe_rules import Answers, reach
from actors.lasso.solution import Engine, GridEngine, PathRecorder, PathSolution

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
    with_reach: bool = False,
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
    with_reach : bool
        Return too what columns outside ``X`` can reach (`actors.lasso.safe_rules.Reach`):
        ``reach`` (n_samples,), float32 rounded up, and ``radius``.

    Returns
    -------
    dict of arrays: ``alphas, data, indices, indptr`` (the CSC coefficients), ``intercepts, gaps,
    n_iter, seconds, nonzeros, train_mse, validation_mse`` (NaN without validation rows) and the
    scalars ``gap`` (the largest, for the progress line), ``n_train, n_validation`` and ``engine``
    (the name of the one that solved it). Errors are on the scale of ``y``.
    """
    problem = _on(X, y, roles)
    solution = engine.solve_path(problem, alphas, tol=tol, start=_last(previous, X.shape[1]))
    return _measured(problem, solution, roles, with_reach, engine)


def solve_folds(
    X: sp.csc_matrix,
    y: FloatArray,
    roles: npt.NDArray[np.int8],
    alphas: Sequence[float],
    *,
    tol: float,
    margin: float,
    previous: Mapping[str, np.ndarray] | None = None,
    with_reach: bool = False,
) -> UnitResult:
    """Solve one stretch on all folds side by side, until the validation error turns.

    The folds end together, at the first alpha where the mean of their validation errors is more
    than ``1 + margin`` times its minimum so far: each fold on its own would leave the mean, by
    which alpha is chosen, undefined further down.

    Parameters
    ----------
    roles : ndarray (n_folds, n_samples), int8
        Folds without validation rows, such as all rows, take no part in the mean.
    margin : float
    previous : result of the stretch before

    Returns
    -------
    dict of arrays
        Of `solve_unit` for each fold under `fold_key`, shorter than ``alphas`` (down to nothing)
        where the error turned; ``mean_mse`` of all stretches so far, ``stopped``, and ``gap``.
    """
    problems = [_on(X, y, own) for own in roles]
    held_out = [np.flatnonzero((own == VALIDATION) & np.isfinite(y)) for own in roles]
    history = [] if previous is None else previous["mean_mse"].tolist()
    stopped = previous is not None and bool(previous["stopped"])

    def go_on(_: int, recorders: Sequence[PathRecorder]) -> bool:
        nonlocal stopped
        errors = []
        for recorder, rows in zip(recorders, held_out, strict=True):
            if rows.size:
                support, values, intercept = recorder.last()
                errors.append(np.mean((y[rows] - X[:, support][rows] @ values - intercept) ** 2))
        history.append(float(np.mean(errors)) if errors else np.nan)
        stopped = history[-1] > (1.0 + margin) * min(history)
        return not stopped

    before = [None if previous is None else fold_result(previous, i) for i in range(len(roles))]
    engine = NewtonEngine()
    solutions = engine.solve_paths(
        problems,
        [[] if stopped else alphas] * len(problems),
        tol=tol,
        starts=[_last(own, X.shape[1]) for own in before],
        go_on=go_on,
    )
    results: UnitResult = {"mean_mse": np.array(history), "stopped": np.array(stopped)}
    for fold, (problem, solution) in enumerate(zip(problems, solutions, strict=True)):
        measured = _measured(problem, solution, roles[fold], with_reach, engine)
        results |= {fold_key(fold, name): value for name, value in measured.items()}
    largest = max(float(solution.gaps.max(initial=0.0)) for solution in solutions)
    return results | {"gap": np.array(largest)}


def solve_targets(
    engine: GridEngine,
    X: sp.csc_matrix,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    alphas: Sequence[FloatArray],
    *,
    tol: float,
    previous: Mapping[str, np.ndarray] | None = None,
    with_reach: bool = False,
) -> UnitResult:
    """Solve one stretch of every target on every fold, as one batch of a device.

    Parameters
    ----------
    Y : ndarray (n_samples, n_targets)
    roles : ndarray (n_folds, n_samples), int8
    alphas : of each target, decreasing
    previous : result of the stretch before

    Returns
    -------
    dict of arrays
        Of `solve_unit` for each target and fold under `cell_key`, and ``gap``.
    """
    cells = [(target, fold) for target in range(Y.shape[1]) for fold in range(len(roles))]
    columns = [np.ascontiguousarray(y) for y in Y.T]
    problems = [_on(X, columns[target], roles[fold]) for target, fold in cells]
    before = [None if previous is None else cell_result(previous, *cell) for cell in cells]
    solutions = engine.solve_grid(
        problems,
        [alphas[target] for target, _ in cells],
        tol=tol,
        starts=[_last(own, X.shape[1]) for own in before],
    )
    results: UnitResult = {}
    for (target, fold), problem, solution in zip(cells, problems, solutions, strict=True):
        measured = _measured(problem, solution, roles[fold], with_reach, engine)
        results |= {cell_key(target, fold, name): value for name, value in measured.items()}
    largest = max(float(solution.gaps.max(initial=0.0)) for solution in solutions)
    return results | {"gap": np.array(largest)}


def cell_key(target: int, fold: int, name: str) -> str:
    """Return the name under which `solve_targets` returns ``name`` of a target and fold."""
    return f"t{target:02d}_{fold_key(fold, name)}"


def cell_result(result: Mapping[str, np.ndarray], target: int, fold: int) -> UnitResult:
    """Return what `solve_unit` would have returned for one target and fold."""
    prefix = cell_key(target, fold, "")
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def fold_key(fold: int, name: str) -> str:
    """Return the name under which `solve_folds` returns ``name`` of a fold."""
    return f"f{fold:03d}_{name}"


def fold_result(result: Mapping[str, np.ndarray], fold: int) -> UnitResult:
    """Return what `solve_unit` would have returned for one fold of a result of `solve_folds`."""
    prefix = fold_key(fold, "")
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def _on(X: sp.csc_matrix, y: FloatArray, roles: npt.NDArray[np.int8]) -> LassoProblem:
    return LassoProblem(X, y, (roles == TRAIN) & np.isfinite(y))


def _measured(
    problem: LassoProblem,
    solution: PathSolution,
    roles: npt.NDArray[np.int8],
    with_reach: bool,
    engine: Engine,
) -> UnitResult:
    """Return the arrays of `solve_unit`."""
    X, y = problem.X, problem.y
    validation = (roles == VALIDATION) & np.isfinite(y)
    predicted = predict(X, solution)
    measured = {
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
        "engine": np.array(engine.name),
    }
    return measured | _reach(problem, predicted, solution) if with_reach else measured


def _reach(problem: LassoProblem, predicted: FloatArray, solution: PathSolution) -> UnitResult:
    residuals = np.where(problem.rows[:, None], problem.y[:, None] - predicted, 0.0)
    found = reach(Answers(problem, residuals, solution.gaps, solution.alphas))
    up = np.nextafter(found.rows.astype(np.float32), np.float32(np.inf))
    return {"reach": np.where(found.rows > 0, up, np.float32(0)), "radius": np.array(found.radius)}


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
    if previous is None or not previous["alphas"].size:
        return None
    return coefficients(previous, n_features)[:, [-1]]


def _mse(y: FloatArray, predicted: FloatArray, rows: npt.NDArray[np.bool_]) -> FloatArray:
    if not rows.any():
        return np.full(predicted.shape[1], np.nan)
    return np.mean((y[rows, None] - predicted[rows]) ** 2, axis=0)
