"""The newton engine where it is hardest: dense ends, twins, stale columns, cuts, threads."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from designs import counts_like, make_problem, path
from threadpoolctl import threadpool_limits

from actors.lasso.certificate import certify
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning


@pytest.fixture(autouse=True)
def missed_tolerance_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def largest_gap(problem, solution):
    return max(
        certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha).relative_gap
        for i, alpha in enumerate(solution.alphas)
    )


def noise_problem(n, p, density=0.08, seed=0):
    return LassoProblem(
        counts_like(seed, n, p, density), np.random.default_rng(seed).standard_normal(n)
    )


@pytest.mark.parametrize(("n", "p"), [(60, 400), (100, 300)])
def test_path_converges_where_the_support_nears_the_number_of_rows(n, p):
    problem = noise_problem(n, p)
    solution = NewtonEngine().solve_path(problem, path(problem, 1e4, 20), tol=1e-8)
    assert solution.coefs[:, [-1]].nnz > 0.9 * n
    assert largest_gap(problem, solution) <= 1.01e-8


@pytest.mark.parametrize("jump", [3.0, 1e3])
def test_a_cold_start_converges_at_any_alpha(jump):
    problem = noise_problem(60, 600, density=0.1)
    solution = NewtonEngine().solve_path(problem, [problem.alpha_max() / jump], tol=1e-10)
    assert largest_gap(problem, solution) <= 1.01e-10


def test_twins_and_their_negatives_converge():
    X = counts_like(1, 80, 200, 0.08)
    y = np.random.default_rng(1).standard_normal(80)
    problem = LassoProblem(sp.hstack([X, 2 * X, -X, X[:, :50]], format="csc"), y)
    solution = NewtonEngine().solve_path(problem, path(problem, 1e3, 12), tol=1e-8)
    assert largest_gap(problem, solution) <= 1.01e-8


def test_nearly_equal_columns_converge():
    X = counts_like(2, 80, 100, 0.1)
    nudge = sp.csc_matrix(X.multiply(1e-7 * np.random.default_rng(0).random((80, 1))))
    problem = LassoProblem(
        sp.hstack([X, X + nudge], format="csc"), np.random.default_rng(2).standard_normal(80)
    )
    solution = NewtonEngine().solve_path(problem, path(problem, 1e3, 12), tol=1e-8)
    assert largest_gap(problem, solution) <= 1.01e-8


def test_accuracy_is_not_lost_in_the_objective_where_alpha_is_tiny():
    # The decrease of a step is far below the rounding of the objective itself here.
    problem = noise_problem(60, 30, density=0.1, seed=1)
    solution = NewtonEngine().solve_path(problem, path(problem, 1e6, 20), tol=1e-11)
    assert largest_gap(problem, solution) <= 2e-11


def test_columns_left_behind_are_forgotten_without_harm(monkeypatch):
    problem = make_problem(3, n=60, p=300)
    alphas = path(problem, 300, 25)
    whole = NewtonEngine().solve_path(problem, alphas, tol=1e-12)
    monkeypatch.setattr("actors.lasso.newton_path.MIN_WORKING_SET", 5)
    monkeypatch.setattr("actors.lasso.newton_path.STALE_RATIO", 1.0)
    small = NewtonEngine().solve_path(problem, alphas, tol=1e-12)
    assert largest_gap(problem, small) <= 1e-11
    np.testing.assert_allclose(small.coefs.toarray(), whole.coefs.toarray(), atol=1e-4)


def test_alphas_may_rise_again():
    problem = make_problem(4)
    alphas = np.concatenate([path(problem), path(problem)[::-1]])
    solution = NewtonEngine().solve_path(problem, alphas, tol=1e-10)
    assert largest_gap(problem, solution) <= 1.01e-10


def test_the_same_call_gives_the_same_bytes():
    problem = noise_problem(100, 600)
    alphas = path(problem, 100, 10)
    first, second = (NewtonEngine().solve_path(problem, alphas) for _ in range(2))
    assert first.coefs.data.tobytes() == second.coefs.data.tobytes()
    assert first.coefs.indices.tobytes() == second.coefs.indices.tobytes()
    assert first.intercepts.tobytes() == second.intercepts.tobytes()
    assert first.gaps.tobytes() == second.gaps.tobytes()


@pytest.mark.parametrize("length", [1, 3, 10])
def test_a_path_cut_into_stretches_agrees_within_the_gap(length):
    """Not to the last bit: a cut forgets the Gram cache, and sums then run in another order."""
    problem = noise_problem(100, 600)
    alphas = path(problem, 100, 20)
    whole = NewtonEngine().solve_path(problem, alphas, tol=1e-12)
    parts, start = [], None
    for first in range(0, 20, length):
        part = NewtonEngine().solve_path(
            problem, alphas[first : first + length], tol=1e-12, start=start
        )
        assert largest_gap(problem, part) <= 1.01e-12
        start = part.coefs[:, [-1]]
        parts.append(part.coefs)
    np.testing.assert_allclose(sp.hstack(parts).toarray(), whole.coefs.toarray(), atol=1e-4)


def test_the_number_of_threads_changes_nothing_beyond_the_gap():
    problem = noise_problem(150, 500)
    alphas = path(problem, 100, 8)
    solutions = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            solutions.append(NewtonEngine().solve_path(problem, alphas, tol=1e-12))
    for solution in solutions:
        assert largest_gap(problem, solution) <= 1.01e-12
    np.testing.assert_allclose(
        solutions[0].coefs.toarray(), solutions[1].coefs.toarray(), atol=1e-4
    )


def test_noise_alone_above_the_rounding_of_alpha_max_is_no_crash():
    # Columns without any variance: alpha_max is rounding, and their Gram matrix is singular.
    X = sp.csc_matrix(np.full((60, 3), 0.1))
    problem = LassoProblem(X, np.random.default_rng(0).standard_normal(60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = NewtonEngine().solve_path(problem, [1e-3, 1e-20])
    assert solution.coefs[:, [0]].nnz == 0
    assert np.isfinite(solution.coefs.data).all()


def test_weight_of_the_start_on_a_constant_column_is_left():
    base = make_problem(5)
    X = base.X.toarray()
    X[:, 3] = 1.0
    problem = LassoProblem(sp.csc_matrix(X), base.y)
    start = sp.csc_matrix(([5.0], ([3], [0])), shape=(X.shape[1], 1))
    alphas = path(problem)
    solution = NewtonEngine().solve_path(problem, alphas, start=start)
    assert largest_gap(problem, solution) <= 1.01e-6
    assert not solution.coefs[[3]].nnz
