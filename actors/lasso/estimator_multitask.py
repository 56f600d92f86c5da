"""The multi-task Lasso in scikit-learn's conventions."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import validate_data
from threadpoolctl import threadpool_limits

from actors.lasso.estimator_base import SparseLinear, checked_weights
from actors.lasso.estimator_fits import ALL_ROWS, Arrays, run_units, warn_of_gaps
from actors.lasso.multitask import MultiTaskSolution, solve_multitask_path
from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.problem import FloatArray
from actors.lasso.solution import ConvergenceWarning
from actors.lasso.validation import design_matrix, penalty_array, positive_number, target_array
from cluster.unit import Unit


class MultiTaskFits:
    """Solves units ``{alpha, tol, start}``, in this process or as an actor."""

    def __init__(self, problem: MultiTaskProblem, threads: int | None = None) -> None:
        self._problem, self._threads = problem, threads

    def solve(self, payload: Mapping[str, Any], previous: object = None) -> Arrays:
        """Return the solution at ``alpha`` as arrays."""
        with threadpool_limits(self._threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the estimator warns
            solution = solve_multitask_path(
                self._problem, [payload["alpha"]], tol=payload["tol"], start=payload["start"]
            )
        return {
            "alphas": solution.alphas,
            "support": solution.supports[0],
            "values": solution.values[0],
            "intercepts": solution.intercepts,
            "gaps": solution.gaps,
            "gap": solution.gaps.max(),
            "n_iter": solution.n_iter,
            "seconds": solution.seconds,
        }


class TenfoldMultiTaskLasso(SparseLinear):
    """Multi-task Lasso: a column of X counts for all targets or for none.

    Minimises ``sum_i s_i ||y_i - x_i W - b||^2 / (2 sum_i s_i) + alpha sum_j u_j ||W_j||_2``, which
    is `sklearn.linear_model.MultiTaskLasso` for ``u = 1``, until the duality gap over all columns,
    in float64, is at most ``tol``.

    Parameters
    ----------
    alpha : float, above 0
    fit_intercept : bool
    penalty_weights : array (n_features,), optional
        ``u``, default ones: 0 leaves a column unpenalised, inf excludes it.
    tol : float
        Bound of the gap, relative to the variance of the targets together.
    warm_start : bool
        Start from the coefficients of the last fit where there are any of that shape.
    cluster : None, "auto", "local", address, ClusterConfig or Cluster
        As in `TenfoldLasso`.

    Attributes
    ----------
    coef_ : ndarray (n_targets, n_features)
    sparse_coef_ : csr_matrix (n_targets, n_features)
    intercept_ : ndarray (n_targets,)
    dual_gap_ : float, on the scale of the objective
    n_iter_ : int, Newton steps
    path_ : MultiTaskSolution of one alpha
    n_features_in_, feature_names_in_
    """

    coef_: FloatArray
    intercept_: FloatArray

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        penalty_weights: Any = None,
        tol: float = 1e-6,
        warm_start: bool = False,
        cluster: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.penalty_weights = penalty_weights
        self.tol = tol
        self.warm_start = warm_start
        self.cluster = cluster

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on ``X`` (n_samples, n_features), dense or sparse, and ``y`` (n_samples, n_targets).

        Raises
        ------
        ValueError
            For a bad parameter, values that are not finite, or shapes that disagree.
        """
        alpha = positive_number("alpha", self.alpha)
        tol = positive_number("tol", self.tol)
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True, multi_output=True
        )
        if y.ndim != 2:
            raise ValueError(
                f"y: expected shape (n_samples, n_targets), got {y.shape}; TenfoldLasso takes one "
                "target"
            )
        problem = MultiTaskProblem(
            design_matrix(X),
            target_array(y),
            sample_weight=checked_weights(sample_weight, X),
            penalty_weights=penalty_array(self.penalty_weights, X.shape[1]),
            fit_intercept=bool(self.fit_intercept),
        )
        start, shape = None, (problem.n_targets, X.shape[1])
        if self.warm_start and getattr(self, "coef_", np.zeros(0)).shape == shape:
            # A column that is constant now has no pull that would take its coefficients away.
            moves = problem.shared.squared_norms > 0
            start = sp.csr_matrix(np.where(moves[:, None], self.coef_.T, 0.0))
        results = run_units(
            MultiTaskFits,
            (problem,),
            [Unit(ALL_ROWS, {"alpha": alpha, "tol": tol, "start": start})],
            engine="newton",
            label="fit",
            cluster=self.cluster,
        )
        warn_of_gaps(type(self).__name__, results, tol)
        found = results[ALL_ROWS]
        self.path_ = MultiTaskSolution(
            alphas=found["alphas"],
            supports=(found["support"],),
            values=(found["values"],),
            intercepts=found["intercepts"],
            gaps=found["gaps"],
            n_iter=found["n_iter"],
            seconds=found["seconds"],
            n_features=X.shape[1],
        )
        self.coef_ = np.zeros(shape, order="F")
        self.coef_[:, found["support"]] = found["values"].T
        self.intercept_ = found["intercepts"][0].copy()
        self.n_iter_ = int(found["n_iter"][0])
        self.dual_gap_ = float(found["gaps"][0]) * problem.y_norm2 / problem.n
        return self

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: several targets, never one."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
