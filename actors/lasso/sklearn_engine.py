"""scikit-learn's coordinate descent behind our protocol: the slow reference."""

import time
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Lasso

from actors.lasso.certificate import certify
from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.solution import PathRecorder, PathSolution

MAX_TIGHTENINGS = 3
MAX_EPOCHS = 100_000

ADVICE = "Use the newton engine, or raise the smallest alpha."


class SklearnEngine:
    """``sklearn.linear_model.Lasso``, warm-started along the path."""

    name = "sklearn"

    def solve_path(
        self,
        problem: LassoProblem,
        alphas: Sequence[float] | FloatArray,
        *,
        tol: float = 1e-6,
        start: sp.csc_matrix | None = None,
    ) -> PathSolution:
        """See :class:`actors.lasso.solution.Engine`.

        Raises
        ------
        ValueError
            For penalty weights of zero, which scikit-learn does not know.
        """
        if problem.free.size:
            raise ValueError(
                "penalty_weights: expected values above 0 for the sklearn engine, got "
                f"{problem.free.size} of 0; the newton engine takes them"
            )
        rows = np.flatnonzero(problem.rows)
        X, y = problem.X[rows], problem.y[rows]
        given = problem.penalty_weights
        columns = np.arange(X.shape[1]) if given is None else np.flatnonzero(np.isfinite(given))
        u = np.ones(columns.size) if given is None else given[columns]
        if given is not None:
            # The Lasso on columns divided by u, without those that are excluded.
            X = X[:, columns] @ sp.diags_array(1.0 / u)
        weights = None if problem.sample_weight is None else problem.row_weights[rows]
        recorder = PathRecorder(self.name, problem, tol, ADVICE)
        model = Lasso(
            max_iter=MAX_EPOCHS,
            warm_start=True,
            positive=problem.positive,
            fit_intercept=problem.fit_intercept,
        )
        coef = np.zeros(problem.X.shape[1])
        if start is not None:
            support, values = problem.penalised_part(start)
            coef[support] = values
            model.coef_ = coef[columns] * u
        for alpha in alphas:
            started = time.perf_counter()
            model.set_params(alpha=float(alpha), tol=tol)
            sweeps, gap = 0, 0.0
            for _ in range(MAX_TIGHTENINGS if X.shape[1] else 0):
                model.fit(X, y, sample_weight=weights)
                sweeps += int(model.n_iter_)
                coef[columns] = model.coef_ / u
                gap = certify(problem, coef, float(model.intercept_), alpha).relative_gap
                if gap <= tol:
                    break
                model.set_params(tol=model.tol / 10)
            support = np.flatnonzero(coef)
            recorder.add(
                float(alpha),
                support,
                coef[support],
                gap=max(gap, 0.0),
                n_iter=sweeps,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()
