"""Paths that walk side by side against paths on their own, and their early stop."""

import numpy as np
import pytest
from designs import QUICK, make_problem, path
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.newton import NewtonEngine
from actors.lasso.problem import LassoProblem
from actors.lasso.unit import TRAIN, UNUSED, VALIDATION, fold_result, solve_folds, solve_unit

ALL = ("data", "indices", "indptr", "intercepts", "gaps", "validation_mse", "train_mse", "alphas")


def folds(problem, count=3, seed=0):
    """K folds and all rows, as roles."""
    group = np.random.default_rng(seed).integers(0, count, problem.y.size)
    held_out = [np.where(group == k, VALIDATION, TRAIN) for k in range(count)]
    return np.array([*held_out, np.full(group.size, TRAIN)], dtype=np.int8)


@QUICK
@given(seed=st.integers(0, 10**4), count=st.integers(2, 10), weighted=st.booleans())
def test_side_by_side_gives_the_bytes_of_each_path_alone(seed, count, weighted):
    base = make_problem(seed, n=50, p=70)
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2.0, 50) if weighted else None
    problems = [
        LassoProblem(base.X, base.y, rng.random(50) < 0.7, sample_weight=weight)
        for _ in range(count)
    ]
    grids = [path(problem) for problem in problems]
    together = NewtonEngine().solve_paths(problems, grids)
    for problem, grid, own in zip(problems, grids, together, strict=True):
        alone = NewtonEngine().solve_path(problem, grid)
        np.testing.assert_array_equal(own.coefs.toarray(), alone.coefs.toarray())
        np.testing.assert_array_equal(own.intercepts, alone.intercepts)
        np.testing.assert_array_equal(own.gaps, alone.gaps)


def test_problems_on_different_matrices_are_refused():
    one, other = make_problem(1), make_problem(2)
    with pytest.raises(ValueError, match="one X"):
        NewtonEngine().solve_paths([one, other], [path(one), path(other)])


def test_grids_of_different_length_are_refused():
    problem = make_problem(1)
    with pytest.raises(ValueError, match="equally many"):
        NewtonEngine().solve_paths([problem] * 2, [path(problem), path(problem)[:3]])


def turning(seed=3):
    """A problem whose validation error falls and rises again along its path."""
    problem = make_problem(seed, n=120, p=150, noise=1.5)
    return problem, folds(problem), path(problem, 200.0, 24)


def whole(problem, roles, alphas):
    return [
        solve_unit(NewtonEngine(), problem.X, problem.y, own, alphas, tol=1e-6) for own in roles
    ]


def test_folds_end_at_the_first_alpha_past_the_margin():
    problem, roles, alphas = turning()
    full = whole(problem, roles, alphas)
    mean = np.mean([unit["validation_mse"] for unit in full[:3]], axis=0)
    lowest = np.minimum.accumulate(mean)
    expected = int(np.argmax(mean > 1.1 * lowest)) + 1
    assert 3 < expected < alphas.size
    result = solve_folds(problem.X, problem.y, roles, alphas, tol=1e-6, margin=0.1)
    assert bool(result["stopped"])
    np.testing.assert_allclose(result["mean_mse"], mean[:expected], rtol=1e-12)
    for fold, unit in enumerate(full):
        own = fold_result(result, fold)
        assert own["alphas"].size == expected
        np.testing.assert_array_equal(own["intercepts"], unit["intercepts"][:expected])
        np.testing.assert_array_equal(own["gaps"], unit["gaps"][:expected])


def test_stretches_remember_the_minimum_and_nothing_is_solved_after_the_stop():
    problem, roles, alphas = turning()
    once = solve_folds(problem.X, problem.y, roles, alphas, tol=1e-6, margin=0.1)
    previous, solved = None, 0
    for start in range(0, alphas.size, 5):
        stretch = alphas[start : start + 5]
        previous = solve_folds(
            problem.X, problem.y, roles, stretch, tol=1e-6, margin=0.1, previous=previous
        )
        solved += fold_result(previous, 0)["alphas"].size
    assert bool(previous["stopped"])
    assert fold_result(previous, 3)["indptr"].tolist() == [0]
    assert solved == once["mean_mse"].size
    np.testing.assert_allclose(previous["mean_mse"], once["mean_mse"], rtol=1e-5)


def test_no_fold_ends_where_the_margin_is_wide():
    problem, roles, alphas = turning()
    result = solve_folds(problem.X, problem.y, roles, alphas, tol=1e-6, margin=1e6)
    assert not bool(result["stopped"])
    for fold, unit in enumerate(whole(problem, roles, alphas)):
        own = fold_result(result, fold)
        for name in ALL:
            np.testing.assert_array_equal(own[name], unit[name])


def test_rows_without_validation_take_no_part_in_the_mean():
    problem, roles, alphas = turning()
    only = np.full((1, roles.shape[1]), TRAIN, dtype=np.int8)
    only[0, :5] = UNUSED
    result = solve_folds(problem.X, problem.y, only, alphas, tol=1e-6, margin=0.01)
    assert not bool(result["stopped"])
    assert np.isnan(result["mean_mse"]).all()
