"""The synthetic texts: what they promise of themselves, at a small size."""

import numpy as np
import pytest

from pipelines.bench.synthetic import PLANTED_SHARE, R2, text_matrix, text_problem


@pytest.fixture(scope="module")
def problem():
    return text_problem(2_000, 30_000)


def test_columns_are_rare_with_a_heavy_head(problem):
    X, _ = problem
    counts = np.diff(X.indptr)
    assert X.shape == (2_000, 30_000)
    assert counts.min() >= 1
    assert np.median(counts) == 3
    assert 0.2 * 2_000 < counts.max() < 0.3 * 2_000
    # P(df >= k) falls like 1 / k^1.1: ten times as frequent is about 12 times as rare.
    assert 8 < np.mean(counts >= 10) / np.mean(counts >= 100) < 18


def test_rows_have_norm_one_and_positive_values(problem):
    X, _ = problem
    X.check_format()
    assert X.has_canonical_format
    assert X.data.min() > 0
    assert X.indices.dtype == np.int32
    lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    np.testing.assert_allclose(lengths, 1.0)


def test_half_of_the_columns_lie_within_a_more_frequent_one(problem):
    X, _ = problem
    used = (X != 0).astype(np.int32)
    counts = np.diff(X.indptr)
    some = np.flatnonzero((counts >= 8) & (counts <= 40))[:200]
    shared = (used[:, some].T @ used).tocsr()
    within = 0
    for i, j in enumerate(some):
        row = shared[i]
        # A column at most 4 times as frequent that holds every row of this one.
        others = (
            (row.data == counts[j]) & (row.indices != j) & (counts[row.indices] <= 4 * counts[j])
        )
        within += bool(others.any())
    assert 0.4 < within / some.size < 0.8


def test_planted_columns_explain_what_they_should():
    X, y = text_problem(6_000, 2_000)
    assert abs(y.mean()) < 1e-12
    assert y.std() == pytest.approx(1.0)
    # Every column that may be planted, by least squares: the share of the variance, unbiased.
    frequent = np.diff(X.indptr) >= PLANTED_SHARE * 6_000
    dense = np.column_stack((np.ones(6_000), X[:, frequent].toarray()))
    left = y - dense @ np.linalg.lstsq(dense, y, rcond=None)[0]
    explained = 1 - left @ left / (6_000 - dense.shape[1])
    assert abs(explained - R2) < 0.06


def test_matrix_is_the_same_for_the_same_seed_alone():
    a, b, c = text_matrix(200, 900), text_matrix(200, 900), text_matrix(200, 900, seed=1)
    assert (a != b).nnz == 0
    assert (a != c).nnz > 0
