"""scikit-learn's coordinate descent behind our protocol: the slow reference."""

import time
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from actors.solver.certificate import certify
from actors.solver.problem import FloatArray, LassoProblem
from actors.solver.solution import PathRecorder, PathSolution

MAX_TIGHTENINGS = 3
MAX_EPOCHS = 100_000


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
        """See :class:`actors.solver.solution.Engine`."""
        X = problem.X[np.flatnonzero(problem.rows)]
        y = problem.y[problem.rows]
        recorder = PathRecorder(X.shape[1])
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
            else:
                warnings.warn(
                    f"sklearn: alpha {alpha:.3g}: relative gap {gap:.1e} is above tol {tol:.1e}. "
                    "Use --engine newton.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
            support = np.flatnonzero(model.coef_)
            recorder.add(
                float(alpha),
                support,
                model.coef_[support].copy(),
                intercept=float(model.intercept_),
                gap=max(gap, 0.0),
                n_iter=sweeps,
                seconds=time.perf_counter() - started,
            )
        return recorder.finish()
