"""Gap-safe screening: what it drops is zero at the optimum, and it does drop."""

import numpy as np
import scipy.sparse as sp
from designs import QUICK, make_problem, reference
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.problem import LassoProblem
from actors.lasso.screening import gap_safe_columns


@QUICK
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.02, 1.1),
    error=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0]),
    masked=st.booleans(),
)
def test_no_column_of_the_optimum_is_dropped(seed, share, error, masked):
    rng = np.random.default_rng(seed)
    train = np.arange(40) % 3 > 0 if masked else None
    problem = make_problem(seed % 100, n=40, p=25, train=train)
    alpha = share * problem.alpha_max()
    coef, _ = reference(problem, alpha)
    tried = coef + error * rng.standard_normal(25) * (rng.random(25) < 0.3)
    support = np.flatnonzero(tried)
    kept = gap_safe_columns(problem, support, tried[support], alpha)
    assert (np.diff(kept) > 0).all()
    assert not set(np.flatnonzero(np.abs(coef) > 1e-9)) - set(kept.tolist())


def test_columns_are_dropped_near_the_optimum():
    problem = make_problem(1, n=40, p=200)
    alpha = 0.3 * problem.alpha_max()
    coef, _ = reference(problem, alpha)
    support = np.flatnonzero(coef)
    kept = gap_safe_columns(problem, support, coef[support], alpha)
    assert set(support) <= set(kept.tolist())
    assert kept.size < 3 * support.size


def test_nothing_but_the_strongest_stays_at_alpha_max():
    problem = make_problem(2)
    none = np.zeros(0, dtype=np.int64)
    kept = gap_safe_columns(problem, none, np.zeros(0), problem.alpha_max())
    strength = np.abs(problem.X.T @ problem.y_centred)
    assert np.argmax(strength) in kept
    assert kept.size < 5


def test_no_column_is_dropped_where_correlated_columns_take_each_others_place():
    # A third of the safe radius would drop columns of the optimum in about 3 % of these.
    for seed in range(300):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
        X[:, 1] += 2 * X[:, 0]
        problem = LassoProblem(sp.csc_matrix(X), y)
        alpha = rng.uniform(0.01, 0.9) * problem.alpha_max()
        coef, _ = reference(problem, alpha)
        tried = coef + 0.3 * rng.integers(0, 2) * rng.standard_normal(3) * (rng.random(3) < 0.5)
        tried[rng.integers(0, 3)] = 0.0
        support = np.flatnonzero(tried)
        kept = gap_safe_columns(problem, support, tried[support], alpha)
        assert not set(np.flatnonzero(np.abs(coef) > 1e-8)) - set(kept.tolist())
