"""The design matrix against scikit-learn's TfidfVectorizer and column-by-column loops."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfTransformer

from cluster.errors import InputError
from pipelines.news.design.matrix import SCALES, stack_counts, weigh, weigh_rows

QUICK = settings(deadline=None, max_examples=30)


def make_counts(seed, n=30, p=20):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, (n, p)) * (rng.random((n, p)) < rng.uniform(0.02, 0.6, p))
    return sp.csr_matrix(counts.astype(float))


def everything(**options):
    return {"weighting": "tfidf", "min_df": 1, "max_df": 1.0, "scaling": "none"} | options


@QUICK
@given(seed=st.integers(0, 10**6))
def test_tfidf_equals_scikit_learns(seed):
    counts = make_counts(seed)
    before = counts.copy()
    design = weigh(counts, **everything())
    oracle = TfidfTransformer(sublinear_tf=True).fit(counts[:, design.columns])
    wanted = oracle.transform(counts[:, design.columns]).toarray()
    np.testing.assert_allclose(design.X.toarray(), wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(design.idf, oracle.idf_, rtol=1e-12)
    np.testing.assert_array_equal(counts.toarray(), before.toarray())
    assert design.X.has_sorted_indices
    assert isinstance(design.X, sp.csc_matrix)
    assert (design.X.data != 0).all()


@QUICK
@given(
    seed=st.integers(0, 10**6), min_df=st.integers(1, 6), max_df=st.sampled_from([0.2, 0.5, 1.0])
)
def test_columns_outside_the_frequencies_go_before_rows_get_their_length(seed, min_df, max_df):
    counts = make_counts(seed)
    df = (counts.toarray() > 0).sum(axis=0)
    kept = [j for j in range(20) if min_df <= df[j] <= max_df * 30]
    if not kept:
        with pytest.raises(InputError, match="no n-gram is left"):
            weigh(counts, **everything(min_df=min_df, max_df=max_df))
        return
    design = weigh(counts, **everything(min_df=min_df, max_df=max_df))
    assert design.columns.tolist() == kept
    assert design.df.tolist() == df[kept].tolist()
    wanted = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, kept]).toarray()
    np.testing.assert_allclose(design.X.toarray(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weighting", ["tfidf", "counts"])
@pytest.mark.parametrize("scaling", SCALES)
def test_scaled_columns_times_their_scale_are_the_weighted_ones(weighting, scaling):
    counts = make_counts(5)
    plain = weigh(counts, **everything(weighting=weighting))
    scaled = weigh(counts, **everything(weighting=weighting, scaling=scaling))
    dense = scaled.X.toarray()
    np.testing.assert_allclose(dense * scaled.scale, plain.X.toarray(), rtol=1e-12)
    if weighting == "counts":
        np.testing.assert_array_equal(plain.X.toarray(), counts.toarray()[:, plain.columns])
    if scaling == "max":
        np.testing.assert_allclose(np.abs(dense).max(axis=0), 1.0, rtol=1e-12)
    if scaling == "std":
        np.testing.assert_allclose(dense.std(axis=0), 1.0, rtol=1e-9)


def test_a_constant_column_is_left_as_it_is_when_scaled_by_deviation():
    counts = sp.csr_matrix(np.array([[2.0, 1.0], [2.0, 0.0], [2.0, 3.0]]))
    design = weigh(counts, **everything(weighting="counts", scaling="std"))
    assert design.scale[0] == 1.0
    np.testing.assert_array_equal(design.X.toarray()[:, 0], 2.0)


def test_an_empty_row_stays_zero():
    X = sp.csr_matrix(np.array([[0.0, 0.0], [1.0, 2.0]]))
    weigh_rows(X, np.ones(2))
    assert np.isfinite(X.data).all()
    np.testing.assert_allclose(np.linalg.norm(X.toarray(), axis=1), [0.0, 1.0])


@pytest.mark.parametrize("cuts", [(), (0, 30), (10,), (3, 3, 17, 29)])
def test_stacked_shards_are_the_whole(cuts):
    counts = make_counts(6)
    edges = [0, *cuts, 30]
    parts = []
    for start, end in pairwise(edges):
        part = counts[start:end]
        parts.append(
            {
                "indptr": part.indptr.astype(np.int64),
                "indices": part.indices.astype(np.int32),
                "counts": part.data.astype(np.int32),
            }
        )
    stacked = stack_counts(iter(parts), 20)
    np.testing.assert_array_equal(stacked.toarray(), counts.toarray())
    assert stacked.indptr.dtype == stacked.indices.dtype == np.int32


def test_no_shards_are_no_rows():
    assert stack_counts([], 5).shape == (0, 5)
