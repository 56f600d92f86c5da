"""Greedy k-centre against the plain loop, and what two rounds are proven to reach."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.memory_bank import coreset
from actors.memory_bank.coreset import (
    covering_radius,
    greedy_coreset,
    merge_coresets,
    proven_factor,
    shard_size,
    two_round_coreset,
)
from cluster.errors import InputError


def plain_greedy(patches, size, first):
    """Gonzalez, one pick at a time, in exact arithmetic for integers."""
    X = patches.astype(np.float64)
    nearest, picks = np.full(len(X), np.inf), [first]
    while True:
        nearest = np.minimum(nearest, ((X - X[picks[-1]]) ** 2).sum(axis=1))
        nearest[picks] = -1
        if len(picks) == size:
            return np.array(picks), np.sqrt(max(nearest.max(), 0))
        picks.append(int(nearest.argmax()))


def plain_radius(patches, centres):
    apart = np.linalg.norm(patches[:, None].astype(float) - centres[None], axis=2)
    return apart.min(axis=1).max()


@pytest.fixture
def small_pool(monkeypatch):
    monkeypatch.setattr(coreset, "_POOL_SMALLEST", 5)
    monkeypatch.setattr(coreset, "_ROWS", 7)
    monkeypatch.setattr(coreset, "_COLUMNS", 3)


# A grid of few values: many ties, and many patches twice.
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4), st.integers(1, 9))
def test_greedy_is_the_plain_loop_when_distances_are_exact(seed, n, d, values):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, values, (n, d)).astype(np.float32)
    size, first = int(rng.integers(1, n + 1)), int(rng.integers(n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_POOL_SMALLEST", int(rng.integers(1, 12)))
        patch.setattr(coreset, "_ROWS", int(rng.integers(1, 20)))
        patch.setattr(coreset, "_COLUMNS", int(rng.integers(1, 5)))
        found = greedy_coreset(patches, size, seed=0, first=first)
    index, radius = plain_greedy(patches, size, first)
    np.testing.assert_array_equal(found.index, index)
    assert found.radius == pytest.approx(radius)


@pytest.mark.usefixtures("small_pool")
def test_greedy_is_the_plain_loop_when_patches_are_normal():
    patches = np.random.default_rng(1).standard_normal((800, 12)).astype(np.float32)
    found = greedy_coreset(patches, 90, seed=0, first=3)
    index, radius = plain_greedy(patches, 90, 3)
    np.testing.assert_array_equal(found.index, index)
    assert found.radius == pytest.approx(radius, rel=1e-4)
    assert covering_radius(patches, patches[index]) == pytest.approx(radius, rel=1e-4)


def test_greedy_keeps_its_digits_when_all_patches_are_far_from_the_origin():
    patches = np.random.default_rng(2).integers(0, 50, (300, 3)).astype(np.float32)
    near = greedy_coreset(patches, 40, seed=0)
    far = greedy_coreset(patches + np.float32(100_000), 40, seed=0)
    np.testing.assert_array_equal(far.index, near.index)
    assert far.radius == near.radius


def test_greedy_is_within_twice_the_smallest_radius():
    for seed in range(20):
        patches = np.random.default_rng(seed).standard_normal((12, 2)).astype(np.float32)
        smallest = min(plain_radius(patches, patches[[*c]]) for c in combinations(range(12), 3))
        # Centres that need not be patches can halve a radius, not more.
        assert greedy_coreset(patches, 3, seed=seed).radius <= 2 * smallest + 1e-6


def test_two_rounds_are_within_the_proven_factor():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patches = (rng.standard_normal((12, 2)) * rng.choice([1, 9], (12, 1))).astype(np.float32)
        smallest = min(plain_radius(patches, patches[[*c]]) for c in combinations(range(12), 3))
        parts = [greedy_coreset(patches[at::3], 3, seed=seed) for at in range(3)]
        rows = [patches[at::3][part.index] for at, part in enumerate(parts)]
        merged = merge_coresets(rows, 3, seed=seed)
        radius = covering_radius(patches, np.concatenate(rows)[merged.index])
        shard_radius = max(part.radius for part in parts)
        assert radius <= shard_radius + merged.radius + 1e-5
        assert radius <= proven_factor(shard_radius, merged.radius) * smallest + 1e-5
        assert radius <= 4 * smallest + 1e-5


def test_two_rounds_come_near_the_plain_radius_and_bound_their_own():
    rng = np.random.default_rng(3)
    patches = (rng.standard_normal((6000, 8)) + 4 * rng.integers(0, 5, (6000, 1))).astype("f4")
    whole = greedy_coreset(patches, 300, seed=0)
    found = two_round_coreset(patches, 300, seed=0, patches_per_shard=1500)
    radius = covering_radius(patches, patches[found.index])
    assert len(np.unique(found.index)) == 300
    assert radius <= found.radius + 1e-5
    assert radius <= 1.4 * whole.radius


def test_a_coreset_is_the_same_when_made_again_and_another_when_seeded_otherwise():
    patches = np.random.default_rng(4).standard_normal((2000, 20)).astype(np.float32)
    first, again, other = (
        greedy_coreset(patches, 50, seed=seed, projected_dim=8).index for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_projection_keeps_the_radius_near_the_unprojected():
    patches = np.random.default_rng(5).standard_normal((3000, 64)).astype(np.float32)
    centres = greedy_coreset(patches, 60, seed=0, projected_dim=32).index
    assert (
        covering_radius(patches, patches[centres])
        <= 1.3 * greedy_coreset(patches, 60, seed=0).radius
    )
    wide = greedy_coreset(patches, 60, seed=0, projected_dim=64).index
    np.testing.assert_array_equal(wide, greedy_coreset(patches, 60, seed=0).index)


def test_all_patches_can_be_asked_for_even_equal_ones():
    found = greedy_coreset(np.ones((5, 2), dtype=np.float32), 5, seed=0, first=2)
    assert sorted(found.index) == [0, 1, 2, 3, 4]
    assert found.radius == 0


def test_shards_take_their_share_and_no_more_than_they_have():
    assert shard_size(250, 1000, 100, oversample=2.0) == 50
    assert shard_size(3, 1000, 900, oversample=4.0) == 3
    assert shard_size(1, 1000, 10) == 1


@pytest.mark.parametrize("size", [0, 11])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(InputError, match=r"coreset: size: expected 1 to 10.*got"):
        greedy_coreset(np.zeros((10, 2), dtype=np.float32), size, seed=0)


def test_a_patch_that_is_not_finite_is_named():
    patches = np.zeros((10, 2), dtype=np.float32)
    patches[7, 1] = np.nan
    with pytest.raises(InputError, match="row 7"):
        greedy_coreset(patches, 2, seed=0)
