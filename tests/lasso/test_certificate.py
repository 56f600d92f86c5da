"""The certificate against closed forms, and against duals maximised by scipy."""

import numpy as np
import pytest
import scipy.sparse as sp
from designs import QUICK, make_problem, objective, reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from actors.lasso.certificate import certify
from actors.lasso.problem import LassoProblem


def best_dual(problem, alpha):
    """Maximise (|y_c|^2 - |y_c - theta|^2) / 2n over |x_j' theta| <= n alpha, 1' theta = 0."""
    X, y = problem.X.toarray()[problem.rows], problem.y[problem.rows]
    n, y_centred = y.size, y - y.mean()
    limits = LinearConstraint(X.T, -n * alpha, n * alpha), LinearConstraint(np.ones(n), 0.0, 0.0)
    found = minimize(
        lambda theta: np.sum((y_centred - theta) ** 2) / (2 * n),
        np.zeros(n),
        jac=lambda theta: (theta - y_centred) / n,
        constraints=limits,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success, found.message
    return y_centred @ y_centred / (2 * n) - found.fun


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.7, 0.2, 0.05])
def test_optimum_meets_the_dual_that_scipy_finds(seed, share):
    train = np.arange(24) % 4 > 0 if seed % 2 else None
    problem = make_problem(seed, n=24, p=8, density=0.4, train=train)
    alpha = share * problem.alpha_max()
    coef, intercept = reference(problem, alpha)
    proof = certify(problem, coef, intercept, alpha)
    assert proof.dual == pytest.approx(best_dual(problem, alpha), rel=1e-6)
    assert proof.primal == pytest.approx(objective(problem, coef, intercept, alpha), rel=1e-12)
    assert proof.gap == pytest.approx(0.0, abs=1e-9)


@QUICK
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 1.5), size=st.floats(0.0, 2.0))
def test_gap_bounds_the_distance_of_any_answer_from_the_optimum(seed, share, size):
    problem = make_problem(seed % 50, n=20, p=6, density=0.4)
    alpha = share * problem.alpha_max()
    coef, intercept = reference(problem, alpha)
    best = objective(problem, coef, intercept, alpha)
    rng = np.random.default_rng(seed)
    other, shifted = coef + size * rng.standard_normal(6), intercept + size * rng.standard_normal()
    proof = certify(problem, other, shifted, alpha)
    assert proof.primal == pytest.approx(objective(problem, other, shifted, alpha), rel=1e-10)
    assert proof.dual <= best + 1e-9
    assert proof.gap >= proof.primal - best - 1e-9
    variance = np.var(problem.y)
    assert proof.relative_gap == pytest.approx(proof.gap / variance, rel=1e-9, abs=1e-12)


def test_soft_thresholding_is_certified_when_columns_are_orthogonal():
    # Columns of a Hadamard matrix but the first: centred, x_j' x_j = n, orthogonal.
    H = np.array([[1.0]])
    for _ in range(4):
        H = np.block([[H, H], [H, -H]])
    n, X = 16, H[:, 1:8]
    y = np.random.default_rng(0).standard_normal(n) + 5.0
    problem = LassoProblem(sp.csc_matrix(X), y)
    slopes = X.T @ y / n
    assert problem.alpha_max() == pytest.approx(np.abs(slopes).max(), rel=1e-12)
    for alpha in (0.05, 0.2, 0.5):
        w = np.sign(slopes) * np.maximum(np.abs(slopes) - alpha, 0.0)
        proof = certify(problem, w, y.mean(), alpha)
        assert abs(proof.relative_gap) < 1e-14
        spoiled = certify(problem, w + 0.01 * np.eye(7)[3], y.mean(), alpha)
        assert spoiled.relative_gap > 1e-6


def test_an_inexact_intercept_costs_half_its_square():
    problem = make_problem(3)
    alpha = 0.1 * problem.alpha_max()
    coef, intercept = reference(problem, alpha)
    exact, shifted = (certify(problem, coef, intercept + d, alpha) for d in (0.0, 0.1))
    assert shifted.gap - exact.gap == pytest.approx(0.1**2 / 2, rel=1e-6)


def test_sparse_and_dense_coefficients_are_the_same():
    problem = make_problem(4)
    coef, intercept = reference(problem, 0.1)
    dense = certify(problem, coef, intercept, 0.1)
    assert certify(problem, sp.csc_matrix(coef[:, None]), intercept, 0.1) == dense


def test_constant_target_has_no_gap():
    problem = LassoProblem(make_problem(5).X, np.full(60, 2.0))
    assert problem.alpha_max() == 0.0
    assert certify(problem, np.zeros(40), 2.0, 0.1).relative_gap == 0.0


@QUICK
@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 1.2))
def test_the_engines_gap_equals_the_certificate(seed, share):
    rng = np.random.default_rng(seed)
    train = rng.random(30) < 0.7
    train[:2] = True
    problem = make_problem(seed % 20, n=30, p=12, train=train)
    alpha = share * max(problem.alpha_max(), 1e-3)
    support = np.flatnonzero(rng.random(12) < 0.4)
    values = rng.standard_normal(support.size)
    w = np.zeros(12)
    w[support] = values
    residual = problem.residual(support, values)
    assert (residual[~train] == 0).all()
    assert residual.sum() == pytest.approx(0.0, abs=1e-9)
    claimed = problem.relative_gap(residual, problem.X.T @ residual, np.abs(values).sum(), alpha)
    proof = certify(problem, w, problem.intercept(support, values), alpha)
    assert claimed == pytest.approx(proof.relative_gap, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(59)}, "shape"),
        ({"train": np.ones(59, dtype=bool)}, "shape"),
        ({"train": np.arange(60) < 0}, "at least 1 row"),
        ({"y": np.where(np.arange(60) == 7, np.nan, 1.0)}, "finite"),
        ({"y": np.where(np.arange(60) == 7, -np.inf, 1.0)}, "finite"),
    ],
)
def test_bad_problems_are_refused(change, message):
    good = make_problem(6)
    arguments = {"X": good.X, "y": good.y, "train": None} | change
    with pytest.raises(ValueError, match=message):
        LassoProblem(**arguments)
