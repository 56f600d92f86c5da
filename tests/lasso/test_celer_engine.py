"""The celer engine: what celer itself gets wrong, every option, and rank lost in the pool."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from designs import QUICK, counts_like, make_problem, path
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.celer_engine import CelerEngine
from actors.lasso.certificate import certify
from actors.lasso.engines import make_engine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning

TOL = 1e-8
ROOT = Path(__file__).resolve().parents[2]


def solve(problem, alphas, tol=TOL, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        return CelerEngine().solve_path(problem, alphas, tol=tol, **options)


def assert_certified(problem, solution, tol=TOL):
    for i, alpha in enumerate(solution.alphas):
        proof = certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha)
        assert -1e-12 <= proof.relative_gap <= tol * (1 + 1e-6), f"alpha {i}: {proof}"
        assert solution.gaps[i] == pytest.approx(proof.relative_gap, abs=1e-11)


@QUICK
@given(
    seed=st.integers(0, 1000),
    positive=st.booleans(),
    fit_intercept=st.booleans(),
    weighted=st.booleans(),
    penalty=st.sampled_from(["ones", "mixed", "free", "excluded"]),
    held_out=st.booleans(),
)
def test_every_option_is_certified_and_agrees_with_newton(
    seed, positive, fit_intercept, weighted, penalty, held_out
):
    rng = np.random.default_rng(seed)
    base = make_problem(seed, 40, 25)
    u = {
        "ones": None,
        "mixed": rng.uniform(0.2, 4.0, 25),
        "free": np.where(rng.random(25) < 0.1, 0.0, 1.0),
        "excluded": np.where(rng.random(25) < 0.3, np.inf, 1.0),
    }[penalty]
    problem = LassoProblem(
        base.X,
        base.y,
        rng.random(40) < 0.7 if held_out else None,
        rng.integers(0, 4, 40).astype(float) if weighted else None,
        u,
        positive,
        fit_intercept,
    )
    alphas = path(problem, count=4)
    ours = solve(problem, alphas, tol=1e-10)
    assert_certified(problem, ours, tol=1e-10)
    theirs = make_engine("newton").solve_path(problem, alphas, tol=1e-12)
    size = max(1.0, np.abs(theirs.coefs.toarray()).max())
    fitted = [problem.X[problem.rows] @ s.coefs.toarray() + s.intercepts for s in (ours, theirs)]
    np.testing.assert_allclose(*fitted, atol=2e-3 * size)


@pytest.mark.parametrize("engine", ["celer", "sklearn"])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_sample_and_penalty_weights_are_honoured(engine, positive, fit_intercept):
    base = make_problem(1)
    s = np.random.default_rng(1).integers(0, 4, 60).astype(float)
    u = np.where(np.arange(40) % 7 == 0, np.inf, np.linspace(0.5, 2.0, 40))
    problem = LassoProblem(base.X, base.y, None, s, u, positive, fit_intercept)
    # The same by repeated rows and divided columns, dense.
    X = np.repeat(base.X.toarray() / u, s.astype(int), axis=0)
    y = np.repeat(base.y, s.astype(int))
    same = LassoProblem(sp.csc_matrix(X), y, None, None, None, positive, fit_intercept)
    assert problem.alpha_max() == pytest.approx(same.alpha_max(), rel=1e-12)
    alphas = path(problem, ratio=20, count=4)
    ours = make_engine(engine).solve_path(problem, alphas, tol=1e-11)
    theirs = make_engine("newton").solve_path(same, alphas, tol=1e-12)
    scaled = np.where(np.isinf(u), 0.0, theirs.coefs.toarray().T / u).T
    np.testing.assert_allclose(ours.coefs.toarray(), scaled, atol=1e-5)
    np.testing.assert_allclose(ours.intercepts, theirs.intercepts, atol=1e-5)
    assert_certified(problem, ours)


@pytest.mark.parametrize("engine", ["celer", "sklearn"])
def test_all_columns_excluded_leaves_the_intercept(engine):
    base = make_problem(2)
    problem = LassoProblem(base.X, base.y, penalty_weights=np.full(40, np.inf))
    solution = make_engine(engine).solve_path(problem, [0.1, 0.01], tol=TOL)
    assert solution.coefs.nnz == 0
    np.testing.assert_allclose(solution.intercepts, base.y.mean())
    assert not solution.gaps.any()


def test_sklearn_engine_names_newton_for_unpenalised_columns():
    base = make_problem(2)
    problem = LassoProblem(base.X, base.y, penalty_weights=np.arange(40) * 1.0)
    with pytest.raises(ValueError, match="above 0 for the sklearn engine, got 1 of 0; the newton"):
        make_engine("sklearn").solve_path(problem, [0.1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alphas_of_any_precision_are_taken(dtype):
    problem = make_problem(3)
    alphas = path(problem, count=4).astype(dtype)
    assert_certified(problem, solve(problem, alphas))
    assert_certified(problem, solve(problem, alphas.tolist()))


def test_a_read_only_matrix_with_64_bit_indices_is_taken():
    problem = make_problem(4, 60, 400)
    X = problem.X
    parts = (X.data.copy(), X.indices.astype(np.int64), X.indptr.astype(np.int64))
    for part in parts:
        part.flags.writeable = False
    wide = sp.csc_matrix(X.shape)
    wide.data, wide.indices, wide.indptr = parts  # past scipy, which would narrow them
    guarded = LassoProblem(wide, problem.y)
    assert guarded.X.indices.dtype == np.int64
    alphas = path(problem)
    solution = solve(guarded, alphas)
    assert_certified(problem, solution)
    np.testing.assert_array_equal(solution.coefs.toarray(), solve(problem, alphas).coefs.toarray())


def test_a_far_target_costs_no_accuracy():
    problem = make_problem(5)
    far = LassoProblem(problem.X, problem.y + 1e6)
    alphas = path(problem)
    near = solve(problem, alphas, tol=1e-10)
    shifted = solve(far, alphas, tol=1e-10)
    np.testing.assert_allclose(shifted.coefs.toarray(), near.coefs.toarray(), atol=1e-4)
    np.testing.assert_allclose(shifted.intercepts - 1e6, near.intercepts, atol=1e-4)


@pytest.mark.parametrize("kind", ["twins", "opposite twins", "sums", "more columns than rows"])
def test_a_pool_without_full_rank_is_solved(kind):
    X = counts_like(6, 60, 30)
    more = {
        "twins": X,
        "opposite twins": -3.0 * X,
        "sums": sp.csc_matrix(X[:, :15] + X[:, 15:]),
        "more columns than rows": counts_like(7, 60, 200),
    }[kind]
    y = make_problem(6, 60, 30).y
    problem = LassoProblem(sp.hstack([X, more], format="csc"), y)
    assert_certified(problem, solve(problem, path(problem, ratio=200)))


@pytest.mark.parametrize("exponent", [-6, 6])
def test_columns_of_very_different_scales_are_solved(exponent):
    base = make_problem(8)
    scales = 10.0 ** np.where(np.arange(40) % 2, exponent, 0)
    problem = LassoProblem(sp.csc_matrix(base.X @ sp.diags(scales)), base.y)
    assert_certified(problem, solve(problem, path(problem, ratio=1e3)))


def test_a_start_on_columns_that_explain_nothing_is_left():
    base = make_problem(9)
    X = sp.hstack([base.X, np.ones((60, 1)), np.zeros((60, 1))], format="csc")
    problem = LassoProblem(X, base.y)
    start = sp.csc_matrix(np.append(np.zeros(40), [2.0, -3.0]).reshape(-1, 1))
    solution = solve(problem, path(problem)[3:], start=start)
    assert not solution.coefs[40:].nnz
    assert_certified(problem, solution)


def test_pool_is_trimmed_when_the_path_turns_back():
    problem = make_problem(10, 80, 900)
    alphas = path(problem, ratio=100)
    down = solve(problem, alphas)
    there_and_back = solve(problem, [*alphas, *alphas[::-1]])
    assert_certified(problem, there_and_back)
    # Zero, but for what the gap allows.
    left = abs(there_and_back.coefs[:, [-1]]).sum()
    assert left < 1e-4 * abs(down.coefs[:, [-1]]).sum()


def test_kernel_loads_where_scikit_learn_lacks_what_celer_imports():
    code = (
        "import sklearn.linear_model._base as base\n"
        "del base._preprocess_data\n"
        "try:\n"
        "    import celer\n"
        "except ImportError:\n"
        "    print('broken')\n"
        "import numpy as np, scipy.sparse as sp, sys\n"
        "from actors.lasso.celer_engine import CelerEngine\n"
        "from actors.lasso.problem import LassoProblem\n"
        "problem = LassoProblem(sp.eye(9, format='csc'), np.arange(9.0))\n"
        "solution = CelerEngine().solve_path(problem, [problem.alpha_max() / 5])\n"
        "print(solution.gaps[0] <= 1e-6, 'celer' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["broken", "True", "False"], done.stderr
