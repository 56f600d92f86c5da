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
        """See :class:`actors.lasso.solution.Engine`."""
        X = problem.X[np.flatnonzero(problem.rows)]
        y = problem.y[problem.rows]
        recorder = PathRecorder(self.name, problem, tol, ADVICE)
        model = Lasso(max_iter=MAX_EPOCHS, warm_start=True)
        if start is not None:
            model.coef_ = start.toarray().ravel()
        for alpha in alphas:
            started = time.perf_counter()
            model.set_params(alpha=float(alpha), tol=tol)
            sweeps = 0
            for _ in range(MAX_TIGHTENINGS):
                model.fit(X, y)
                sweeps += int(model.n_iter_)
                gap = certify(problem, model.coef_, float(model.intercept_), alpha).relative_gap
                if gap <= tol:
                    break
                model.set_params(tol=model.tol / 10)
            support = np.flatnonzero(model.coef_)
            recorder.add(
                float(alpha),
                support,
                model.coef_[support].copy(),
                gap=max(gap, 0.0),
                n_iter=sweeps,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()
