"""The Gram cache and the stacked factor against dense linear algebra, through random histories."""

import numpy as np
import pytest
from designs import QUICK, make_problem
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import LinAlgError

from actors.lasso.factor import StackedCholesky
from actors.lasso.gram import GramCache


def dense_gram(problem, columns):
    X = problem.X.toarray()[problem.rows][:, columns]
    X = X - X.mean(axis=0)
    return X.T @ X


@QUICK
@given(seed=st.integers(0, 10**6), masked=st.booleans())
def test_cache_equals_the_centred_gram_through_adds_and_keeps(seed, masked):
    rng = np.random.default_rng(seed)
    problem = make_problem(seed % 30, train=np.arange(60) % 3 > 0 if masked else None)
    cache = GramCache(problem)
    present: set[int] = set()
    for _ in range(8):
        if present and rng.random() < 0.3:
            kept = rng.permutation(sorted(present))[: rng.integers(0, len(present) + 1)]
            cache.keep(kept)
            present = set(kept.tolist())
        else:
            new = rng.permutation(40)[: rng.integers(0, 15)]
            cache.add(new)
            present |= set(new.tolist())
        assert set(cache.columns.tolist()) == present
        np.testing.assert_array_equal(cache.columns[cache.positions(cache.columns)], cache.columns)
        absent = np.setdiff1d(np.arange(40), cache.columns)
        assert (cache.positions(absent) == -1).all()
        gram = dense_gram(problem, cache.columns)
        np.testing.assert_allclose(cache.matrix, gram, atol=1e-10)


def test_entries_are_bitwise_the_same_in_any_order_of_arrival():
    problem = make_problem(1, n=80, p=30, density=0.5)
    rng = np.random.default_rng(0)
    reference = GramCache(problem)
    reference.add(np.arange(30))
    for _ in range(5):
        cache = GramCache(problem)
        for part in np.array_split(rng.permutation(30), 4):
            cache.add(part)
        where = cache.positions(np.arange(30))
        np.testing.assert_array_equal(cache.matrix[np.ix_(where, where)], reference.matrix)
        np.testing.assert_array_equal(cache.matrix, cache.matrix.T)


def test_cache_outgrows_its_buffer():
    problem = make_problem(2, n=50, p=700, density=0.1)
    cache = GramCache(problem)
    for part in np.array_split(np.random.default_rng(0).permutation(700), 5):
        cache.add(part)
    np.testing.assert_allclose(cache.matrix, dense_gram(problem, cache.columns), atol=1e-10)


@QUICK
@given(seed=st.integers(0, 10**6))
def test_factor_solves_through_random_adds_and_drops(seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((40, 15))
    gram = A.T @ A
    factor = StackedCholesky()
    active = np.zeros(15, dtype=bool)
    for _ in range(12):
        active ^= rng.random(15) < rng.choice([0.0, 0.1, 0.5, 1.0])
        factor.update(gram, np.flatnonzero(active))
        assert sorted(factor.order.tolist()) == np.flatnonzero(active).tolist()
        if active.any():
            right = rng.standard_normal(int(active.sum()))
            wanted = np.linalg.solve(gram[np.ix_(factor.order, factor.order)], right)
            np.testing.assert_allclose(factor.solve(right), wanted, rtol=1e-5, atol=1e-9)


def test_factor_follows_a_gram_matrix_that_grew():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((50, 20))
    gram = A.T @ A
    factor = StackedCholesky()
    for size in (5, 12, 20):
        factor.update(gram[:size, :size], np.arange(0, size, 2))
        right = rng.standard_normal(factor.order.size)
        wanted = np.linalg.solve(gram[np.ix_(factor.order, factor.order)], right)
        np.testing.assert_allclose(factor.solve(right), wanted, rtol=1e-6)


def test_duplicate_columns_are_factored():
    A = np.random.default_rng(4).standard_normal((30, 6))
    A = np.hstack([A, A, -A])
    gram = A.T @ A
    factor = StackedCholesky()
    factor.update(gram, np.arange(18))
    right = gram @ np.ones(18)
    # Any solution of the singular system has the same image.
    np.testing.assert_allclose(
        gram[factor.order] @ _scattered(factor, right, 18), right[factor.order], rtol=1e-6
    )


def test_factor_stays_usable_when_an_update_fails():
    gram = np.diag([1.0, 2.0, -3.0, 4.0])
    factor = StackedCholesky()
    factor.update(gram, np.array([0, 1]))
    with pytest.raises(LinAlgError):
        factor.update(gram, np.array([0, 2]))
    factor.update(gram, np.array([0, 3]))
    assert sorted(factor.order.tolist()) == [0, 3]
    np.testing.assert_allclose(factor.solve(np.diag(gram)[factor.order]), 1.0, rtol=1e-6)


def _scattered(factor, right, size):
    found = np.zeros(size)
    found[factor.order] = factor.solve(right[factor.order])
    return found
