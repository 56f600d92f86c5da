"""The Gram-matrix solver against all 3^k sign patterns, and the optimality conditions."""

import numpy as np
import pytest
from designs import QUICK, best_by_enumeration
from hypothesis import given
from hypothesis import strategies as st

from actors.lasso.active_set import minimise_on_gram
from actors.lasso.factor import StackedCholesky


def solve(A, y, bound, start=None, stop=1e-13):
    gram, target = A.T @ A, A.T @ y
    v = np.zeros(A.shape[1]) if start is None else start
    v, _ = minimise_on_gram(
        gram,
        target,
        v,
        np.full(v.size, bound),
        stop_gap=stop * (y @ y),
        y_norm2=float(y @ y),
        factor=StackedCholesky(),
    )
    return gram, target, v


@QUICK
@given(seed=st.integers(0, 10**6), k=st.integers(1, 5), share=st.floats(0.01, 1.2))
def test_minimum_equals_the_best_of_all_sign_patterns(seed, k, share):
    rng = np.random.default_rng(seed)
    A, y = rng.standard_normal((12, k)), rng.standard_normal(12)
    bound = share * np.abs(A.T @ y).max()
    gram, target, v = solve(A, y, bound, start=rng.standard_normal(k) * (rng.random(k) < 0.5))
    best, value = best_by_enumeration(gram, target, bound)
    found = v @ gram @ v / 2 - target @ v + bound * np.abs(v).sum()
    assert found == pytest.approx(value, abs=1e-10 * (y @ y))
    np.testing.assert_allclose(v, best, atol=1e-5)


@QUICK
@given(seed=st.integers(0, 10**6), share=st.floats(1e-4, 0.9), copies=st.integers(1, 3))
def test_optimality_conditions_hold_when_the_matrix_is_singular(seed, share, copies):
    rng = np.random.default_rng(seed)
    A = np.hstack([rng.standard_normal((10, 8))] * copies + [rng.standard_normal((10, 10))])
    y = rng.standard_normal(10)
    bound = share * np.abs(A.T @ y).max()
    gram, target, v = solve(A, y, bound)
    gradient = target - gram @ v
    scale = np.abs(target).max()
    assert np.abs(gradient).max() <= bound + 1e-5 * scale
    on = v != 0
    slack = bound * np.abs(v[on]) - gradient[on] * v[on]
    assert np.abs(slack).sum() <= 1e-8 * (y @ y)


def test_nothing_is_done_at_the_optimum():
    rng = np.random.default_rng(1)
    A, y = rng.standard_normal((20, 6)), rng.standard_normal(20)
    gram, target, v = solve(A, y, 2.0)
    again, steps = minimise_on_gram(
        gram,
        target,
        v,
        np.full(v.size, 2.0),
        stop_gap=1e-10,
        y_norm2=float(y @ y),
        factor=StackedCholesky(),
    )
    assert steps == 0
    np.testing.assert_array_equal(again, v)


def test_a_matrix_that_cannot_be_factored_ends_the_search_without_an_error():
    gram, target = np.zeros((2, 2)), np.array([1.0, -1.0])
    v, steps = minimise_on_gram(
        gram,
        target,
        np.zeros(2),
        np.full(2, 0.5),
        stop_gap=1e-9,
        y_norm2=1.0,
        factor=StackedCholesky(),
    )
    assert steps == 0
    np.testing.assert_array_equal(v, 0.0)
