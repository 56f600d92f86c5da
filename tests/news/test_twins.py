"""Twin columns against a search over all pairs."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.news.design.twins import find_twins, merge_weights, name_preference

QUICK = settings(deadline=None, max_examples=60)


def proportional(a, b):
    """Decide by cross-multiplication: no norm, no projection."""
    if not a.any() or not b.any() or ((a != 0) != (b != 0)).any():
        return False
    pivot = np.flatnonzero(a)[0]
    left, right = a / a[pivot], b / b[pivot]
    return np.abs(left - right).max() <= 1e-9 * np.abs(left).max()


def brute_force(X, preference):
    """Return the kept columns and each column's representative, by all pairs."""
    dense = X.toarray()
    p = dense.shape[1]
    representative = np.arange(p)
    for j in range(p):
        family = [j, *(k for k in range(p) if k != j and proportional(dense[:, j], dense[:, k]))]
        norms = {k: float(f"{np.linalg.norm(dense[:, k]):.8e}") for k in family}
        representative[j] = min(family, key=lambda k: (-norms[k], preference[k]))
    return representative


def make_matrix(seed, n=12):
    """Columns with planted multiples, near-twins, equal patterns and empty columns."""
    rng = np.random.default_rng(seed)
    columns = []
    for _ in range(rng.integers(1, 6)):
        base = rng.integers(1, 4, n) * (rng.random(n) < rng.uniform(0.1, 0.9))
        columns.append(base.astype(float))
        for _ in range(rng.integers(0, 4)):
            columns.append(base * rng.choice([1.0, 2.0, -1.0, 0.1, -3.7, 1e-8, 1e8]))
        if rng.random() < 0.5 and base.any():  # the same pattern, one value a little off
            near = base.astype(float)
            near[np.flatnonzero(near)[0]] *= 1 + rng.choice([1e-5, 1e-3, 0.5])
            columns.append(near * rng.choice([1.0, 2.0]))
        if rng.random() < 0.3:
            columns.append(np.zeros(n))
    order = rng.permutation(len(columns))
    X = sp.csc_matrix(np.array(columns).T[:, order])
    X.sort_indices()
    return X, rng


@QUICK
@given(seed=st.integers(0, 10**6), of_projection=st.integers(0, 100))
def test_twins_equal_a_search_over_all_pairs(seed, of_projection):
    X, rng = make_matrix(seed)
    preference = rng.permutation(X.shape[1])
    twins = find_twins(X, preference, seed=of_projection)
    wanted = brute_force(X, preference)
    assert twins.representative.tolist() == wanted.tolist()
    assert twins.kept.tolist() == np.unique(wanted).tolist()
    dense = X.toarray()
    np.testing.assert_allclose(dense, dense[:, twins.representative] * twins.ratio, rtol=1e-9)
    assert (np.abs(twins.ratio) <= 1 + 1e-9).all()
    members = {
        owner: [j for j in range(X.shape[1]) if wanted[j] == owner and j != owner]
        for owner in set(wanted)
    }
    found = {owner: merged.tolist() for owner, merged in twins.aliases_by_column.items()}
    assert found == {owner: merged for owner, merged in members.items() if merged}


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scale_of_the_values_does_not_matter(scale):
    X, _ = make_matrix(11)
    plain, scaled = find_twins(X), find_twins(X * scale)
    assert plain.representative.tolist() == scaled.representative.tolist()


def test_longest_column_stays_then_the_preferred_one():
    base = np.array([1.0, 2.0, 0.0, 3.0])
    X = sp.csc_matrix(np.array([base, 2 * base, -2 * base, 2 * base]).T)
    assert find_twins(X).kept.tolist() == [1]
    assert find_twins(X, np.array([0, 3, 2, 1])).kept.tolist() == [3]
    assert find_twins(X, np.array([0, 3, 1, 2])).ratio.tolist() == [-0.5, -1.0, 1.0, -1.0]


def test_empty_columns_are_nobodys_twins():
    X = sp.csc_matrix(np.array([[0.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 2.0]]))
    twins = find_twins(X)
    assert twins.kept.tolist() == [0, 2, 3]
    assert twins.aliases_by_column == {3: [1]}
    assert find_twins(sp.csc_matrix((5, 3))).kept.tolist() == [0, 1, 2]
    assert find_twins(sp.csc_matrix((5, 0))).kept.size == 0


def test_true_twins_merge_beside_a_longer_column_that_is_almost_one():
    # The projections of all three are equal to rounding; only the entries tell them apart.
    base = np.array([1.0, 2.0, 3.0, 1.0])
    near = 10 * base * (1 + 2e-9 * np.array([1.0, -1.0, 1.0, -1.0]))
    twins = find_twins(sp.csc_matrix(np.array([base, near, 2 * base]).T))
    assert twins.representative.tolist() == [2, 1, 2]


def test_names_are_preferred_short_then_alphabetic():
    names = ["rises again", "ab", "b", "a", "cc"]
    names = sorted(names)
    rank = name_preference(pa.array(names))
    assert [names[j] for j in np.argsort(rank)] == ["a", "b", "ab", "cc", "rises again"]


def test_merged_weights_leave_the_fit_as_it_was():
    rng = np.random.default_rng(5)
    base = sp.random(60, 8, 0.3, format="csc", random_state=5)
    X = sp.csc_matrix(sp.hstack((base, -2.0 * base[:, :4], 0.5 * base[:, :2])))
    X.sort_indices()
    twins = find_twins(X)
    support = np.array([0, 1, 5, 8, 9, 12, 13])
    values = rng.standard_normal(support.size)
    owners, merged = merge_weights(twins, support, values)
    assert set(owners) <= set(twins.kept)
    assert (np.diff(owners) > 0).all()
    np.testing.assert_allclose(X[:, owners] @ merged, X[:, support] @ values, atol=1e-12)
    # Same-signed weight on the longest of several multiples costs no more.
    assert np.abs(merged).sum() <= np.abs(values).sum() + 1e-12
