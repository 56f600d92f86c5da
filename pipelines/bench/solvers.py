"""Our engines and their peers as functions of one shape, each in its best documented settings.

This module runs in the solvers' own processes, perhaps under another interpreter: it needs numpy
and scipy alone, and imports a solver only when that solver is asked for.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.engines import ENGINES, make_engine

FloatArray = npt.NDArray[np.float64]
Answers = tuple[sp.csc_matrix, FloatArray]
"""Coefficients (n_features, n_alphas) and intercepts (n_alphas,).

Of several targets: (n_features, n_alphas * n_targets), alpha by alpha, and (n_alphas, n_targets).
"""
Solve = Callable[[sp.csc_matrix, FloatArray, FloatArray, float], Answers]

# High enough that no solver stops for its count of iterations before the gap or the time is up.
MANY = 100_000
# skglm's stops otherwise: what it cannot reach it would try for ever, though it may be near enough.
SKGLM_ROUNDS = 500


@dataclass(frozen=True)
class Solver:
    """A solver of Lasso paths with an intercept.

    Attributes
    ----------
    solve : callable (X, y, alphas, tol) -> Answers
        Alphas decrease; each is warm-started from the one before.
    multitask : the same for Y (n_samples, n_targets) under the L1/L2 penalty, or None
        None where it cannot, or not on a sparse X.
    stops_on_gap : bool
        Whether ``tol`` bounds the relative gap; otherwise it is an absolute violation of the
        optimality conditions, or of the solver's own kind.
    package : str or None
        The module it needs; None for our own.
    remedy : str
        How to get that package.
    """

    name: str
    solve: Solve
    multitask: Solve | None = None
    stops_on_gap: bool = True
    package: str | None = None
    remedy: str = ""

    def on(self, y: FloatArray) -> Solve:
        """Return what solves for a response of this shape."""
        if y.ndim == 1:
            return self.solve
        if self.multitask is None:
            raise ValueError(f"y: expected one target for {self.name}, got {y.shape[1]}")
        return self.multitask


def _solve_engine(
    engine: str, X: sp.csc_matrix, y: FloatArray, alphas: FloatArray, tol: float
) -> Answers:
    from actors.lasso.problem import LassoProblem

    solution = make_engine(engine).solve_path(LassoProblem(X, y), alphas, tol=tol)
    return solution.coefs, solution.intercepts


def _solve_newton_multitask(
    X: sp.csc_matrix, Y: FloatArray, alphas: FloatArray, tol: float
) -> Answers:
    from actors.lasso.multitask import solve_multitask_path
    from actors.lasso.multitask_problem import MultiTaskProblem

    solution = solve_multitask_path(MultiTaskProblem(X, Y), alphas, tol=tol)
    coefs = [solution.coef(i) for i in range(alphas.size)]
    return sp.csc_matrix(sp.hstack(coefs)), solution.intercepts


def _solve_celer(X: sp.csc_matrix, y: FloatArray, alphas: FloatArray, tol: float) -> Answers:
    from celer import Lasso

    model = Lasso(fit_intercept=True, warm_start=True, tol=tol, max_iter=MANY)
    return _fit_each(model, X, y, alphas)


def _solve_sklearn(X: sp.csc_matrix, y: FloatArray, alphas: FloatArray, tol: float) -> Answers:
    from sklearn.linear_model import Lasso

    model = Lasso(fit_intercept=True, warm_start=True, tol=tol, max_iter=MANY)
    return _fit_each(model, X, y, alphas)


def _solve_skglm(X: sp.csc_matrix, y: FloatArray, alphas: FloatArray, tol: float) -> Answers:
    from skglm import Lasso

    model = Lasso(fit_intercept=True, tol=tol, max_iter=SKGLM_ROUNDS)
    _, coefs, _, _ = model.path(X, y, alphas)
    return _pack([coefs[:-1, i] for i in range(alphas.size)]), coefs[-1]


def _solve_sklearn_multitask(
    X: sp.csc_matrix, Y: FloatArray, alphas: FloatArray, tol: float
) -> Answers:
    from sklearn.linear_model import MultiTaskLasso

    model = MultiTaskLasso(fit_intercept=True, warm_start=True, tol=tol, max_iter=MANY)
    return _fit_each(model, X, Y, alphas)


def _solve_skglm_multitask(
    X: sp.csc_matrix, Y: FloatArray, alphas: FloatArray, tol: float
) -> Answers:
    from skglm import MultiTaskLasso

    model = MultiTaskLasso(fit_intercept=True, tol=tol, max_iter=SKGLM_ROUNDS)
    _, coefs, _ = model.path(X, np.asfortranarray(Y), alphas)
    # Targets first, unlike what its documentation says.
    packed = _pack([target for i in range(alphas.size) for target in coefs[:, :-1, i]])
    return packed, np.ascontiguousarray(coefs[:, -1].T)


def _solve_adelie(X: sp.csc_matrix, y: FloatArray, alphas: FloatArray, tol: float) -> Answers:
    import adelie

    state = adelie.grpnet(
        adelie.matrix.sparse(X, method="naive", n_threads=1),
        adelie.glm.gaussian(y),
        lmda_path=alphas,
        intercept=True,
        tol=tol,
        early_exit=False,
        progress_bar=False,
    )
    return sp.csc_matrix(state.betas.T), np.asarray(state.intercepts)


def _fit_each(model: Any, X: sp.csc_matrix, y: FloatArray, alphas: FloatArray) -> Answers:
    columns, intercepts = [], []
    for alpha in alphas:
        model.set_params(alpha=float(alpha)).fit(X, y)
        columns.append(sp.csc_matrix(np.atleast_2d(model.coef_).T))
        intercepts.append(np.array(model.intercept_))
    return sp.csc_matrix(sp.hstack(columns, format="csc")), np.array(intercepts)


def _pack(columns: list[FloatArray]) -> sp.csc_matrix:
    """Pack dense columns one by one: all of them at once would need their size again."""
    return sp.csc_matrix(sp.hstack([sp.csc_matrix(c.reshape(-1, 1)) for c in columns]))


_BENCH = "pip install --editable '.[bench]'"
PEERS = {
    solver.name: solver
    for solver in (
        Solver("celer", _solve_celer, package="celer", remedy="pip install celer==0.7.4"),
        # celer's own intercept centres sparse columns at O(n) a step: ours, outside, is faster.
        Solver(
            "celer-outer",
            partial(_solve_engine, "celer"),
            package="celer",
            remedy="pip install celer==0.7.4",
        ),
        Solver(
            "sklearn",
            _solve_sklearn,
            _solve_sklearn_multitask,
            package="sklearn",
            remedy="pip install scikit-learn>=1.9",
        ),
        Solver(
            "skglm",
            _solve_skglm,
            _solve_skglm_multitask,
            stops_on_gap=False,
            package="skglm",
            remedy=_BENCH,
        ),
        Solver(
            "adelie",
            _solve_adelie,
            stops_on_gap=False,
            package="adelie",
            remedy="it needs numpy < 2, so `pip install adelie` in an environment of its own, "
            "and --python-for adelie=THAT/bin/python",
        ),
    )
}
_MULTITASK = {"newton": _solve_newton_multitask}
OWN = {
    name: Solver(name, partial(_solve_engine, name), _MULTITASK.get(name))
    for name in ENGINES
    if name not in PEERS
}
SOLVERS = OWN | PEERS


def warm_up(solver: Solver, n_targets: int | None = None) -> None:
    """Solve a tiny problem, so that imports and just-in-time compilation are done with.

    ``n_targets`` is None for a response that is a vector.
    """
    rng = np.random.default_rng(0)
    X = sp.random(40, 30, density=0.2, format="csc", random_state=0)
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    y = X @ rng.standard_normal((30, n_targets or 1)) + rng.standard_normal((40, n_targets or 1))
    y = y[:, 0] if n_targets is None else y
    alpha_max = float(np.abs(X.T @ (y - y.mean(axis=0))).max()) / 40
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver.on(y)(X, y, alpha_max * np.array([0.5, 0.1]), 1e-4)
