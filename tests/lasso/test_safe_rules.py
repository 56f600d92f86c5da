"""Columns that were left out and declared unable to enter, against optima with all of them."""

import numpy as np
import pytest
import scipy.sparse as sp
from designs import QUICK, counts_like, make_problem, path, reference
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.certificate import certify
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.safe_rules import answers_of, excluded, joint_reach, reach
from actors.lasso.unit import TRAIN, VALIDATION, coefficients, solve_unit


def solved(problem, kept, alphas, tol):
    """Answers on the columns ``kept`` alone, and their problem."""
    part = LassoProblem(problem.X[:, kept], problem.y, problem.train, problem.sample_weight)
    solution = NewtonEngine().solve_path(part, alphas, tol=tol)
    return answers_of(part, solution.coefs, solution.gaps, solution.alphas), solution


def grid_of_problems(seed, n=50, p=30):
    """Two targets on three folds, and the columns that are not light."""
    rng = np.random.default_rng(seed)
    light = rng.random(p) < 0.5
    X = counts_like(seed, n, p, 0.12)
    X = sp.csc_matrix(X.multiply(np.where(light, rng.choice([0.01, 0.1, 0.5]), 1.0)[None, :]))
    w = rng.standard_normal((p, 2)) * (rng.random((p, 2)) < 0.15)
    Y = X @ w + 0.3 * rng.standard_normal((n, 2)) + 1.0
    folds = [np.arange(n) < n // 2, rng.random(n) < 0.7, np.ones(n, dtype=bool)]
    problems = [LassoProblem(X, np.ascontiguousarray(y), fold) for y in Y.T for fold in folds]
    return problems, np.flatnonzero(~light)


@QUICK
@given(seed=st.integers(0, 10**6), tol=st.sampled_from([1e-2, 1e-4, 1e-9]))
def test_no_column_of_any_optimum_is_excluded(seed, tol):
    problems, kept = grid_of_problems(seed)
    dropped = np.setdiff1d(np.arange(30), kept)
    alphas = [path(problem, 20.0, 4)[1:] for problem in problems]
    answers = [solved(p, kept, a, tol)[0] for p, a in zip(problems, alphas, strict=True)]
    out = problems[0].X[:, dropped]
    bound = joint_reach(50, map(reach, answers))
    norms = np.sqrt(np.asarray(out.multiply(out).sum(axis=0)).ravel())
    by_rows = bound.excludes(abs(out).T @ bound.rows, norms)
    one_by_one = excluded(out, answers)
    assert (one_by_one | ~by_rows).all()
    if not one_by_one.all():  # columns that do enter may carry others in with them
        return
    for problem, some in zip(problems, alphas, strict=True):
        for alpha in some:
            coef, _ = reference(problem, alpha)
            assert np.abs(coef[dropped]).max(initial=0.0) <= 1e-9


@QUICK
@given(seed=st.integers(0, 10**6), tol=st.sampled_from([1e-3, 1e-6]))
def test_the_certificate_over_all_columns_holds_when_all_are_excluded(seed, tol):
    problem = make_problem(seed, n=60, p=25)
    column = sp.csc_matrix(([1e-2, 2e-2], ([3, 7], [0, 0])), shape=(60, 1))
    whole = LassoProblem(sp.hstack((problem.X, column), format="csc"), problem.y)
    alphas = path(problem, 10.0, 4)
    answers, solution = solved(whole, np.arange(25), alphas, tol)
    assert excluded(column, [answers]).all()
    for k, alpha in enumerate(alphas):
        coef = np.append(solution.coefs[:, [k]].toarray().ravel(), 0.0)
        proof = certify(whole, coef, solution.intercepts[k], alpha)
        assert proof.relative_gap <= solution.gaps[k] + 1e-12


def test_rare_columns_are_excluded_and_one_that_enters_is_not():
    rng = np.random.default_rng(2)
    problem = make_problem(2, n=200, p=20, noise=0.2)
    missing = sp.csc_matrix(rng.random((200, 1)) < 0.3, dtype=float)
    y = problem.y + 3.0 * missing.toarray().ravel()
    whole = LassoProblem(sp.csc_matrix(sp.hstack((problem.X, missing, 1e-3 * missing))), y)
    answers, _ = solved(whole, np.arange(20), path(whole, 10.0, 5), 1e-8)
    assert excluded(whole.X[:, 20:], [answers]).tolist() == [False, True]


@pytest.mark.parametrize("weighted", [False, True])
def test_radius_reaches_the_optimum_from_a_loose_answer(weighted):
    problem = make_problem(4, n=80, p=30)
    s = np.random.default_rng(0).uniform(0.2, 2.0, 80) if weighted else None
    problem = LassoProblem(problem.X, problem.y, sample_weight=s)
    alphas = path(problem, 20.0, 5)[1:]
    loose, _ = solved(problem, np.arange(30), alphas, 1e-1)
    tight, _ = solved(problem, np.arange(30), alphas, 1e-12)
    moved = loose.residuals - tight.residuals
    distance = np.sqrt((problem.row_weights[:, None] * moved**2).sum(axis=0))
    assert loose.gaps.max() > 1e-4
    assert (distance <= loose.radii * alphas * problem.n).all()


def test_a_unit_says_what_its_answers_reach():
    problem = make_problem(4, n=80, p=30)
    roles = np.where(np.arange(80) < 60, TRAIN, VALIDATION).astype(np.int8)
    alphas = path(problem, 10.0, 4)
    unit = solve_unit(
        NewtonEngine(), problem.X, problem.y, roles, alphas, tol=1e-6, with_reach=True
    )
    part = LassoProblem(problem.X, problem.y, roles == TRAIN)
    exact = reach(answers_of(part, coefficients(unit, 30), unit["gaps"], unit["alphas"]))
    assert (unit["reach"] >= exact.rows * (1 - 1e-12)).all()
    np.testing.assert_allclose(unit["reach"], exact.rows, rtol=1e-6, atol=0)
    assert float(unit["radius"]) == pytest.approx(exact.radius)
