"""One table of engines, and what must hold for each of them."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from designs import make_problem, objective, path, reference

from actors.lasso.certificate import certify
from actors.lasso.engines import ENGINES, make_engine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning

TOL = 1e-8


@pytest.fixture(params=ENGINES)
def engine(request):
    return make_engine(request.param)


@pytest.fixture(autouse=True)
def missed_tolerance_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def assert_certified(problem, solution, tol=TOL):
    """Every answer has a gap within tol, by a check that shares no code with an engine."""
    for i, alpha in enumerate(solution.alphas):
        proof = certify(problem, solution.coefs[:, [i]], solution.intercepts[i], alpha)
        assert -1e-12 <= proof.relative_gap <= tol * (1 + 1e-6), f"alpha {i}: {proof}"
        assert solution.gaps[i] == pytest.approx(proof.relative_gap, abs=1e-11)


def with_columns(problem, *columns):
    return LassoProblem(sp.hstack([problem.X, *columns], format="csc"), problem.y, problem.train)


def column(values):
    return sp.csc_matrix(np.asarray(values, dtype=float).reshape(-1, 1))


PROBLEMS = {
    "n > p": lambda: make_problem(1, n=80, p=25),
    "n < p": lambda: make_problem(2, n=40, p=150),
    "pure noise": lambda: LassoProblem(
        make_problem(3).X, np.random.default_rng(3).standard_normal(60)
    ),
    "few dense columns": lambda: make_problem(4, n=50, p=10, density=0.9),
    "twins left in": lambda: with_columns(make_problem(5), make_problem(5).X),
    "singular": lambda: with_columns(
        make_problem(6),
        column(make_problem(6).X[:, :3].sum(axis=1)),
        -2.0 * make_problem(6).X[:, 5],
    ),
    "constant and empty": lambda: with_columns(
        make_problem(7), column(np.ones(60)), column(np.full(60, 40.0)), column(np.zeros(60))
    ),
    "one column": lambda: make_problem(8, p=1, density=0.8),
    "two rows": lambda: make_problem(9, train=np.arange(60) < 2),
    "scales from 1e-4 to 1e4": lambda: LassoProblem(
        sp.csc_matrix(make_problem(10).X @ sp.diags(np.logspace(-4, 4, 40))), make_problem(10).y
    ),
    "target far from zero": lambda: LassoProblem(make_problem(11).X, make_problem(11).y + 1e4),
    "tiny target": lambda: LassoProblem(make_problem(12).X, make_problem(12).y * 1e-7),
    "bitwise equal rows": lambda: LassoProblem(
        sp.vstack([make_problem(13).X] * 2, format="csc"), np.tile(make_problem(13).y, 2)
    ),
    "a half of the rows": lambda: make_problem(14, train=np.arange(60) % 2 == 0),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_alpha_is_within_the_gap(engine, name):
    problem = PROBLEMS[name]()
    alphas = path(problem)
    solution = engine.solve_path(problem, alphas, tol=TOL)
    np.testing.assert_array_equal(solution.alphas, alphas)
    assert_certified(problem, solution)


def test_solution_is_zero_when_alpha_is_alpha_max_or_more(engine):
    problem = make_problem(20)
    top = problem.alpha_max()
    solution = engine.solve_path(problem, [10 * top, top * (1 + 1e-12), top], tol=TOL)
    assert solution.coefs.nnz == 0
    np.testing.assert_allclose(solution.intercepts, problem.y.mean(), rtol=1e-12)
    below = engine.solve_path(problem, [0.99 * top], tol=TOL)
    assert below.coefs.nnz > 0


@pytest.mark.parametrize("seed", [30, 31, 32])
@pytest.mark.parametrize("shape", [(70, 30), (40, 90)])
def test_coefficients_equal_dense_coordinate_descent(engine, seed, shape):
    problem = make_problem(seed, *shape)
    alphas = path(problem, ratio=20, count=4)
    solution = engine.solve_path(problem, alphas, tol=1e-12)
    for i, alpha in enumerate(alphas):
        coef, intercept = reference(problem, alpha)
        found = solution.coefs[:, [i]].toarray().ravel()
        largest = max(np.abs(coef).max(), 1e-3)
        np.testing.assert_allclose(found, coef, atol=1e-5 * largest)
        assert solution.intercepts[i] == pytest.approx(intercept, abs=1e-5)
        value = objective(problem, found, solution.intercepts[i], alpha)
        assert value == pytest.approx(objective(problem, coef, intercept, alpha), rel=1e-10)


def test_a_mask_equals_solving_its_rows_alone(engine):
    everything = make_problem(40, n=90, p=50)
    train = np.random.default_rng(40).random(90) < 0.6
    y = np.where(train, everything.y, np.nan)
    masked = LassoProblem(everything.X, y, train)
    alone = LassoProblem(sp.csc_matrix(everything.X[train]), y[train])
    assert masked.alpha_max() == pytest.approx(alone.alpha_max(), rel=1e-12)
    alphas = path(alone)
    ours = engine.solve_path(masked, alphas, tol=1e-12)
    theirs = make_engine(engine.name).solve_path(alone, alphas, tol=1e-12)
    np.testing.assert_allclose(ours.coefs.toarray(), theirs.coefs.toarray(), atol=1e-5)
    np.testing.assert_allclose(ours.intercepts, theirs.intercepts, atol=1e-5)
    assert_certified(masked, ours)


def test_held_out_targets_are_never_looked_at(engine):
    everything = make_problem(41)
    train = np.arange(60) % 3 > 0
    alphas = path(LassoProblem(everything.X, everything.y, train))
    answers = []
    for outside in (np.nan, np.inf, 1e30, 0.0):
        y = np.where(train, everything.y, outside)
        answers.append(engine.solve_path(LassoProblem(everything.X, y, train), alphas, tol=TOL))
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.coefs.toarray(), answers[0].coefs.toarray())
        np.testing.assert_array_equal(answer.intercepts, answers[0].intercepts)


def test_an_engine_serves_one_problem_after_another(engine):
    X, y = make_problem(42).X, make_problem(42).y
    masks = (None, np.arange(60) % 2 == 0, np.arange(60) < 30)
    problems = [*(LassoProblem(X, y, mask) for mask in masks), make_problem(43)]
    for problem in [*problems, *problems]:
        alphas = path(problem, count=4)
        assert_certified(problem, engine.solve_path(problem, alphas, tol=TOL))


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_warm_start_from_the_stretch_before_reaches_the_same_answer(engine, cut):
    problem = make_problem(50, n=60, p=80)
    alphas = path(problem)
    whole = engine.solve_path(problem, alphas, tol=1e-12)
    first = engine.solve_path(problem, alphas[:cut], tol=1e-12)
    second = engine.solve_path(problem, alphas[cut:], tol=1e-12, start=first.coefs[:, [-1]])
    joined = sp.hstack([first.coefs, second.coefs]).toarray()
    np.testing.assert_allclose(joined, whole.coefs.toarray(), atol=1e-5)
    assert_certified(problem, second, tol=1e-12)


def test_any_start_reaches_the_optimum(engine):
    problem = make_problem(51)
    rng = np.random.default_rng(0)
    start = sp.csc_matrix(rng.standard_normal((40, 1)) * (rng.random((40, 1)) < 0.7))
    before = start.copy()
    alphas = path(problem)[3:]
    assert_certified(problem, engine.solve_path(problem, alphas, tol=TOL, start=start))
    np.testing.assert_array_equal(start.toarray(), before.toarray())


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_read_only_arrays_are_taken_and_left_alone(engine, index_type):
    problem = make_problem(60, train=np.arange(60) % 4 > 0)
    X = problem.X
    parts = [X.data.copy(), X.indices.astype(index_type), X.indptr.astype(index_type)]
    y, train = problem.y.copy(), problem.train.copy()
    before = [part.copy() for part in (*parts, y, train)]
    for part in (*parts, y, train):
        part.flags.writeable = False
    frozen = sp.csc_matrix(tuple(parts), shape=X.shape, copy=False)
    guarded = LassoProblem(frozen, y, train)
    assert_certified(guarded, engine.solve_path(guarded, path(guarded), tol=TOL))
    for part, old in zip((*parts, y, train), before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_an_answer_above_tol_is_returned_with_its_gap_and_a_warning(engine, monkeypatch):
    monkeypatch.setattr("actors.lasso.celer_engine.MAX_ROUNDS", 1)
    monkeypatch.setattr("actors.lasso.celer_engine.MAX_EPOCHS", 20)
    monkeypatch.setattr("actors.lasso.newton.MAX_ROUNDS", 1)
    monkeypatch.setattr("actors.lasso.active_set.MAX_STEPS", 1)
    problem = make_problem(61)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = engine.solve_path(problem, [problem.alpha_max() / 30], tol=1e-30)
    assert any(f"{engine.name}: alpha" in str(warning.message) for warning in caught)
    assert 0 <= solution.gaps[0] < 0.1
    assert_certified(problem, solution, tol=0.1)


def test_unknown_engine_raises():
    with pytest.raises(ValueError, match="newton, celer, sklearn"):
        make_engine("cvx")
