"""The paths that an estimator solves: one on all rows, and one for each fold with its errors."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from actors.lasso.engines import make_engine
from actors.lasso.problem import FloatArray, IntArray, LassoProblem
from actors.lasso.solution import ConvergenceWarning, Engine, PathSolution
from actors.lasso.unit import coefficients
from cluster.unit import Unit

Arrays = dict[str, np.ndarray]

ALL_ROWS = "all rows"
ADVICE = "Loosen tol, raise alpha, or use the newton engine."


@dataclass(frozen=True, eq=False, kw_only=True)
class LassoData:
    """What an estimator was given, checked; see `LassoProblem` for the fields."""

    X: sp.csc_matrix
    y: FloatArray
    sample_weight: FloatArray | None
    penalty_weights: FloatArray | None
    positive: bool
    fit_intercept: bool

    def problem(self, rows: IntArray | None = None) -> LassoProblem:
        """Return the problem on ``rows``, which may repeat; None is all rows."""
        train, weights = None, self.sample_weight
        if rows is not None:
            times = np.bincount(rows, minlength=self.y.size).astype(np.float64)
            train = times > 0
            if times.max(initial=0.0) > 1:
                weights = times if weights is None else times * weights
        return LassoProblem(
            self.X,
            self.y,
            train,
            weights,
            self.penalty_weights,
            self.positive,
            self.fit_intercept,
        )

    def mse(self, solution: PathSolution, rows: IntArray) -> FloatArray:
        """Return the weighted mean squared error on ``rows`` of each alpha."""
        used = np.unique(solution.coefs.indices)
        predicted = self.X[:, used][rows] @ solution.coefs[used].toarray() + solution.intercepts
        errors = np.square(predicted - self.y[rows, None])
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        return np.average(errors, axis=0, weights=weights)


class LassoFits:
    """Solves units ``{fold, alphas, tol}``, in this process or as an actor.

    Parameters
    ----------
    data : LassoData
    folds : list of (train, validation) row numbers
        The fold None of a unit is all rows.
    engine : str
    threads : int, optional
        Threads of the numerical libraries; None leaves them as they are.
    """

    def __init__(
        self,
        data: LassoData,
        folds: Sequence[tuple[IntArray, IntArray]],
        engine: str,
        threads: int | None = None,
    ) -> None:
        self._data, self._folds = data, folds
        self._engine: Engine = make_engine(engine)
        self._threads = threads

    def solve(self, payload: Mapping[str, Any], previous: object = None) -> Arrays:
        """Return the path as arrays, with ``validation_mse`` (n_alphas,) for a fold."""
        fold, start = payload["fold"], payload.get("start")
        rows = None if fold is None else self._folds[fold][0]
        problem = self._data.problem(rows)
        with threadpool_limits(self._threads), warnings.catch_warnings():
            # The estimator warns: what a worker on another machine says, nobody sees.
            warnings.simplefilter("ignore", ConvergenceWarning)
            solution = self._engine.solve_path(
                problem, payload["alphas"], tol=payload["tol"], start=start
            )
        arrays = {
            "alphas": solution.alphas,
            "data": solution.coefs.data,
            "indices": solution.coefs.indices,
            "indptr": solution.coefs.indptr,
            "intercepts": solution.intercepts,
            "gaps": solution.gaps,
            "gap": np.array(solution.gaps.max(initial=0.0)),
            "n_iter": solution.n_iter,
            "seconds": solution.seconds,
        }
        if fold is not None:
            arrays["validation_mse"] = self._data.mse(solution, self._folds[fold][1])
        return arrays


def path_of(arrays: Arrays, n_features: int) -> PathSolution:
    """Return the path that `LassoFits.solve` gave as arrays."""
    return PathSolution(
        alphas=arrays["alphas"],
        coefs=coefficients(arrays, n_features),
        intercepts=arrays["intercepts"],
        gaps=arrays["gaps"],
        n_iter=arrays["n_iter"],
        seconds=arrays["seconds"],
    )


def run_units(
    worker: type,
    arguments: Sequence[Any],
    units: Sequence[Unit],
    *,
    engine: str,
    label: str,
    cluster: Any = None,
    n_jobs: int | None = None,
) -> dict[str, Arrays]:
    """Solve units that need no predecessor, by ``worker(*arguments).solve``.

    Parameters
    ----------
    cluster : None, str, ClusterConfig or Cluster
        None: in this process, or in ``n_jobs`` processes; else see `solve_on_cluster`.
    """
    if cluster is None:
        if n_jobs is None or n_jobs == 1 or len(units) == 1:
            only = worker(*arguments)
            return {unit.key: only.solve(unit.payload) for unit in units}
        tasks = (delayed(_solve_alone)(worker, arguments, unit.payload) for unit in units)
        done = Parallel(n_jobs=n_jobs)(tasks)
        return {unit.key: arrays for unit, arrays in zip(units, done, strict=True)}
    # Only here does Ray come in: the estimators work where it is not installed.
    from actors.lasso.remote.actor import solve_on_cluster

    return solve_on_cluster(cluster, worker, (*arguments, 1), units, engine=engine, label=label)


def _solve_alone(worker: type, arguments: Sequence[Any], payload: Mapping[str, Any]) -> Arrays:
    arrays: Arrays = worker(*arguments).solve(payload)
    return arrays


def warn_of_gaps(name: str, results: Mapping[str, Arrays], tol: float) -> None:
    """Warn once when answers miss ``tol``, with the worst of them."""
    missed = [(float(a["gaps"].max()), key) for key, a in results.items() if a["gap"] > tol]
    if not missed:
        return
    gap, key = max(missed)
    alpha = results[key]["alphas"][int(np.argmax(results[key]["gaps"]))]
    count = sum(int((results[key]["gaps"] > tol).sum()) for _, key in missed)
    warnings.warn(
        f"{name}: {count} answers are above tol {tol:.1e}; the worst, at alpha {alpha:.3g} on "
        f"{key}, has a relative gap of {gap:.1e}. {ADVICE}",
        ConvergenceWarning,
        stacklevel=3,
    )
