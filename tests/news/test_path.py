"""The grid, its units and the choice of alpha, on cases small enough to do by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.lasso.engines import make_engine
from actors.lasso.unit import TRAIN, VALIDATION, solve_unit
from cluster.errors import InputError
from pipelines.news.fitting.path import (
    ALL_ROWS,
    PathConfig,
    choose_alpha,
    joined,
    path_table,
    plan_units,
    solution_at,
    unit_key,
)

QUICK = settings(deadline=None, max_examples=40)
# Three folds, four alphas: means 4, 2, 1, 3; the standard error at the lowest is 1 / sqrt(3).
ERRORS = np.array([[4.0, 2.0, 0.0, 3.0], [4.0, 2.0, 1.0, 3.0], [4.0, 2.0, 2.0, 3.0]])


def test_min_takes_the_lowest_mean():
    choice = choose_alpha(ERRORS, "min")
    assert (choice.index, choice.mse) == (2, 1.0)
    assert choice.standard_error == pytest.approx(1 / np.sqrt(3))


def test_min_takes_the_larger_alpha_on_ties():
    assert choose_alpha(np.array([[3.0, 1.0, 1.0], [3.0, 1.0, 1.0]]), "min").index == 1


@pytest.mark.parametrize(
    ("second", "index"),
    [(1 + 1 / np.sqrt(3) - 1e-9, 1), (1 + 1 / np.sqrt(3) + 1e-9, 2), (1.0, 1)],
)
def test_1se_takes_the_largest_alpha_within_one_standard_error(second, index):
    errors = ERRORS.copy()
    errors[:, 1] = second
    choice = choose_alpha(errors, "1se")
    assert choice.index == index
    assert choice.mse == pytest.approx(errors[:, index].mean())


def test_1se_ignores_a_dip_only_when_it_is_too_high():
    # An early alpha within the error wins although a higher one lies between.
    errors = np.array([[1.0, 5.0, 0.0], [1.2, 5.0, 2.0]])
    assert choose_alpha(errors, "1se").index == 0


def test_costs_of_any_grid_are_numbers_that_can_be_added():
    grid = PathConfig(alpha_grid=(1e300, 1.0, 1e-300)).grid(1.0, 1.0)
    (unit,) = plan_units([grid], 0, PathConfig())
    assert 3 <= unit.cost < 1e5


@pytest.mark.parametrize("early_stop", [0.0, 0.01])
def test_scheduler_is_told_that_small_alphas_cost_more(early_stop):
    grids = [np.array([8.0, 4.0, 2.0, 1.0]), np.array([3.0, 3.0])]
    units = plan_units(grids, 1, PathConfig(stretch=2, early_stop=early_stop))
    costs = {unit.key: unit.cost for unit in units}
    of_a_target = [cost for key, cost in costs.items() if key.startswith("t00")]
    assert of_a_target == [1 + 2, 4 + 8] * (1 if early_stop else 2)
    assert {cost for key, cost in costs.items() if key.startswith("t01")} == {2.0}


def test_grid_falls_evenly_in_log_from_the_largest_to_the_ratio():
    grid = PathConfig(alphas=5, alpha_ratio=16.0).grid(2.0, 4.0)
    assert grid[0] == 4.0
    assert grid[-1] == pytest.approx(2.0 / 16.0, rel=1e-15)
    np.testing.assert_allclose(grid[1:] / grid[:-1], (0.125 / 4.0) ** 0.25)
    assert PathConfig(alphas=1, alpha_ratio=16.0).grid(2.0, 4.0).tolist() == [0.125]


def test_an_own_grid_is_sorted_and_made_unique():
    assert PathConfig(alpha_grid=(0.1, 0.3, 0.1, 0.2)).grid(9.0, 9.0).tolist() == [0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"engine": "cvx"}, "--engine"),
        ({"alphas": 0}, "--alphas"),
        ({"stretch": 0}, "--stretch"),
        ({"alpha_ratio": 1.0}, "--alpha-ratio"),
        ({"alpha_ratio": float("inf")}, "--alpha-ratio"),
        ({"alpha_ratio": float("nan")}, "--alpha-ratio"),
        ({"alpha_grid": (0.1, 0.0)}, "--alpha-grid"),
        ({"alpha_grid": (0.1, -1.0)}, "--alpha-grid"),
        ({"alpha_grid": (0.1, float("nan"))}, "--alpha-grid"),
        ({"tol": 0.0}, "--tol"),
        ({"tol": float("nan")}, "--tol"),
        ({"rule": "median"}, "--rule"),
        ({"stability": -1}, "--stability"),
        ({"min_stability": 0.5}, "--min-stability"),
        ({"stability": 10, "min_stability": 1.5}, "--min-stability"),
    ],
)
def test_options_that_cannot_be_are_refused(options, flag):
    with pytest.raises(InputError, match=flag):
        PathConfig(**options)


@QUICK
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    n_folds=st.integers(1, 4),
    stretch=st.integers(1, 13),
)
def test_units_cut_every_path_into_chains_that_cover_it(sizes, n_folds, stretch):
    grids = [np.geomspace(1.0, 0.1, size) if size > 1 else np.ones(1) for size in sizes]
    units = plan_units(grids, n_folds, PathConfig(stretch=stretch, tol=1e-4))
    by_key = {unit.key: unit for unit in units}
    assert len(by_key) == len(units)
    heads = [unit for unit in units if unit.after is None]
    assert len(heads) == len(sizes) * (n_folds + 1)
    followers = {unit.after: unit for unit in units if unit.after is not None}
    seen = 0
    for head in heads:
        chain = [head]
        while chain[-1].key in followers:
            chain.append(followers[chain[-1].key])
        payloads = [unit.payload for unit in chain]
        assert len({(p["target"], p["fold"], p["tol"]) for p in payloads}) == 1
        target = payloads[0]["target"]
        np.testing.assert_array_equal(
            np.concatenate([p["alphas"] for p in payloads]), grids[target]
        )
        assert all(p["alphas"].size == stretch for p in payloads[:-1])
        seen += len(chain)
    assert seen == len(units)


@pytest.fixture(scope="module")
def solved():
    """Solve a grid of one target on two folds and all rows, in stretches of three."""
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    X = sp.csc_matrix(rng.integers(1, 3, (40, 15)) * (rng.random((40, 15)) < 0.3), dtype=float)
    y = X @ rng.standard_normal(15) + rng.standard_normal(40)
    roles = np.full((3, 40), TRAIN, dtype=np.int8)
    roles[0, 20:] = VALIDATION
    roles[1, :20] = VALIDATION
    grid = np.geomspace(0.5, 0.01, 8)
    results, done = {}, {}
    for unit in plan_units([grid], 2, PathConfig(stretch=3)):
        previous = done[unit.after] if unit.after else None
        fold = unit.payload["fold"]
        result = solve_unit(
            make_engine("newton"), X, y, roles[fold], unit.payload["alphas"], tol=1e-8,
            previous=previous,
        )  # fmt: skip
        results[unit.key] = done[unit.key] = result
    return results, X, y, roles, grid


def test_results_are_joined_along_the_path(solved):
    results, *_, grid = solved
    for fold in range(3):
        np.testing.assert_array_equal(joined(results, 0, fold, "alphas"), grid)
        assert joined(results, 0, fold, "gaps").max() <= 1e-8


def test_solution_at_an_alpha_explains_its_errors(solved):
    results, X, y, roles, grid = solved
    for fold in range(3):
        for index in range(grid.size):
            support, values, intercept, gap = solution_at(results, 0, fold, index, 3)
            trained = roles[fold] == TRAIN
            error = np.mean((y - X[:, support] @ values - intercept)[trained] ** 2)
            assert error == pytest.approx(joined(results, 0, fold, "train_mse")[index])
            assert gap == joined(results, 0, fold, "gaps")[index]
            assert support.size == joined(results, 0, fold, "nonzeros")[index]


def test_path_table_has_a_row_for_every_target_fold_and_alpha(solved):
    results, *_, grid = solved
    table = path_table(results, ["log_range"], 2).to_pandas()
    assert set(table["target"]) == {"log_range"}
    assert table["fold"].tolist() == [0] * 8 + [1] * 8 + [ALL_ROWS] * 8
    np.testing.assert_array_equal(table["alpha"], np.tile(grid, 3))
    np.testing.assert_array_equal(table["train_mse"][:8], joined(results, 0, 0, "train_mse"))
    assert table["validation_mse"][16:].isna().all()
    assert table["validation_mse"][:16].notna().all()


def test_keys_sort_as_the_path_runs():
    keys = [unit_key(t, f, a) for t in (0, 2, 11) for f in (0, 3, 12) for a in (0, 50, 1000)]
    assert keys == sorted(keys)
