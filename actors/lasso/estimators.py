"""Certified Lasso models for Python users, in scikit-learn's conventions.

    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.pipeline import make_pipeline
    >>> from actors.lasso.estimators import TenfoldLassoCV
    >>> texts = ["profit rises", "profit falls", "loss rises", "loss falls", "flat"] * 20
    >>> moves = [0.9, 0.4, -0.5, -1.1, 0.1] * 20
    >>> model = make_pipeline(CountVectorizer(), TenfoldLassoCV(cv=4)).fit(texts, moves)
    >>> model.predict(["profit rises", "loss"]).round(2).tolist()
    [0.92, -0.8]
    >>> bool(model[-1].dual_gap_ <= 1e-6 * np.var(moves))
    True

Everything runs in this process, without Ray; ``cluster="auto"`` solves the folds on Ray instead.
"""

from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import check_cv
from sklearn.utils.validation import validate_data

from actors.lasso.engines import DEVICE_ENGINES, ENGINES
from actors.lasso.estimator_base import SparseLinear, checked_weights
from actors.lasso.estimator_fits import (
    ALL_ROWS,
    LassoData,
    LassoFits,
    path_of,
    run_units,
    warn_of_gaps,
)
from actors.lasso.estimator_multitask import TenfoldMultiTaskLasso
from actors.lasso.problem import FloatArray, LassoProblem
from actors.lasso.solution import PathSolution
from actors.lasso.validation import (
    alpha_grid,
    cv_folds,
    design_matrix,
    one_of,
    penalty_array,
    positive_number,
    target_array,
)
from cluster.unit import Unit

__all__ = ["TenfoldLasso", "TenfoldLassoCV", "TenfoldMultiTaskLasso"]

RULES = ("min", "1se")


class _LassoBase(SparseLinear):
    fit_intercept: bool
    positive: bool
    penalty_weights: Any
    tol: float
    engine: str
    cluster: Any

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> LassoData:
        """Return the data, checked, and check what every estimator takes."""
        positive_number("tol", self.tol)
        one_of("engine", self.engine, (*ENGINES, *DEVICE_ENGINES))
        shape: tuple[int, ...] = getattr(y, "shape", ())
        if len(shape) == 2 and shape[1] > 1:
            raise ValueError(
                f"y: expected one target, shape (n_samples,), got {shape}; "
                "TenfoldMultiTaskLasso takes several"
            )
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True, multi_output=False
        )
        return LassoData(
            X=design_matrix(X),
            y=target_array(y),
            sample_weight=checked_weights(sample_weight, X),
            penalty_weights=penalty_array(self.penalty_weights, X.shape[1]),
            positive=bool(self.positive),
            fit_intercept=bool(self.fit_intercept),
        )

    def _adopt(self, problem: LassoProblem, path: PathSolution, index: int) -> None:
        """Make the answer at alpha number ``index`` this model's."""
        self.path_ = path
        self.coef_ = path.coefs[:, [index]].toarray().ravel()
        self.intercept_ = float(path.intercepts[index])
        self.n_iter_ = int(path.n_iter[index])
        self.dual_gap_ = float(path.gaps[index]) * problem.y_norm2 / problem.n


class TenfoldLasso(_LassoBase):
    """Lasso whose duality gap, over all columns in float64, is at most ``tol``.

    Minimises ``sum_i s_i (y_i - x_i w - b)^2 / (2 sum_i s_i) + alpha sum_j u_j |w_j|``, which is
    `sklearn.linear_model.Lasso` for ``u = 1``. Sparse columns are never centred or densified.

    Parameters
    ----------
    alpha : float, above 0
    fit_intercept : bool
    positive : bool
        Constrain the penalised coefficients to be non-negative.
    penalty_weights : array (n_features,), optional
        ``u``, default ones: 0 leaves a column unpenalised, inf excludes it.
    tol : float
        Bound of the duality gap, relative to the variance of ``y`` as in scikit-learn. An answer
        that misses it is kept, with a ``ConvergenceWarning``.
    engine : {"newton", "celer", "sklearn", "torch", "torch:cuda", "torch:cpu", "torch:mps", "mlx"}
    warm_start : bool
        Start from the coefficients of the last fit where there are any of that shape.
    cluster : None, "auto", "local", address, ClusterConfig or Cluster
        None solves in this process, without Ray. "auto" uses the Ray that is open, that of
        ``RAY_ADDRESS``, or one embedded for the fit.

    Attributes
    ----------
    coef_ : ndarray (n_features,)
    sparse_coef_ : csr_matrix (1, n_features)
    intercept_ : float
    dual_gap_ : float
        On the scale of the objective, as scikit-learn's.
    n_iter_ : int, in the engine's own unit
    path_ : PathSolution of one alpha; ``path_.gaps`` are relative to the variance of ``y``
    n_features_in_, feature_names_in_
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        positive: bool = False,
        penalty_weights: Any = None,
        tol: float = 1e-6,
        engine: str = "newton",
        warm_start: bool = False,
        cluster: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.penalty_weights = penalty_weights
        self.tol = tol
        self.engine = engine
        self.warm_start = warm_start
        self.cluster = cluster

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on ``X`` (n_samples, n_features), dense or sparse, and ``y`` (n_samples,).

        Raises
        ------
        ValueError
            For a bad parameter, values that are not finite, or shapes that disagree.
        """
        alpha = positive_number("alpha", self.alpha)
        data = self._checked(X, y, sample_weight)
        problem = data.problem()
        payload = {"fold": None, "alphas": np.array([alpha]), "tol": self.tol}
        if self.warm_start and getattr(self, "coef_", np.zeros(0)).shape == data.X.shape[1:]:
            # A column that is constant now has no pull that would take its coefficient away.
            start = np.where(problem.squared_norms > 0, self.coef_, 0.0)
            payload["start"] = sp.csc_matrix(start[:, None])
        results = run_units(
            LassoFits,
            (data, [], self.engine),
            [Unit(ALL_ROWS, payload)],
            engine=self.engine,
            label="fit",
            cluster=self.cluster,
        )
        warn_of_gaps(type(self).__name__, results, self.tol)
        self._adopt(problem, path_of(results[ALL_ROWS], data.X.shape[1]), 0)
        return self


class TenfoldLassoCV(_LassoBase):
    """`TenfoldLasso` whose alpha is chosen by cross-validation along a path.

    Every fold takes part as a mask of the rows: the matrix is held once. Defaults give the grid
    and the choice of `sklearn.linear_model.LassoCV`; for texts ``alphas=50, eps=1/30`` is plenty.

    Parameters
    ----------
    alphas : int or array
        Number of alphas from the alpha_max of all rows down to ``eps`` times it, evenly spaced in
        log; or the alphas.
    eps : float, in (0, 1)
    cv : int, splitter or iterable of (train, validation), optional
        As in scikit-learn; default 5 folds of neighbouring rows. Rows may repeat.
    rule : {"min", "1se"}
        The alpha of the lowest mean error, or the largest alpha whose mean error is within one
        standard error of it.
    n_jobs : int, optional
        Processes of this machine for the folds; default one. Ignored with ``cluster``.
    fit_intercept, positive, penalty_weights, tol, engine, cluster
        As in `TenfoldLasso`.

    Attributes
    ----------
    alpha_ : float
    alphas_ : ndarray (n_alphas,), decreasing
    mse_path_ : ndarray (n_alphas, n_folds)
    path_ : PathSolution on all rows, for ``alphas_``
    coef_, sparse_coef_, intercept_, dual_gap_, n_iter_, n_features_in_, feature_names_in_
        As in `TenfoldLasso`, at ``alpha_``.
    """

    def __init__(
        self,
        *,
        alphas: Any = 100,
        eps: float = 1e-3,
        cv: Any = None,
        rule: str = "min",
        fit_intercept: bool = True,
        positive: bool = False,
        penalty_weights: Any = None,
        tol: float = 1e-6,
        engine: str = "newton",
        n_jobs: int | None = None,
        cluster: Any = None,
    ) -> None:
        self.alphas = alphas
        self.eps = eps
        self.cv = cv
        self.rule = rule
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.penalty_weights = penalty_weights
        self.tol = tol
        self.engine = engine
        self.n_jobs = n_jobs
        self.cluster = cluster

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Choose alpha and fit on all rows.

        Parameters
        ----------
        X : (n_samples, n_features), dense or sparse
        y : (n_samples,)
        sample_weight : (n_samples,), optional
            Counts in training and in the errors of a fold.
        groups : (n_samples,), optional
            For splitters that keep groups together.

        Raises
        ------
        ValueError
            For a bad parameter, values that are not finite, shapes that disagree, or a fold
            without training or validation rows.
        """
        one_of("rule", self.rule, RULES)
        data = self._checked(X, y, sample_weight)
        problem = data.problem()
        folds = cv_folds(check_cv(self.cv).split(X, y, groups), data.y.size)
        if data.sample_weight is not None:
            for number, part in ((k, rows) for k, fold in enumerate(folds) for rows in fold):
                if not data.sample_weight[part].any():
                    raise ValueError(f"cv: fold {number}: sample weights are all zero")
        alphas = alpha_grid(self.alphas, self.eps, problem.alpha_max())
        task = {"alphas": alphas, "tol": self.tol}
        units = [Unit(f"fold {k}", {"fold": k, **task}) for k in range(len(folds))]
        results = run_units(
            LassoFits,
            (data, folds, self.engine),
            [*units, Unit(ALL_ROWS, {"fold": None, **task})],
            engine=self.engine,
            label="fit path",
            cluster=self.cluster,
            n_jobs=self.n_jobs,
        )
        warn_of_gaps(type(self).__name__, results, self.tol)
        self.mse_path_ = np.column_stack([results[unit.key]["validation_mse"] for unit in units])
        self.alphas_ = alphas
        index = _choice(self.mse_path_, self.rule)
        self.alpha_ = float(alphas[index])
        self._adopt(problem, path_of(results[ALL_ROWS], data.X.shape[1]), index)
        return self


def _choice(mse: FloatArray, rule: str) -> int:
    """Return the row of ``mse`` (n_alphas, n_folds) to use; alphas decrease.

    References
    ----------
    Hastie, Tibshirani, Friedman, "The elements of statistical learning", 2009, section 7.10.
    """
    mean = mse.mean(axis=1)
    best = int(np.argmin(mean))
    if rule == "1se" and mse.shape[1] > 1:
        error = float(mse[best].std(ddof=1)) / np.sqrt(mse.shape[1])
        return int(np.argmax(mean <= mean[best] + error))
    return best
