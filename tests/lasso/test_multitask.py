"""Multi-task paths against scikit-learn, the single-target engine and closed forms."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from designs import QUICK, counts_like, make_problem
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import MultiTaskLasso

from actors.lasso.multitask import row_sparse, solve_multitask_path
from actors.lasso.multitask_certificate import certify_multitask
from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.solution import ConvergenceWarning


def make_tasks(seed=0, n=60, p=40, tasks=3, density=0.15, noise=0.5, **options):
    rng = np.random.default_rng(seed + 2000)
    X = counts_like(seed, n, p, density)
    W = rng.standard_normal((p, tasks)) * (rng.random((p, 1)) < 0.2)
    Y = X @ W + noise * rng.standard_normal((n, tasks)) + np.linspace(-3, 3, tasks)
    return MultiTaskProblem(X, Y, **options)


def alphas_of(problem, ratio=50.0, count=8):
    return np.geomspace(problem.alpha_max(), problem.alpha_max() / ratio, count)


def certified(problem, solution, at):
    certificate = certify_multitask(
        problem, solution.coef(at), solution.intercepts[at], solution.alphas[at]
    )
    return certificate.relative_gap


def dense_objective(problem, W, b, alpha):
    """The primal of the definition, row by row, with sample and penalty weights."""
    rows = np.ones(len(problem.Y), bool) if problem.train is None else problem.train
    s = np.ones(len(problem.Y)) if problem.sample_weight is None else problem.sample_weight
    u = np.ones(len(W)) if problem.penalty_weights is None else problem.penalty_weights
    R = problem.Y[rows] - problem.X.toarray()[rows] @ W - b
    used = np.isfinite(u)
    penalty = (u[used] * np.linalg.norm(W[used], axis=1)).sum()
    return (s[rows, None] * R**2).sum() / (2 * s[rows].sum()) + alpha * penalty


@pytest.mark.parametrize("convert", [lambda X: X.toarray(), lambda X: X], ids=["dense", "sparse"])
@pytest.mark.parametrize(("n", "p", "tasks"), [(80, 30, 2), (40, 90, 4), (60, 40, 9)])
def test_multitask_matches_sklearn(convert, n, p, tasks):
    problem = make_tasks(1, n, p, tasks)
    alphas = alphas_of(problem, ratio=20, count=4)
    solution = solve_multitask_path(problem, alphas, tol=1e-12)
    for at in range(1, 4):
        model = MultiTaskLasso(alpha=alphas[at], tol=1e-13, max_iter=100_000)
        model.fit(convert(problem.X), problem.Y)
        np.testing.assert_allclose(solution.coef(at).toarray(), model.coef_.T, atol=2e-6)
        np.testing.assert_allclose(solution.intercepts[at], model.intercept_, atol=2e-5)


def test_multitask_matches_sklearn_when_there_is_no_intercept():
    problem = make_tasks(2, fit_intercept=False)
    alpha = problem.alpha_max() / 10
    solution = solve_multitask_path(problem, [alpha], tol=1e-12)
    model = MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-13, max_iter=100_000)
    model.fit(problem.X.toarray(), problem.Y)
    np.testing.assert_allclose(solution.coef(0).toarray(), model.coef_.T, atol=2e-6)
    np.testing.assert_array_equal(solution.intercepts, 0.0)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_multitask_of_one_target_matches_the_lasso(weighted):
    lasso = make_problem(3, n=80, p=60)
    rng = np.random.default_rng(3)
    options = {}
    if weighted:
        u = rng.uniform(0.5, 2.0, 60)
        u[[4, 7]] = 0.0, np.inf
        options = {"sample_weight": rng.uniform(0.1, 3.0, 80), "penalty_weights": u}
    train = rng.random(80) < 0.8
    lasso = LassoProblem(lasso.X, lasso.y, train, **options)
    problem = MultiTaskProblem(lasso.X, lasso.y[:, None], train, **options)
    assert problem.alpha_max() == pytest.approx(lasso.alpha_max(), rel=1e-12)
    alphas = alphas_of(problem)
    ours = solve_multitask_path(problem, alphas, tol=1e-12)
    theirs = NewtonEngine().solve_path(lasso, alphas, tol=1e-12)
    ours_coef = np.hstack([ours.coef(at).toarray() for at in range(alphas.size)])
    np.testing.assert_allclose(ours_coef, theirs.coefs.toarray(), atol=1e-7)
    np.testing.assert_allclose(ours.intercepts[:, 0], theirs.intercepts, atol=1e-7)


def test_multitask_is_the_row_threshold_when_the_design_is_orthogonal():
    rng = np.random.default_rng(4)
    n, p, tasks = 64, 12, 3
    Q = np.linalg.qr(np.column_stack((np.ones(n), rng.standard_normal((n, p)))))[0][:, 1:]
    lengths = rng.uniform(0.5, 4.0, p)
    Y = rng.standard_normal((n, tasks)) + 7.0
    problem = MultiTaskProblem(sp.csc_matrix(Q * lengths), Y)
    alpha = problem.alpha_max() / 3
    C = lengths[:, None] * (Q.T @ Y)
    norms = np.linalg.norm(C, axis=1, keepdims=True)
    expected = np.maximum(1 - n * alpha / norms, 0) * C / lengths[:, None] ** 2
    solution = solve_multitask_path(problem, [alpha], tol=1e-14)
    np.testing.assert_allclose(solution.coef(0).toarray(), expected, atol=1e-8)
    np.testing.assert_allclose(
        solution.intercepts[0], Y.mean(0) - (Q * lengths).mean(0) @ expected, atol=1e-8
    )


def test_multitask_of_equal_targets_is_the_lasso_at_alpha_times_root_t():
    # With Y = y 1', every row is w_j 1' and its norm sqrt(T) |w_j|.
    lasso = make_problem(5)
    tasks = 4
    problem = MultiTaskProblem(lasso.X, np.repeat(lasso.y[:, None], tasks, axis=1))
    alpha = problem.alpha_max() / 8
    solution = solve_multitask_path(problem, [alpha], tol=1e-13)
    single = NewtonEngine().solve_path(lasso, [alpha / np.sqrt(tasks)], tol=1e-13)
    expected = np.repeat(single.coefs.toarray(), tasks, axis=1)
    np.testing.assert_allclose(solution.coef(0).toarray(), expected, atol=1e-8)


def test_multitask_path_is_empty_at_alpha_max_and_above():
    problem = make_tasks(6)
    highest = problem.alpha_max()
    solution = solve_multitask_path(problem, [10 * highest, highest, 0.9 * highest])
    assert [support.size for support in solution.supports[:2]] == [0, 0]
    assert solution.supports[2].size >= 1
    np.testing.assert_allclose(solution.intercepts[0], problem.Y.mean(axis=0))


def test_multitask_weights_act_like_repeated_rows_and_scaled_columns():
    problem = make_tasks(7, n=50, p=20)
    rng = np.random.default_rng(7)
    repeats, u = rng.integers(0, 3, 50), rng.uniform(0.5, 2.0, 20)
    alpha = problem.alpha_max() / 10
    weighted = MultiTaskProblem(
        problem.X, problem.Y, sample_weight=repeats.astype(float), penalty_weights=u
    )
    rows = np.repeat(np.arange(50), repeats)
    scaled = sp.csc_matrix(problem.X[rows] @ sp.diags(1 / u))
    plain = MultiTaskProblem(scaled, problem.Y[rows])
    ours = solve_multitask_path(weighted, [alpha], tol=1e-12)
    other = solve_multitask_path(plain, [alpha], tol=1e-12)
    np.testing.assert_allclose(ours.coef(0).toarray() * u[:, None], other.coef(0).toarray(),
                               atol=1e-7)  # fmt: skip
    np.testing.assert_allclose(ours.intercepts, other.intercepts, atol=1e-7)


def test_multitask_leaves_free_columns_unpenalised_and_excluded_ones_out():
    u = np.ones(40)
    u[[0, 1]], u[[2, 3]] = 0.0, np.inf
    problem = make_tasks(8, penalty_weights=u)
    huge = solve_multitask_path(problem, [1e3 * problem.alpha_max()], tol=1e-10)
    columns = np.column_stack((np.ones(60), problem.X[:, [0, 1]].toarray()))
    fit = np.linalg.lstsq(columns, problem.Y, rcond=None)[0]
    np.testing.assert_allclose(huge.intercepts[0], fit[0], atol=1e-9)
    np.testing.assert_allclose(huge.coef(0).toarray()[:2], fit[1:], atol=1e-9)
    path = solve_multitask_path(problem, alphas_of(problem), tol=1e-10)
    for at in range(len(path.alphas)):
        assert certified(problem, path, at) <= 1.1e-10
        assert not np.isin(path.supports[at], [2, 3]).any()


def test_multitask_ignores_rows_that_do_not_train():
    problem = make_tasks(9, n=50)
    train = np.random.default_rng(9).random(50) < 0.7
    Y = np.where(train[:, None], problem.Y, np.nan)
    fold = MultiTaskProblem(problem.X, Y, train)
    alone = MultiTaskProblem(sp.csc_matrix(problem.X[np.flatnonzero(train)]), problem.Y[train])
    alpha = alone.alpha_max() / 6
    ours = solve_multitask_path(fold, [alpha], tol=1e-12)
    other = solve_multitask_path(alone, [alpha], tol=1e-12)
    np.testing.assert_allclose(ours.coef(0).toarray(), other.coef(0).toarray(), atol=1e-8)


def test_multitask_path_resumes_from_a_warm_start():
    problem = make_tasks(10, n=80, p=120)
    alphas = alphas_of(problem)
    whole = solve_multitask_path(problem, alphas, tol=1e-10)
    first = solve_multitask_path(problem, alphas[:4], tol=1e-10)
    rest = solve_multitask_path(problem, alphas[4:], tol=1e-10, start=first.coef(3))
    np.testing.assert_allclose(rest.coef(3).toarray(), whole.coef(7).toarray(), atol=1e-4)
    warm = solve_multitask_path(problem, alphas[-1:], tol=1e-10, start=whole.coef(7))
    assert warm.n_iter[0] == 0


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(12, 40), (40, 12), (30, 30), (8, 100)]),
    tasks=st.integers(1, 5),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
    column_scale=st.sampled_from([1e-8, 1.0, 1e8]),
    spoil=st.sampled_from(["", "duplicates", "multiples", "constant", "zero rows"]),
    intercept=st.booleans(),
)
@QUICK
def test_multitask_is_certified_on_any_design(
    seed, shape, tasks, scale, column_scale, spoil, intercept
):
    n, p = shape
    rng = np.random.default_rng(seed)
    X = counts_like(seed, n, p, 0.3).toarray()
    if spoil == "duplicates":
        X[:, p // 2 :] = X[:, : p - p // 2]
    elif spoil == "multiples":
        X[:, p // 2 :] = X[:, : p - p // 2] * rng.uniform(0.1, 3.0, p - p // 2)
    elif spoil == "constant":
        X[:, : p // 3] = 1.7
    elif spoil == "zero rows":
        X[: n // 2] = 0.0
    Y = scale * (rng.standard_normal((n, tasks)) + 2.0)
    problem = MultiTaskProblem(sp.csc_matrix(column_scale * X), Y, fit_intercept=intercept)
    alphas = problem.alpha_max() * np.array([2.0, 0.5, 0.05, 1e-3])
    if not alphas[0] > 0:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_multitask_path(problem, alphas, tol=1e-8)
    assert solution.supports[0].size == 0
    for at in range(alphas.size):
        gap = certified(problem, solution, at)
        assert gap <= 1.1 * solution.gaps[at] + 1e-9
    missed = np.count_nonzero(solution.gaps > 1e-8)
    assert missed == len(caught)
    assert not missed or alphas[0] / alphas[-1] > 100


def test_multitask_warns_when_the_tolerance_cannot_be_reached():
    problem = make_tasks(11)
    with pytest.warns(ConvergenceWarning, match="above tol"):
        solution = solve_multitask_path(problem, [problem.alpha_max() / 7], tol=1e-300)
    assert 0 < certified(problem, solution, 0) + 1e-13 < 1e-10


def test_multitask_certificate_is_primal_minus_dual_of_the_definition():
    rng = np.random.default_rng(12)
    u = rng.uniform(0.5, 2.0, 40)
    u[3] = np.inf
    problem = make_tasks(12, sample_weight=rng.uniform(0.1, 2.0, 60), penalty_weights=u)
    W, b = rng.standard_normal((40, 3)) * (rng.random((40, 1)) < 0.3), rng.standard_normal(3)
    W[3] = 0.0
    alpha = problem.alpha_max() / 5
    certificate = certify_multitask(problem, W, b, alpha)
    assert certificate.primal == pytest.approx(dense_objective(problem, W, b, alpha), rel=1e-12)
    best = solve_multitask_path(problem, [alpha], tol=1e-13)
    optimum = dense_objective(problem, best.coef(0).toarray(), best.intercepts[0], alpha)
    assert certificate.dual <= optimum * (1 + 1e-12) <= certificate.primal
    W[3, 1] = 1e-9
    assert certify_multitask(problem, W, b, alpha).gap == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y": np.zeros((60, 0))}, r"Y: expected shape \(60, 1 or more targets\)"),
        ({"Y": np.zeros(60)}, "Y: expected shape"),
        ({"Y": np.full((60, 2), np.nan)}, "y: expected finite values"),
        ({"train": np.zeros(60, dtype=bool)}, "train: expected at least 1 row"),
        ({"sample_weight": -np.ones(60)}, "sample_weight: expected finite"),
    ],
)
def test_multitask_problem_refuses_bad_input(change, message):
    problem = make_tasks(13)
    with pytest.raises(ValueError, match=message):
        MultiTaskProblem(**({"X": problem.X, "Y": problem.Y} | change))


@pytest.mark.parametrize("alphas", [[0.0], [-1.0], [np.nan]])
def test_multitask_path_refuses_alphas_that_are_not_positive(alphas):
    with pytest.raises(ValueError, match="alphas: expected positive"):
        solve_multitask_path(make_tasks(14), alphas)


def test_multitask_path_refuses_a_start_of_another_shape():
    start = row_sparse(np.array([1]), np.ones((1, 2)), 40)
    with pytest.raises(ValueError, match="start: expected shape"):
        solve_multitask_path(make_tasks(14), [0.1], start=start)


def hard_design(kind):
    rng = np.random.default_rng(15)
    if kind == "wide, to the dense end":
        return counts_like(15, 60, 400, 0.08)
    if kind == "twins and negatives":
        X = counts_like(15, 80, 120, 0.08)
        return sp.hstack([X, 2 * X, -X], format="csc")
    X = counts_like(15, 80, 100, 0.1)
    nudge = sp.csc_matrix(X.multiply(1e-7 * rng.random((80, 1))))
    return sp.hstack([X, X + nudge], format="csc")


@pytest.mark.parametrize("kind", ["wide, to the dense end", "twins and negatives", "nearly equal"])
def test_multitask_path_converges_on_hard_designs(kind):
    X = hard_design(kind)
    problem = MultiTaskProblem(X, np.random.default_rng(16).standard_normal((X.shape[0], 3)))
    solution = solve_multitask_path(problem, alphas_of(problem, 1e3, 12), tol=1e-8)
    gaps = [certified(problem, solution, at) for at in range(12)]
    assert max(gaps) <= 1.01e-8


@pytest.mark.parametrize("jump", [3.0, 1e3])
def test_multitask_converges_from_a_cold_start_at_any_alpha(jump):
    problem = make_tasks(17, n=60, p=600, density=0.1)
    solution = solve_multitask_path(problem, [problem.alpha_max() / jump], tol=1e-10)
    assert certified(problem, solution, 0) <= 1.01e-10


def test_multitask_columns_left_behind_are_forgotten_without_harm(monkeypatch):
    problem = make_tasks(18, n=60, p=300)
    alphas = alphas_of(problem, 300, 15)
    whole = solve_multitask_path(problem, alphas, tol=1e-11)
    monkeypatch.setattr("actors.lasso.multitask.MIN_WORKING_SET", 5)
    monkeypatch.setattr("actors.lasso.multitask.STALE_RATIO", 1.0)
    small = solve_multitask_path(problem, alphas, tol=1e-11)
    for at in range(15):
        np.testing.assert_allclose(small.coef(at).toarray(), whole.coef(at).toarray(), atol=1e-4)


def test_multitask_start_leaves_columns_that_do_not_vary_on_the_training_rows():
    problem = make_tasks(19)
    X = problem.X.tolil()
    X[:40, 3] = 2.0
    train = np.arange(60) < 40
    fold = MultiTaskProblem(sp.csc_matrix(X), problem.Y, train)
    alpha = fold.alpha_max() / 5
    start = row_sparse(np.array([3, 8]), np.ones((2, 3)), 40)
    solution = solve_multitask_path(fold, [alpha], tol=1e-10, start=start)
    assert 3 not in solution.supports[0]
    assert certified(fold, solution, 0) <= 1.1e-10


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_multitask_converges_where_columns_are_far_from_zero(offset):
    problem = make_tasks(20)
    far = MultiTaskProblem(sp.csc_matrix(problem.X.toarray() + offset), problem.Y)
    solution = solve_multitask_path(far, alphas_of(far, 20, 5), tol=1e-7)
    assert max(certified(far, solution, at) for at in range(5)) <= 1.1e-7
    near = solve_multitask_path(problem, alphas_of(problem, 20, 5), tol=1e-7)
    np.testing.assert_allclose(solution.coef(4).toarray(), near.coef(4).toarray(), atol=1e-2)


def test_multitask_targets_without_variation_have_an_empty_solution():
    problem = make_tasks(21)
    flat = MultiTaskProblem(problem.X, np.full((60, 2), 5.0))
    solution = solve_multitask_path(flat, [0.1])
    assert solution.supports[0].size == 0
    np.testing.assert_allclose(solution.intercepts[0], 5.0)
    assert solution.gaps[0] == 0.0
